"""How fast a scan is: `python -m bench.scan_table [--quick] [--probes FILE]`.

Farms on loopback (farm.c) are scanned with full matching and rows written to a file, beside a grabber in C that looks
at nothing (grab.c) on the same farm in the same minute: what it reaches is what the machine's sockets allow. Every row
is checked before a time counts. Times are of whole commands, from their start to their end. Where Nmap is installed, it
is given the first addresses of the same farms. `--quick` does a tenth.
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
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.native import CompilerError, addresses, compiled, farm, grab
from engine.model import DatabaseRef

HOSTS = 2000
TOTAL = 200_000
NMAP_TOTAL = 1000


class Row(Struct):
    ip: str
    name: str
    product: str
    version: str
    database: DatabaseRef


class Kind(Struct):
    """A farm and what is to be found there. options: of the scan."""

    mode: str
    found: tuple[str, str, str]
    options: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()  # where such services usually are, for the choice of probes


KINDS = (
    Kind("banner", ("ssh", "OpenSSH", "9.2p1"), ("--max-inflight", "1000")),
    Kind("http", ("http", "nginx", "1.22.1"), ("--timing", "adaptive"), (8080, 8081, 8082, 8083, 8000, 8001)),
)


class Bench:
    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.farm = compiled("farm", folder)
        self.grabber = compiled("grab", folder)
        self.total = TOTAL // 10 if options.quick else TOTAL
        self.database = ""
        self._common = ["-q", "--reset"]
        if options.probes:
            self._common += ["--probes", options.probes]

    def scan(self, kind: Kind, port: int, total: int) -> float:
        """Seconds of a scan whose answers were right. Raises SystemExit where they were not."""
        targets, rows = self.folder / "targets", self.folder / "rows.ndjson"
        hosts = addresses(HOSTS)
        targets.write_text("".join(f"{hosts[number % HOSTS]}:{port}\n" for number in range(total)))
        command = [sys.executable, "-m", "probemill", "scan", "-i", targets, "-o", rows, *self._common, *kind.options]
        began = time.monotonic()
        subprocess.run(command, check=True)
        taken = time.monotonic() - began
        found = msgspec.json.Decoder(Row).decode_lines(rows.read_bytes())
        self.database = f"{found[0].database.name} {found[0].database.sha256[:8]}"
        wrong = [row for row in found if (row.name, row.product, row.version) != kind.found]
        expected = Counter(hosts[number % HOSTS] for number in range(total))
        if wrong or Counter(row.ip for row in found) != expected:
            raise SystemExit(
                f"{kind.mode}: {len(found)} rows for {total} targets, {len(wrong)} wrong; first {wrong[:1]}"
            )
        return taken

    def grab(self, kind: Kind, port: int) -> float:
        return grab(self.grabber, kind.mode, port, hosts=HOSTS, total=self.total)

    def nmap(self, kind: Kind, port: int) -> tuple[float, int]:
        """-> seconds, services that it names as we do"""
        targets, report = self.folder / "addresses", self.folder / "nmap.xml"
        targets.write_text("".join(f"{address}\n" for address in addresses(NMAP_TOTAL)))
        command = ["nmap", "-sV", "-T5", "--min-parallelism", "300", "-n", "-Pn", "-p", str(port), "-iL", targets]
        began = time.monotonic()
        subprocess.run([*command, "-oX", report], check=True, capture_output=True)
        taken = time.monotonic() - began
        services = (service.attrib for service in ElementTree.parse(report).iter("service"))
        fields = ("name", "product", "version")
        return taken, sum(tuple(service.get(field, "") for field in fields) == kind.found for service in services)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--probes", default="")
    options = parser.parse_args()
    table = Table(box=None)
    for column in ("farm", "what", "services", "seconds", "services/s", "of grab"):
        table.add_column(column, justify="left" if column in ("farm", "what") else "right")

    def add(kind: Kind, what: str, services: int, seconds: float, of_grab: str = "") -> None:
        table.add_row(kind.mode, what, f"{services:,}", f"{seconds:.2f}", f"{services / seconds:,.0f}", of_grab)

    with tempfile.TemporaryDirectory() as name:
        try:
            bench = Bench(Path(name), options)
        except CompilerError as reason:
            print(f"nothing measured: {reason}")
            return 0
        for kind in KINDS:
            with farm(bench.farm, kind.mode, kind.ports) as port:
                start = bench.scan(kind, port, 1)  # and the database's sets are compiled and kept
                start = min(start, bench.scan(kind, port, 1))
                before = bench.grab(kind, port)
                taken = bench.scan(kind, port, bench.total)
                after = bench.grab(kind, port)
                limit = (before + after) / 2
                add(kind, "grab.c", bench.total, limit, "100 %")
                add(kind, " ".join(("probemill scan", *kind.options)), bench.total, taken, f"{limit / taken:.0%}")
                add(kind, "  a scan of one target", 1, start)
                if shutil.which("nmap"):
                    seconds, named = bench.nmap(kind, port)
                    add(kind, f"nmap -sV -T5 --min-parallelism 300 ({named} right)", NMAP_TOTAL, seconds)
    machine = f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    parts = ", ".join(f"{part} {version(part)}" for part in ("probemill", "uvloop", "msgspec"))
    console = Console()
    console.print(f"{machine}, {parts}, database {bench.database}, load {os.getloadavg()[0]:.1f}", soft_wrap=True)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
