"""Connections: each kind over its transport, from the local addresses in turn."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from peers import row, run

from engine.model import Proto, Target, Tunnel
from engine.pool.connections import Connections
from engine.transports.base import Secured, Transport
from engine.transports.dtls import DtlsTransport
from engine.transports.local_addresses import Sources
from engine.transports.reactor import Reactor
from engine.transports.tcp import TcpTransport
from engine.transports.tls import TlsTransport
from engine.transports.udp import UdpTransport

SOURCES = ("127.8.0.1", "127.8.0.2")


class Silent:
    """A receiver to whom nothing matters."""

    def opened(self) -> None: ...
    def connected(self, now: float) -> None: ...
    def received(self, data: bytes, now: float) -> None: ...
    def ended(self, now: float) -> None: ...
    def broken(self, error: OSError, now: float) -> None: ...


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.3.0.1", 0)) as sock:
        sock.settimeout(5)
        yield sock


def visitor(listener: socket.socket) -> str:
    """The address that the next connection comes from."""
    sock, peer = listener.accept()
    sock.close()
    return str(peer[0])


@pytest.mark.parametrize(
    ("proto", "tunnel", "kind"),
    [
        ("tcp", Tunnel.NONE, TcpTransport),
        ("tcp", Tunnel.SSL, TlsTransport),
        ("udp", Tunnel.NONE, UdpTransport),
        ("udp", Tunnel.SSL, DtlsTransport),
    ],
)
def test_the_kind_of_transport(listener: socket.socket, proto: Proto, tunnel: Tunnel, kind: type[Transport]) -> None:
    async def test() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        connections = Connections(reactor)
        target = Target(0, "127.3.0.1", listener.getsockname()[1], proto, name="one.example")
        transport = connections.open(Silent(), target, tunnel)
        assert type(transport) is kind
        if tunnel is Tunnel.SSL:
            assert isinstance(transport, Secured)
        if isinstance(transport, TlsTransport):
            assert transport.session.server_hostname == "one.example"
        transport.close()
        connections.close()
        reactor.close()

    run(test())


def test_local_addresses_take_turns(listener: socket.socket) -> None:
    """Over all kinds of connections, those of post-processing included."""
    port = listener.getsockname()[1]
    peers = []

    async def test() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        connections = Connections(reactor, Sources(SOURCES), reset=True)
        waits: list[str] = []

        def wait_s(host: str) -> float:
            waits.append(host)
            return 0.0

        for tunnel in (Tunnel.NONE, Tunnel.SSL):
            transport = connections.open(Silent(), Target(0, "127.3.0.1", port), tunnel)
            peers.append(visitor(listener))
            transport.close()
        result = row("http", port)
        deadline = asyncio.get_running_loop().time() + 5
        for _ in range(2):
            dial = connections.dial(result, deadline, wait_s=wait_s)
            assert (dial.host, dial.port, dial.deadline) == (result.ip, port, deadline)
        assert waits == []
        dial.host = "127.3.0.1"
        (await dial.open("tcp")).close()
        peers.append(visitor(listener))
        assert waits == [result.ip]
        connections.close()
        reactor.close()

    run(test())
    assert peers == [SOURCES[0], SOURCES[1], SOURCES[1]]


def test_a_write_to_what_has_ended(listener: socket.socket) -> None:
    """It fails like one to a connection that the peer has reset: somebody above may not have heard of the end yet."""

    async def test() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        transport = TcpTransport(reactor, Silent(), "127.3.0.1", listener.getsockname()[1])
        transport.close()
        with pytest.raises(ConnectionResetError):
            transport.send(b"late")
        reactor.close()

    run(test())
