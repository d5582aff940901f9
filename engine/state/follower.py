"""One lake, and the thread that brings it a run's segments, batch after batch. delivery.py has the contract."""

import logging
import time
from collections.abc import Iterator
from threading import Condition, Thread
from typing import Protocol

from engine.errors import EngineError, OutputError
from engine.results.lake import Batch, Lake, Unavailable
from engine.state.notes import Place
from engine.state.records import Record, segment_number

log = logging.getLogger("probemill.delivery")

PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # before a lake is tried again; the last one from then on


class Segments(Protocol):
    """What a follower follows. changed: held for everything that two threads look at, and told of every change.

    ending: everything is committed, so deliver it and end. give_up_at: for a lake that cannot be reached, on the
    monotonic clock. size, seconds: at which a batch is closed.
    """

    changed: Condition
    ending: bool
    give_up_at: float
    size: int
    seconds: float

    @property
    def last(self) -> int: ...

    def next(self, behind: int) -> Record | None: ...

    def rows(self, segment: Record) -> Iterator[bytes]: ...

    def save(self) -> None: ...

    def delete_delivered(self) -> None: ...


class Follower:
    """One lake. taken: the last segment that was written to it, committed or not."""

    def __init__(self, segments: Segments, lake: Lake, place: Place) -> None:
        self.lake = lake
        self.place = place
        self.taken = place.done
        self.works = True
        self._all = segments
        self._first = 0  # of the present batch; 0 for none
        self._begun = 0.0
        self._failure = ""
        self._attempts = 0
        self._moved = time.monotonic()
        self._thread = Thread(target=self._work, name=lake.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def alive(self, limit_s: float) -> bool:
        """Wait a little for the end. Whether there is still something to do."""
        self._thread.join(limit_s)
        return self._thread.is_alive()

    def still_s(self) -> float:
        """For how long nothing has moved, in seconds."""
        return time.monotonic() - self._moved

    def missing(self) -> str:
        first, last = self.place.done + 1, self._all.last
        which = f"segment {first}" if first == last else f"segments {first} to {last}"
        return f"{self.lake.name} lacks {which}{f' ({self._failure})' if self._failure else ''}"

    def ask(self, *, known: bool) -> None:
        """Find out what became of a batch that may have arrived, and whether the lake is there at all.

        One that is known from an earlier run may be away, and come back. Raises OutputError.
        """
        trying = self.place.trying
        first, last = trying or (self.place.done + 1, self.place.done + 1)
        try:
            if self.place.latest and not self.lake.holds(Batch(*self.place.latest)):
                raise OutputError(
                    f"{self.lake.name}: has not what this run brought there before (segment {self.place.done}): is it "
                    "another one, or were its rows taken away? Removing `deliveries` from the state folder brings all "
                    "rows to all sinks again, under another name of the run"
                )
            if self.lake.holds(Batch(first, last)):
                self.place.done = self.taken = max(last, self.place.done)
                self.place.trying, self.place.latest = None, (first, last)
        except Unavailable as error:
            if not known:
                raise OutputError(f"{error}; nothing was begun: see that it can be reached") from error
            self.lake.discard()
            log.warning("%s; trying again until it comes back", error)

    def _work(self) -> None:
        """Until everything is delivered, or cannot be."""
        while True:
            try:
                if self._step():
                    return
            except Unavailable as error:
                if not self._wait(error):
                    return
            except EngineError as error:
                self._fail(str(error))
                return
            except Exception as error:  # a fault of ours or of a library: the scan goes on all the same
                log.debug("%s", self.lake.name, exc_info=True)
                self._fail(f"{self.lake.name}: {type(error).__name__}: {error}")
                return

    def _step(self) -> bool:
        """Bring one more segment, or commit what is due. Whether this was the end. Raises OutputError."""
        forced = self.place.trying
        segment = self._all.next(self.taken)
        if segment is None or (forced and self.taken >= forced[1]):
            return self._rest(forced is not None)
        number = segment_number(segment.name)
        if not self._first:
            if forced and self.lake.holds(Batch(*forced)):  # it arrived, and the answer got lost
                self._delivered(*forced)
                return False
            self._first, self._begun = number, time.monotonic()
        for rows in self._all.rows(segment):
            self.lake.write(rows)
            self._moved = time.monotonic()
        with self._all.changed:
            self.taken = number
            self._all.changed.notify_all()
        if (forced and number == forced[1]) or (not forced and self.lake.size >= self._all.size):
            self._commit()
        return False

    def _rest(self, forced: bool) -> bool:
        """Nothing to bring at the moment. Raises OutputError."""
        if self._first and (forced or self._all.ending or self._age() >= self._all.seconds):
            self._commit()
            return False
        with self._all.changed:
            if self._all.next(self.taken):
                return False
            if self._all.ending:
                return not self._first
            left = self._all.seconds - self._age() if self._first else None
            self._all.changed.wait(left)
        return False

    def _commit(self) -> None:
        first, last = self._first, self.taken
        self.place.trying = (first, last)
        self._all.save()
        self.lake.commit(Batch(first, last))
        self._delivered(first, last)

    def _delivered(self, first: int, last: int) -> None:
        with self._all.changed:
            self.place.done, self.place.trying, self.place.latest = last, None, (first, last)
            self.taken = max(self.taken, last)
            self._moved = time.monotonic()
            self._all.changed.notify_all()
        self._all.save()
        self._first = 0
        self.works, self._attempts, self._failure = True, 0, ""
        self._all.delete_delivered()

    def _wait(self, error: Unavailable) -> bool:
        """Begin the batch again after a pause, unless it is too late for that."""
        self._again()
        self._failure = str(error)
        pause = PAUSES_S[min(self._attempts, len(PAUSES_S) - 1)]
        if not self._attempts:
            log.warning("%s; trying again until it comes back", error)
        self._attempts += 1
        with self._all.changed:
            self.works = self._attempts < 2
            self._all.changed.notify_all()
            until = time.monotonic() + pause
            while (now := time.monotonic()) < min(until, self._all.give_up_at):
                self._all.changed.wait(min(until, self._all.give_up_at) - now)
            return time.monotonic() < self._all.give_up_at

    def _fail(self, reason: str) -> None:
        self._again()
        with self._all.changed:
            self._failure = reason
            self.works = False
            self._all.changed.notify_all()
        log.error("%s; nothing more is delivered there by this run", reason)

    def _again(self) -> None:
        self.lake.discard()
        self.taken = self.place.done
        self._first = 0

    def _age(self) -> float:
        return time.monotonic() - self._begun
