"""Arrow in, Arrow out: the functions that every data engine can call. `from probemill import arrow`.

`match_batches` identifies stored responses again (engine/offline/arrow.py), `scan_batches` scans targets;
`match_schema` and `SCHEMA` are the columns of what they give. All may be pickled, and called in worker processes and in
several threads. The database is compiled once in a process. Needs the extra `lake`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, cast

import pyarrow as pa
from msgspec.structs import replace

from engine.api import encoded_rows
from engine.conversation.context import scan_context
from engine.conversation.scan import ScanContext
from engine.databases import shared_matcher
from engine.model import ScanConfig, Target
from engine.offline.arrow import match_batches, match_schema
from engine.results.arrow import SCHEMA, batches_of
from engine.results.batches import Batches, cells, is_number, is_text, record_batches

__all__ = ["SCHEMA", "match_batches", "match_schema", "scan_batches"]

ROWS = 4096  # of targets, taken from a batch at a time
ROOM = 16  # parcels of rows, at most `batch_rows` in each, that wait to be taken; then no new target is begun

_OPEN = {"open", "open|filtered"}
_Row = str | Target  # an empty text: no target


def scan_batches(batches: Batches, config: ScanConfig | None = None) -> Iterator[pa.RecordBatch]:
    """Scan the targets in the rows of `batches`: result rows, with the columns of SCHEMA, in the order they are done.

    Columns: `ip`, an address or a name, or `host`, which beside an address is its name (for TLS); `port`; perhaps
    `proto` (null: tcp) and `state`: rows whose state is neither open nor open|filtered are passed over, and so is what
    the config's lists leave out. batches: as `match_batches` has it; read when targets are wanted, in the caller's
    thread.

    Works in one thread beside the caller's, which may have an event loop; `config.workers` does not count. Limits hold
    for each call by itself. Leaving the loop early ends the scan. Raises InputError, with the number of the row, from 1
    on, for one that is no target, ConfigError for a column or a config that cannot be used, MatcherError; also what
    `batches` raises, each when the targets before it are done.
    """
    return _scanned(record_batches(batches, ROWS), replace(config or ScanConfig(), workers=0))


def _scanned(batches: Iterator[pa.RecordBatch], config: ScanConfig) -> Iterator[pa.RecordBatch]:
    with _Scan(config) as scan:
        for wanted in scan.events():
            if wanted:
                scan.give(batches)
            else:
                yield from batches_of(scan.take())


def _targets(batch: pa.RecordBatch) -> list[_Row]:
    columns = (
        cells(batch, "ip", "text", is_text, needed="host" not in batch.schema.names),
        cells(batch, "host", "text", is_text, needed=False),
        cells(batch, "port", "integers", is_number),
        cells(batch, "proto", "text", is_text, needed=False),
        cells(batch, "state", "text", is_text, needed=False),
    )
    return [_target(*row) for row in zip(*columns, strict=True)]


def _target(ip: str | None, host: str | None, port: Any, proto: str | None, state: str | None) -> _Row:
    """As it is written; whoever numbers targets says what is wrong with it."""
    said: Any = state.lower() if state else ""
    if said and said not in _OPEN:
        return ""
    sent: Any = proto.lower() if proto else "tcp"
    return Target(0, ip or host or "", port, sent, host if ip and host and host != ip else "", said)


def _context(config: ScanConfig) -> ScanContext:
    return scan_context(config, shared_matcher(config.probes, config.matcher))


class _Scan:
    """A scan on an event loop and in a thread of its own, from entering to leaving the context."""

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._thread = Thread(target=self._work, name="probemill scan", daemon=True)
        self._begun = Event()
        self._told: SimpleQueue[bool | None] = SimpleQueue()
        self._parcels: deque[bytes] = deque()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        # of the thread, when it has begun
        self._task: asyncio.Task[None]
        self._room: asyncio.Semaphore
        self._given: asyncio.Future[list[_Row]]

    def __enter__(self) -> "_Scan":
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(self._task.cancel)
        self._thread.join()

    def events(self) -> Iterator[bool]:
        """True: targets are wanted. False: rows may be there. Raises what the scan ended with."""
        while (wanted := self._told.get()) is not None:
            yield wanted
        if self._error is not None:
            raise self._error

    def give(self, batches: Iterator[pa.RecordBatch]) -> None:
        """The targets of the next batch. What goes wrong with it ends the scan, after the targets before it."""
        targets: list[_Row] = []
        failure: Exception | None = None
        try:
            for batch in batches:
                if targets := _targets(batch):
                    break
        except Exception as error:
            failure = error
        self._tell(self._settle, targets, failure)

    def take(self) -> bytes:
        """The rows that are there, as NDJSON."""
        parcels = []
        with suppress(IndexError):
            while True:
                parcels.append(self._parcels.popleft())
        for _ in parcels:
            self._tell(self._room.release)
        return b"".join(parcels)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the scan has ended, and its loop is closed
            self._loop.call_soon_threadsafe(what, *arguments)

    def _settle(self, targets: list[_Row], failure: Exception | None) -> None:
        if self._given.done():  # nobody waits any more
            return
        if failure is None:
            self._given.set_result(targets)
        else:
            self._given.set_exception(failure)

    def _work(self) -> None:
        """The whole life of the thread."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._run())
        except BaseException as error:  # the caller's to know
            self._error = error
        finally:
            self._begun.set()
            self._told.put(None)

    async def _run(self) -> None:
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._room = asyncio.Semaphore(ROOM)
        self._begun.set()
        async with aclosing(encoded_rows(self._wanted(), self._config, _context)) as parcels:
            async for rows in parcels:
                await self._room.acquire()
                self._parcels.append(rows)
                self._told.put(False)

    async def _wanted(self) -> AsyncIterator[_Row]:
        while True:
            self._given = self._loop.create_future()
            self._told.put(True)
            targets = await self._given
            if not targets:
                return
            for target in targets:
                yield target
