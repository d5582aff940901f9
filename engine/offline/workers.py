"""Work for other processes: notes and texts there, and their answers back in order.

    crew = Crew("engine.offline.identify:work", setup, 2)     in the parent; `work` calls `serve`
    for note, text in crew.run(tasks): ...

Contract: memory is flat: a bounded number of tasks, and of bytes, is on its way at any time. A worker always has its
next tasks while it is at one, so it never waits for a parent that reads or writes. It is an isolated process that holds
one link to its parent, and ends soon after that is closed, whatever it is at. Texts go through memory that both sides
have, because a link is four times as slow and holds only so much; a link never blocks, since what else goes through it
is short.
"""

import mmap
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from struct import Struct as Layout
from typing import NoReturn, TypeAlias

import msgspec

from engine.errors import EngineError
from engine.isolated import command
from engine.signals import held_back

Task: TypeAlias = tuple[bytes, bytes]  # (note, text); notes are short

AHEAD = 4  # tasks of a worker: the one it is at, and what it does while the parent waits for a core, too
CHUNKS_PER_WORKER = 8  # read but not yet written; a slow chunk holds up the others no sooner than that
HELD_BYTES = 64 << 20  # of texts and answers; beyond it only one task more is on its way
GRACE_S = 0.1  # for a worker to end by itself; one that is at a chunk may need minutes
AREA_BYTES = 1 << 20  # of a worker's memory for one text; what longer ones need beyond it is given back

_HEAD = Layout("=BQ")  # number of an area, bytes of the text in it; the note follows


class _Area:
    """Memory for one text, of two processes that take turns."""

    def __init__(self, file: int) -> None:
        self._file = file
        if os.fstat(file).st_size < AREA_BYTES:
            os.ftruncate(file, AREA_BYTES)
        self._map = mmap.mmap(file, AREA_BYTES)

    def put(self, text: bytes) -> None:
        if len(text) > AREA_BYTES:
            self._resize(len(text))
        self._map[: len(text)] = text

    def get(self, size: int) -> bytes:
        if size > len(self._map):
            self._resize(size)
        return self._map[:size]

    def give_back(self) -> None:
        """Only between two texts, and only by one of the two, whose counterpart asks again for what is missing."""
        if len(self._map) > AREA_BYTES:
            self._resize(AREA_BYTES)

    def _resize(self, size: int) -> None:
        self._map.close()
        os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)


class _Worker:
    """The parent's side of one. free: numbers of the areas not in use; tasks: numbers of those it has."""

    def __init__(self, function: str, shared: Sequence[int]) -> None:
        self.files = [os.memfd_create("probemill") for _ in range(AHEAD)]
        self._areas = [_Area(file) for file in self.files]
        self.free = deque(range(AHEAD))
        self.tasks: deque[int] = deque()
        self.ready = False
        self.link, theirs = Pipe()
        with theirs, held_back(signal.SIGINT):  # the terminal's ^C is the parent's affair; they end with their link
            descriptor = theirs.fileno()
            self.process = subprocess.Popen(
                command(function, descriptor),
                pass_fds=[descriptor, *self.files, *shared],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def give(self, number: int, task: Task) -> None:
        note, text = task
        area = self.free.popleft()
        self._areas[area].put(text)
        self.tasks.append(number)
        self.send(_HEAD.pack(area, len(text)) + note)

    def take(self) -> tuple[int, Task]:
        """The answer to its first task, and the number of that."""
        message = self.receive()
        area, size = _HEAD.unpack_from(message)
        text = self._areas[area].get(size)
        self._areas[area].give_back()
        self.free.append(area)
        return self.tasks.popleft(), (message[_HEAD.size :], text)

    def send(self, message: bytes) -> None:
        try:
            self.link.send_bytes(message)
        except OSError:
            self._died()

    def receive(self) -> bytes:
        try:
            return self.link.recv_bytes()
        except (EOFError, OSError):
            self._died()

    def _died(self) -> NoReturn:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        raise EngineError(f"a worker (pid {self.process.pid}) died with status {self.process.returncode}") from None


class Unable(EngineError):  # noqa: N818 - of a worker
    """A worker cannot do its work as its parent does, and says why. Raised by `opened` there, and by the Crew here."""


class Crew:
    """Raises EngineError, whatever it is asked for, when a worker has died, Unable when one is. To be closed."""

    def __init__(self, function: str, setup: bytes, workers: int, shared: Sequence[int] = ()) -> None:
        """function: as `engine.isolated` names it, of the workers' side. setup: what they are told first.

        shared: descriptors of the parent's that they have, too.
        """
        _keep_memory()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        try:
            for _ in range(workers):
                worker = _Worker(function, shared)
                self._workers.append(worker)
                self._selector.register(worker.link.fileno(), selectors.EVENT_READ, worker)
                worker.send(msgspec.msgpack.encode((worker.files, setup)))
        except BaseException as reason:
            self.close()
            if isinstance(reason, OSError):
                raise EngineError(f"workers cannot be started: {reason.strerror}") from reason
            raise

    def close(self) -> None:
        """Returns when every worker has ended, which is soon. Who is impatient meanwhile is heard afterwards."""
        with held_back(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._selector.close()
            for worker in self._workers:
                if not worker.ready:
                    worker.process.terminate()  # it opens its database, and would not look at its link before
                worker.link.close()
                for file in worker.files:
                    os.close(file)
            until = time.monotonic() + GRACE_S
            for worker in self._workers:
                try:
                    worker.process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    worker.process.kill()
                    worker.process.wait()

    def is_ready(self) -> bool:
        """Whether all have opened what they need. Does not wait."""
        for worker in self._workers:
            if not worker.ready and worker.link.poll():
                if why := worker.receive():
                    raise Unable(why.decode())
                worker.ready = True
        return all(worker.ready for worker in self._workers)

    def run(self, source: Iterator[Task]) -> Iterator[Task]:
        """The answers, in order. Raises what `source` raises, behind the answers to what it gave before."""
        while not self.is_ready():
            self._selector.select()
        done: dict[int, Task] = {}
        sizes: dict[int, int] = {}  # number of a task not yet written -> bytes of its text, or of its answer
        given = written = held = 0
        window = CHUNKS_PER_WORKER * len(self._workers)
        failure: list[Exception] = []
        source = _until(source, failure)
        task = next(source, None)
        while given > written or task is not None:
            while task is not None and given - written < window and held < HELD_BYTES:
                worker = min(self._workers, key=_busy)
                if not worker.free:
                    break
                worker.give(given, task)
                sizes[given] = len(task[1])
                held += sizes[given]
                given += 1
                task = next(source, None)
            for key, _ in self._selector.select():
                number, answer = key.data.take()
                done[number] = answer
                held += len(answer[1]) - sizes[number]
                sizes[number] = len(answer[1])
            while written in done:
                held -= sizes.pop(written)
                yield done.pop(written)
                written += 1
        for error in failure:
            raise error


def _until(source: Iterator[Task], failure: list[Exception]) -> Iterator[Task]:
    """The same to the end or to the first error, which is put into `failure`."""
    try:
        yield from source
    except Exception as error:
        failure.append(error)


def _busy(worker: _Worker) -> int:
    return len(worker.tasks)


def serve(descriptor: int, opened: Callable[[bytes], Callable[[bytes, bytes], Task]]) -> None:
    """The whole life of a worker. opened: makes of the setup what answers a note and its text."""
    with Connection(descriptor) as link, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        files, setup = msgspec.msgpack.decode(link.recv_bytes(), type=tuple[Sequence[int], bytes])
        _keep_memory()
        areas = [_Area(file) for file in files]
        try:
            answer = opened(setup)
        except Unable as why:
            link.send_bytes(str(why).encode())
            return
        link.send_bytes(b"")  # ready
        while True:
            message = link.recv_bytes()
            area, size = _HEAD.unpack_from(message)
            note, text = answer(message[_HEAD.size :], areas[area].get(size))
            areas[area].put(text)
            link.send_bytes(_HEAD.pack(area, len(text)) + note)


def _keep_memory() -> None:
    """Let glibc keep up to 16 MiB of what was freed for what comes next.

    It gives back what exceeds twice the largest block it has seen come and go by itself; with no larger one than a
    chunk that is about a chunk, and each one costs a fault a page again.
    """
    bytes(8 << 20)
