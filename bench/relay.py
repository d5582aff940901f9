"""A far, lossy network in front of servers on loopback: `with relayed(addresses) as doors: ... doors[address]`.

Every server gets a door of its own at another loopback address with the same port. What goes through one, either way,
comes out DELAY_S later, and now and then (STALLED of all pieces) a whole STALL_S later still, as after a lost packet;
on a stream everything behind such a piece waits with it. An end of a stream is a piece, too. Connecting is not delayed:
the kernel answers before anybody here is asked, so a round trip measured there says nothing, as behind a proxy.

Which pieces are stalled is drawn by seed, server, connection and direction. The relay runs in a thread, holds at most
PIECES pieces a direction, and ends with the block.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Literal, NamedTuple

NETWORK = "127.0.11"
DELAY_S = 0.1  # each way
STALLED, STALL_S = 0.02, 1.0
PIECES, PIECE_BYTES = 64, 1 << 16
LINGER_S = 5.0  # how long a server may go on once its client has left


class Address(NamedTuple):
    host: str
    port: int
    proto: Literal["tcp", "udp"]


class Line:
    """One direction of a connection: how long what enters now takes to come out."""

    def __init__(self, name: str, *, ordered: bool = True) -> None:
        self._random = random.Random(name)
        self._ordered = ordered
        self._last = 0.0

    def due(self, now: float) -> float:
        due = now + DELAY_S + (STALL_S if self._random.random() < STALLED else 0.0)
        if self._ordered:
            due = self._last = max(self._last, due)
        return due


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
    """Carry a stream to its end; one that breaks breaks on the other side."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(PIECES)

    async def read() -> None:
        data: bytes | None = b"any"
        while data:
            try:
                data = await reader.read(PIECE_BYTES)
            except OSError:
                data = None
            await pieces.put((line.due(loop.time()), data))

    reading = asyncio.create_task(read())
    try:
        data: bytes | None = b"any"
        while data:
            due, data = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if data is None:
                writer.transport.abort()
            elif data:
                writer.write(data)
                await writer.drain()
            else:
                writer.write_eof()
    except OSError:
        pass  # the other side has left
    finally:
        reading.cancel()


class _Streams:
    """The door of a TCP server."""

    def __init__(self, server: Address, name: str) -> None:
        self._server, self._name = server, name
        self._connections = count()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended."""
        try:
            far_reader, far_writer = await asyncio.open_connection(self._server.host, self._server.port)
        except OSError:
            writer.transport.abort()
            return
        name = f"{self._name} {next(self._connections)}"
        there = asyncio.create_task(_pump(reader, far_writer, Line(f"{name} there")))
        back = asyncio.create_task(_pump(far_reader, writer, Line(f"{name} back")))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((there, back), timeout=None if back.done() else LINGER_S)
        except asyncio.CancelledError:
            pass  # the block is over; asyncio's streams would report it as an error
        finally:
            there.cancel()
            back.cancel()
            (writer.close if back.done() else writer.transport.abort)()
            far_writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """The door of a UDP server. Each client gets a socket of its own towards the server."""

    def __init__(self, server: Address, name: str) -> None:
        self._server = server
        self._clients: dict[object, asyncio.Future[asyncio.DatagramTransport]] = {}
        self._there, self._back = (Line(f"{name} {way}", ordered=False) for way in ("there", "back"))

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if address not in self._clients:
            self._clients[address] = asyncio.ensure_future(self._dial(address))
        self._clients[address].add_done_callback(lambda dialled: _later(self._there, dialled.result().sendto, data))

    async def _dial(self, client: tuple[str, int]) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Answers(lambda data: _later(self._back, self._transport.sendto, data, client)),
            remote_addr=(self._server.host, self._server.port),
        )
        return transport


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, answered: Callable[[bytes], object]) -> None:
        self._answered = answered

    def datagram_received(self, data: bytes, address: object) -> None:
        self._answered(data)


def _later(line: Line, send: Callable[..., object], *what: object) -> None:
    loop = asyncio.get_running_loop()
    loop.call_at(line.due(loop.time()), send, *what)


async def _open(doors: dict[Address, Address], seed: int) -> None:
    for server, door in doors.items():
        name = f"{seed} {server}"
        if server.proto == "tcp":
            await asyncio.start_server(_Streams(server, name).carry, door.host, door.port, backlog=512)
        else:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda server=server, name=name: _Datagrams(server, name),  # type: ignore[misc]
                local_addr=(door.host, door.port),
            )


async def _leave() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def relayed(servers: Iterable[Address], seed: int = 1) -> Iterator[dict[Address, Address]]:
    """Where the door of each server is, while the block runs. Raises OSError where one cannot be opened."""
    servers = tuple(servers)
    hosts = {host: f"{NETWORK}.{last}" for last, host in enumerate(dict.fromkeys(at.host for at in servers), 1)}
    doors = {server: server._replace(host=hosts[server.host]) for server in servers}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(_open(doors, seed), loop).result()
        yield doors
    finally:
        asyncio.run_coroutine_threadsafe(_leave(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
