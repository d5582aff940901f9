"""A record of figures: `make bench-record` appends to it, `make bench-compare` says what has changed since.

    python -m bench.record [--compare] [--runs 5] [--only match,start]

Every benchmark runs in its quick form, one after another and the whole several times, so that a slow minute falls on
one run of each. See recorded.py for what a line says and when a change is news. A benchmark that is not there is
passed over with a line; of one that finds a wrong answer nothing is taken, and the exit code is 1. `--compare` writes
nothing; its exit code is 1 as well where a figure of this very machine got worse.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.figures import FILE, Figure
from bench.machine import this_machine, versions
from bench.recorded import Recorded, Run, Verdict, append, last_of, read, recorded, verdict

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
LONGEST_S = 900.0  # of one benchmark


class Benchmark(Struct, frozen=True):
    """A module that tells figures, and the options of its quick form."""

    name: str
    module: str
    options: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("match", "bench.match_table", ("--quick",)),
    Benchmark("start", "bench.start", ("--quick",)),
    Benchmark("scan", "bench.scan_table", ("--quick",)),
    Benchmark("command", "bench.match_command"),
    Benchmark("tls", "bench.tls_table", ("--quick",)),
    Benchmark("wait", "bench.lab", ("--timing", "adaptive")),
    Benchmark("relay", "bench.lab", ("--relay", "--timing", "adaptive")),
)


class Failed(Exception):  # noqa: N818 - what a benchmark did
    """A benchmark that found a wrong answer, or broke. str: its name and what it said last."""


def measured(benchmark: Benchmark) -> list[Figure]:
    """The figures that a benchmark tells. Raises Failed: then none of them counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figures")
        try:
            done = subprocess.run(
                [sys.executable, "-m", benchmark.module, *benchmark.options],
                cwd=ROOT,
                env={**os.environ, FILE: str(path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{benchmark.name}: not done after {LONGEST_S:.0f} s") from error
        figures = msgspec.json.Decoder(Figure).decode_lines(path.read_bytes()) if path.exists() else []
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()[-2000:]
        raise Failed(f"{benchmark.name}: exit code {done.returncode}\n{said}")
    return figures


def run_all(benchmarks: Iterable[Benchmark], runs: int) -> tuple[list[list[Figure]], list[str]]:
    """(for each figure its runs, in the order in which the figures were told first; what failed)."""
    there = []
    for benchmark in benchmarks:
        if importlib.util.find_spec(benchmark.module) is None:
            print(f"{benchmark.name}: {benchmark.module} is not there")
        else:
            there.append(benchmark)
    found: dict[str, list[Figure]] = defaultdict(list)
    failures = []
    for number in range(runs):
        for benchmark in there:
            print(f"run {number + 1} of {runs}: {benchmark.name}", flush=True)
            try:
                for figure in measured(benchmark):
                    found[figure.name].append(figure)
            except Failed as failure:
                failures.append(str(failure))
    return list(found.values()), failures


def this_run() -> Run:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    clean = not git("status", "--porcelain", "--", ".", ":!bench/record")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Run(git("rev-parse", "--short=12", "HEAD"), clean, time, this_machine(), versions())


def compare(lines: Sequence[Recorded], records: Mapping[str, Sequence[Recorded]]) -> int:
    """Print each figure beside the last record of it; how many got worse on this very machine."""
    table = Table(box=None)
    for column in ("figure", "now", "unit", "x reference", "spread", "then", "spread", "change", "", "goal", "against"):
        table.add_column(column, justify="left" if column in ("figure", "unit", "", "against") else "right")
    worse, foreign = 0, False
    for line in lines:
        before = last_of(line, records)
        meaning, change = verdict(line, before)
        against = ""
        if before is not None:
            against = (before.run.commit or before.run.time) + ("" if before.run.clean else ", edited")
            if before.run.machine.name != line.run.machine.name:
                foreign = True
                against += f" on {before.run.machine.name}"
            else:
                worse += meaning is Verdict.REGRESSION
            if before.run.versions != line.run.versions:
                against += ", other versions"
        figure = line.figure
        table.add_row(
            figure.name,
            f"{figure.value:,.4g}",
            figure.unit,
            f"{figure.ratio:,.3g}" if figure.ratio else "",
            f"{line.spread:.0%}",
            "" if before is None else f"{before.figure.ratio or before.figure.value:,.3g}",
            "" if before is None else f"{before.spread:.0%}",
            "" if before is None else f"{change:+.1%}",
            meaning.value,
            "" if figure.met is None else "met" if figure.met else "missed",
            against,
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if foreign:
        print("no record of this machine for some figures: these are compared with another machine by their ratio")
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", default="", help=f"of {','.join(benchmark.name for benchmark in BENCHMARKS)}")
    options = parser.parse_args()
    chosen = set(filter(None, options.only.split(",")))
    if unknown := chosen - {benchmark.name for benchmark in BENCHMARKS}:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    run = this_run()
    print(f"{run.machine.name}: {run.machine}; {run.commit or 'no commit'}{'' if run.clean else ', edited'}")
    wanted = [benchmark for benchmark in BENCHMARKS if not chosen or benchmark.name in chosen]
    found, failures = run_all(wanted, options.runs)
    for failure in failures:
        print(failure, file=sys.stderr)
    lines = [recorded(figures, run) for figures in found]
    if not lines:
        print("nothing was measured")
        return 1
    regressed = compare(lines, read())
    if options.compare:
        return 1 if regressed or failures else 0
    append(lines)
    print(f"{len(lines)} lines appended to bench/record/{run.machine.name}.ndjson; `make docs` draws them")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
