"""How fast is `probemill match`, all of it? `python -m bench.match_command` measures whole commands on files.

Contract: the input is never-seen HTTP responses of 1-10 kB as NDJSON with base64, the output a file. Every engine must
have written the same bytes, and what the reference says of a sample, before its time counts. One worker: CPU seconds of
a process on one core, without those of a start with an empty input, with automata that have seen nothing and a filled
cache, beside PCRE2 line by line in the same minute. Two workers: wall seconds between a small and a large input, so
that no start counts, beside one worker's, the two taking turns; and beside two commands of one worker each, which share
nothing but the machine: what these reach together is the most that two workers can.
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

from bench.corpora import Case, Corpus, golden, mutated
from bench.figures import Figure, tell
from bench.match_table import LineByLine, timed
from bench.spent import Spent, spent
from engine.offline.answers import match_row
from matcher import EngineUnavailable, Matcher, nmap_database

ROWS = 40_000  # so many that what is made once, when a response first needs it, is a small part
TIMES = 3  # the large input is the small one so often
SAMPLE = 200  # rows that the reference reads, too
ROUNDS = 2  # of which the best counts
GOALS = {"hyperscan": 150.0, "re2": 60.0}
COMMAND = (sys.executable, "-c", "from engine.cli.start import main; main()", "match", "-q")
ENVIRONMENT = {**os.environ, "PROBEMILL_PROBES": str(nmap_database())}


def command(source: Path, output: Path, engine: str, workers: int) -> list[str]:
    return [*COMMAND, "-i", str(source), "-o", str(output), "--matcher", engine, "--workers", str(workers)]


def run(source: Path, output: Path, engine: str, workers: int) -> Spent:
    """The command on as many cores. Raises CalledProcessError where it fails."""
    return spent(command(source, output, engine, workers), env=ENVIRONMENT, cores=_cores(workers))


def two_commands(source: Path, output: Path) -> Spent:
    """Two of them at the same time, on a core each."""
    began = time.monotonic()
    running = [
        subprocess.Popen(
            ["taskset", "-c", str(core), *command(source, Path(f"{output}{core}"), "auto", 1)], env=ENVIRONMENT
        )
        for core in _cores(2)
    ]
    for process in running:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return Spent(time.monotonic() - began, 0.0)


def _cores(count: int) -> list[int]:
    return sorted(os.sched_getaffinity(0))[-count:]


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
    costs: dict[int, list[tuple[Spent, Spent]]] = {1: [], 2: []}
    apart = []  # seconds of two commands
    for _ in range(ROUNDS):
        for workers, found in costs.items():
            found.append((run(small, output, "auto", workers), run(large, output, "auto", workers)))
        apart.append((two_commands(small, output).wall, two_commands(large, output).wall))
    more = rows * (TIMES - 1)
    walls = {workers: _between([(low.wall, high.wall) for low, high in found]) for workers, found in costs.items()}
    cpus = {workers: _between([(low.cpu, high.cpu) for low, high in found]) for workers, found in costs.items()}
    side_by_side = _between(apart) / 2  # each has answered as much as one worker alone
    if min(*walls.values(), *cpus.values(), side_by_side) <= 0:
        print("two workers: others on this machine take more than what is measured")
        return
    name, corpus = "match.command.two_workers", "GetRequest 1-10 kB, never seen"
    tell(Figure(name, more / walls[2], "rows/s", "more", more / walls[1], 1.9, corpus))
    most = "match.command.two_commands"
    tell(Figure(most, more / side_by_side, "rows/s", "more", more / walls[1], corpus=corpus))
    tell(Figure(f"{name}.of_commands", more / walls[2], "rows/s", "more", more / side_by_side, corpus=corpus))
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
