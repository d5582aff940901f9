"""Many conversations on one UDP socket: none of them, and no stranger, spoils another's."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH

import pytest
from conformance import Recorder
from test_reactor import PATIENCE_S, Ear, fail, reactor, until

from engine.transports.reactor import Reactor
from engine.transports.udp import ERRORS_BEFORE_US, PER_TURN, UdpHub


@contextlib.contextmanager
def peers(count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(PATIENCE_S)
            found.append(peer)
        yield found


class Hub:
    """A hub with a conversation for each peer, of which all have said something."""

    def __init__(self, made: Reactor, peers: list[socket.socket]) -> None:
        self.hub = UdpHub(made)
        self.records = [Recorder(lambda: None) for _ in peers]
        self.talks = [
            self.hub.open(record, *peer.getsockname()) for record, peer in zip(self.records, peers, strict=True)
        ]
        for talk in self.talks:
            talk.send(b"ask")
        self.address = peers[0].recvfrom(100)[1]
        for peer in peers[1:]:
            peer.recvfrom(100)


def test_a_datagram_that_raises_leaves_the_others_alone() -> None:
    async def test() -> None:
        with reactor() as made, peers(5) as others:
            hub = Hub(made, others)
            hub.records[1].received = fail  # type: ignore[method-assign]
            for peer in others:
                peer.sendto(b"answer", hub.address)
            await until(lambda: all(record.events for record in hub.records))
            assert [record.events[0] for record in hub.records] == [
                "LookupError" if number == 1 else b"answer" for number in range(5)
            ]
            hub.hub.close()

    asyncio.run(test())


def test_a_strangers_datagram_answers_nobody() -> None:
    """Neither from another port of the host, nor from the port of another host."""

    async def test() -> None:
        with reactor() as made, peers(2) as (peer, stranger), socket.socket(type=socket.SOCK_DGRAM) as twin:
            hub = Hub(made, [peer])
            twin.bind(("127.0.0.2", peer.getsockname()[1]))
            stranger.sendto(b"lie", hub.address)
            twin.sendto(b"lie", hub.address)
            peer.sendto(b"truth", hub.address)
            await until(lambda: hub.records[0].events)
            await hub.records[0].stays(b"truth")
            hub.hub.close()

    asyncio.run(test())


def test_a_flood_of_datagrams_is_taken_in_portions() -> None:
    """The others get their turn between two of them, and nothing of what fits into the kernel's buffer is lost."""

    class Endless:
        """A socket with datagrams of a stranger without end, and then the answer."""

        def __init__(self, sock: socket.socket) -> None:
            self._socket, self.left = sock, 3 * PER_TURN

        def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
            self.left -= 1
            return (b"?", ("192.0.2.1", 9)) if self.left > 0 else self._socket.recvfrom(size)

        def fileno(self) -> int:
            return self._socket.fileno()

        def close(self) -> None:
            self._socket.close()

    async def test() -> None:
        with reactor() as made, peers(1) as others, contextlib.closing(Ear(made)) as ear:
            hub = Hub(made, others)
            (shared,) = next(iter(hub.hub._sockets.values()))
            await asyncio.sleep(0.02)
            endless = shared.socket = Endless(shared.socket)  # type: ignore[assignment]
            ear._told = lambda heard: seen.append(endless.left)
            seen: list[int] = []
            others[0].sendto(b"answer", hub.address)
            ear.mouth.send(b"hello")
            await until(lambda: hub.records[0].events)
            assert hub.records[0].events == [b"answer"]
            assert seen[0] >= PER_TURN
            hub.hub.close()

    asyncio.run(test())


class Faulty:
    """A socket whose first sends fail."""

    def __init__(self, errors: list[int]) -> None:
        self.sent: list[bytes] = []
        self._errors = errors

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        if self._errors:
            raise OSError(self._errors.pop(0), "send")
        self.sent.append(data)


@pytest.mark.parametrize("error", [ECONNREFUSED, EHOSTUNREACH])
def test_an_icmp_error_about_somebody_else_does_not_hinder(error: int) -> None:
    """The socket reports it to whoever sends next; that one sends again."""

    async def test() -> None:
        with reactor() as made, peers(1) as others:
            hub = Hub(made, others)
            (shared,) = next(iter(hub.hub._sockets.values()))
            shared.socket, kept = Faulty([error, error]), shared.socket  # type: ignore[assignment]
            hub.talks[0].send(b"again")
            assert shared.socket.sent == [b"again"]  # type: ignore[attr-defined]
            shared.socket = Faulty([ENETUNREACH] * (ERRORS_BEFORE_US + 1))  # type: ignore[assignment]
            with pytest.raises(OSError, match="send"):
                hub.talks[0].send(b"no way there")
            shared.socket = kept
            hub.hub.close()

    asyncio.run(test())
