"""Whether `probemill plan` is right: `python -m bench.forecast [--small] [--stored] [--probes FILE]`.

Scans farms on loopback, each held up by something else (CPU, slots, rate, connect timeouts), and compares seconds,
connections and bytes on the wire with what the forecast says for them; each has to be within a quarter, else the exit
code is 1. What CPU time is worth changes with whatever else a machine does, so the constants are measured in the same
run; `--stored` takes those of the package. A scan beside which others took more than a tenth of the machine is done
again, twice at most; then the seconds that its worker waited for a core are taken off, and said. `--small` is a fast
version with wider bounds. Needs what bench/constants.py needs.
"""

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench.constants import SERVICES, Bench, kinds
from bench.native import CompilerError
from bench.wire import MeasureError, octets, own_network
from engine.cli.plan import asked, plan_command
from engine.forecast.constants import Constants, read_constants
from engine.forecast.forecast import Forecast, forecast

WITHIN = {"seconds": (0.75, 1.25), "connections": (0.75, 1.25), "bytes": (0.75, 1.25)}
WITHIN_SMALL = WITHIN | {"seconds": (0.25, 4.0)}  # most of them are the start's, and that is anybody's guess
OTHERS = 0.1  # share of the machine's CPU time from which on a scan counts as disturbed
REPEATS = 2


class Case(Struct, frozen=True):
    """options: of both commands; known: of `plan` alone. small: how many in the fast version."""

    kind: str
    count: int
    small: int
    options: tuple[str, ...]
    known: tuple[str, ...] = ()


CASES = (
    Case("banner", 120_000, 10_000, ("--max-inflight", "1000")),
    Case("http", 16_000, 1500, ("--max-inflight", "1000")),
    Case("tls", 3000, 300, ("--rate", "600")),
    Case("silent", 600, 100, ("--max-inflight", "200", "--intensity", "1")),
    Case("refused", 12_000, 1000, ("--rate", "1500"), ("--answering", "0%", "--closed", "100%")),
    Case("unanswered", 6000, 500, ("--max-inflight", "1000", "--connect-timeout", "1500ms"), ("--answering", "0%")),
)


class Seen(Struct):
    """Of a scan: what was, the share of the machine that others took meanwhile, seconds that a worker had no core."""

    seconds: float
    connections: float
    bytes: float
    others: float
    waited_s: float


def predicted(case: Case, count: int, port: int, constants: Constants, probes: list[str]) -> Forecast:
    """As the command would have it, but for answers that are all the same and take no time to arrive."""
    arguments = ["--count", f"{port}={count}", "--rtt", "0s", "--timing", "adaptive", "--workers", "1"]
    arguments += ["--cores", str(len(os.sched_getaffinity(0))), *case.options, *case.known]
    if not case.known:
        arguments += ["--mix", f"{case.kind}=100"]
    for choice in probes:
        arguments += ["--probes", choice]
    question, _ = asked(plan_command.make_context("plan", arguments).params)
    return forecast(replace(question, differ=False), constants, 1)


def seen(bench: Bench, case: Case, count: int) -> Seen:
    """Raises MeasureError where an answer was wrong."""
    service = next(service for service in SERVICES if service.kind == case.kind)
    busy, ours, carried = _busy_s(), _ours_s(), octets()
    with bench.farm(service.kind, service.port):
        spent = bench.scan(replace(service, options=()), count, "--timing", "adaptive", *case.options)
        carried = octets() - carried
    connections = sum(row.connections or 1 for row in spent.rows)  # those that were not made were tried
    others = (_busy_s() - busy) - (_ours_s() - ours)
    return Seen(spent.seconds, connections, carried, others / spent.seconds / (os.cpu_count() or 1), spent.waited_s)


def _busy_s() -> float:
    """CPU time of the whole machine, waiting left out."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    """CPU time of this process and its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def compare(bench: Bench, options: argparse.Namespace) -> bool:
    """Print both and their ratio for each farm; whether all are within bounds."""
    console = Console(width=140)
    constants = read_constants()
    if not options.stored:
        wanted = {case.kind for case in CASES} - ({"silent"} if options.small else set())
        start_s, found = kinds(bench, wanted, lambda _: None)
        constants = replace(constants, start_s=start_s, kinds=constants.kinds | found)
    within = WITHIN_SMALL if options.small else WITHIN
    table = Table(box=None)
    for column in ("farm", "targets", "held up by", "what", "forecast", "seen", "ratio", ""):
        table.add_column(column, justify="right" if column in ("targets", "forecast", "seen", "ratio") else "left")
    good = True
    for case in CASES:
        count = case.small if options.small else case.count
        port = next(service.port for service in SERVICES if service.kind == case.kind)
        told = predicted(case, count, port, constants, options.probes)
        wanted_figures = {
            "seconds": told.value("hours") * 3600,
            "connections": told.value("connections"),
            "bytes": told.value("bytes sent") + told.value("bytes received"),
        }
        for attempt in range(1 + REPEATS):
            scan = seen(bench, case, count)
            if attempt == REPEATS and scan.others > OTHERS:
                console.print(f"{case.kind}: {scan.waited_s:.1f} of {scan.seconds:.1f} s without a core are taken off")
                scan.seconds -= scan.waited_s
            ratios = {name: getattr(scan, name) / value for name, value in wanted_figures.items()}
            wrong = {name for name, (low, high) in within.items() if not low <= ratios[name] <= high}
            if not wrong or scan.others <= OTHERS or attempt == REPEATS:
                break
            console.print(f"{case.kind}: others took {scan.others:.0%} of the machine; again")
        good &= not wrong
        for name, value in wanted_figures.items():
            verdict = "NOT within bounds" if name in wrong else ""
            shown = (f"{value:,.1f}", f"{getattr(scan, name):,.1f}", f"{ratios[name]:.2f}", verdict)
            table.add_row(case.kind, f"{count:,}", told.binding, name, *shown)
    console.print(f"{'constants: the package' * options.stored or 'constants: of this run'}")
    console.print(table)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--stored", action="store_true")
    parser.add_argument("--probes", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        try:
            own_network()
            share = 0.05 if options.small else 1.0
            return int(not compare(Bench(Path(name), share=share, probes=options.probes), options))
        except (CompilerError, MeasureError) as reason:
            print(f"nothing compared: {reason}")
            return 0


if __name__ == "__main__":
    sys.exit(main())
