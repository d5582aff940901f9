"""Servers on every address of 127.0.0.0/8 that count what reaches them, and scans of them inside the test's process.

    with Farm(greet) as farm:
        rows, tally = scan([f"127.3.0.1:{farm.port}"], database)
        farm.visits

A farm is one socket, bound to the loopback device, in a thread with an asyncio loop of its own. `talk(reader, writer,
visit)` is one connection, and closes it by returning. What is counted lies within what the scanner did: a visit is
seen after its connection was begun, and `busy` ends before the scanner can know that it is over.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType

from engine.errors import InputError
from engine.model import Batch, ScanConfig, ServiceResult
from engine.pool.runners import Runner
from engine.pool.runners.inline import InlineRunner
from engine.pool.runners.processes import ProcessRunner
from engine.results.sinks.base import decode_rows
from engine.services import ServiceTable
from engine.targets import Item
from engine.targets.plain import PlainReader
from engine.targets.source import TargetSource

Outcome = tuple[list[ServiceResult], Counter[str]]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER 1,0
GREETING = b"HELLO 1.0\r\n"
DATABASE = rb"""Probe TCP NULL q||
totalwaitms 400
tcpwrappedms 200
match hello m|^HELLO ([\d.]+)| p/Hello/ v/$1/
softmatch maybe m|^MAYBE|
match ssl m|^TLS PLEASE|
Probe TCP Ask q|ASK\r\n|
rarity 1
totalwaitms 400
match asked m|^ASKED ([\d.]+)| p/Asked/ v/$1/
Probe TCP More q|MORE\r\n|
rarity 1
totalwaitms 400
match asked m|^MORE|
"""


def nameless(receive_buffer: int = 0) -> socket.socket:
    """A socket on a port of the loopback interface that is called nothing, so that rows name what was answered."""
    names = ServiceTable.load()
    with contextlib.ExitStack() as passed_over:  # held, so that each try is another port
        for _ in range(1000):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
            if receive_buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            listener.bind(("", 0))
            if not names.name(listener.getsockname()[1], "tcp"):
                return listener
            passed_over.enter_context(listener)
    raise AssertionError("every port has a name")


class Visit:
    """One connection as its server saw it. address: where it came to; peer: where from. Times are monotonic."""

    def __init__(self, address: str, peer: str) -> None:
        self.address = address
        self.peer = peer
        self.at = time.monotonic()
        self.busy_until = 0.0
        self.received = b""

    def released(self) -> None:
        """What follows may be the scanner's reason to end this visit."""
        self.busy_until = time.monotonic()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Visit], Awaitable[None]]


class Farm:
    """receive_buffer: of each connection, in bytes; 0 leaves it to the system."""

    def __init__(self, talk: Talk, receive_buffer: int = 0) -> None:
        self.visits: list[Visit] = []
        self._talk = talk
        self._listener = nameless(receive_buffer)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._talks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._up = threading.Event()
        self._down = asyncio.Event()

    def __enter__(self) -> "Farm":
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(10)
        self._loop.close()

    def targets(self, *addresses: str) -> list[str]:
        return [f"{address}:{self.port}" for address in addresses]

    @property
    def per_address(self) -> Counter[str]:
        return Counter(visit.address for visit in self.visits)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._visit, sock=self._listener, backlog=4096, limit=4096)
        self._up.set()
        await self._down.wait()
        server.close()
        for task in tuple(self._talks):
            task.cancel()
        while self._talks:
            await asyncio.sleep(0.01)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        visit = Visit(writer.get_extra_info("sockname")[0], writer.get_extra_info("peername")[0])
        self.visits.append(visit)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await self._talk(reader, writer, visit)
        finally:
            visit.busy_until = visit.busy_until or time.monotonic()
            self._talks.discard(task)
            writer.close() if not self._down.is_set() else writer.transport.abort()


def greeting_after(pause_s: float, greeting: bytes = GREETING) -> Talk:
    """Greet after a pause, and wait for the other side to leave."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await asyncio.sleep(pause_s)
        visit.released()
        writer.write(greeting)
        visit.received = await reader.read()

    return talk


def second_visit(banner: bytes, then: Talk) -> Talk:
    """Greets the first visitor of each address with a banner; has another conversation with the next."""
    seen: set[str] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address in seen:
            await then(reader, writer, visit)
        else:
            seen.add(visit.address)
            writer.write(banner)
        await reader.read()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Say nothing, note what comes."""
    while data := await reader.read(65536):
        visit.received += data


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def most_at_once(visits: Iterable[Visit]) -> int:
    """The greatest number of visits that were busy at the same moment."""
    steps = [step for visit in visits for step in ((visit.at, 1), (visit.busy_until, -1))]
    most = present = 0
    for _, step in sorted(steps):
        present += step
        most = max(most, present)
    return most


def database_file(folder: Path, text: bytes = DATABASE) -> str:
    path = folder / "probes"
    path.write_bytes(text)
    return str(path)


def config(database: str, **options: object) -> ScanConfig:
    """Small batches, reference matcher, no post-processing."""
    usual = {"probes": (database,), "matcher": "reference", "batch_s": 0.02, "post": (), "workers": 0}
    return ScanConfig(**{**usual, **options})  # type: ignore[arg-type]


def scan(targets: Iterable[str], settings: ScanConfig, limit_s: float = 30.0) -> Outcome:
    """Through the runner that the settings ask for. -> rows, tally. Fails when it takes longer than the limit."""
    runner = ProcessRunner(settings) if settings.workers else InlineRunner(settings)
    return asyncio.run(collect(targets, runner, limit_s))


async def collect(targets: Iterable[str], runner: Runner, limit_s: float = 30.0) -> Outcome:
    rows: list[ServiceResult] = []
    tally: Counter[str] = Counter()

    async def deliver(batch: Batch) -> None:
        rows.extend(decode_rows(batch.rows))
        tally.update(batch.tally)

    async with asyncio.timeout(limit_s):
        await runner.run(aiter(TargetSource(_items(targets), _refuse)), deliver)
    return rows, tally


async def from_items(items: Iterable[Item]) -> AsyncIterator[list[Item]]:
    """Items that are known already, as a source's input."""
    yield list(items)


async def _items(targets: Iterable[str]) -> AsyncIterator[list[Item]]:
    reader = PlainReader("targets")
    items: list[Item] = []
    for target in targets:
        items += reader.read_line(target)
    yield items


def _refuse(error: InputError) -> None:
    raise error
