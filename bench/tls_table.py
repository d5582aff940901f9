"""How many services in TLS a core can scan: `python -m bench.tls_table [--quick]`.

A farm of web servers in TLS (tls_farm.py) on one core, `probemill scan` with one worker on another. What counts is CPU
time, not the clock: a scan's is that of its whole command, less that of a scan of one target. The yardsticks come from
tls_bare.py, over the same memory buffers and the same context, alternating with what they are compared with; every
ratio is the median over the rounds.

    tls.handshakes   through the scanner's transport, with the facts of the certificate, but without rows, against
                     the bare handshake
    tls.rows         whole rows against an equal conversation: the question in the clear, the handshake, the request
    tls.rows.share   whole rows against the bare handshake alone: what a handshake costs, and what all else does
"""

import argparse
import asyncio
import gc
import os
import platform
import ssl
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec
import uvloop
from msgspec import Struct

from bench import tls_bare
from bench.figures import Figure, tell
from bench.native import addresses
from bench.tls_farm import ROOT, tls_farm
from engine.model import TlsFacts
from engine.transports.base import Receiver
from engine.transports.certificates import tls_facts
from engine.transports.reactor import Reactor
from engine.transports.tcp import TcpTransport
from engine.transports.tls import Steps, TlsTransport, client_context

PORT = 8443  # where databases expect TLS
COUNT = 2000
ROUNDS = 5
GOAL = 0.9


class Row(Struct):
    ip: str
    name: str
    product: str = ""
    tunnel: str = ""
    tls: TlsFacts = TlsFacts()


class _Shaking:
    """A receiver that wants a handshake and nothing else. done: takes its session, None where it failed."""

    def __init__(self, done: Callable[[ssl.SSLObject | None], None]) -> None:
        self._done = done
        self.transport: TlsTransport | None = None

    def opened(self) -> None: ...

    def connected(self, now: float) -> None:
        assert self.transport is not None
        self._done(self.transport.session)
        self.transport.close()

    def received(self, data: bytes, now: float) -> None: ...
    def ended(self, now: float) -> None: ...

    def broken(self, error: OSError, now: float) -> None:
        self._done(None)

    def crashed(self, error: Exception, now: float) -> None:
        self._done(None)


def transport_s(context: ssl.SSLContext, hosts: Sequence[str]) -> float:
    """CPU seconds of a handshake with each host through the scanner's transport, facts read as the scanner reads them.

    Raises SystemExit if one failed.
    """

    async def shake() -> float:
        waiting = deque(hosts)
        steps = Steps()
        idle = asyncio.Event()
        done: list[ssl.SSLObject | None] = []
        begun = read = right = 0

        def open_tcp(host: str, tls: Receiver) -> TcpTransport:
            return TcpTransport(reactor, tls, host, PORT, reset=True)

        def after_turn() -> None:
            nonlocal begun, read, right
            steps.take()
            right += sum(session is not None and bool(tls_facts(session).key) for session in done)
            read += len(done)
            done.clear()
            while waiting and begun - read < tls_bare.INFLIGHT:
                begun += 1
                shaking = _Shaking(done.append)
                shaking.transport = TlsTransport(context, shaking, partial(open_tcp, waiting.popleft()), steps)
            if begun == read:
                idle.set()

        reactor = Reactor(asyncio.get_running_loop(), after_turn)
        gc.collect()
        gc.disable()
        began = time.process_time()
        after_turn()
        await asyncio.wait_for(idle.wait(), 60)
        taken = time.process_time() - began
        gc.enable()
        reactor.close()
        if right < len(hosts):
            raise SystemExit(f"{len(hosts) - right} of {len(hosts)} handshakes failed")
        return taken

    return uvloop.run(shake())


def scan_s(folder: Path, hosts: Sequence[str]) -> float:
    """CPU seconds of a scan, its worker's and its own. Raises SystemExit where a row is not as it should be."""
    targets, rows = folder / "targets", folder / "rows.ndjson"
    targets.write_text("".join(f"{host}:{PORT}\n" for host in hosts))
    command = [sys.executable, "-m", "probemill", "scan", "-i", targets, "-o", rows, "-q", "--reset"]
    command += ["--workers", "1", "--timing", "adaptive", "--pseudo-ports", "0"]
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = msgspec.json.Decoder(Row).decode_lines(rows.read_bytes())
    right = {row.ip for row in found if (row.name, row.product, row.tunnel) == ("http", "nginx", "ssl") and row.tls.key}
    if process.returncode or len(found) != len(hosts) or right != set(hosts):
        raise SystemExit(f"{len(found)} rows for {len(hosts)} services, {len(right)} right; first {found[:1]}")
    return usage.ru_utime + usage.ru_stime


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started in the block runs there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half the services, three rounds")
    parser.add_argument("--certificates", type=int, default=1000, help="that the farm shows, one after another")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    count, rounds = (COUNT // 2, 3) if options.quick else (COUNT, ROUNDS)
    hosts = addresses(count)
    context = client_context()
    parts = ", ".join(f"{part} {version(part)}" for part in ("uvloop", "cryptography"))
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {parts}")
    measured: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        measured.setdefault(name, []).append(seconds / count)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with on_core(cores[0]), tls_farm(PORT, options.certificates), on_core(cores[-1]):
            scan_s(folder, hosts[:1])  # what is kept on disk is there from now on
            for _ in range(rounds):
                note("handshake", tls_bare.cpu_s(tls_bare.handshake, context, hosts, PORT))
                note("transport", transport_s(context, hosts))
                note("conversation", tls_bare.cpu_s(tls_bare.conversation, context, hosts, PORT))
                note("scan", scan_s(folder, hosts) - scan_s(folder, hosts[:1]))
    for what, costs in measured.items():
        print(f"{what:14} {median(costs) * 1e6:7,.0f} us of CPU ({min(costs) * 1e6:,.0f} to {max(costs) * 1e6:,.0f})")
    corpus = f"tls farm, {options.certificates} certificates"

    def compare(figure: str, ours: str, yardstick: str, goal: float = 0.0) -> None:
        rate = 1 / median(measured[ours])
        ratio = median(bare / own for bare, own in zip(measured[yardstick], measured[ours], strict=True))
        tell(Figure(figure, rate, "1/core-s", "more", rate / ratio, goal, corpus))

    compare("tls.handshakes", "transport", "handshake", GOAL)
    compare("tls.rows", "scan", "conversation", GOAL)
    compare("tls.rows.share", "scan", "handshake")
    return 0


if __name__ == "__main__":
    sys.exit(main())
