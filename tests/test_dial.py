"""Dialler and Stream: bounded in time and bytes, with TLS from the start or in the middle, and one kind of error."""

import asyncio
import contextlib
import socket
import time
from asyncio import StreamReader, StreamWriter

import pytest
from peers import HOST, dialler, run, speak_tls, tcp_peer, udp_peer
from scripted import tls_context

from engine.model import Tunnel
from engine.transports.base_local import Local
from engine.transports.base_proxy import Proxy, parse_proxies
from engine.transports.dial import DialError


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


async def silence(reader: StreamReader, writer: StreamWriter) -> None:
    await asyncio.sleep(60)


async def torrent(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def trickle(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("tunnel", Tunnel)
def test_a_conversation_inside_and_outside_tls(tunnel: Tunnel) -> None:
    async def test() -> None:
        async with tcp_peer(echo, tls_context() if tunnel is Tunnel.SSL else None) as port:
            dial = dialler(port)
            with await dial.open("tcp", tunnel) as stream:
                assert await stream.exchange(b"one\r\ntwo", timeout_s=3) == b"one\r\ntwo"
                await stream.send(b"three\r\nfour!rest")
                assert await stream.until(b"\r\n") == b"three\r\n"
                assert await stream.exactly(5) == b"four!"
                assert await stream.recv(2) == b"re"
                assert await stream.recv() == b"st"
                assert (stream.session is not None) == (tunnel is Tunnel.SSL)
            assert dial.connections == 1
            assert dial.bytes >= 24

    run(test())


def test_tls_in_the_middle_begins_with_an_empty_buffer() -> None:
    """What came in the clear before the handshake must not be taken for something said inside."""

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"go ahead\r\ninjected in the clear\r\n")
        await reader.readexactly(1)
        await speak_tls(reader, writer, b"inside\r\n")

    async def test() -> None:
        async with tcp_peer(talk) as port:
            with await dialler(port).open("tcp") as stream:
                assert await stream.until(b"\r\n") == b"go ahead\r\n"
                await stream.send(b".")
                await stream.start_tls()
                assert await stream.until(b"\r\n") == b"inside\r\n"

    run(test())


def test_the_name_is_sent_for_sni() -> None:
    seen: list[str | None] = []

    async def test() -> None:
        context = tls_context()
        context.sni_callback = lambda sock, name, _: seen.append(name)
        try:
            async with tcp_peer(echo, context) as port:
                for name in ("www.example.test", ""):
                    (await dialler(port, name=name).open("tcp", Tunnel.SSL)).close()
        finally:
            context.sni_callback = None

    run(test())
    assert seen == ["www.example.test", None]


def test_every_udp_read_is_one_datagram() -> None:
    async def test() -> None:
        async with udp_peer(lambda data: (data.upper(), b"second")) as port:
            with await dialler(port).open("udp") as stream:
                assert await stream.exchange(b"first") == b"FIRST"
                assert await stream.recv() == b"second"
                with pytest.raises(DialError, match="timed out"):
                    await stream.recv(timeout_s=0.05)

    run(test())


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_closed_port_is_refused(proto: str) -> None:
    async def test() -> None:
        async with tcp_peer(echo) as port:
            pass
        with pytest.raises(DialError), await dialler(port).open(proto) as stream:  # type: ignore[arg-type]
            await stream.exchange(b"anybody?")

    run(test())


@pytest.mark.parametrize(
    ("talk", "error"), [(silence, "timed out"), (trickle, "timed out|no b'\\\\n'"), (torrent, "no b'\\\\n'")]
)
def test_a_line_that_never_ends(talk: object, error: str) -> None:
    """Silent, slow or endless: over by the deadline, however patient the read is."""

    async def test() -> None:
        async with tcp_peer(talk) as port:  # type: ignore[arg-type]
            with await dialler(port, 0.3).open("tcp") as stream, pytest.raises(DialError, match=error):
                await stream.until(b"\n", 100_000, timeout_s=60)

    began = time.monotonic()
    run(test())
    assert time.monotonic() - began < 30


def test_bytes_are_bounded_over_all_connections() -> None:
    async def test() -> None:
        async with tcp_peer(torrent) as port:
            dial = dialler(port, max_bytes=200_000)
            with await dial.open("tcp") as stream:
                assert len(await stream.everything(80_000)) == 80_000
            with await dial.open("tcp") as stream, pytest.raises(DialError, match="more than 200000 bytes"):
                await stream.exactly(200_000)

    run(test())


@pytest.mark.parametrize("talk", [silence, trickle, torrent, echo])
def test_a_handshake_with_what_is_no_tls_server(talk: object) -> None:
    async def test() -> None:
        async with tcp_peer(talk) as port:  # type: ignore[arg-type]
            with pytest.raises(DialError):
                await dialler(port, 0.3).open("tcp", Tunnel.SSL)

    run(test())


def test_an_early_end_is_an_error_where_more_was_wanted() -> None:
    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"half a li")

    async def test() -> None:
        async with tcp_peer(talk) as port:
            with await dialler(port).open("tcp") as stream, pytest.raises(DialError, match="ended too early"):
                await stream.until(b"\n")
            with await dialler(port).open("tcp") as stream:
                assert await stream.everything() == b"half a li"
                assert await stream.recv() == b""

    run(test())


def test_a_turn_beyond_the_deadline_is_not_waited_for() -> None:
    async def test() -> None:
        async with tcp_peer(echo) as port:
            with pytest.raises(DialError, match="too late"):
                await dialler(port, pace=lambda: 300.0).open("tcp")
            began = time.monotonic()
            (await dialler(port, pace=lambda: 0.05).open("tcp")).close()
            assert time.monotonic() - began >= 0.05

    run(test())


def test_the_source_address_is_used() -> None:
    peers: list[str] = []

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])

    async def test() -> None:
        async with tcp_peer(talk) as port:
            with await dialler(port, local=Local("127.0.0.9")).open("tcp") as stream:
                assert await stream.recv() == b""
            with pytest.raises(DialError):
                await dialler(port, local=Local("192.0.2.1")).open("tcp")

    run(test())
    assert peers == ["127.0.0.9"]
    assert HOST == "127.0.0.1"


# -- through proxies, and from a port of our choice


async def relay(reader: StreamReader, writer: StreamWriter) -> None:
    """A SOCKS 5 proxy without a login."""
    await reader.readexactly(3)
    writer.write(b"\x05\x00")
    request = await reader.readexactly(10)
    try:
        there = await asyncio.open_connection(socket.inet_ntoa(request[4:8]), int.from_bytes(request[8:]))
    except OSError:
        writer.write(b"\x05\x05\x00\x01" + bytes(6))
        return
    writer.write(b"\x05\x00\x00\x01" + bytes(6))

    async def copy(one: StreamReader, other: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await one.read(4096):
                other.write(data)
            other.write_eof()

    try:
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
    finally:
        there[1].close()


def chain(*ports: int) -> tuple[Proxy, ...]:
    return parse_proxies([f"socks5://{HOST}:{port}" for port in ports])


@pytest.mark.parametrize("tunnel", Tunnel)
def test_a_conversation_through_a_chain(tunnel: Tunnel) -> None:
    """TLS inside is with the target."""

    async def test() -> None:
        context = tls_context() if tunnel is Tunnel.SSL else None
        async with tcp_peer(echo, context) as port, tcp_peer(relay) as first, tcp_peer(relay) as second:
            dial = dialler(port, proxies=chain(first, second))
            with await dial.open("tcp", tunnel) as stream:
                assert await stream.exchange(b"hello", timeout_s=3) == b"hello"
            assert dial.connections == 1

    run(test())


def test_what_fails_on_the_way_through_proxies() -> None:
    """The proxy's failure and the target's read differently; neither waits beyond the deadline."""

    async def test() -> None:
        async with tcp_peer(relay) as gate, tcp_peer(silence) as mute, tcp_peer(torrent) as noise:
            with pytest.raises(DialError, match=r"^Connection refused$"):
                await dialler(9, proxies=chain(gate)).open("tcp")
            with pytest.raises(DialError, match=f"^proxy 1, socks5://{HOST}:{noise}: it does not answer as"):
                await dialler(9, proxies=chain(noise)).open("tcp")
            began = time.monotonic()
            with pytest.raises(DialError, match="timed out"):
                await dialler(9, 0.5, proxies=chain(mute)).open("tcp")
            assert time.monotonic() - began < 5
            with pytest.raises(DialError, match="UDP does not go through a proxy"):
                await dialler(9, proxies=chain(gate)).open("udp")

    run(test())


def test_several_conversations_from_one_port() -> None:
    """None waits for the TIME_WAIT of the one before."""
    seen: list[int] = []

    async def note(reader: StreamReader, writer: StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[1])
        await echo(reader, writer)

    with socket.socket() as sock:
        sock.bind((HOST, 0))
        ours = sock.getsockname()[1]

    async def test() -> None:
        async with tcp_peer(note) as port:
            dial = dialler(port, local=Local("", ours))
            for _ in range(3):
                with await dial.open("tcp") as stream:
                    assert await stream.exchange(b"hello", timeout_s=3) == b"hello"

    run(test())
    assert seen == [ours] * 3
