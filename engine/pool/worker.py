"""One process's share of a scan: thousands of drivers on one event loop, targets in, batches of encoded rows out.

`Worker` runs anywhere an asyncio loop runs: inside the caller (runners/inline.py), or alone in a process (serve.py). It
keeps at most `max_inflight` conversations open and never holds more targets than its caller gave it; rows leave in
batches of N rows or T seconds.
"""

import asyncio
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import msgspec
from msgspec.structs import replace

from engine.conversation.driver import Driver
from engine.conversation.scan import UNLIMITED, ScanContext, ServiceScan
from engine.conversation.trace import Trace, TracedScan
from engine.errors import ConfigError
from engine.model import Batch, Reason, ScanConfig, ServiceResult, Target, Tunnel
from engine.pool.limits import Gate, RateLimiter, is_fragile
from engine.pool.pseudo import PseudoServices
from engine.post import LIMIT_S, PostProcessing
from engine.post.second_opinion import open_opinion
from engine.transports.base import Receiver, Transport
from engine.transports.certificates import tls_facts
from engine.transports.dial import Dialler
from engine.transports.local_addresses import Sources
from engine.transports.reactor import Reactor
from engine.transports.tcp import TcpTransport
from engine.transports.tls import TlsTransport, client_context
from engine.transports.udp import UdpHub

TLS_HANDSHAKES = 200  # at once in one worker; a handshake costs ten times a plain connection
LEAST_DESCRIPTORS = 32  # for one conversation and everything around it
SPARE_DESCRIPTORS = 64  # for the loop, logs, libraries
MAX_INFLIGHT = 20_000  # over all workers, where the user did not say
POST_CONVERSATIONS = 100  # of post-processing, at once in one worker
BEGINS_PER_TURN = 64  # then sockets are served: fast services never pile up, silent ones still fill every slot
SHORT_PROBES = 1  # sent at most to a port of a pseudo service
HOST_CLOCKS = 65_536  # hosts whose time is remembered by one worker after their services are done
RECOVERY = 64  # finished targets, at most, after which a limit lowered for want of sockets is raised by one again
CONGESTION_S = 0.02  # how soon to look again whether results still pile up


def share(total: float, workers: int) -> float:
    """One worker's part of a limit that is meant for all."""
    return total / max(1, workers)


def inflight_limit(config: ScanConfig) -> int:
    """Conversations at once in one worker: what was asked for, within what its descriptors allow.

    Raises ConfigError where they do not allow a single one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_DESCRIPTORS:
        raise ConfigError(f"{hard} file descriptors are too few; let ulimit -n allow at least {LEAST_DESCRIPTORS}")
    wanted = int(share(config.max_inflight or MAX_INFLIGHT, config.workers))
    return max(1, min(wanted, soft - SPARE_DESCRIPTORS))


def raise_descriptor_limit() -> None:
    """Every conversation needs a descriptor: take as many as the hard limit gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


class _HostClock(msgspec.Struct):
    """When the first service of a host was begun, and how many of its services are in progress or waiting for it."""

    started: float
    active: int = 0


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
        self._gate = Gate(
            max_inflight=self._limit,
            rate=RateLimiter(share(config.rate, config.workers)) if config.rate else None,
            per_host=config.per_host,
            per_prefix=config.per_prefix,
            host_delay_s=config.host_delay_s,
        )
        self._paced = bool(config.rate or config.host_delay_s)
        self._waiting: deque[Target] = deque()
        self._inflight: set[Driver] = set()
        self._rows: list[ServiceResult] = []
        self._done: list[int] = []
        self._tally: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()  # of compiled sets, as far as they are in a tally
        self._encoder = msgspec.json.Encoder()
        self._sources = Sources(config.sources)
        self._udp = UdpHub(self.reactor)
        self._tls = client_context()
        self._tls_open: set[Driver] = set()
        self._tls_queue: deque[Driver] = deque()
        self._trace = Trace(_to_stderr, time.monotonic()) if config.trace else None
        self._pseudo = PseudoServices(config.pseudo_ports)
        self._opinion = open_opinion(config.recog) if config.recog else None
        self._post = PostProcessing(config.post, intensity=config.intensity)
        self._asking: set[asyncio.Task[ServiceResult]] = set()
        self._post_turns = asyncio.Semaphore(POST_CONVERSATIONS)
        self._hosts: dict[str, _HostClock] = {}
        self._recovery = RECOVERY  # targets to be finished before a lowered limit is raised by one
        self._idle = asyncio.Event()
        self._idle.set()
        self._flush_handle: asyncio.TimerHandle | None = None
        self._wake_handle: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0

    def submit(self, targets: Sequence[Target]) -> None:
        """Scan these too. The caller keeps the number of targets given and not yet done within its bounds."""
        self._idle.clear()
        self._waiting.extend(targets)
        self._pump()

    async def idle(self) -> None:
        """Wait until everything submitted has been delivered."""
        await self._idle.wait()

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        """Finish what is in flight with `reason`, forget what has not begun."""
        self._waiting.clear()
        self._gate.clear()
        now = time.monotonic()
        for driver in tuple(self._inflight):
            driver.abort(reason, now)
        for task in self._asking:
            task.cancel()
        self._pump()

    def close(self) -> None:
        self._udp.close()
        self.reactor.close()
        for handle in (self._flush_handle, self._wake_handle):
            if handle is not None:
                handle.cancel()

    # -- what drivers ask for

    def open(self, driver: Driver, tunnel: Tunnel) -> Transport | None:
        target = driver.scan.target
        if self._paced and driver.connects and not driver.paid:
            now = time.monotonic()
            at = self._gate.reconnect_at(target.host, now)
            driver.paid = True
            if at > now:
                asyncio.get_running_loop().call_later(at - now, self._reopen, driver)
                return None
        if target.proto == "udp":
            return self._udp.open(driver, target.host, target.port, self._sources.towards(target.host))
        if tunnel is Tunnel.NONE:
            return self._tcp(driver, target)
        if driver not in self._tls_open:
            if len(self._tls_open) >= TLS_HANDSHAKES:
                self._tls_queue.append(driver)
                return None
            self._tls_open.add(driver)
        return TlsTransport(self._tls, driver, lambda receiver: self._tcp(receiver, target), target.name)

    def _tcp(self, receiver: Receiver, target: Target) -> TcpTransport:
        return TcpTransport(
            self.reactor,
            receiver,
            target.host,
            target.port,
            source=self._sources.towards(target.host),
            reset=self._config.reset,
        )

    @staticmethod
    def _reopen(driver: Driver) -> None:
        driver.reopen(time.monotonic())

    def shaken(self, driver: Driver, transport: Transport | None) -> None:
        self._tls_open.discard(driver)
        if isinstance(transport, TlsTransport) and driver.scan.tls is None:
            driver.scan.tls = tls_facts(transport.session)

    def sent(self, probe: str) -> None:
        self._tally["sent:" + probe] += 1

    def starved(self) -> None:
        self._gate.max_inflight = max(1, len(self._inflight) * 9 // 10)
        self._recovery = min(RECOVERY, self._gate.max_inflight)
        self._tally["starved"] += 1

    def finished(self, driver: Driver, result: ServiceResult) -> None:
        target, response = driver.scan.target, driver.scan.response
        self._inflight.discard(driver)
        if self._tls_open:
            self._tls_open.discard(driver)
        if self._opinion is not None:
            result = self._opinion.on(result, response)
        result = self._post.read(result, response)
        if self._config.pseudo_ports and (label := self._pseudo.label(result, response)):
            self._emit(target, replace(result, pseudo=label))
        elif self._post.wants(result) and not (self._config.spare_fragile and is_fragile(target.port, target.proto)):
            task = asyncio.get_running_loop().create_task(self._enrich(result, response, driver.budget_at))
            self._asking.add(task)
            task.add_done_callback(partial(self._asked, target, result))
        else:
            self._emit(target, result)

    async def _enrich(self, result: ServiceResult, response: bytes, budget_at: float) -> ServiceResult:
        """The result after post-processing has held its conversations, for which the target stays in flight."""
        async with self._post_turns:
            dial = Dialler(
                result.ip,
                result.port,
                self._tls,
                asyncio.get_running_loop().time() + min(LIMIT_S, budget_at - time.monotonic()),
                name=result.host,
                source=self._sources.towards(result.ip),
                pace=partial(self._wait_s, result.ip) if self._paced else lambda: 0.0,
            )
            return await self._post.enrich(result, response, dial)

    def _wait_s(self, host: str) -> float:
        """Until the next connection to a host may be opened; it is charged to the limits."""
        now = time.monotonic()
        return self._gate.reconnect_at(host, now) - now

    def _asked(self, target: Target, result: ServiceResult, task: asyncio.Task[ServiceResult]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            result = task.result()
            if self._opinion is not None:  # there may be a certificate or an icon now
                result = self._opinion.on(result)
        self._emit(target, result)
        self._pump()

    def _emit(self, target: Target, result: ServiceResult) -> None:
        """The target is done, this is its row."""
        gate = self._gate
        gate.release(target, time.monotonic())
        if gate.max_inflight < self._limit:
            self._recovery -= 1
            if not self._recovery:
                gate.max_inflight += 1
                self._recovery = min(RECOVERY, gate.max_inflight)
        if self._hosts:
            self._leave_host(target.host)
        tally = self._tally
        tally["bytes"] += result.bytes
        tally["connections"] += result.connections
        tally["waited_ms"] += result.elapsed_ms
        tally["verdict:" + result.verdict.value] += 1
        if result.reason is not None:
            tally["reason:" + result.reason.value] += 1
        if result.evidence is not None and result.evidence.line:
            tally["service:" + result.name] += 1
            tally["hit:" + (result.evidence.sent or result.evidence.probe)] += 1
        self._rows.append(result)
        self._done.append(target.ordinal)
        if len(self._rows) >= self._config.batch_rows:
            self._flush()

    # -- the flow

    def _pump(self) -> None:
        """After each turn: let the next targets and the queued TLS connections begin."""
        now = time.monotonic()
        while self._tls_queue and len(self._tls_open) < TLS_HANDSHAKES:
            driver = self._tls_queue.popleft()
            if driver in self._inflight:  # it may have run out of its budget while it waited
                self._tls_open.add(driver)
                driver.reopen(now)
        gate, waiting = self._gate, self._waiting
        if self._congested():
            self._wake_at(now + CONGESTION_S, now)
        else:
            while waiting and gate.offer(waiting[0]):
                waiting.popleft()
            begun = 0
            while begun < BEGINS_PER_TURN and (target := gate.next_ready(now)) is not None:
                begun += 1
                self._begin(target, now)
                while waiting and gate.offer(waiting[0]):
                    waiting.popleft()
            if gate.waiting and (at := gate.wake_at()) is not None:
                self._wake_at(at, now)
        if not waiting and not gate.waiting and not self._inflight and not self._asking:
            self._flush()
            self._idle.set()
        elif self._rows and self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(self._config.batch_s, self._flush)

    def _wake_at(self, at: float, now: float) -> None:
        if self._wake_handle is not None:
            if self._wakes_at <= at:
                return
            self._wake_handle.cancel()
        self._wakes_at = at
        self._wake_handle = asyncio.get_running_loop().call_later(max(0.0, at - now), self._woken)

    def _woken(self) -> None:
        self._wake_handle = None
        self._pump()

    def _begin(self, target: Target, now: float) -> None:
        config = self._config
        max_probes = UNLIMITED
        if config.spare_fragile and is_fragile(target.port, target.proto):
            max_probes = 0
        elif self._pseudo.is_caught(target.host):
            max_probes = SHORT_PROBES
        budget_at = now + config.service_timeout_s if config.service_timeout_s else inf
        if config.host_timeout_s:
            budget_at = min(budget_at, self._enter_host(target.host, now) + config.host_timeout_s)
        if self._trace is None:
            scan = ServiceScan(target, self._context, max_probes=max_probes)
        else:
            scan = TracedScan(target, self._context, self._trace, max_probes=max_probes)
        driver = Driver(scan, self, budget_at)
        self._inflight.add(driver)
        if budget_at <= now:
            driver.abort(Reason.BUDGET, now)
        else:
            driver.begin(now)

    def _enter_host(self, host: str, now: float) -> float:
        clock = self._hosts.get(host)
        if clock is None:
            clock = self._hosts[host] = _HostClock(now)
        clock.active += 1
        return clock.started

    def _leave_host(self, host: str) -> None:
        clock = self._hosts[host]
        clock.active -= 1
        if not clock.active and len(self._hosts) > HOST_CLOCKS:
            del self._hosts[host]

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        done, self._done = self._done, []
        failures = Counter(self._context.failures)
        for cause, count in (failures - self._failures).items():
            self._tally["engine:" + cause] += count
        self._failures = failures
        tally, self._tally = self._tally, Counter()
        self._deliver(Batch(self._encoder.encode_lines(rows), len(rows), done, dict(tally)))
