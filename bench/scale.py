"""Demonstrations of memory and scale: `python -m bench.scale [--quick] [pipe] [silent] [hostile]` (all without a name).

  pipe     2,000,000 targets through a pipe: the memory of every process stays flat after the first 100,000
  silent   15,000 services that say nothing during the whole NULL window and then answer HTTP, with exact timing:
           done within 15 s, in less than 800 MB over all processes
  hostile  500 peers of each hostile kind (farm.c) beside 5,000 honest services: all of those are identified, the run
           ends within its budgets, memory stays bounded

Each prints a line with what was seen; exit code 1 when something was not so. `--quick` does a tenth (pipe: a fifth).
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.native import CompilerError, addresses, compiled, farm
from bench.spent import Memory

PIPE_TARGETS = 2_000_000
SETTLED = 100_000  # targets after which memory may not grow any more
GROWTH = 1.05
SILENT = 15_000
SILENT_S = 15.0
HONEST, EACH = 5000, 500
HOSTILE = ("tarpit", "endless", "drip", "deaf", "reset")
SERVICE_S = 40.0  # budget of a service in the hostile run
MEGABYTES = 800
DATABASE = rb"""Probe TCP NULL q||
totalwaitms 6000
match ssh m|^SSH-([\d.]+)-OpenSSH[_-]([\w.]+)\r?\n| p/OpenSSH/ v/$2/ i/protocol $1/
Probe TCP GetRequest q|GET / HTTP/1.0\r\n\r\n|
rarity 1
ports 80,8080-8090
match http m|^HTTP/1\.[01] \d\d\d [^\r\n]*\r\nServer: nginx/([\d.]+)\r\n|s p/nginx/ v/$1/
"""


class Row(Struct):
    port: int
    verdict: str
    reason: str = ""
    name: str = ""


class Scan:
    """A scan with targets through a pipe, and what was seen of it."""

    def __init__(self, folder: Path, targets: Iterable[str], *options: str) -> None:
        database = folder / "probes"
        database.write_bytes(DATABASE)
        self.path = folder / "rows.ndjson"
        self._settled = 0
        command = [sys.executable, "-m", "probemill", "scan", "-q", "-i", "-", "-o", str(self.path), "--reset"]
        command += ["--probes", str(database), "--pseudo-ports", "0", *options]
        began = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            with Memory(process.pid) as self.memory:
                for number, target in enumerate(targets):
                    process.stdin.write(target)
                    if number == SETTLED:  # but for the few that are still under way
                        self._settled = len(self.memory.samples)
                process.stdin.close()
                code = process.wait()
        self.seconds = time.monotonic() - began
        if code:
            raise SystemExit(f"the scan ended with {code}")

    @property
    def growth(self) -> float:
        return self.memory.growth(min(self._settled, len(self.memory.samples) - 1))

    def rows(self) -> Iterator[Row]:
        decoder = msgspec.json.Decoder(Row)
        with self.path.open("rb") as file:
            for line in file:
                yield decoder.decode(line)


def pipe(program: Path, folder: Path, share: float) -> bool:
    count = int(PIPE_TARGETS * (max(share, 0.2)))
    hosts = addresses(2000)
    with farm(program, "banner") as port:
        lines = [f"{host}:{port}\n" for host in hosts]
        scan = Scan(folder, (lines[number % len(lines)] for number in range(count)), "--max-inflight", "1000")
    found = Counter(row.name for row in scan.rows())
    good = found == {"ssh": count} and scan.growth <= GROWTH
    print(
        f"pipe: {count:,} targets in {scan.seconds:.0f} s, {count / scan.seconds:,.0f}/s, {dict(found)}; "
        f"{scan.memory.most:.0f} MB over all processes, growth since the first {SETTLED:,}: "
        f"{scan.growth - 1:+.1%} at most in one"
    )
    return good


def silent(program: Path, folder: Path, share: float) -> bool:
    count = int(SILENT * share)
    with farm(program, "http", range(8080, 8091)) as port:
        targets = (f"{host}:{port}\n" for host in addresses(count))
        scan = Scan(folder, targets, "--max-inflight", str(SILENT))
    found = Counter(row.name for row in scan.rows())
    print(f"silent: {count:,} services in {scan.seconds:.1f} s, {dict(found)}, {scan.memory.most:.0f} MB at most")
    return found == {"http": count} and scan.seconds <= SILENT_S and scan.memory.most < MEGABYTES


def hostile(program: Path, folder: Path, share: float) -> bool:
    honest, each = int(HONEST * share), int(EACH * share)
    with contextlib.ExitStack() as farms:
        ports = {kind: farms.enter_context(farm(program, kind)) for kind in ("banner", *HOSTILE)}
        targets = [f"{host}:{ports['banner']}\n" for host in addresses(honest)]
        for kind in HOSTILE:
            targets += [f"{host}:{ports[kind]}\n" for host in addresses(each)]
        options = ("--service-timeout", str(int(SERVICE_S)), "--max-bytes", "2M")
        scan = Scan(folder, sorted(targets, key=hash), *options)
    kinds = {port: kind for kind, port in ports.items()}
    found = Counter((kinds[row.port], row.name if kinds[row.port] == "banner" else row.verdict) for row in scan.rows())
    told = ", ".join(f"{kind} {what} {count:,}" for (kind, what), count in sorted(found.items()))
    print(f"hostile: {len(targets):,} targets in {scan.seconds:.1f} s, {scan.memory.most:.0f} MB at most: {told}")
    right = found["banner", "ssh"] == honest and found.total() == len(targets)
    return right and scan.seconds <= SERVICE_S + SILENT_S and scan.memory.most < MEGABYTES


DEMONSTRATIONS = {"pipe": pipe, "silent": silent, "hostile": hostile}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[[], *DEMONSTRATIONS])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as name:
        try:
            program = compiled("farm", Path(name))
        except CompilerError as reason:
            print(f"nothing shown: {reason}")
            return 0
        for which in options.which or DEMONSTRATIONS:
            if not DEMONSTRATIONS[which](program, Path(name), 0.1 if options.quick else 1.0):
                failed.append(which)
                print(f"{which}: NOT as it should be")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
