"""One process's share of a scan: thousands of drivers on one event loop, targets in, batches of encoded rows out.

`Worker` runs anywhere an asyncio loop runs: inside the caller (runners/inline.py), alone in a process (serve.py), as an
actor of a cluster (cluster/actor.py). It keeps as many conversations open as pay, at most `max_inflight`, and never
holds more targets than its caller gave it.

Here is the flow, from target to row, and what drivers ask for; what it takes stands in files of its own: who may start
(limits.py), how many at once (pace.py), until when (budgets.py), through what (connections.py), who shakes hands
(turns.py) and what that told (shaken.py), which hosts pretend (pseudo.py), what follows the scan (enrichment.py), how
rows leave (outbox.py).
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.conversation.driver import Driver
from engine.conversation.scan import UNLIMITED, ScanContext, ServiceScan
from engine.conversation.trace import Trace, TracedScan
from engine.model import BARE, Batch, Reason, ScanConfig, ServiceResult, Target, Tunnel
from engine.pool.alarm import Alarm
from engine.pool.budgets import Budgets
from engine.pool.connections import Connections
from engine.pool.descriptors import inflight_limit, raise_descriptor_limit
from engine.pool.enrichment import Enrichment
from engine.pool.limits import Gate, RateLimiter, is_fragile, share
from engine.pool.opinions import open_opinions
from engine.pool.outbox import Outbox, Rows
from engine.pool.pace import START, Pace
from engine.pool.patience import GIVEN_UP
from engine.pool.proxied import DOUBT_S, Proxied
from engine.pool.pseudo import PseudoServices
from engine.pool.shaken import Shaken
from engine.pool.tracing import TraceLines
from engine.pool.turns import Turns
from engine.post import PostProcessing, module_names
from engine.results.ending import CUT
from engine.transports.base import Load, Secured, Transport
from engine.transports.crashes import report
from engine.transports.local_addresses import Sources
from engine.transports.reactor import Reactor

if TYPE_CHECKING:  # loaded where there are proxies
    from engine.transports.proxy import Detour

TLS_HANDSHAKES = 200  # at once in one worker; a handshake costs ten times a plain connection
BEGINS_PER_TURN = 256  # then sockets are served, as many as were served before
SHORT_PROBES = 1  # sent at most to a port of a pseudo service
CONGESTION_S = 0.02  # how soon to look again whether results still pile up


def have_process() -> None:
    """For a process that does nothing but scan: every descriptor it can have, and a seldom look for garbage."""
    raise_descriptor_limit()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # nearly all garbage here dies by reference count


def in_batches(
    config: ScanConfig,
    context: ScanContext,
    deliver: Callable[[Batch], None],
    congested: Callable[[], bool] = lambda: False,
) -> Outbox:
    """Rows leave in batches of N rows or T seconds. deliver: takes a batch; called from the loop.

    congested: whether batches pile up behind deliver.
    """
    return Outbox(
        deliver,
        congested,
        asyncio.get_running_loop().call_later,
        batch_rows=config.batch_rows,
        batch_s=config.batch_s,
        failures=context.failures,
    )


class Worker:
    """outbox: where rows go; called from the loop. inflight: scans that are going on.

    conversations: these, and what services are asked beyond the match.
    """

    def __init__(self, config: ScanConfig, context: ScanContext, outbox: Rows) -> None:
        loop = asyncio.get_running_loop()
        self.reactor = Reactor(loop, self._pump)
        self._config = config
        self._context = context
        self._trace_lines = TraceLines()
        self._trace = Trace(self._trace_lines.emit, time.monotonic()) if config.trace else None
        most = inflight_limit(config)
        self._pace = Pace(most, time.monotonic(), start=most if config.max_inflight else START)
        self._gate = Gate(
            max_inflight=self._pace.limit,
            rate=RateLimiter(share(config.rate, config.workers)) if config.rate else None,
            per_host=config.per_host,
            per_prefix=config.per_prefix,
            host_delay_s=config.host_delay_s,
        )
        self._budgets = Budgets(config.service_timeout_s, config.host_timeout_s)
        detour = self._open_detour()
        self._connections = Connections(
            self.reactor,
            Sources(config.sources, config.source_port, config.interface),
            reset=config.reset,
            alpn=config.alpn,
            detour=detour,
        )
        self._detour_s = detour.seconds if detour is not None else 0.0
        self._proxied = Proxied()
        self._doubted = 0  # results whose proxy may have died
        self._handshakes: Turns[Driver] = Turns(TLS_HANDSHAKES)
        self._shaken = Shaken(ja4="ja4" in module_names(config.post))
        self._pseudo = PseudoServices(config.pseudo_ports)
        self._enrichment = Enrichment(
            PostProcessing(config.post, intensity=config.intensity, alpn=config.alpn),
            open_opinions(config, context),
            partial(self._connections.dial, wait_s=self._wait_s),
            self._gate.step_in,
            self._enriched,
        )
        self._outbox = outbox
        self._expired = False  # the deadline of the run has passed
        self._waiting: deque[Target] = deque()
        self._inflight: set[Driver] = set()
        self._alarm = Alarm(loop.call_later, self._pump)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    @property
    def conversations(self) -> int:
        return len(self._inflight) + self._enrichment.conversations

    def change(self, max_inflight: int, rate: float) -> None:
        """Other limits from now on: conversations at once, connections per second. Those that go on are finished."""
        self._pace.change(max_inflight)
        self._gate.change(self._pace.limit, rate, time.monotonic())
        self._pump()

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
        self._expired = reason is Reason.BUDGET
        now = time.monotonic()
        for driver in tuple(self._inflight):
            driver.abort(reason, now)
        self._enrichment.cancel()
        self._pump()

    def close(self) -> None:
        """Let go of everything. What is not done is dropped, and nobody is contacted or called any more."""
        self._outbox.close()
        self.cancel()
        self._connections.close()
        self.reactor.close()
        self._alarm.stop()
        self._trace_lines.close()

    def _open_detour(self) -> "Detour | None":
        if not self._config.proxy:
            return None
        from engine.transports.base_proxy import parse_proxies
        from engine.transports.proxy import Detour

        return Detour(self.reactor, parse_proxies(self._config.proxy), self._config.connect_timeout_s)

    # -- what drivers ask for

    def open(self, driver: Driver, tunnel: Tunnel) -> Transport | None:
        target = driver.scan.target
        if driver.connects and self._gate.paces and not driver.paid:
            now = time.monotonic()
            at = self._gate.reconnect_at(target.host, now)
            driver.paid = True
            if at > now:
                asyncio.get_running_loop().call_later(at - now, self._reopen, driver)
                return None
        if tunnel is not BARE and not self._handshakes.take(driver):
            return None
        return self._connections.open(driver, target, tunnel)

    def _reopen(self, driver: Driver) -> None:
        driver.reopen(time.monotonic())
        self._pump()  # it may have failed at once, and no turn of the reactor need follow

    def shaken(self, driver: Driver, transport: Transport | None) -> None:
        self._handshakes.leave(driver)
        if isinstance(transport, Secured):
            self._shaken.add(driver, transport.session, transport.first)

    def sent(self, probe: str) -> None:
        self._outbox.tally["sent:" + probe] += 1

    def waited(self, probe: str, seconds: float) -> None:
        tally = self._outbox.tally
        tally["windows:" + probe] += 1
        tally["probe_ms:" + probe] += round(seconds * 1000)

    def starved(self) -> None:
        self._gate.starved(len(self._inflight))
        self._outbox.tally["starved"] += 1

    def finished(self, driver: Driver, result: ServiceResult) -> None:
        target, response = driver.scan.target, driver.scan.response
        self._inflight.discard(driver)
        self._handshakes.leave(driver)
        if self._detour_s:
            now = time.monotonic()
            result = self._proxied.judged(result, driver.lost_at, now)
            if self._proxied.patience.given_up:
                self._outbox.tally[GIVEN_UP] = 1
            if self._proxied.doubts(result):
                self._doubted += 1
                self._gate.step_aside()  # others begin meanwhile: they are how the proxies are seen to get on
                asyncio.get_running_loop().call_later(DOUBT_S, self._settle, target, result, now)
                return
        try:
            result = self._enrichment.read(self._shaken.completed(driver, result), response)
            label = self._pseudo.label(result, response)
        except Exception as error:  # the scan is done: its row is not lost for what comes after
            report(f"{target.host} port {target.port}/{target.proto}", error, time.monotonic())
            label = None
        if label is not None:
            self._emit(target, replace(result, pseudo=label))
        elif self._enrichment.wants(result) and not self._is_spared(target):
            if not self._enrichment.begin(target, result, response, driver.budget_at):
                self._gate.step_aside()  # tarpits that wait to be asked further keep nobody else waiting
        else:
            self._emit(target, result)

    def _settle(self, target: Target, result: ServiceResult, ended_at: float) -> None:
        """A result that was in doubt, because of how proxies may fail."""
        self._doubted -= 1
        self._gate.step_in()
        self._emit(target, self._proxied.settled(target, result, ended_at))
        self._pump()

    # -- what the enrichment asks for

    def _wait_s(self, host: str) -> float:
        """Until the next connection to a host may be opened; it is charged to the limits."""
        now = time.monotonic()
        return self._gate.reconnect_at(host, now) - now

    def _enriched(self, target: Target, result: ServiceResult) -> None:
        """A target that stayed in flight for its further conversations."""
        self._emit(target, result)
        self._pump()

    # -- the flow

    def _pump(self) -> None:
        """After each turn: let the next targets and the queued TLS connections begin."""
        now = time.monotonic()
        self._connections.after_turn()
        self._shaken.read()
        while (driver := self._handshakes.call()) is not None:
            driver.reopen(now)
        gate, waiting, outbox = self._gate, self._waiting, self._outbox
        if outbox.congested():
            self._alarm.set(now + CONGESTION_S, now)
        else:
            while waiting and gate.offer(waiting[0]):
                waiting.popleft()
            begun = 0
            most = self._proxied.patience.room(now, BEGINS_PER_TURN)
            while begun < most and (target := gate.next_ready(now)) is not None:
                begun += 1
                self._proxied.patience.began(now)
                self._begin(target, now)
                while waiting and gate.offer(waiting[0]):
                    waiting.popleft()
            if (awake := now - self.reactor.paused_s) >= self._pace.look_at:
                self._look(awake)
            at = gate.wake_at() if gate.waiting else None
            if gate.waiting and self._proxied.patience.begins_at > now:
                at = self._proxied.patience.begins_at
            if at is not None:
                self._alarm.set(at, now)
        if not waiting and not gate.waiting and not (self._inflight or self._doubted or self._enrichment.busy):
            outbox.flush()
            self._idle.set()
        else:
            outbox.settle(now)

    def _look(self, awake: float) -> None:
        """Let the limit follow what the loop has seen. awake: the time without pauses."""
        gate, load = self._gate, self.reactor.load
        self.reactor.load = Load()
        full = gate.waiting > 0 and gate.inflight >= gate.max_inflight
        gate.allow(self._pace.look(load, gate.inflight, awake, full=full))

    def _begin(self, target: Target, now: float) -> None:
        max_probes = UNLIMITED
        if self._is_spared(target):
            max_probes = 0
        elif self._pseudo.is_caught(target.host):
            max_probes = SHORT_PROBES
        if self._trace is None:
            scan = ServiceScan(target, self._context, max_probes=max_probes)
        else:
            scan = TracedScan(target, self._context, self._trace, max_probes=max_probes)
        paused_s = self.reactor.paused_s  # which no host is charged for
        budget_at = self._budgets.enter(target.host, now - paused_s) + paused_s
        driver = Driver(scan, self, budget_at, self._detour_s)
        self._inflight.add(driver)
        if budget_at <= now:
            driver.abort(Reason.BUDGET, now)
        else:
            driver.begin(now)

    def _is_spared(self, target: Target) -> bool:
        """Whether nothing may be sent there."""
        return self._config.spare_fragile and is_fragile(target.port, target.proto)

    def _emit(self, target: Target, result: ServiceResult) -> None:
        """The target is done, this is its row."""
        self._gate.release(target)
        self._budgets.leave(target.host)
        if self._expired and result.reason is Reason.BUDGET:  # not that of the service or its host
            self._outbox.tally[CUT] += 1
        self._outbox.put(target.ordinal, result)
