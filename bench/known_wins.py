"""The table `data/known-wins`: how lines fare with known responses. `python -m bench.known_wins [--write]`

Known responses are this project's samples (data/samples, data/known) and the real and derived responses of the golden
corpus (../shared/golden). Tried are our own database, that of an installed Nmap 7.93, and the one of 2026 beside the
checkout (../shared/data). Without `--write` it compares, and exits 1 where the table is not current. The table holds
hashes and counts, no part of anybody's database.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.corpora import GOLDEN, NMAP_793, ROOT, SAMPLES, golden_rows
from matcher import ProbeDatabase, load_database, nmap_database
from matcher.database.known import known_file, line_key
from matcher.database.samples import Sample, read_samples
from matcher.tools.broad import known_wins

KNOWN = ROOT / "data" / "known"
NMAP_2026 = ROOT.parent / "shared" / "data" / "nmap-service-probes-2026-08"


def known_samples() -> list[Sample]:
    """Our own, then those of the golden corpus, where it is there; each says who gave it."""
    own, faults = read_samples([SAMPLES, KNOWN])
    assert not faults, faults[:3]
    return [sample for sample in (*own, *golden_samples()) if sample.expect is not None]


def golden_samples() -> Iterator[Sample]:
    """Real and derived responses with Nmap's answers; what was mutated is nobody's any more."""
    if not GOLDEN.exists():
        return
    for number, row in enumerate(golden_rows(), 1):
        if row.kind != "mutated" and row.expect:
            yield Sample(GOLDEN.name, number, row.probe, row.proto, row.data, row.expect, row.kind)


def databases() -> list[ProbeDatabase]:
    """Those that can be tried here."""
    found = [load_database("builtin")]
    if (installed := nmap_database()) and (nmap := load_database(installed)).sha256.startswith(NMAP_793):
        found.append(nmap)
    if NMAP_2026.exists():
        found.append(load_database(NMAP_2026))
    return found


def table(tried: Sequence[ProbeDatabase], samples: Sequence[Sample]) -> str:
    lines: dict[str, tuple[int, int]] = {}
    for database in tried:
        for wins in known_wins(database, samples).values():
            if wins.others:
                lines[line_key(wins.signature)] = wins.own, len(wins.others)
    tested = (f"tested {each.sha256} {Path(each.name).name} {len(samples)}" for each in tried)
    rows = (f"{key} {own} {others}" for key, (own, others) in sorted(lines.items()))
    return "\n".join(
        ["# Made by `python -m bench.known_wins --write`; matcher/database/known.py reads it.", *tested, *rows, ""]
    )


def main() -> int:
    tried = databases()
    samples = known_samples()
    made = table(tried, samples)
    path = known_file()
    if "--write" in sys.argv[1:]:
        path.write_text(made, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != made:
        print(f"{path} is not current: python -m bench.known_wins --write")
        return 1
    names = ", ".join(Path(each.name).name for each in tried)
    print(f"{path}: {len(made.splitlines()) - 1 - len(tried)} lines that win others' responses, of {names}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
