"""How fast is `probemill match`, all of it? `python -m bench.match_command` measures whole commands on files.

Contract: the input is never-seen HTTP responses of 1-10 kB as NDJSON with base64, the output a file. Every engine must
have written the same bytes, and what the reference says of a sample, before its time counts. One worker: CPU seconds of
a process on one core, without those of a start with an empty input, with automata that have seen nothing and a filled
cache, beside PCRE2 line by line in the same minute. Two workers: wall seconds between a small and a large input, so
that no start counts, beside one worker's, the two taking turns.
"""

import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.corpora import Case, Corpus, golden, mutated
from bench.figures import Figure, tell
from bench.match_table import LineByLine, timed
from engine.offline.answers import match_row
from matcher import EngineUnavailable, Matcher, nmap_database

ROWS = 40_000  # so many that what is made once, when a response first needs it, is a small part
TIMES = 3  # the large input is the small one so often
SAMPLE = 200  # rows that the reference reads, too
ROUNDS = 2  # of which the best counts
GOALS = {"hyperscan": 150.0, "re2": 60.0}
COMMAND = (sys.executable, "-c", "from engine.cli.start import main; main()", "match", "-q")


class Cost(Struct, frozen=True):
    """Seconds of a whole command: of CPU, of it and its workers, and by the clock."""

    cpu: float
    wall: float


def run(source: Path, output: Path, engine: str, workers: int) -> Cost:
    """Raises CalledProcessError where it fails."""
    command = [*COMMAND, "-i", str(source), "-o", str(output), "--matcher", engine, "--workers", str(workers)]
    cores = sorted(os.sched_getaffinity(0))[-workers:]
    environment = {**os.environ, "PROBEMILL_PROBES": str(nmap_database())}
    began = time.perf_counter()
    child = subprocess.Popen(command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, cores))  # noqa: PLW1509 - no threads
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(usage.ru_utime + usage.ru_stime, wall)


def written(cases: list[Case]) -> Iterator[bytes]:
    """Rows of input, without what closes them."""
    for number, (probe, response) in enumerate(cases):
        data = base64.b64encode(response)
        yield b'{"ip":"192.0.2.%d","port":80,"proto":"tcp","probe":"%b","data":"%b"' % (
            number % 250,
            probe.name.encode(),
            data,
        )


def answered(lines: LineByLine, heads: list[bytes], cases: list[Case], database: str) -> list[bytes]:
    """The rows that must come out."""
    rows = []
    for head, case in zip(heads, cases, strict=True):
        match = lines(case)
        said = msgspec.json.encode(match_row(match, database)) if match else b"null"
        rows.append(b'%b,"match":%b}\n' % (head, said))
    return rows


def one_worker(folder: Path, corpus: Corpus, cases: list[Case]) -> None:
    source, empty = folder / "rows", folder / "empty"
    heads = list(written(cases[:SAMPLE]))
    lines = LineByLine(corpus.database, jit=False)
    expected = answered(lines, heads, cases[:SAMPLE], corpus.database.name)
    first = b""
    for engine, goal in GOALS.items():
        output = folder / engine
        try:
            Matcher(corpus.database, engine)
        except EngineUnavailable as absent:
            print(f"  {engine}: {absent}")
            continue
        run(empty, output, engine, 1)  # fills the cache
        starts, wholes, yardsticks = [], [], []
        for _ in range(ROUNDS):
            yardsticks.append(timed(lines, cases[:SAMPLE]))
            starts.append(run(empty, output, engine, 1).cpu)
            wholes.append(run(source, output, engine, 1).cpu)
        out = output.read_bytes()
        assert out.splitlines(keepends=True)[:SAMPLE] == expected, f"{engine} does not say what the reference says"
        assert out == (first or out), f"{engine} does not say what another engine says"
        first = out
        micros = (min(wholes) - min(starts)) / len(cases) * 1e6
        name = f"match.command.{engine}"
        tell(Figure(name, micros, "us/row", "less", min(yardsticks), goal, "GetRequest 1-10 kB, never seen"))


def two_workers(folder: Path, rows: int) -> None:
    small, large, output = folder / "rows", folder / "many", folder / "out"
    with large.open("wb") as file:
        for _ in range(TIMES):
            file.write(small.read_bytes())
    costs: dict[int, list[tuple[Cost, Cost]]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers, found in costs.items():
            found.append((run(small, output, "auto", workers), run(large, output, "auto", workers)))
    more = rows * (TIMES - 1)
    walls = {workers: _between([(low.wall, high.wall) for low, high in found]) for workers, found in costs.items()}
    cpus = {workers: _between([(low.cpu, high.cpu) for low, high in found]) for workers, found in costs.items()}
    if min(*walls.values(), *cpus.values()) <= 0:
        print("two workers: others on this machine take more than what is measured")
        return
    name, corpus = "match.command.two_workers", "GetRequest 1-10 kB, never seen"
    tell(Figure(name, more / walls[2], "rows/s", "more", more / walls[1], 1.9, corpus))
    tell(Figure(f"{name}.cpu", cpus[2] / more * 1e6, "us/row", "less", cpus[1] / more * 1e6, corpus=corpus))


def _between(seconds: list[tuple[float, float]]) -> float:
    """What the large input takes longer than the small one, the best of each."""
    return min(high for _, high in seconds) - min(low for low, _ in seconds)


def main() -> None:
    corpus = golden()
    if isinstance(corpus, str):
        print(f"needs the golden corpus: {corpus}")
        return
    part = corpus.only("GetRequest 1-10 kB", "GetRequest", range(1000, 10_001))
    cases = list(mutated(part, ROWS, seed=7))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rows").open("wb") as file:
            file.writelines(head + b"}\n" for head in written(cases))
        (folder / "empty").touch()
        one_worker(folder, part, cases)
        if len(os.sched_getaffinity(0)) > 1:
            two_workers(folder, len(cases))


if __name__ == "__main__":
    main()
