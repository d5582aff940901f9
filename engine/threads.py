"""Work that may block, kept away from the event loop, in daemon threads that nobody has to wait for.

Contract: a caller that is cancelled returns at once; the thread goes on by itself and ends with the process at the
latest. Neither an event loop that closes nor an interpreter that ends waits for it, unlike with an executor.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

Result = TypeVar("Result")
_Job = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]


async def in_thread(job: Callable[[], Result]) -> Result:
    """What `job` gives or raises, run in a thread of its own."""
    future, settle = _promise()
    Thread(target=_run, args=(job, settle), daemon=True).start()
    result: Result = await future
    return result


def aside(job: Callable[[], Result]) -> Result:
    """What `job` gives or raises, run in a thread, while the caller goes on hearing signals."""
    results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    Thread(target=_run, args=(job, lambda result, error: results.put((result, error))), daemon=True).start()
    while True:
        with suppress(Empty):
            result, error = results.get(timeout=0.1)
            if error is not None:
                raise error
            done: Result = result
            return done


class Desk:
    """One thread that does the jobs it is given, one after the other, in order."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._thread = Thread(target=self._work, daemon=True)
        self._since: float | None = None

    async def do(self, job: Callable[[], Result]) -> Result:
        """What `job` gives or raises, when its turn has come."""
        future, settle = _promise()
        self._put((job, settle))
        result: Result = await future
        return result

    def post(self, job: Callable[[], object]) -> None:
        """Do `job` when its turn has come, whatever it raises."""
        self._put((job, lambda _result, _error: None))

    def __len__(self) -> int:
        """How many jobs wait."""
        return self._jobs.qsize()

    def settle(self, limit_s: float) -> bool:
        """Wait, but no longer than that, until everything posted so far is done; whether it is."""
        if not self._thread.ident:
            return True
        done = Event()
        self.post(done.set)
        return done.wait(limit_s)

    def stuck_s(self) -> float:
        """How long the present job has taken so far, in seconds."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def beat(self) -> None:
        """Said by a job that takes long and gets on: it is not stuck."""
        if self._since is not None:
            self._since = time.monotonic()

    def _put(self, job: _Job) -> None:
        if not self._thread.ident:
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job, settle = self._jobs.get()
            self._since = time.monotonic()
            _run(job, settle)
            self._since = None


def _promise() -> tuple["asyncio.Future[Any]", Callable[[Any, BaseException | None], None]]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def keep(result: Any, error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def settle(result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(keep, result, error)

    return future, settle


def _run(job: Callable[[], Any], settle: Callable[[Any, BaseException | None], None]) -> None:
    try:
        result = job()
    except BaseException as error:  # whoever waits decides
        settle(None, error)
    else:
        settle(result, None)
