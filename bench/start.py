"""How soon a scan begins: `python -m bench.start [--quick] [--probes FILE]`.

One service on loopback greets as OpenSSH does; `probemill scan 127.0.0.1:PORT`, with default options, is timed from the
start of the command to the connection that the service sees, to the first row, and to the end. Warm: the cache holds
what it can; cold: it is empty. Then cold starts are interrupted at moments all over their course. Beside them, in the
same minute: Python that does nothing, `probemill --version`, and `nmap -sV` on the same port where it is installed.
Every row is checked before a time counts. Figures are medians, that of interruptions the worst.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from bench.figures import Figure, tell

BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n"
FOUND = ("ssh", "OpenSSH")
WARM, COLD, INTERRUPTED = 11, 5, 20
EARLIEST_S = 0.05  # of an interruption: before, it is Python itself that starts, and that hears it
LONGEST_S = 60.0  # of one command; then something is wrong
LINE = b"probemill: interrupted"


class Times(NamedTuple):
    """Seconds since the command was started."""

    connected: float
    row: float
    end: float


class Service:
    """A port that greets. seen: when connections came, monotonic."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self.seen.append(time.monotonic())
            Thread(target=self._greet, args=(connection,), daemon=True).start()

    @staticmethod
    def _greet(connection: socket.socket) -> None:
        with connection:
            connection.sendall(BANNER)
            connection.recv(1)


class Bench:
    def __init__(self, service: Service, probes: str) -> None:
        self.service = service
        self.corpus = ""  # the database, as rows name it
        named = ["--probes", probes] if probes else []
        self._command = [sys.executable, "-m", "probemill", "scan", f"127.0.0.1:{service.port}", *named]

    def scan(self, cache: str) -> Times:
        """A scan whose row was right. Raises SystemExit where it was not."""
        self.service.seen.clear()
        began = time.monotonic()
        with self._started(cache) as process:
            assert process.stdout is not None
            row = process.stdout.readline()
            row_at = time.monotonic()
            process.wait(LONGEST_S)
            ended = time.monotonic()
        said = json.loads(row or b"{}")
        if (said.get("name"), said.get("product")) != FOUND or process.returncode or not self.service.seen:
            raise SystemExit(f"exit code {process.returncode}, row {row!r}")
        self.corpus = f"{Path(said['database']['name']).name} {said['database']['sha256'][:8]}"
        return Times(self.service.seen[0] - began, row_at - began, ended - began)

    def interrupt(self, cache: str, after_s: float) -> float:
        """Seconds from ^C to the end of a scan. Raises SystemExit for an end that is not as it should be."""
        with self._started(cache) as process:
            time.sleep(after_s)
            asked = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=LONGEST_S)
            taken = time.monotonic() - asked
        if process.returncode == 0:  # it was done before
            return 0.0
        if process.returncode != 130 or not said.startswith(LINE) or said.count(b"\n") != 1:
            raise SystemExit(f"interrupted after {after_s:.2f} s: exit code {process.returncode}, {said!r}")
        return taken

    @contextmanager
    def _started(self, cache: str) -> Iterator["subprocess.Popen[bytes]"]:
        with subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"XDG_CACHE_HOME": cache},
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def command_s(command: Sequence[str], count: int) -> float:
    """The median of how long a command takes, whose answer nobody looks at."""
    taken = []
    for _ in range(count):
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def median(times: Sequence[Times]) -> Times:
    return Times(*map(statistics.median, zip(*times, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the runs")
    parser.add_argument("--probes", default="")
    options = parser.parse_args()
    share = 3 if options.quick else 1
    warm_count, cold_count, moments = WARM // share, -(-COLD // share), INTERRUPTED // share
    service = Service()
    bench = Bench(service, options.probes)
    with tempfile.TemporaryDirectory() as folder:
        cold = median([bench.scan(str(Path(folder, f"cold{number}"))) for number in range(cold_count)])
        bench.scan(str(Path(folder, "cold0")))  # what the first start did not keep
        warm = median([bench.scan(str(Path(folder, "cold0"))) for _ in range(warm_count)])
        waits = [EARLIEST_S + number * cold.end / moments for number in range(moments)]
        asked = max(bench.interrupt(str(Path(folder, f"asked{number}")), wait) for number, wait in enumerate(waits))
    corpus = bench.corpus
    tell(Figure("start.python", command_s([sys.executable, "-c", ""], warm_count), "s"))
    tell(Figure("start.version", command_s([sys.executable, "-m", "probemill", "--version"], warm_count), "s"))
    if shutil.which("nmap"):
        nmap = ["nmap", "-sV", "-n", "-Pn", "-p", str(service.port), "127.0.0.1"]
        tell(Figure("start.nmap", command_s(nmap, cold_count), "s"))
    tell(Figure("start.warm", warm.connected, "s", goal=0.25, corpus=corpus))
    tell(Figure("start.warm.whole", warm.end, "s", corpus=corpus))
    tell(Figure("start.cold", cold.connected, "s", goal=2.0, corpus=corpus))
    tell(Figure("start.first_row", cold.row - cold.connected, "s", goal=1.0, corpus=corpus))
    tell(Figure("start.cold.whole", cold.end, "s", goal=3.0, corpus=corpus))
    tell(Figure("start.interrupted", asked, "s", goal=0.3, corpus=corpus))
    return 0


if __name__ == "__main__":
    sys.exit(main())
