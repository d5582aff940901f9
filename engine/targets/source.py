"""From bytes to targets ready to scan: reads files and pipes as streams, resolves names, expands networks lazily.

Contract: yields lists of at most `CHUNK` targets, as soon as they are known; holds a bounded number at any time. Inputs
may be compressed. Lines that cannot be read go to `on_error` and are passed over. The targets of a name that cannot be
resolved are yielded without a host, so that each has a row. Nobody waits for a resolver that is silent: look-ups run in
daemon threads.
"""

import asyncio
import contextlib
import os
import socket
import stat
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from itertools import chain, islice

from msgspec.structs import replace

from engine.errors import InputError
from engine.model import Target
from engine.state.ordinals import OrdinalSet
from engine.targets import Item, TargetReader, TargetSpec, canonical_address
from engine.targets.base_hosts import Family, Names
from engine.targets.permutation import Permutation
from engine.threads import in_thread
from engine.unpack import Damaged, Unpacker

CHUNK = 512  # targets in one list
READ_SIZE = 1 << 16  # bytes of input at once
RESOLVING = 64  # names looked up at the same time
QUEUED = 4  # lists waiting to be taken
TURN_S = 0.005  # of reading and filtering at a time; then the loop gets its turn, or nobody would hear a signal
RETRY_S = (1.0, 3.0, 9.0)  # pauses before a name is looked up again whose server did not answer
PASSING = {socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY}  # faults that say nothing of the name

Ordinals = Callable[[Iterable[int]], None]

Report = Callable[[InputError], None]


async def read_chunks(path: str) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, a pipe or standard input (`-`), as they come. Raises InputError when it cannot be opened."""
    if path == "-":
        descriptor = os.dup(sys.stdin.fileno())
    else:
        try:
            # Without waiting: a named pipe would not open until somebody writes, and nothing could interrupt that.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InputError(path, 0, f"cannot be read: {error.strerror}") from error
    try:
        waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        loop = asyncio.get_running_loop()
        while True:
            if waits:
                readable = asyncio.Event()
                try:
                    loop.add_reader(descriptor, readable.set)
                except PermissionError:  # /dev/null and its like are never waited for
                    waits = False
                else:
                    try:
                        await readable.wait()
                    finally:
                        loop.remove_reader(descriptor)
            else:
                await asyncio.sleep(0)
            try:
                chunk = os.read(descriptor, READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise InputError(path, 0, f"cannot be read: {error.strerror}") from error
            if not chunk:
                return
            yield chunk
    finally:
        os.close(descriptor)


async def read_items(
    path: str, reader: TargetReader, watch: Callable[[bytes], None] = lambda _: None
) -> AsyncIterator[list[Item]]:
    """What the lines of an input say. watch: sees all bytes as they are in the input, before they are read.

    Where compressed data is damaged the input ends with an InputError, behind the lines that were whole by then.
    """
    unpacker = Unpacker()
    whole = True
    async with contextlib.aclosing(read_chunks(path)) as chunks:
        async for chunk in chunks:
            watch(chunk)
            if whole:  # else there is nothing to read any more, but who watches sees the same however a pipe was cut
                try:
                    for piece in unpacker.feed(chunk):
                        yield reader.feed(piece)
                except Damaged as damage:
                    whole = False
                    yield _break_off(reader, damage)
    if whole:
        try:
            for piece in unpacker.close():
                yield reader.feed(piece)
        except Damaged as damage:
            yield _break_off(reader, damage)
        else:
            yield reader.close()


def _break_off(reader: TargetReader, damage: Damaged) -> list[Item]:
    items = reader.break_off()
    return [*items, InputError(reader.source, reader.line + 1, f"{damage}; nothing from here on is read")]


class TargetSource:
    """An async iterator of target lists over `items`, to be iterated once.

    ended: whether the items have been read to their end. names: that were met; looked_up: that are done with.

    admit: which targets are wanted (None: all); the others are counted in `blocked`. seed: visit the targets of a
    network in a pseudo-random order instead of the spread one; the n-th visited has the n-th ordinal. family: of the
    addresses that names are looked up for; 0: either. names: who looks them up; what nobody may goes to `on_error`.

    done: ordinals that a run before has dealt with; networks and names are expanded without them, single targets are
    the caller's to leave out. pass_over: told the ordinals that will never be yielded. put_off: told those whose name
    could not be resolved just now; they are yielded, and the next run may do better.
    """

    def __init__(
        self,
        items: AsyncIterator[list[Item]],
        on_error: Report,
        *,
        admit: Callable[[Target], bool] | None = None,
        seed: int | None = None,
        family: Family = 0,
        names: Names = Names.HERE,
        done: OrdinalSet | None = None,
        pass_over: Ordinals = lambda _: None,
        put_off: Ordinals = lambda _: None,
    ) -> None:
        self.blocked = 0
        self.ended = False
        self.looked_up = 0
        self.names = 0
        self._items = items
        self._on_error = on_error
        self._admit = admit
        self._seed = seed
        self._family = family
        self._lookup = names
        self._done = done or OrdinalSet()
        self._pass_over = pass_over
        self._put_off = put_off
        self._queue: asyncio.Queue[list[Target] | None] = asyncio.Queue(QUEUED)
        self._turned_at = 0.0
        self._lookups: set[asyncio.Task[None]] = set()
        self._looking = asyncio.Semaphore(RESOLVING)

    async def __aiter__(self) -> AsyncIterator[list[Target]]:
        reading = asyncio.create_task(self._read())
        try:
            while (targets := await self._queue.get()) is not None:
                yield targets
            await reading
        finally:
            for task in (reading, *self._lookups):
                task.cancel()

    async def _read(self) -> None:
        wanted = True
        try:
            async for items in self._items:
                await self._take_turns()
                ready: list[Target] = []
                for item in items:
                    if isinstance(item, Target):
                        ready.append(item)
                    elif isinstance(item, TargetSpec):
                        await self._put(ready)
                        ready = []
                        await self._expand(item)
                    else:
                        self._on_error(item)
                await self._put(ready)
            self.ended = True
            while self._lookups:
                await asyncio.wait(self._lookups)
        except asyncio.CancelledError:
            wanted = False  # nobody takes targets any more, so there will never be room for the end
            raise
        finally:
            if wanted:
                await self._queue.put(None)

    async def _put(self, targets: Iterable[Target]) -> None:
        iterator = iter(targets)
        while chunk := list(islice(iterator, CHUNK)):
            if self._admit is not None:
                admitted = list(filter(self._admit, chunk))
                if len(admitted) < len(chunk):
                    self.blocked += len(chunk) - len(admitted)
                    self._pass_over({target.ordinal for target in chunk}.difference(t.ordinal for t in admitted))
                chunk = admitted
            if chunk:
                await self._queue.put(chunk)
            await self._take_turns()

    async def _take_turns(self) -> None:
        """Let others do something, if we have been at it for a while."""
        if time.monotonic() - self._turned_at > TURN_S:
            await asyncio.sleep(0)
            self._turned_at = time.monotonic()

    def _targets(self, spec: TargetSpec) -> Iterator[Target]:
        """What of a spec is not done, in the order of the ordinals."""
        indices = (ordinal - spec.ordinal for ordinal in self._left(spec))
        if self._seed is None:
            return spec.targets(indices)
        order = Permutation(spec.count, self._seed)
        return (replace(spec.at(order.at(index)), ordinal=spec.ordinal + index) for index in indices)

    def _left(self, spec: TargetSpec) -> Iterator[int]:
        return chain.from_iterable(self._done.missing(spec.ordinal, spec.ordinal + spec.count))

    async def _expand(self, spec: TargetSpec) -> None:
        if not spec.is_name:
            await self._put(self._targets(spec))
            return
        if self._lookup is Names.FAR:
            await self._put(self._targets(replace(spec.resolved(spec.host), name=spec.host)))
            return
        if self._lookup is not Names.HERE:
            self._on_error(InputError(spec.host, 0, self._lookup.value))
            return
        self.names += 1
        await self._looking.acquire()
        task = asyncio.create_task(self._resolve(spec))
        self._lookups.add(task)
        task.add_done_callback(self._looked_up)

    def _looked_up(self, task: "asyncio.Task[None]") -> None:
        self._lookups.discard(task)
        self._looking.release()

    async def _resolve(self, spec: TargetSpec) -> None:
        address = ""
        try:
            address = await look_up(spec.host, self._family)
        except OSError as error:
            if error.errno in PASSING:
                self._put_off(self._left(spec))
        except UnicodeError:  # no name that a resolver could be asked for
            pass
        await self._put(self._targets(spec.resolved(address)))
        self.looked_up += 1


async def look_up(name: str, family: Family = 0) -> str:
    """The first address of a host name, of the family if that is not 0.

    Raises OSError, after several tries where that may help, and UnicodeError.
    """
    kind = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[family]
    for pause_s in (*RETRY_S, None):
        try:
            answers = await in_thread(lambda: socket.getaddrinfo(name, None, family=kind, type=socket.SOCK_STREAM))
        except OSError as error:
            if pause_s is None or error.errno not in PASSING:
                raise
            await asyncio.sleep(pause_s)
        else:
            return canonical_address(str(answers[0][4][0]))
    raise AssertionError("the last try raises or returns")
