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
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from typing import Literal, NamedTuple

NETWORK = "127.0.11"
DELAY_S = 0.1  # each way
STALLED, STALL_S = 0.02, 1.0
PIECES, PIECE_BYTES = 64, 1 << 16
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER 1,0
TURNS_S = 0.02  # enough for the loop to finish what it has begun
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
                _reset(writer)
            elif data:
                writer.write(data)
                await writer.drain()
            else:
                writer.write_eof()
    except OSError:
        pass  # the other side has left
    finally:
        reading.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


class _Streams:
    """The door of a TCP server."""

    def __init__(self, server: Address, name: str) -> None:
        self._server, self._name = server, name
        self._connections = count()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended."""
        name = f"{self._name} {next(self._connections)}"
        try:
            far_reader, far_writer = await asyncio.open_connection(self._server.host, self._server.port)
            try:
                there = asyncio.create_task(_pump(reader, far_writer, Line(f"{name} there")))
                back = asyncio.create_task(_pump(far_reader, writer, Line(f"{name} back")))
                await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((there, back), timeout=None if back.done() else LINGER_S)
                there.cancel()
                back.cancel()
            finally:
                far_writer.close()
        except OSError:
            _reset(writer)
        except asyncio.CancelledError:
            pass  # the block is over; asyncio's streams would report it as an error
        finally:
            writer.close()


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

    def connection_lost(self, error: Exception | None) -> None:
        for client in self._clients.values():
            client.add_done_callback(lambda dialled: dialled.cancelled() or dialled.result().close())

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


async def _open(server: Address, door: Address, name: str) -> asyncio.Server | asyncio.DatagramTransport:
    if server.proto == "tcp":
        return await asyncio.start_server(_Streams(server, name).carry, door.host, door.port, backlog=512)
    where = (door.host, door.port)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server, name), local_addr=where)
    return transport


async def _relay(doors: dict[Address, Address], seed: int, opened: Future[None], leave: asyncio.Event) -> None:
    listening = []
    try:
        for server, door in doors.items():
            listening.append(await _open(server, door, f"{seed} {server}"))
        opened.set_result(None)
        await leave.wait()
    except OSError as error:
        opened.set_exception(error)
    for each in listening:
        each.close()
    await asyncio.sleep(TURNS_S)  # whoever has been let in is served
    while carrying := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
    await asyncio.sleep(TURNS_S)  # what has been closed leaves


@contextmanager
def relayed(servers: Iterable[Address], seed: int = 1) -> Iterator[dict[Address, Address]]:
    """Where the door of each server is, while the block runs. Raises OSError where one cannot be opened."""
    servers = tuple(servers)
    hosts = {host: f"{NETWORK}.{last}" for last, host in enumerate(dict.fromkeys(at.host for at in servers), 1)}
    doors = {server: server._replace(host=hosts[server.host]) for server in servers}
    loop, leave, opened = asyncio.new_event_loop(), asyncio.Event(), Future[None]()
    thread = threading.Thread(target=loop.run_until_complete, args=[_relay(doors, seed, opened, leave)], daemon=True)
    thread.start()
    try:
        opened.result()
        yield doors
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()
