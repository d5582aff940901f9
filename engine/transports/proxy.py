"""A connection through a proxy, over any stream transport: a chain of proxies is a stack of these.

The receiver is told `dialled` when the last proxy has been told where to connect to: from then on it is the target that
is waited for, and the time until `connected` is a round trip all the way to the target and back. Until then each proxy
has `hop_s` for its part, and what fails is a HopError.
"""

import time
from collections.abc import Callable, Sequence
from errno import ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, EPERM
from functools import partial

from engine.transports.base import Receiver, Transport
from engine.transports.base_proxy import Handshake, Proxy, route
from engine.transports.reactor import Reactor, Timed

_NO_WAY = {ENETUNREACH, EHOSTUNREACH, ENETDOWN, EPERM}  # of connect() at once; other errors are this machine's


class ProxyTransport:
    """open_below: makes the transport to the proxy, with this object as its receiver."""

    __slots__ = ("_below", "_handshake", "_hop_s", "_reactor", "_receiver", "deadline", "slot")

    def __init__(
        self,
        reactor: Reactor,
        receiver: Receiver,
        handshake: Handshake,
        open_below: Callable[[Receiver], Transport],
        hop_s: float,
    ) -> None:
        """Raises OSError, HopError."""
        self._reactor = reactor
        self._receiver = receiver
        self._handshake = handshake
        self._hop_s = hop_s
        self.deadline = time.monotonic() + hop_s
        self.slot: set[Timed] | None = None
        try:
            self._below: Transport | None = open_below(self)
        except OSError as error:
            if error.errno in _NO_WAY:
                raise handshake.broken(error) from error
            raise
        if handshake.hop == 1:  # a further one begins when the one before it has been asked for it
            reactor.arm(self)

    def send(self, data: bytes) -> None:
        if self._below is None:
            raise OSError(ECONNRESET, "send")
        self._below.send(data)

    def close(self) -> None:
        self._reactor.disarm(self)
        if self._below is not None:
            self._below.close()
            self._below = None

    # -- reports from below

    def opened(self) -> None:
        """Never told: what is below is not TLS."""

    def dialled(self, now: float) -> None:
        """The proxy before has been told to connect to this one."""
        self.deadline = now + self._hop_s
        self._reactor.arm(self)

    def connected(self, now: float) -> None:
        self._go_on(b"", now)

    def received(self, data: bytes, now: float) -> None:
        if self._handshake.done:
            self._receiver.received(data, now)
        else:
            self._go_on(data, now)

    def ended(self, now: float) -> None:
        if self._handshake.done:
            self._receiver.ended(now)
        else:
            self._break(self._handshake.hung_up(), now)

    def broken(self, error: OSError, now: float) -> None:
        self._break(error if self._handshake.done else self._handshake.broken(error), now)

    def crashed(self, error: Exception, now: float) -> None:
        self.close()
        self._receiver.crashed(error, now)

    # -- its own clock, until the proxy has been told where to connect to

    def expired(self, now: float) -> None:
        self._break(self._handshake.fault("it does not answer"), now)

    def put_off(self, pause_s: float) -> None:
        self.deadline += pause_s

    # -- the handshake

    def _go_on(self, data: bytes, now: float) -> None:
        handshake, asked = self._handshake, self._handshake.asked
        try:
            said = handshake.feed(data)
        except OSError as error:
            self._break(error, now)
            return
        try:
            if said:
                self.send(said)
        except OSError as error:
            self._break(handshake.broken(error), now)
            return
        if handshake.asked and not asked:
            self._reactor.disarm(self)
            self._receiver.dialled(now)
        if handshake.done:
            self._receiver.connected(now)
            if handshake.rest and self._below is not None:
                self._receiver.received(handshake.rest, now)

    def _break(self, error: OSError, now: float) -> None:
        self.close()
        self._receiver.broken(error, now)


class Detour:
    """The way through a chain of proxies, at least one, the nearest first."""

    def __init__(self, reactor: Reactor, proxies: Sequence[Proxy], hop_s: float) -> None:
        self.proxies = proxies
        self.seconds = len(proxies) * hop_s  # that it may take altogether
        self._reactor = reactor
        self._hop_s = hop_s

    @property
    def first(self) -> Proxy:
        return self.proxies[0]

    def open(self, receiver: Receiver, host: str, port: int, open_first: Callable[[Receiver], Transport]) -> Transport:
        """A connection to the destination. open_first: makes the transport to the first proxy. Raises OSError."""
        way = open_first
        for handshake in route(self.proxies, host, port):
            way = partial(self._through, handshake, way)
        return way(receiver)

    def _through(self, hop: Handshake, below: Callable[[Receiver], Transport], receiver: Receiver) -> Transport:
        return ProxyTransport(self._reactor, receiver, hop, below, self._hop_s)
