"""How fast a scan is: `python -m bench.scan_table [--quick] [--probes FILE] [FARM ...]`.

Farms on loopback (farm.c) are scanned as users scan, with default options, full matching, and rows written to a file,
beside a grabber in C that looks at nothing (grab.c) on the same farm in the same minute: what it reaches is what the
machine's sockets allow. Every row is checked before a time counts. Times are of whole commands, from their start to
their end; grabber and scan take turns, and the median counts. CPU is that of the command and its processes, a service;
where others use the machine, too, it says more than the clock. The kernel's work on what comes over loopback is in
neither.

The grabber is measured a second time ending its connections as the scan does, with FIN. Where Nmap is installed, it is
given the first addresses of the same farms. `--quick` does a quarter, in much of which adaptive timing has not yet
learned which probe tells the services of a port.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, tell
from bench.native import CompilerError, addresses, compiled, farm, grab
from bench.spent import Spent, spent
from engine.model import DatabaseRef

HOSTS = 2000
TOTAL = 200_000
NMAP_TOTAL = 1000
ROUNDS = 3


class Row(Struct):
    ip: str
    name: str
    database: DatabaseRef
    product: str = ""
    version: str = ""


class Kind(Struct):
    """A farm and what is to be found there. options: of the scan. goal: of the grabber's rate."""

    name: str
    mode: str
    found: tuple[str, str, str]
    options: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()  # one of these, for the choice of probes; none: any
    goal: float = 0.0


SSH = ("ssh", "OpenSSH", "9.2p1")
NGINX = ("http", "nginx", "1.22.1")
ADAPTIVE = ("--timing", "adaptive")
WEB_PORTS = (8080, 8081, 8082, 8083, 8000, 8001)  # named by a probe that asks for a page
OTHER_PORTS = (3011, 3017, 12300, 23456, 30303)  # named by none
BANNER = Kind("banner", "banner", SSH, goal=0.75)
HTTP = Kind("http.named", "http", NGINX, ADAPTIVE, WEB_PORTS, goal=0.55)
KINDS = (BANNER, HTTP, Kind("http.unnamed", "http", NGINX, ADAPTIVE, OTHER_PORTS, 0.45))


class Bench:
    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.farm = compiled("farm", folder)
        self.grabber = compiled("grab", folder)
        self.total = TOTAL // 4 if options.quick else TOTAL
        self.database = ""
        self._probes = ["--probes", options.probes] if options.probes else []

    def scan(self, kind: Kind, port: int, total: int, *options: str, hosts: int = HOSTS) -> Spent:
        """What a scan took whose answers were right. Raises SystemExit where they were not."""
        targets, rows = self.folder / "targets", self.folder / "rows.ndjson"
        visited = [host for host, _ in zip(cycle(addresses(hosts)), range(total), strict=False)]
        targets.write_text("".join(f"{host}:{port}\n" for host in visited))
        command = [sys.executable, "-m", "probemill", "scan", "-q", "-i", str(targets), "-o", str(rows)]
        command += [*self._probes, *kind.options, *options]
        taken = spent(command)
        found = msgspec.json.Decoder(Row).decode_lines(rows.read_bytes())
        self.database = f"{found[0].database.name} {found[0].database.sha256[:8]}"
        wrong = [row for row in found if (row.name, row.product, row.version) != kind.found]
        if wrong or Counter(row.ip for row in found) != Counter(visited):
            raise SystemExit(
                f"{kind.name}: {len(found)} rows for {total} targets, {len(wrong)} wrong; first {wrong[:1]}"
            )
        return taken

    def grab(self, kind: Kind, port: int) -> Spent:
        return grab(self.grabber, kind.mode, port, hosts=HOSTS, total=self.total)

    def grab_alike(self, kind: Kind, port: int) -> Spent:
        """Ending as the scan does."""
        return grab(self.grabber, kind.mode, port, hosts=HOSTS, total=self.total, ending="fin")

    @staticmethod
    def command(kind: Kind) -> str:
        return " ".join(("probemill scan", *kind.options))

    def nmap(self, kind: Kind, port: int) -> tuple[float, int]:
        """-> seconds, services that it names as we do"""
        targets, report = self.folder / "addresses", self.folder / "nmap.xml"
        targets.write_text("".join(f"{address}\n" for address in addresses(NMAP_TOTAL)))
        command = ["nmap", "-sV", "-T5", "--min-parallelism", "300", "-n", "-Pn", "-p", str(port), "-iL", str(targets)]
        began = time.monotonic()
        subprocess.run([*command, "-oX", str(report)], check=True, capture_output=True)
        taken = time.monotonic() - began
        services = (service.attrib for service in ElementTree.parse(report).iter("service"))
        fields = ("name", "product", "version")
        return taken, sum(tuple(service.get(field, "") for field in fields) == kind.found for service in services)


def arguments(about: str | None, farms: Sequence[str]) -> argparse.Namespace:
    """The command line of a benchmark of farms."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[[], *farms], metavar="FARM", help=", ".join(farms))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--probes", default="")
    return parser.parse_args()


def _typical(runs: Sequence[Spent]) -> Spent:
    """The medians of several runs."""
    return Spent(median(run.wall for run in runs), median(run.cpu for run in runs))


def main() -> int:
    options = arguments(__doc__, [kind.name for kind in KINDS])
    table = Table(box=None)
    for column in ("farm", "what", "services", "seconds", "services/s", "of grab", "CPU us each", "x grab"):
        table.add_column(column, justify="left" if column in ("farm", "what") else "right")

    def add(kind: Kind, what: str, services: int, seconds: float, *more: str) -> None:
        table.add_row(kind.name, what, f"{services:,}", f"{seconds:.2f}", f"{services / seconds:,.0f}", *more)

    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            bench = Bench(Path(name), options)
        except CompilerError as reason:
            print(f"nothing measured: {reason}")
            return 0
        for kind in KINDS:
            if options.which and kind.name not in options.which:
                continue
            with farm(bench.farm, kind.mode, kind.ports) as port:
                start = min(bench.scan(kind, port, 1).wall for _ in range(2))  # what is made at first is kept
                grabs, alike, scans = [bench.grab(kind, port)], [], []
                for _ in range(ROUNDS):
                    scans.append(bench.scan(kind, port, bench.total))
                    grabs.append(bench.grab(kind, port))
                    alike.append(bench.grab_alike(kind, port))
                limit, like, taken = _typical(grabs), _typical(alike), _typical(scans)
                how = "ending as the scan does"
                for what, each in (("grab.c", limit), (f"  {how}", like), (bench.command(kind), taken)):
                    cpu = each.cpu / bench.total * 1e6
                    of_grab = f"{limit.wall / each.wall:.0%}"
                    add(kind, what, bench.total, each.wall, of_grab, f"{cpu:.1f}", f"{each.cpu / limit.cpu:.2f}")
                name, count, on = f"scan.{kind.name}", bench.total, bench.database
                rate, most = count / taken.wall, count / limit.wall
                figures += [
                    Figure(name, rate, "services/s", "more", most, kind.goal, on),
                    Figure(f"{name}.alike", rate, "services/s", "more", count / like.wall, corpus=on),
                    Figure(
                        f"{name}.cpu", taken.cpu / count * 1e6, "us/row", reference=limit.cpu / count * 1e6, corpus=on
                    ),
                ]
                add(kind, "  a scan of one target", 1, start)
                if shutil.which("nmap"):
                    seconds, named = bench.nmap(kind, port)
                    add(kind, f"nmap -sV -T5 --min-parallelism 300 ({named} right)", NMAP_TOTAL, seconds)
    machine = f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    parts = ", ".join(f"{part} {version(part)}" for part in ("probemill", "uvloop", "msgspec"))
    console = Console()
    console.print(f"{machine}, {parts}, database {bench.database}, load {os.getloadavg()[0]:.1f}", soft_wrap=True)
    console.print(table)
    for figure in figures:
        tell(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
