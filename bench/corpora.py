"""What the matching benchmarks run on: responses with the answers they must get.

`golden` is recorded with Nmap 7.93 and lies beside the checkout (../shared/golden); it needs Nmap's own database.
`samples` are this project's own (data/samples) and run against its own database.
"""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard
from msgspec import Struct

from matcher import Probe, ProbeDatabase, Proto, load_database, nmap_database
from matcher.database.samples import Expected, read_samples

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT.parent / "shared" / "golden" / "nmap-7.93-open.ndjson.zst"
SAMPLES = ROOT / "data" / "samples"
NMAP_793 = "293d7b3679d8d09c"  # how the SHA-256 of Nmap 7.93's database begins

Case = tuple[Probe, bytes]


class Corpus(Struct, frozen=True):
    """cases and expected go side by side; expected holds what the fields of a match must be, soft or hard."""

    name: str
    database: ProbeDatabase
    cases: list[Case]
    expected: list[Expected | None]

    def only(self, name: str, probe: str, sizes: range = range(1 << 30)) -> "Corpus":
        """The cases of one TCP probe with responses of certain sizes."""
        chosen = [
            at
            for at, (asked, response) in enumerate(self.cases)
            if asked.name == probe and asked.proto == "tcp" and len(response) in sizes
        ]
        return self._picked(name, chosen)

    def sample(self, size: int) -> "Corpus":
        """At most `size` cases, always the same ones."""
        chosen = sorted(random.Random(1).sample(range(len(self.cases)), min(size, len(self.cases))))
        return self._picked(self.name, chosen)

    def _picked(self, name: str, chosen: list[int]) -> "Corpus":
        cases = [self.cases[at] for at in chosen]
        return Corpus(name, self.database, cases, [self.expected[at] for at in chosen])


def golden() -> Corpus | str:
    """The golden corpus, or why it cannot be used."""
    path = nmap_database()
    if not GOLDEN.exists():
        return f"../shared/golden/{GOLDEN.name}, which lies beside the checkout and is not part of it, is missing"
    if path is None:
        return "no nmap-service-probes is installed; on Debian: apt-get install nmap"
    database = load_database(path)
    if not database.sha256.startswith(NMAP_793):
        return f"{path} is not the database of Nmap 7.93"
    rows = list(golden_rows())
    cases = [(_probe(database, row.proto, row.probe), row.data) for row in rows]
    return Corpus("golden", database, cases, [row.expect for row in rows])


class GoldenRow(Struct, frozen=True):
    """kind: real, derived or mutated. data: the response. expect: Nmap's answer; None where it has none."""

    kind: str
    proto: Proto
    probe: str
    data: bytes
    expect: Expected | None


def golden_rows() -> Iterator[GoldenRow]:
    """All of the golden corpus, which has to be there."""
    decode = msgspec.json.Decoder(GoldenRow).decode
    with GOLDEN.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file)):
            yield decode(line)


def own() -> Corpus:
    """This project's samples on this project's database; a sample of a probe that is not there is lint's business."""
    database = load_database("builtin")
    samples, faults = read_samples([SAMPLES])
    assert not faults, faults[:3]
    known = {(probe.proto, probe.name) for probe in database.probes}
    samples = [sample for sample in samples if (sample.proto, sample.probe) in known]
    cases = [(_probe(database, sample.proto, sample.probe), sample.response) for sample in samples]
    return Corpus("samples", database, cases, [sample.expect for sample in samples])


def _probe(database: ProbeDatabase, proto: str, name: str) -> Probe:
    return next(probe for probe in database.probes if (probe.proto, probe.name) == (proto, name))


def mutated(corpus: Corpus, count: int, seed: int = 1) -> Iterator[Case]:
    """`count` responses that have never been seen: real ones with a few bytes changed."""
    rng = random.Random(seed)
    for _ in range(count):
        probe, response = rng.choice(corpus.cases)
        yield probe, damaged(response, rng)


def damaged(response: bytes, chance: random.Random) -> bytes:
    """A response with a few bytes changed; never empty."""
    text = bytearray(response)
    for _ in range(1 + len(text) // 200):
        at = chance.randrange(len(text))
        text[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
    return bytes(text) or b"\n"
