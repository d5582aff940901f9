"""The constants of `probemill plan`: `python -m bench.constants [--quick] [--probes FILE] [-o FILE]`.

Measures on loopback what one service of each kind takes and writes engine/forecast/measured.json. Every row is checked
before a figure counts. All of it happens in a network of the bench's own (wire.py), on the usual ports (22, 80, 443),
which decide the choice of probes; so it needs root or namespaces of users, and a C compiler.

  CPU        user and system time of the scan's processes, less that of a scan of one target, the least of the rounds.
             On loopback the kernel's work for the farm's packets is charged to whoever sends, so it is on the high side
  packets    what a packet socket on lo sees of a small scan, by direction, IP headers included
  windows    banner windows that a conversation sat out: its time in adaptive timing over one window
  memory     resident memory of the processes, with 1 conversation and with thousands in flight

`--quick` does a tenth.
"""

import argparse
import os
import platform
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import zstandard
from msgspec import Struct
from msgspec.structs import replace

from bench.native import CompilerError, addresses, compiled, farm
from bench.scale import Memory
from bench.shapes import blobs
from bench.tls_farm import tls_farm
from bench.wire import WIRE, MeasureError, Packets, own_network, syn_times
from engine.conversation.timing import NULL_FLOOR_S
from engine.databases import open_matcher
from engine.forecast.constants import FILE, REFUSED, UNANSWERED, Constants, Kind, Place
from engine.pool.descriptors import MAX_INFLIGHT
from engine.results.sinks.packed import ZSTD_LEVEL

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 2
SEEN = 200  # services of a scan whose packets are looked at
SAMPLE_S = 0.02
PAGE = b"HTTP/1.1 200 OK\r\nServer: nginx/%d.22.1\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nhi\n"


VARIOUS = 50_000  # rows
HELD = 16_000  # conversations in flight
TIME_WAIT_S = 60.0  # of Linux, fixed


class Row(Struct):
    ip: str
    verdict: str
    name: str = ""
    reason: str = ""
    tunnel: str = ""
    elapsed_ms: int = 0
    connections: int = 0
    bytes: int = 0


class Service(Struct, frozen=True):
    """A kind of service: the port it is on, how many are scanned, what each row says, options of the scan."""

    kind: str
    port: int
    count: int
    found: tuple[str, str, str]  # verdict, name, reason
    options: tuple[str, ...] = ()
    seen: int = SEEN


SERVICES = (
    Service("banner", 22, 60_000, ("hardmatched", "ssh", ""), ("--max-inflight", "1000")),
    Service("http", 80, 30_000, ("hardmatched", "http", ""), ("--timing", "adaptive", "--max-inflight", "5000")),
    Service("tls", 443, 4000, ("hardmatched", "http", ""), ("--timing", "adaptive", "--max-inflight", "500")),
    Service("silent", 1022, 400, ("nomatch", "", ""), ("--timing", "adaptive"), seen=400),
    Service(REFUSED, 1023, 60_000, ("incomplete", "", "refused"), ("--max-inflight", "1000")),
    Service(UNANSWERED, 1021, 10_000, ("incomplete", "", "timeout"), ("--max-inflight", "10000")),
)
FARMS = {"banner": "banner", "http": "http", "silent": "tarpit"}  # modes of farm.c


class Spent(Struct):
    """A scan's rows, time and CPU time of its workers and of the command itself, all in seconds.

    waited_s: that the worker that waited longest was ready to run and had no core.
    """

    rows: list[Row]
    ndjson: bytes
    seconds: float
    worker_s: float
    driver_s: float
    waited_s: float = 0.0


class Bench:
    """Scans of farms in a network of our own. share: of the usual number of services."""

    def __init__(self, folder: Path, *, share: float = 1.0, probes: Sequence[str] = (), workers: int = 1) -> None:
        self.folder = folder
        self.program = compiled("farm", folder)
        self.share = share
        self.probes = tuple(probes)
        self.common = ["-q", "--pseudo-ports", "0", "--workers", str(workers)]
        for choice in probes:
            self.common += ["--probes", choice]

    @contextmanager
    def farm(self, kind: str, port: int) -> Iterator[None]:
        """Services of a kind on every address, as long as the block."""
        if kind in FARMS:
            with farm(self.program, FARMS[kind], (port,)) as found:
                if found != port:
                    raise MeasureError(f"port {port} is taken")
                yield
        elif kind == "tls":
            with tls_farm(port):
                yield
        elif kind == UNANSWERED:
            with socket.socket() as listener, socket.socket() as caller:  # a full queue: what else calls is ignored
                listener.bind(("", port))
                listener.listen(0)
                caller.connect(("127.0.0.1", port))
                yield
        else:
            yield

    def scan(self, service: Service, count: int, *options: str) -> Spent:
        """Raises MeasureError where an answer was wrong."""
        targets, path = self.folder / "targets", self.folder / "rows.ndjson"
        hosts = addresses(count)
        random.Random(1).shuffle(hosts)
        targets.write_text("".join(f"{host}:{service.port}\n" for host in hosts))
        command = [sys.executable, "-m", "probemill", "scan", "-i", str(targets), "-o", str(path), *self.common]
        began = time.monotonic()
        process = subprocess.Popen([*command, *service.options, *options], cwd=ROOT)
        driver_s = waited_s = 0.0
        while True:
            with suppress(OSError, ValueError):
                driver_s = max(driver_s, _on_cores(process.pid)[0])
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                waited_s = max((waited_s, *(_on_cores(int(child))[1] for child in children)))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(SAMPLE_S)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        ndjson = path.read_bytes()
        rows = msgspec.json.Decoder(Row).decode_lines(ndjson)
        wrong = [row for row in rows if (row.verdict, row.name, row.reason) != self._wanted(service, row)]
        if process.returncode or wrong or len(rows) != count:
            raise MeasureError(
                f"{service.kind}: exit code {process.returncode}, {len(rows)} rows for {count} targets, "
                f"{len(wrong)} wrong; first {wrong[:1]}"
            )
        return Spent(rows, ndjson, seconds, usage.ru_utime + usage.ru_stime - driver_s, driver_s, waited_s)

    @staticmethod
    def _wanted(service: Service, row: Row) -> tuple[str, str, str]:
        verdict, name, reason = service.found
        return verdict, name or row.name, reason  # a closed port has the usual name of its number

    def start(self, service: Service) -> Spent:
        """The least that a scan of one target takes, once what it compiles is kept."""
        runs = [self.scan(service, 1) for _ in range(3)]
        return Spent(
            runs[0].rows,
            b"",
            *(min(getattr(run, name) for run in runs) for name in ("seconds", "worker_s", "driver_s")),
        )

    def kind(self, service: Service, start: Spent) -> Kind:
        """What a service costs, on its farm that must be there."""
        count = max(100, int(service.count * self.share))
        packets = Packets(service.port)
        seen = self.scan(service, min(count, service.seen))
        counts = packets.counted()
        runs = [self.scan(service, count) for _ in range(ROUNDS)] if count > service.seen else [seen]
        rows = runs[0].rows
        waited_s = min(row.elapsed_ms for row in seen.rows) / 1000
        return Kind(
            worker_us=_rounded(max(0.0, min(run.worker_s for run in runs) - start.worker_s) / count * 1e6),
            driver_us=_rounded(max(0.0, min(run.driver_s for run in runs) - start.driver_s) / count * 1e6),
            match_us=0.0,
            connections=_rounded(sum(row.connections for row in rows) / count) or 1.0,  # refused ones were tried, too
            windows=round(waited_s / NULL_FLOOR_S) if service.kind in ("http", "tls") else 0,
            row_bytes=stored(runs[0].ndjson.splitlines(keepends=True)),
            **{name: _rounded(counts[name] / len(seen.rows)) for name in WIRE},
        )

    def memory(self) -> tuple[int, int, int]:
        """-> bytes of the command at rest, of its worker, and that both grow by with each conversation in flight

        The growth from half to all: the first conversations fit into what was freed at the start.
        """
        service = next(service for service in SERVICES if service.kind == "silent")
        most = min(HELD, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000)
        (driver, worker), half, full = (self._resident(service, count) for count in (1, most // 2, most))
        return driver, worker, (sum(full) - sum(half)) // (most - most // 2)

    def _resident(self, service: Service, count: int) -> tuple[int, int]:
        """The most that the command and its worker had, bytes."""
        targets = self.folder / "targets"
        targets.write_text("".join(f"{host}:{service.port}\n" for host in addresses(count)))
        command = [sys.executable, "-m", "probemill", "scan", "-i", targets, "-o", "/dev/null", *self.common]
        command += ["--max-inflight", str(count), "--service-timeout", "5"]
        with subprocess.Popen(command, cwd=ROOT) as process, Memory(process.pid) as memory:
            process.wait()
        most = Counter[int]()
        for sample in memory.samples:
            for pid, megabytes in sample.items():
                most[pid] = max(most[pid], int(megabytes * 1e6))
        driver = most.pop(process.pid)
        return driver, max(most.values())

    def matching(self, pattern: bytes, probe: str, count: int = 3000) -> float:
        """Microseconds of CPU for a response that nobody has seen before."""
        matcher = open_matcher(self.probes, "auto")
        asked = matcher.database.probe(probe, "tcp")
        assert asked is not None
        matcher.match(asked, pattern % 0)
        began = time.process_time()
        for number in range(1, count):
            matcher.match(asked, pattern % number)
        return _rounded((time.process_time() - began) / (count - 1) * 1e6)


def stored(lines: list[bytes]) -> float:
    """Bytes a row in a segment, in the order of a scan: none that helps to compress."""
    return _rounded(len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(b"".join(lines))) / len(lines))


def various() -> float:
    """The same of rows of 200 kinds of services (bench/shapes.py): those of a farm are too much alike."""
    lines = b"".join(blobs(VARIOUS)).splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    return stored(lines)


def _on_cores(pid: int) -> tuple[float, float]:
    """-> seconds that the threads of a process have run so far, and that the main one has waited for a core"""
    tasks = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    main = Path(f"/proc/{pid}/schedstat").read_text().split()
    return sum(int(task[0]) for task in tasks) / 1e9, int(main[1]) / 1e9


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def place(bench: Bench) -> Place:
    matcher = open_matcher(bench.probes, "auto")
    fast = _installed("hyperscan")
    return Place(
        machine=processor(),
        cores=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={name: version(name) for name in ("probemill", "uvloop", "msgspec")},
        database=f"{matcher.database.name} {matcher.database.sha256[:8]}",
        matcher=f"hyperscan {fast}" if fast else f"pyre2 {version('pyre2')}",
        date=datetime.now(UTC).date().isoformat(),
    )


def _installed(name: str) -> str:
    with suppress(PackageNotFoundError):
        return version(name)
    return ""


def kinds(bench: Bench, wanted: Container[str], say: Callable[[str], None] = print) -> tuple[float, dict[str, Kind]]:
    """-> seconds that a scan of one target takes, what services of the kinds wanted take. Raises MeasureError."""
    banner = SERVICES[0]
    with bench.farm(banner.kind, banner.port):
        start = bench.start(banner)
    greeting = bench.matching(b"SSH-2.0-OpenSSH_9.2p1 build-%d\r\n", "NULL")
    page = bench.matching(PAGE, "GetRequest")
    match_us, row_bytes = {"banner": greeting, "http": page, "tls": page}, various()
    found: dict[str, Kind] = {}
    for service in SERVICES:
        if service.kind in wanted:
            with bench.farm(service.kind, service.port):
                kind = bench.kind(service, start)
            if service.kind in match_us:
                kind = replace(kind, match_us=match_us[service.kind], row_bytes=row_bytes)
            found[service.kind] = kind
            say(f"{service.kind}: {kind}")
    return round(start.seconds, 2), found


def measure(bench: Bench) -> Constants:
    """Raises MeasureError."""
    start_s, found = kinds(bench, {service.kind for service in SERVICES})
    silent, unanswered = (service for service in SERVICES if service.kind in ("silent", UNANSWERED))
    with bench.farm(silent.kind, silent.port):
        driver, worker, conversation = bench.memory()
    with bench.farm(unanswered.kind, unanswered.port):
        syn_at_s = syn_times(unanswered.port)
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return Constants(
        place=place(bench),
        start_s=start_s,
        driver_bytes=driver,
        worker_bytes=worker,
        conversation_bytes=conversation,
        slots=MAX_INFLIGHT,
        ports=int(last) - int(first) + 1,
        time_wait_s=TIME_WAIT_S,
        syn_at_s=syn_at_s,
        kinds=found,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--probes", action="append", default=[])
    parser.add_argument("-o", "--output", type=Path, default=FILE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        try:
            own_network()
            constants = measure(Bench(Path(name), share=0.1 if options.quick else 1.0, probes=options.probes))
        except (CompilerError, MeasureError) as reason:
            print(f"nothing measured: {reason}")
            return 1
    options.output.write_bytes(msgspec.json.format(msgspec.json.encode(constants), indent=2) + b"\n")
    print(f"{options.output} was written: {constants.place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
