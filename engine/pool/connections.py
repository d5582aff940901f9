"""How a worker reaches its targets: from which local address, over TCP, UDP, TLS or DTLS, with which settings.

Contract: one place for everything that connections of a worker share. What is opened here knows its receiver or its
deadline; who may connect, and when, was decided before.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from engine.model import BARE, ServiceResult, Target, Tunnel
from engine.transports.base import HopError, Receiver, Transport
from engine.transports.dial import Dialler
from engine.transports.local_addresses import Sources
from engine.transports.reactor import Reactor
from engine.transports.tcp import TcpTransport
from engine.transports.tls import Steps, TlsTransport, client_context
from engine.transports.udp import UdpHub

if TYPE_CHECKING:  # loaded where there are proxies
    from engine.transports.proxy import Detour


class Connections:
    """sources: where connections begin. reset: end TCP with RST instead of FIN.

    alpn: application protocols that are offered in a scan's tunnels; further conversations offer what they speak.
    detour: through the proxies that lead to every target, or None.
    """

    def __init__(
        self,
        reactor: Reactor,
        sources: Sources | None = None,
        *,
        reset: bool = False,
        alpn: Sequence[str] = (),
        detour: "Detour | None" = None,
    ) -> None:
        self._reactor = reactor
        self._sources = sources or Sources()
        self._reset = reset
        self._detour = detour
        self._udp = UdpHub(reactor)
        self._tls = client_context()
        self._tunnel_tls = client_context(alpn) if alpn else self._tls
        self._steps = Steps()

    def open(self, receiver: Receiver, target: Target, tunnel: Tunnel) -> Transport:
        """A connection to the target, begun; what becomes of it is told to the receiver. Raises OSError."""
        if target.proto == "udp":
            return self._datagrams(receiver, target, tunnel)
        if tunnel is BARE:
            return self._tcp(receiver, target)
        return TlsTransport(self._tunnel_tls, receiver, lambda tls: self._tcp(tls, target), self._steps, target.name)

    def dial(self, result: ServiceResult, deadline: float, *, wait_s: Callable[[str], float]) -> Dialler:
        """What holds further conversations with a service, until the deadline (of the loop's clock).

        wait_s: asked before each connection; how many seconds it has to wait for its turn, given the host.
        """
        host = result.ip or result.host  # a name that the proxy looks up
        return Dialler(
            host,
            result.port,
            self._tls,
            deadline,
            name=result.host,
            local=self._sources.towards(self._detour.first.host if self._detour is not None else host),
            proxies=self._detour.proxies if self._detour is not None else (),
            pace=partial(wait_s, host),
        )

    def after_turn(self) -> None:
        """Of the reactor, before anything else: the handshakes' steps that wait for it."""
        self._steps.take()

    def close(self) -> None:
        self._udp.close()

    def _datagrams(self, receiver: Receiver, target: Target, tunnel: Tunnel) -> Transport:
        if self._detour is not None:  # nothing goes past it; the inputs leave such targets out
            raise HopError(1, str(self._detour.first), "it carries TCP alone", gone=False)
        local = self._sources.towards(target.host)
        if tunnel is BARE:
            return self._udp.open(receiver, target.host, target.port, local)
        from engine.transports.dtls import DtlsTransport  # brings pyOpenSSL, which few scans need

        return DtlsTransport(
            self._reactor,
            receiver,
            lambda dtls: self._udp.open(dtls, target.host, target.port, local, alone=True),
            target.name,
        )

    def _tcp(self, receiver: Receiver, target: Target) -> Transport:
        if self._detour is None:
            return self._direct(target.host, target.port, receiver)
        first = self._detour.first
        return self._detour.open(receiver, target.host, target.port, partial(self._direct, first.host, first.port))

    def _direct(self, host: str, port: int, receiver: Receiver) -> TcpTransport:
        local = self._sources.towards(host)
        return TcpTransport(self._reactor, receiver, host, port, local=local, reset=self._reset)
