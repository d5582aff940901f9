"""Fuzz the reading of stored responses: `python tests/fuzz_responses.py [libFuzzer options]` with atheris.

The rules, checked by `check` here and on random mutations in test_fuzz_responses.py: whatever an input holds, it is
answered without an exception; every line of the output is a JSON object with a `match`; no line that holds anything is
passed over in silence; and where the stream happens to be cut changes nothing.
`-max_total_time=60` bounds a run; the seeds are the inputs of tests/cases/field/responses.toml.
"""

import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.offline import stream
from engine.offline.faults import Faults
from engine.offline.identify import Tally, identify
from engine.offline.records import LineReader
from engine.offline.stream import Chunk
from matcher import compile_matcher, parse_database

DATABASE = rb"""Probe TCP NULL q||
match ssh m|^SSH-([\d.]+)-(.*)| p/$2/ v/$1/
softmatch ftp m|^220|
Probe TCP GetRequest q|GET / HTTP/1.0\r\n\r\n|
match http m|^HTTP/1\.[01] .*\r\nServer: ([^\r\n]+)|s p/$1/
Probe UDP DNSVersionBindReq q|\0\x06|
match domain m|^\0\x06(.*)|s i/$1/
"""
MATCHER = compile_matcher(parse_database(DATABASE, "db"), "reference", cache=False)
TABLE = Path(__file__).parent / "cases" / "field" / "responses.toml"
SEEDS: list[bytes] = [case["input"].encode() for case in tomllib.loads(TABLE.read_text(encoding="utf-8"))["case"]]
MAX_BYTES = 1 << 14
_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Outcome = tuple[bytes, Tally, int, list[tuple[int, str]]]


def outcome(data: bytes, sizes: list[int]) -> Outcome:
    """What comes of an input that is read in pieces of these sizes, and then in one."""

    def pieces() -> Iterator[bytes]:
        at = 0
        for size in sizes:
            yield data[at : at + size]
            at += size
        yield data[at:]

    faults = Faults()
    texts = stream.whole_lines(pieces(), faults.add)
    out, tally, found = b"", Tally(), []
    for answer in identify((Chunk(text, line, 0) for text, line in texts), MATCHER, (), 1):
        out += answer.out
        tally.add(answer.tally)
        faults.count += answer.faults.count
        found += answer.faults.first
    return out, tally, faults.count, sorted(found + faults.first)[:5]


def holds_nothing(line: bytes) -> bool:
    """Blank, a comment, or what stands around the records of an array."""
    bare = line.strip(b" \t\r\f\v,").removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\f\v,")
    return bare[:1] == b"#" or bare.replace(b" ", b"") in (b"", b"[", b"]", b'{"finished":1}', b"{finished:1}")


def check(data: bytes, sizes: list[int]) -> None:
    data = data[:MAX_BYTES]
    whole = outcome(data, [])
    assert outcome(data, sizes) == whole
    out, tally, count, _ = whole
    rows = out.split(b"\n")[:-1]
    assert len(rows) == tally.rows
    assert all("match" in _row(row) and row.decode() for row in rows)
    lines = data.split(b"\n")
    alone = 0
    for line in lines:
        reader = LineReader()
        found = len([*reader.read(line), *reader.close()]) + reader.faults.count + reader.texts.count
        found += reader.silent + reader.derived
        alone += found
        assert found or holds_nothing(line), line
    if b"SF" not in data:  # nothing that goes on over lines: all together is what each of them is
        assert tally.rows + tally.silent + tally.derived + tally.text + count == alone


def main() -> None:
    import atheris

    atheris.instrument_all()

    def one(data: bytes) -> None:
        check(data[1:], [data[0] + 1] * 20 if data else [])

    with tempfile.TemporaryDirectory() as found, tempfile.TemporaryDirectory() as seeds:  # the first one takes finds
        for number, seed in enumerate(SEEDS):
            (Path(seeds) / str(number)).write_bytes(b"A" + seed)
        atheris.Setup([*sys.argv, found, seeds], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
