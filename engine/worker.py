"""One process's share of a scan: thousands of drivers on one event loop, targets in, batches of encoded rows out.

`Worker` is the part that runs anywhere an asyncio loop runs: inside the caller (runners/inline.py) or alone in a
process (`serve`, used by runners/processes.py, on uvloop). It keeps at most `max_inflight` conversations open and never
holds more targets than its caller gave it; rows leave in batches of N rows or T seconds.
"""

import asyncio
import gc
import platform
import resource
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec
import uvloop

from engine.driver import Driver
from engine.errors import EngineError
from engine.model import Batch, Reason, ScanConfig, ServiceResult, Target, Tunnel
from engine.reactor import Reactor
from engine.scan import ScanContext, ServiceScan
from engine.services import ServiceTable
from engine.transports.base import Receiver, Transport
from engine.transports.tcp import TcpTransport
from engine.transports.tls import TlsTransport, client_context
from engine.transports.udp import UdpTransport
from engine.wire import Kind, frame, receive
from matcher import Matcher, MatcherError, load_database

TLS_HANDSHAKES = 200  # at once in one worker; a handshake costs ten times a plain connection
SPARE_DESCRIPTORS = 64  # for the loop, logs, libraries
MAX_INFLIGHT = 10_000  # over all workers, where the user did not say
WRITE_BUFFER = 4 << 20  # bytes of rows waiting for the collector; beyond it no new target is begun


def inflight_limit(config: ScanConfig) -> int:
    """Conversations at once in one worker: what was asked for, within what its descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = (config.max_inflight or MAX_INFLIGHT) // max(1, config.workers)
    return max(1, min(share, soft - SPARE_DESCRIPTORS))


def raise_descriptor_limit() -> None:
    """Every conversation needs a descriptor: take as many as the hard limit gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def scan_context(config: ScanConfig) -> ScanContext:
    """Database, matcher and options made ready. Raises MatcherError."""
    services = ServiceTable.load()
    database = load_database(config.probes[0] if config.probes else None, services=tuple(services.rows()))
    matcher = Matcher(database, config.matcher)
    try:
        program = version("probemill")
    except PackageNotFoundError:
        program = "0"
    return ScanContext(
        database,
        matcher.match,
        intensity=config.intensity,
        excluded=not config.allports,
        service_name=services.name,
        wall_offset=time.time() - time.monotonic(),
        version=program,
        platform=f"{platform.machine()}-{platform.system().lower()}",
    )


class Worker:
    """deliver: takes a batch; called from the loop. congested: whether results pile up behind deliver."""

    def __init__(
        self,
        config: ScanConfig,
        context: ScanContext,
        deliver: Callable[[Batch], None],
        congested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.reactor = Reactor(asyncio.get_running_loop(), self._pump)
        self._config = config
        self._context = context
        self._deliver = deliver
        self._congested = congested
        self._limit = inflight_limit(config)
        self._waiting: deque[Target] = deque()
        self._inflight: set[Driver] = set()
        self._rows: list[ServiceResult] = []
        self._done: list[int] = []
        self._tally: Counter[str] = Counter()
        self._encoder = msgspec.json.Encoder()
        self._tls = client_context()
        self._tls_open: set[Driver] = set()
        self._tls_queue: deque[Driver] = deque()
        self._cancelled = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._flush_handle: asyncio.TimerHandle | None = None

    def submit(self, targets: Sequence[Target]) -> None:
        """Scan these too. The caller keeps the number of targets given and not yet done within its bounds."""
        self._idle.clear()
        self._waiting.extend(targets)
        self._pump()

    async def idle(self) -> None:
        """Wait until everything submitted has been delivered."""
        await self._idle.wait()

    def cancel(self) -> None:
        """Finish what is in flight as cancelled, forget what has not begun."""
        self._cancelled = True
        self._waiting.clear()
        now = time.monotonic()
        for driver in tuple(self._inflight):
            driver.abort(Reason.CANCELLED, now)
        self._pump()

    def close(self) -> None:
        self.reactor.close()
        if self._flush_handle is not None:
            self._flush_handle.cancel()

    # -- what drivers ask for

    def open(self, driver: Driver, tunnel: Tunnel) -> Transport | None:
        target = driver.scan.target
        if target.proto == "udp":
            return UdpTransport(self.reactor, driver, target.host, target.port)
        if tunnel is Tunnel.NONE:
            return TcpTransport(self.reactor, driver, target.host, target.port)
        if driver not in self._tls_open:
            if len(self._tls_open) >= TLS_HANDSHAKES:
                self._tls_queue.append(driver)
                return None
            self._tls_open.add(driver)

        def below(receiver: Receiver) -> Transport:
            return TcpTransport(self.reactor, receiver, target.host, target.port)

        return TlsTransport(self._tls, driver, below, target.name)

    def starved(self) -> None:
        self._limit = max(1, len(self._inflight) * 9 // 10)
        self._tally["starved"] += 1

    def finished(self, driver: Driver, result: ServiceResult) -> None:
        self._inflight.discard(driver)
        self._tls_open.discard(driver)
        tally = self._tally
        tally["probes"] += driver.sent
        tally["verdict:" + result.verdict.value] += 1
        if result.reason is not None:
            tally["reason:" + result.reason.value] += 1
        if result.name and result.method == "probed":
            tally["service:" + result.name] += 1
        self._rows.append(result)
        self._done.append(driver.scan.target.ordinal)
        if len(self._rows) >= self._config.batch_rows:
            self._flush()

    # -- the flow

    def _pump(self) -> None:
        """After each turn: let the next targets and the queued TLS connections begin."""
        now = time.monotonic()
        while self._tls_queue and len(self._tls_open) < TLS_HANDSHAKES:
            driver = self._tls_queue.popleft()
            self._tls_open.add(driver)
            driver.reopen(now)
        if self._waiting and not self._congested():
            room = self._limit - len(self._inflight)
            while room > 0 and self._waiting:
                driver = Driver(ServiceScan(self._waiting.popleft(), self._context), self)
                self._inflight.add(driver)
                driver.begin(now)
                room -= 1
        if not self._waiting and not self._inflight:
            self._flush()
            self._idle.set()
        elif self._rows and self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(self._config.batch_s, self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        done, self._done = self._done, []
        tally, self._tally = self._tally, Counter()
        self._deliver(Batch(self._encoder.encode_lines(rows), len(rows), done, dict(tally)))


async def _serve(link: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=link, limit=1 << 22)
    message = await receive(reader)
    if message is None or message[0] is not Kind.SETUP:
        return
    config = msgspec.msgpack.decode(message[1], type=ScanConfig)
    try:
        context = scan_context(config)
    except (MatcherError, EngineError) as error:
        writer.write(frame(Kind.FAULT, str(error).encode()))
        await writer.drain()
        return
    encode = msgspec.msgpack.Encoder().encode
    worker = Worker(
        config,
        context,
        lambda batch: writer.write(frame(Kind.BATCH, encode(batch))),
        lambda: writer.transport.get_write_buffer_size() > WRITE_BUFFER,
    )
    decode = msgspec.msgpack.Decoder(list[Target]).decode
    writer.write(frame(Kind.READY))
    while (message := await receive(reader)) is not None:
        kind, body = message
        if kind is Kind.TARGETS:
            worker.submit(decode(body))
        elif kind is Kind.CANCEL:
            worker.cancel()
        elif kind is Kind.DRAIN:
            await worker.idle()
            writer.write(frame(Kind.BYE))
            await writer.drain()
            break
    worker.close()
    writer.close()


def serve(descriptor: int) -> None:
    """The main function of a worker process, which inherits its link. Ctrl-C is the collector's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # nearly all garbage here dies by reference count
    uvloop.run(_serve(socket.socket(fileno=descriptor)))
