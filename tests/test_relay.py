"""The relay: a far, lossy network in front of servers on loopback. Times are checked from below only."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench import relay
from bench.relay import DELAY_S, STALL_S, Address, Line, relayed

SERVER = "127.9.77.1"


@pytest.fixture
def echo() -> Iterator[Address]:
    """A server that sends everything back and leaves after the client."""
    listener = socket.create_server((SERVER, 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                while data := peer.recv(4096):
                    peer.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield Address(SERVER, listener.getsockname()[1], "tcp")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_round_trip_is_added_and_order_kept(echo: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece, the end included, takes its time, and a stalled one holds up what follows it."""
    monkeypatch.setattr(relay, "STALLED", 0.5)
    monkeypatch.setattr(relay, "STALL_S", 0.2)
    with relayed([echo]) as doors:
        began = time.monotonic()
        with socket.create_connection(doors[echo][:2]) as client:
            for number in range(20):
                client.sendall(b"%02d" % number)
                time.sleep(0.005)
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer == b"".join(b"%02d" % number for number in range(20))
        assert time.monotonic() - began >= 2 * DELAY_S


def test_datagrams_pass() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SERVER, 0))
        server.settimeout(10)
        at = Address(SERVER, server.getsockname()[1], "udp")
        with relayed([at]) as doors, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.sendto(b"question", doors[at][:2])
            data, peer = server.recvfrom(100)
            assert data == b"question"
            server.sendto(b"answer", peer)
            assert client.recv(100) == b"answer"


def test_server_that_is_not_there(echo: Address) -> None:
    """The door is open, and the connection ends at once."""
    nobody = echo._replace(port=1)
    with relayed([nobody]) as doors, socket.create_connection(doors[nobody][:2]) as client:
        client.settimeout(10)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_it_ends_with_the_block(echo: Address) -> None:
    with relayed([echo]) as doors:
        client = socket.create_connection(doors[echo][:2])
        client.sendall(b"is there anybody")
        assert client.recv(100) == b"is there anybody"
        client.sendall(b"never to arrive")
    with client, pytest.raises(OSError, match="refused"):
        socket.create_connection(doors[echo][:2])


def test_stalls_are_drawn_by_seed() -> None:
    """The same names give the same stalls, about as many as are meant."""
    first, again = (
        [line.due(0.0) for _ in range(100)] for line in (Line("a", ordered=False), Line("a", ordered=False))
    )
    assert first == again
    line = Line("many", ordered=False)
    late = [line.due(0.0) for _ in range(10_000)]
    assert set(late) == {DELAY_S, DELAY_S + STALL_S}
    assert 100 < sum(due > DELAY_S for due in late) < 300
