"""Drive one ServiceScan over the network: its actions become transport calls, what happens becomes its events.

The only place that knows what an OSError means for a scan. What a driver needs from its surroundings it asks of its
`Host` (the worker): the reactor, a transport to talk through, and a place to hand the result to.

What goes wrong in here goes wrong for one target. An exception that comes out of a report is told back as `crashed`,
which ends with a row that says so; `begin`, `abort` and `reopen`, which the host calls, see to that themselves.
"""

from errno import (
    EADDRINUSE,
    EADDRNOTAVAIL,
    ECONNABORTED,
    ECONNREFUSED,
    ECONNRESET,
    EHOSTDOWN,
    EHOSTUNREACH,
    EMFILE,
    ENETDOWN,
    ENETUNREACH,
    ENFILE,
    ENOBUFS,
    ENODEV,
    ENOMEM,
    EPIPE,
    ETIMEDOUT,
)
from math import inf
from typing import Protocol

from engine.conversation.scan import Action, Connect, Listen, Send, ServiceScan, Stage
from engine.model import BARE, Reason, ServiceResult, Tunnel
from engine.transports.base import HopError, Transport
from engine.transports.crashes import report
from engine.transports.reactor import Reactor, Timed

RETRY_S = 0.1  # how long to wait before asking again for a socket that the machine could not give

_REASONS = {
    ECONNREFUSED: Reason.REFUSED,
    ECONNRESET: Reason.RESET,
    ECONNABORTED: Reason.RESET,
    EPIPE: Reason.RESET,
    ETIMEDOUT: Reason.TIMEOUT,
    EHOSTUNREACH: Reason.UNREACHABLE,
    ENETUNREACH: Reason.UNREACHABLE,
    EHOSTDOWN: Reason.UNREACHABLE,
    ENETDOWN: Reason.UNREACHABLE,
}
_OUT_OF_SOCKETS = frozenset((EADDRINUSE, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENODEV, ENOMEM))


def reason_of(error: OSError, tunnel: Tunnel = Tunnel.NONE) -> Reason:
    """What an error on a connection means. Errors that are not the network's count as unreachable; TLS's as tls."""
    if isinstance(error, HopError):
        return Reason.PROXY
    default = Reason.UNREACHABLE if tunnel is Tunnel.NONE else Reason.TLS
    return _REASONS.get(error.errno or 0, default)


class Host(Protocol):
    """Where drivers live."""

    reactor: Reactor

    def open(self, driver: "Driver", tunnel: Tunnel) -> Transport | None:
        """A transport to the driver's target, or None: the driver is queued and `reopen` will be called."""
        ...

    def shaken(self, driver: "Driver", transport: Transport | None) -> None:
        """A TLS handshake has succeeded."""
        ...

    def sent(self, probe: str) -> None:
        """A probe goes out."""
        ...

    def waited(self, probe: str, seconds: float) -> None:
        """The window of a probe is over, the NULL probe's too; it took so long."""
        ...

    def starved(self) -> None:
        """The machine had no socket to give; go slower."""
        ...

    def finished(self, driver: "Driver", result: ServiceResult) -> None:
        """The conversation is over, this is its row. Told once; what is made of the row must not raise."""
        ...


class Driver:
    """One conversation in progress. It is its transport's receiver and its own timer.

    budget_at: when the service's time is up, whatever it is doing (monotonic seconds). detour_s: what the way through
    proxies may take, before a target's own time to connect begins. lost_at: the proxy that the conversation failed at.
    """

    __slots__ = (
        "_asked",
        "_asked_at",
        "_connect_s",
        "_handed_over",
        "_host",
        "_retrying",
        "_transport",
        "_tunnel",
        "budget_at",
        "connects",
        "deadline",
        "detour_s",
        "lost_at",
        "paid",
        "scan",
        "slot",
    )

    def __init__(self, scan: ServiceScan, host: Host, budget_at: float = inf, detour_s: float = 0.0) -> None:
        self.scan = scan
        self.budget_at = budget_at
        self.detour_s = detour_s
        self.lost_at: HopError | None = None
        self.deadline = 0.0
        self.slot: set[Timed] | None = None
        self.connects = 0  # transports opened
        self.paid = False  # the coming connection has been charged to the limits
        self._host = host
        self._transport: Transport | None = None
        self._tunnel = BARE
        self._asked = ""  # the probe whose window is open
        self._asked_at = 0.0
        self._connect_s = 0.0
        self._retrying = False
        self._handed_over = False  # the row, to the host

    def begin(self, now: float) -> None:
        try:
            self._do(self.scan.start(now), now)
        except Exception as error:
            self.crashed(error, now)

    def abort(self, reason: Reason, now: float) -> None:
        """End now with what is known. Harmless once finished."""
        try:
            if self.scan.stage is not Stage.FINISHED:
                self._do(self.scan.abort(reason, now), now)
        except Exception as error:
            self.crashed(error, now)

    def reopen(self, now: float) -> None:
        """A connection that had to wait for its turn may be opened now; its time to connect begins here."""
        try:
            if self.scan.stage is Stage.CONNECTING:
                self._open(now)
        except Exception as error:
            self.crashed(error, now)

    # -- reports of the transport and the reactor, which tell us when one of them raises

    def opened(self) -> None:
        self.scan.opened()

    def dialled(self, now: float) -> None:
        self.scan.dialled(now)
        self._wait_until(now + self._connect_s)

    def connected(self, now: float) -> None:
        if self._tunnel is not BARE:
            self._host.shaken(self, self._transport)
        self._do(self.scan.connected(now), now)

    def received(self, data: bytes, now: float) -> None:
        self._do(self.scan.received(data, now), now)

    def ended(self, now: float) -> None:
        self._do(self.scan.closed(now), now)

    def broken(self, error: OSError, now: float) -> None:
        self._do(self.scan.failed(self._reason_of(error, self._tunnel), now), now)

    def expired(self, now: float) -> None:
        if now >= self.budget_at:
            self._do(self.scan.abort(Reason.BUDGET, now), now)
        elif self._retrying:
            self._retrying = False
            self._open(now)
        else:
            self._do(self.scan.timed_out(now), now)

    def put_off(self, pause_s: float) -> None:
        """Every moment that it waits for, its budget, too: that bounds what a service costs us, and a pause is free."""
        self.deadline += pause_s
        self.budget_at += pause_s
        self._asked_at += pause_s
        self.scan.put_off(pause_s)

    def crashed(self, error: Exception, now: float) -> None:
        """End with a row, whatever state this is in."""
        target = self.scan.target
        report(f"{target.host} port {target.port}/{target.proto}", error, now)
        if self._handed_over:
            return
        try:
            result = self.scan.abort(Reason.CRASHED, now).result
        except Exception:
            result = self.scan.crashed(now)
        try:
            self._drop()
        finally:
            self._hand_over(result)

    # -- actions

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, Listen):
            if not self._asked:
                self._ask(now)
            self._wait_until(action.deadline)
            return
        if self._asked:
            self._host.waited(self._asked, now - self._asked_at)
            self._asked = ""
        if isinstance(action, Send):
            self._send(action, now)
        elif isinstance(action, Connect):
            self._drop()
            self._tunnel = action.tunnel
            self._connect_s = action.deadline - now
            self._open(now)
        else:
            self._drop()
            self._hand_over(action.result)

    def _ask(self, now: float) -> None:
        """A window opens."""
        self._asked, self._asked_at = self.scan.probe, now

    def _hand_over(self, result: ServiceResult) -> None:
        self._handed_over = True
        self._host.reactor.disarm(self)
        self._host.finished(self, result)

    def _wait_until(self, deadline: float) -> None:
        deadline = min(deadline, self.budget_at)
        earlier = self.slot is None or deadline < self.deadline
        self.deadline = deadline
        if earlier:
            self._host.reactor.arm(self)

    def _send(self, action: Send, now: float) -> None:
        assert self._transport is not None
        self._ask(now)
        self._host.sent(self._asked)
        try:
            self._transport.send(action.payload)
        except OSError as error:
            self._do(self.scan.write_failed(reason_of(error, self._tunnel), now), now)
            return
        self._wait_until(action.deadline)

    def _open(self, now: float) -> None:
        try:
            transport = self._host.open(self, self._tunnel)
        except OSError as error:
            if error.errno in _OUT_OF_SOCKETS:
                self._host.starved()
                self._retrying = True
                self._wait_until(now + RETRY_S)
            else:
                self._do(self.scan.failed(self._reason_of(error), now), now)
            return
        if transport is None:
            self._wait_until(self.budget_at)
            return
        self._transport = transport
        self.connects += 1
        self.paid = False
        self.scan.dialled(now)
        if self.scan.target.proto == "udp" and self._tunnel is BARE:
            self.connected(now)
        else:
            self._wait_until(now + self._connect_s + self.detour_s)

    def _reason_of(self, error: OSError, tunnel: Tunnel = Tunnel.NONE) -> Reason:
        self.lost_at = error if isinstance(error, HopError) else None
        return reason_of(error, tunnel)

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
