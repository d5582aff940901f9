"""A record of figures: `make bench-record` appends to it, `make bench-compare` says what has changed since.

    python -m bench.record [--compare] [--runs 5] [--only match,start]

Every benchmark runs in its quick form, one after another and the whole several times, so that a slow minute falls on
one run of each. See recorded.py for what a line says and when a change is news. A benchmark that is not there, or
cannot run here, is passed over with a line. `--compare` writes nothing; its exit code is 1 where a figure of this very
machine got worse.
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
    Benchmark("start", "bench.start"),
    Benchmark("scan", "bench.scan_table", ("--quick",)),
    Benchmark("command", "bench.match_command"),
    Benchmark("tls", "bench.tls_table"),
    Benchmark("wait", "bench.lab", ("--timing", "adaptive")),
)


def measured(benchmark: Benchmark) -> list[Figure]:
    """The figures that a benchmark tells; what it prints goes to standard error if it fails."""
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
        except subprocess.TimeoutExpired:
            print(f"{benchmark.name}: not done after {LONGEST_S:.0f} s", file=sys.stderr)
            return []
        figures = msgspec.json.Decoder(Figure).decode_lines(path.read_bytes()) if path.exists() else []
    if done.returncode:
        print(done.stdout.decode(errors="replace")[-2000:], file=sys.stderr)
        print(f"{benchmark.name}: exit code {done.returncode}, nothing is taken from it", file=sys.stderr)
        return []
    return figures


def run_all(benchmarks: Iterable[Benchmark], runs: int) -> list[list[Figure]]:
    """For each figure its runs, in the order in which the figures were told first."""
    there = []
    for benchmark in benchmarks:
        if importlib.util.find_spec(benchmark.module) is None:
            print(f"{benchmark.name}: {benchmark.module} is not there")
        else:
            there.append(benchmark)
    found: dict[str, list[Figure]] = defaultdict(list)
    for number in range(runs):
        for benchmark in there:
            print(f"run {number + 1} of {runs}: {benchmark.name}", flush=True)
            for figure in measured(benchmark):
                found[figure.name].append(figure)
    return list(found.values())


def this_run() -> Run:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    clean = not git("status", "--porcelain", "--", ".", ":!bench/record")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Run(git("rev-parse", "--short=12", "HEAD"), clean, time, this_machine(), versions())


def compare(lines: Sequence[Recorded], records: Mapping[str, Sequence[Recorded]]) -> int:
    """Print each figure beside the last record of it; the exit code."""
    table = Table(box=None)
    for column in ("figure", "now", "unit", "x reference", "spread", "then", "spread", "change", "", "goal", "against"):
        table.add_column(column, justify="left" if column in ("figure", "unit", "", "against") else "right")
    worse, foreign = 0, False
    for line in lines:
        before = last_of(line, records)
        meaning, change = verdict(line, before)
        against = ""
        if before is not None:
            against = before.run.commit or before.run.time
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
    return 1 if worse else 0


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
    found = run_all((benchmark for benchmark in BENCHMARKS if not chosen or benchmark.name in chosen), options.runs)
    lines = [recorded(figures, run) for figures in found]
    if not lines:
        print("nothing was measured")
        return 1
    code = compare(lines, read())
    if options.compare:
        return code
    append(lines)
    print(f"{len(lines)} lines appended to bench/record/{run.machine.name}.ndjson; `make docs` draws them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
