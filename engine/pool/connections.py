"""How a worker reaches its targets: from which local address, over TCP, UDP or TLS, with which settings.

Contract: one place for everything that connections of a worker share. What is opened here knows its receiver or its
deadline; who may connect, and when, was decided before.
"""

from collections.abc import Callable, Sequence
from functools import partial

from engine.model import ServiceResult, Target, Tunnel
from engine.transports.base import Receiver, Transport
from engine.transports.dial import Dialler
from engine.transports.local_addresses import Sources
from engine.transports.reactor import Reactor
from engine.transports.tcp import TcpTransport
from engine.transports.tls import Steps, TlsTransport, client_context
from engine.transports.udp import UdpHub

_BARE = Tunnel.NONE  # conversation/scan.py says why


class Connections:
    """sources: local addresses, used in turn; none: the system's choice. reset: end TCP with RST instead of FIN."""

    def __init__(self, reactor: Reactor, sources: Sequence[str] = (), *, reset: bool = False) -> None:
        self._reactor = reactor
        self._sources = Sources(sources)
        self._reset = reset
        self._udp = UdpHub(reactor)
        self._tls = client_context()
        self._steps = Steps()

    def open(self, receiver: Receiver, target: Target, tunnel: Tunnel) -> Transport:
        """A connection to the target, begun; what becomes of it is told to the receiver. Raises OSError."""
        if target.proto == "udp":
            return self._udp.open(receiver, target.host, target.port, self._sources.towards(target.host))
        if tunnel is _BARE:
            return self._tcp(receiver, target)
        return TlsTransport(self._tls, receiver, lambda tls: self._tcp(tls, target), self._steps, target.name)

    def dial(self, result: ServiceResult, deadline: float, *, wait_s: Callable[[str], float]) -> Dialler:
        """What holds further conversations with a service, until the deadline (of the loop's clock).

        wait_s: asked before each connection; how many seconds it has to wait for its turn, given the host.
        """
        return Dialler(
            result.ip,
            result.port,
            self._tls,
            deadline,
            name=result.host,
            source=self._sources.towards(result.ip),
            pace=partial(wait_s, result.ip),
        )

    def after_turn(self) -> None:
        """Of the reactor, before anything else: the handshakes' steps that wait for it."""
        self._steps.take()

    def close(self) -> None:
        self._udp.close()

    def _tcp(self, receiver: Receiver, target: Target) -> TcpTransport:
        return TcpTransport(
            self._reactor,
            receiver,
            target.host,
            target.port,
            source=self._sources.towards(target.host),
            reset=self._reset,
        )
