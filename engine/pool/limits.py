"""What keeps a scan polite: how fast, how many at once, to whom in which order. Pure: time is an argument.

One worker has one `Gate`. Targets go in with `offer` until it is full, come out with `next_ready` when they may start,
and are given back with `release`. All targets that a cap counts together pass through the same gate (`kin`), so that a
cap is a number in one process; a rate for the whole scan is divided among the workers, and may be divided anew.

Order: prefixes (/24 of IPv4, /64 of IPv6) take turns, so two targets of one prefix follow each other only when no
other prefix has a target that may start. Within a prefix the first to come is the first to go, unless its host is at
its cap or resting: then it is parked, and the others go on. Whatever is parked is woken, the oldest first, by the
release or the time that it waits for, so nothing starves. Every step is O(1) amortised, O(log n) with a host delay.
"""

from collections import deque
from heapq import heappop, heappush
from socket import AF_INET6, inet_pton
from typing import TypeVar

from engine.errors import ConfigError
from engine.model import Target

_Key = TypeVar("_Key")

CAPACITY = 4096  # waiting targets; enough to find one of another prefix, little enough to hold back a reader at once
RECOVERY = 64  # releases, at most, after which a limit lowered for want of sockets is raised by one again
BURST_S = 0.05  # seconds of the rate that may go out at once: a worker wakes less often, a link does not notice

# Ports whose devices act on whatever bytes arrive, or fall over: only the NULL probe, which sends nothing, may be used.
# Left out, because something harmless usually listens there or junk is simply refused: 515 (LPD wants a command first),
# 2222/tcp (mostly SSH), 4840 (OPC UA closes on a bad header), 10001 (tank gauges, but far more often other things).
FRAGILE_TCP = frozenset(
    {
        102,  # ISO-TSAP: Siemens S7 controllers
        502,  # Modbus; a function code may be a write
        789,  # Red Lion Crimson
        *range(1089, 1092),  # Foundation Fieldbus HSE
        1911,  # Niagara Fox: building control
        1962,  # PCWorx: Phoenix Contact controllers
        2404,  # IEC 60870-5-104: power grid telecontrol
        *range(5006, 5008),  # MELSEC-Q: Mitsubishi controllers
        5094,  # HART-IP: process instruments
        *range(9100, 9108),  # JetDirect and its like: prints every byte on paper
        9600,  # FINS: Omron controllers
        *range(18245, 18247),  # SRTP: GE controllers
        20000,  # DNP3: power and water telecontrol
        20547,  # ProConOS controllers
        *range(34962, 34965),  # PROFINET
        34980,  # EtherCAT
        44818,  # EtherNet/IP: Rockwell and others
        47808,  # BACnet: building control
        *range(55000, 55004),  # FL-net
    }
)
FRAGILE_UDP = FRAGILE_TCP | {2222}  # EtherNet/IP's implicit messages: live inputs and outputs


def share(total: float, workers: int) -> float:
    """One worker's part of a limit that is meant for all."""
    return total / max(1, workers)


def is_fragile(port: int, proto: str) -> bool:
    """Whether to send nothing here. UDP has no NULL probe: such a UDP port is left alone altogether."""
    return port in (FRAGILE_TCP if proto == "tcp" else FRAGILE_UDP)


class RateLimiter:
    """At most `rate` in a second over any long time, at most `burst` at once (a token bucket).

    It keeps one number, the time at which a bucket in constant use would be full again, so that tokens may also be
    taken in advance. Raises ConfigError for a rate that is not above zero.
    """

    __slots__ = ("_full_at", "_interval", "_slack")

    def __init__(self, rate: float, burst: int = 0) -> None:
        if not rate > 0:
            raise ConfigError(f"a rate is above 0 per second, not {rate}")
        self._interval = 1 / rate
        self._slack = ((burst or max(1, int(rate * BURST_S))) - 1) * self._interval
        self._full_at = float("-inf")

    @property
    def ready_at(self) -> float:
        """When the next token is there; in the past if it is there now."""
        return self._full_at - self._slack

    def change(self, rate: float, now: float) -> None:
        """Another rate from now on, with an empty bucket: nobody has saved up what was somebody else's before.

        Tokens that were taken in advance are paid for at the new rate.
        """
        advance = max(0.0, (self.ready_at - now) / self._interval)
        fresh = RateLimiter(rate)
        self._interval, self._slack = fresh._interval, fresh._slack
        self._full_at = now + self._slack + (1 + advance) * self._interval

    def reserve(self, now: float) -> float:
        """Take the next token in any case; when it may be used, at or after `now`."""
        at = max(now, self.ready_at)
        self._full_at = max(self._full_at, now) + self._interval
        return at


class Gate:
    """Lets targets start as the limits allow. A limit of 0 is none.

    max_inflight: targets started and not released; less for a while after `starved`. rate: of connections. per_host,
    per_prefix: targets in flight at once. host_delay_s: from one connection to a host to the next. capacity: targets
    that may wait inside. paces: whether a connection may have to wait for its time.
    """

    def __init__(
        self,
        *,
        max_inflight: int,
        rate: RateLimiter | None = None,
        per_host: int = 0,
        per_prefix: int = 0,
        host_delay_s: float = 0.0,
        capacity: int = CAPACITY,
    ) -> None:
        self.max_inflight = max_inflight
        self.inflight = 0
        self.waiting = 0
        self.paces = rate is not None or host_delay_s > 0
        self._most_inflight = max_inflight  # what a lowered limit recovers to
        self._recovery = RECOVERY  # releases until it is raised by one
        self._rate = rate
        self._per_host = per_host
        self._per_prefix = per_prefix
        self._host_delay_s = host_delay_s
        self._capacity = capacity
        self._holds = per_host > 0 or host_delay_s > 0
        self._lanes: dict[str | bytes, deque[Target]] = {}  # by prefix; none is empty
        self._turns: deque[str | bytes] = deque()  # the lanes that take turns: all but the stalled ones
        self._stalled: set[str | bytes] = set()  # lanes of prefixes at their cap
        self._parked: dict[str, deque[Target]] = {}  # by host; none is empty
        self._host_load: dict[str, int] = {}  # in flight, where that is limited
        self._prefix_load: dict[str | bytes, int] = {}
        self._rested_at: dict[str, float] = {}  # hosts to be left alone until then
        self._timers: list[tuple[float, str]] = []  # a heap over _rested_at; entries of extended rests are stale

    def offer(self, target: Target) -> bool:
        """Let a target wait here. False when the gate is full: offer it again after some have started."""
        if self.waiting >= self._capacity:
            return False
        self.waiting += 1
        self._line_up(target)
        return True

    def next_ready(self, now: float) -> Target | None:
        """A target that may start now, counted as in flight; None when there is none."""
        if self._timers:
            self._end_rests(now)
        if self.inflight >= self.max_inflight or not self._turns:
            return None
        if self._rate is not None and now < self._rate.ready_at:
            return None
        turns, lanes = self._turns, self._lanes
        while turns:
            prefix = turns.popleft()
            if self._per_prefix and self._prefix_load.get(prefix, 0) >= self._per_prefix:
                self._stalled.add(prefix)
                continue
            lane = lanes[prefix]
            target = lane.popleft()
            if lane:
                turns.append(prefix)
            else:
                del lanes[prefix]
            if self._holds and self._is_held(target.host):
                self._park(target)
                continue
            self._start(target, prefix, now)
            return target
        return None

    def clear(self) -> None:
        """Forget every target that waits; those in flight stay counted."""
        self.waiting = 0
        self._lanes.clear()
        self._turns.clear()
        self._stalled.clear()
        self._parked.clear()

    def step_aside(self) -> None:
        """A target in flight waits for something else than its peer: another may start in its place.

        It still counts for its host and prefix, until it is given back.
        """
        self.inflight -= 1

    def step_in(self) -> None:
        """A target that stepped aside goes on, even where there is no place left."""
        self.inflight += 1

    def release(self, target: Target) -> None:
        """Give back a target that `next_ready` handed out and that has not stepped aside, whatever became of it."""
        self.inflight -= 1
        if self.max_inflight < self._most_inflight:
            self._recover()
        if self._per_host:
            host = target.host
            _decrement(self._host_load, host)
            self._unpark(host)
        if self._per_prefix:
            prefix = prefix_of(target.host)
            _decrement(self._prefix_load, prefix)
            if prefix in self._stalled:
                self._stalled.remove(prefix)
                self._turns.append(prefix)

    def starved(self, conversations: int) -> None:
        """The machine had no socket for one of so many conversations: fewer for a while, and slowly more again."""
        self.max_inflight = max(1, conversations * 9 // 10)
        self._recovery = min(RECOVERY, self.max_inflight)

    def allow(self, max_inflight: int) -> None:
        """So many at once from now on, or what the machine's sockets allow where these are fewer."""
        if self.max_inflight == self._most_inflight or max_inflight < self.max_inflight:
            self.max_inflight = max_inflight
        self._most_inflight = max_inflight

    def change(self, max_inflight: int, rate: float, now: float) -> None:
        """Other limits from now on. rate: 0 where the gate was made without one."""
        self.max_inflight = self._most_inflight = max_inflight
        if self._rate is not None:
            self._rate.change(rate, now)

    def reconnect_at(self, host: str, now: float) -> float:
        """When a conversation in flight may open its next connection; rate and host delay are charged for it."""
        at = now if self._rate is None else self._rate.reserve(now)
        if self._host_delay_s:
            at = max(at, self._rested_at.get(host, at))
            self._rest(host, at)
        return at

    def wake_at(self) -> float | None:
        """After `next_ready` gave None: when to ask again, if neither an offer nor a release comes before."""
        if self.inflight >= self.max_inflight:
            return None
        token = self._rate.ready_at if self._rate is not None else float("-inf")
        if self._turns:
            return token
        return max(token, self._timers[0][0]) if self._parked and self._timers else None

    def _start(self, target: Target, prefix: str | bytes, now: float) -> None:
        self.waiting -= 1
        self.inflight += 1
        if self._rate is not None:
            self._rate.reserve(now)
        if self._per_host:
            self._host_load[target.host] = self._host_load.get(target.host, 0) + 1
        if self._per_prefix:
            self._prefix_load[prefix] = self._prefix_load.get(prefix, 0) + 1
        if self._host_delay_s:
            self._rest(target.host, now)

    def _recover(self) -> None:
        self._recovery -= 1
        if not self._recovery:
            self.max_inflight += 1
            self._recovery = min(RECOVERY, self.max_inflight)

    def _line_up(self, target: Target, *, first: bool = False) -> None:
        prefix = prefix_of(target.host)
        lane = self._lanes.get(prefix)
        if lane is None:
            self._lanes[prefix] = deque((target,))
            self._turns.append(prefix)
        elif first:
            lane.appendleft(target)
        else:
            lane.append(target)

    def _is_held(self, host: str) -> bool:
        if host in self._rested_at:
            return True
        return self._per_host > 0 and self._host_load.get(host, 0) >= self._per_host

    def _park(self, target: Target) -> None:
        parked = self._parked.get(target.host)
        if parked is None:
            self._parked[target.host] = deque((target,))
        elif target.ordinal < parked[0].ordinal:  # it was the next already, and another start came in between
            parked.appendleft(target)
        else:
            parked.append(target)

    def _unpark(self, host: str) -> None:
        """One target of a host lines up again, before those of its prefix that came later."""
        parked = self._parked.get(host)
        if parked is None or self._is_held(host):
            return
        self._line_up(parked.popleft(), first=True)
        if not parked:
            del self._parked[host]

    def _rest(self, host: str, since: float) -> None:
        until = since + self._host_delay_s
        self._rested_at[host] = until
        heappush(self._timers, (until, host))

    def _end_rests(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            until, host = heappop(timers)
            if self._rested_at.get(host) == until:
                del self._rested_at[host]
                self._unpark(host)


def prefix_of(host: str) -> str | bytes:
    """The neighbourhood of a literal address: its /24, or /64 of IPv6. An opaque key."""
    if ":" not in host:
        return host.rpartition(".")[0]
    return inet_pton(AF_INET6, host.partition("%")[0])[:8]


def kin(host: str, *, by_prefix: bool) -> str:
    """What the targets have in common that one worker must have: their address, or its neighbourhood where that has a
    cap of its own.
    """
    if not by_prefix:
        return host
    prefix = prefix_of(host)
    return prefix if isinstance(prefix, str) else prefix.hex()


def _decrement(counts: dict[_Key, int], key: _Key) -> None:
    """One less; nothing is kept at zero, so that a scan of any length remembers only what is in flight."""
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1
