"""From committed segments into lakes: each lake has a thread that follows the journal and brings it batch after batch.

Contract: every segment is in every lake exactly once, whatever ends the process in between. What makes it so:

    1. segments are committed before anybody looks at them, numbered, and never change
    2. before a batch is committed at its lake, its bounds are written down here (`deliveries`, on the disk)
    3. the lake commits the batch together with a mark of its own, or in files whose names tell the batch
    4. the batch is written down as delivered

After an end between 2 and 4 the next run asks the lake for exactly that batch, and brings it again if it is not there.

A lake that is slow slows the run down: `make_room` waits while one of them is LAG segments behind. A lake that cannot
be reached does not: its segments are safe here, it is tried again until the run ends, and then by the next `--resume`.
A lake that refuses is left alone after it has been said so. So a scan never ends because of a lake.
"""

import logging
import os
import re
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from threading import Condition, Thread
from typing import Annotated

import msgspec
import zstandard
from msgspec import Meta, Struct, field

from engine.errors import ConfigError, EngineError, OutputError
from engine.results.lake import Batch, Delivery, Lake, Unavailable, open_lake
from engine.state.digest import Count
from engine.state.folder import Folder, close, staged_name, told, write_all
from engine.state.journal import Journal
from engine.state.records import PART, Record

log = logging.getLogger("probemill.delivery")

NAME = "deliveries"
STAGING = "staging"  # a folder in that of the run
MAX_SIZE = 1 << 20  # bytes of that file
LAG = 8  # segments that a lake may be behind before the run waits for it
PACKED = 256 << 10  # bytes of a segment at a time: some MB of rows
STALLED_S = 60.0  # a lake that has not moved for so long is not slow but away
STUCK_S = 10.0  # the same when somebody wants the run to end
MAX_SIZE_OF_FILE = 4 << 30  # bytes; what object stores take in one piece
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # before a lake is tried again; the last one from then on
PATIENCE_S = 60.0  # for a lake that cannot be reached, once everything else is done
HURRIED_S = 5.0  # the same when somebody has interrupted the run
SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class _Place(Struct, omit_defaults=True):
    """How far a lake is. done: the last segment that it has; trying: bounds of a batch that it may have or not."""

    done: Count = 0
    trying: tuple[Count, Count] | None = None

    def fits(self, last: int) -> bool:
        """Whether there can be such a place where that is the last committed segment."""
        if self.trying is None:
            return self.done <= last
        return self.done + 1 == self.trying[0] <= self.trying[1] <= last


class _Notes(Struct):
    """The file `deliveries`. run: the name by which lakes know the run; scan: what people call it."""

    run: Annotated[str, Meta(pattern=r"\A[a-z0-9-]{8,40}\Z")]
    scan: Annotated[str, Meta(pattern=rf"\A{SCAN_NAME.pattern}\Z")]
    lakes: dict[str, _Place] = field(default_factory=dict)


_notes = msgspec.json.Decoder(_Notes).decode


class Terms(Struct, frozen=True):
    """How rows are delivered. scan: the name, or empty for the one it has. size: of a file in bytes, about.

    seconds: after which a batch is closed that has not reached that size. full: NDJSON with every field.
    delete: segments go once every lake has them.
    """

    scan: str = ""
    size: int = 128 << 20
    seconds: float = 900.0
    full: bool = False
    delete: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if not 1 <= self.size <= MAX_SIZE_OF_FILE:
            raise ConfigError(f"--sink-size: from 1 byte to {MAX_SIZE_OF_FILE >> 30}G")


class Deliveries:
    """The lakes of a run.

    hurried: asked whether somebody wants the run to end. progressed: told now and then that `finish` gets on.
    """

    def __init__(self, journal: Journal, urls: Sequence[str], terms: Terms) -> None:
        """Opens the lakes and asks each one whether it is there. Raises ConfigError, OutputError."""
        self.progressed: Callable[[], None] = lambda: None
        self.hurried: Callable[[], bool] = lambda: False
        self.changed = Condition()
        self.ending = False  # everything is committed: deliver it, and end
        self.give_up_at = float("inf")  # for lakes that cannot be reached
        self.terms = terms
        self._journal = journal
        self._folder = journal.folder
        self._deleted = 0  # the last segment that `delete_delivered` has seen to
        self._notes = _opened(self._folder, terms.scan, self.last)
        self._staging = _emptied(self._folder)
        delivery = Delivery(self._notes.run, self._notes.scan, str(self._staging), terms.full, terms.size)
        known = set(self._notes.lakes)
        lakes: list[Lake] = []
        try:
            lakes.extend(open_lake(url, delivery) for url in urls)  # one by one: those before a failure are closed
            self._refuse_twice(lakes)
            places = self._notes.lakes
            self.followers = [_Follower(self, lake, places.setdefault(lake.name, _Place())) for lake in lakes]
            for follower in self.followers:
                follower.ask(known=follower.lake.name in known)
            self.save()
            self.delete_delivered()
        except BaseException:
            for lake in lakes:
                lake.close()
            raise
        for name in lacking(self._folder, self.last, but={lake.name for lake in lakes}):
            log.warning("%s lacks segments of this run; name it with --sink again to deliver them", name)
        for follower in self.followers:
            follower.start()

    @property
    def scan(self) -> str:
        return self._notes.scan

    def behind(self) -> dict[str, int]:
        """How many segments each lake lacks, by its name."""
        last = self.last
        return {follower.lake.name: last - follower.place.done for follower in self.followers}

    @property
    def last(self) -> int:
        """The number of the last committed segment that has rows."""
        return last_segment(self._journal)

    def committed(self) -> None:
        """There is another segment."""
        with self.changed:
            self.changed.notify_all()

    def make_room(self) -> None:
        """Wait for lakes that are slow, as long as nobody wants the run to end."""
        with self.changed:
            while not self.hurried() and any(
                follower.works and self.last - follower.taken > LAG and follower.still_s() < STALLED_S
                for follower in self.followers
            ):
                self.changed.wait(0.2)

    def finish(self) -> None:
        """Deliver all that is committed. Raises OutputError, naming the lakes that lack something, and why."""
        self._end_in(PATIENCE_S)
        for follower in self.followers:
            while follower.alive(0.2):
                self.progressed()
                if self.hurried():
                    self._end_in(HURRIED_S)
                    if time.monotonic() > self.give_up_at and follower.still_s() > STUCK_S:
                        break  # in the middle of a request that nobody answers: its thread ends with the process
        for follower in self.followers:
            if not follower.alive(0.0):
                follower.lake.close()
        shutil.rmtree(self._staging, ignore_errors=True)
        missing = [follower.missing() for follower in self.followers if follower.place.done < self.last]
        if missing:
            raise OutputError(f"{'; '.join(missing)}; the rows are safe in {self._folder}: --resume goes on with them")

    def save(self) -> None:
        """Write down how far the lakes are. Raises OutputError."""
        with self.changed, told(self._folder, name=NAME):
            staged = staged_name(NAME)
            descriptor = self._folder.create(staged)
            try:
                write_all(descriptor, msgspec.json.encode(self._notes))
                os.fsync(descriptor)
                self._folder.rename(staged, NAME)
                self._folder.sync()
            except OSError:
                with suppress(OSError):  # which leaves room for the next attempt
                    self._folder.remove(staged)
                raise
            finally:
                close(descriptor)

    def rows(self, name: str) -> Iterator[bytes]:
        """The rows of a segment, some thousand whole lines at a time. Raises OutputError, at the end at the latest,
        where they are not those that were committed."""
        record = next(record for record in reversed(self._journal.records) if record.name == name)
        with told(self._folder, name=name):
            descriptor = self._folder.read(name)
        digest, count, rest = sha256(), 0, b""
        with os.fdopen(descriptor, "rb") as file, told(self._folder, name=name), suppress(zstandard.ZstdError):
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            while packed := file.read(PACKED):
                digest.update(packed)
                block = rest + unpacker.decompress(packed)
                cut = block.rfind(b"\n") + 1
                rest = block[cut:]
                if cut:
                    count += block.count(b"\n")
                    yield block[:cut]
        if rest or count != record.rows or (record.sha256 and digest.hexdigest() != record.sha256):
            raise OutputError(f"{self._folder}/{name}: has changed since it was committed; restore it from a copy")

    def next(self, behind: int) -> str:
        """The name of the first committed segment behind that number; empty where there is none."""
        records = self._journal.records
        at = bisect_right(records, behind, key=_number_of)
        return records[at].name if at < len(records) else ""

    def delete_delivered(self) -> None:
        """Remove the segments that every lake has, if that is wanted. Raises OutputError."""
        if not self.terms.delete:
            return
        with self.changed, told(self._folder):
            done = min(place.done for place in self._notes.lakes.values())  # of lakes that were not named again, too
            while (name := self.next(self._deleted)) and _number(name) <= done:
                if self._folder.look(name) is not None:
                    self._folder.remove(name)
                self._deleted = _number(name)

    def _end_in(self, seconds: float) -> None:
        with self.changed:
            self.ending = True
            self.give_up_at = min(self.give_up_at, time.monotonic() + seconds)
            self.changed.notify_all()

    def _refuse_twice(self, lakes: Sequence[Lake]) -> None:
        if len({lake.name for lake in lakes}) < len(lakes):
            raise ConfigError("--sink: the same place is named twice")
        own = Path(os.path.realpath(self._folder.path))
        for lake in lakes:
            place = Path(lake.name.partition(":")[2])
            if place == own or own in place.parents:
                raise ConfigError(f"{lake.name}: is in the folder of --state, the run's own; name another one")


class _Follower:
    """One lake. taken: the last segment that was written to it, committed or not."""

    def __init__(self, deliveries: Deliveries, lake: Lake, place: _Place) -> None:
        self.lake = lake
        self.place = place
        self.taken = place.done
        self.works = True
        self._all = deliveries
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
            if self.lake.holds(Batch(first, last)):
                self.place.done = self.taken = max(last, self.place.done)
                self.place.trying = None
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
        name = self._all.next(self.taken)
        if not name or (forced and self.taken >= forced[1]):
            return self._rest(forced is not None)
        number = _number(name)
        if not self._first:
            if forced and self.lake.holds(Batch(*forced)):  # it arrived, and the answer got lost
                self._delivered(forced[1])
                return False
            self._first, self._begun = number, time.monotonic()
        for rows in self._all.rows(name):
            self.lake.write(rows)
            self._moved = time.monotonic()
        with self._all.changed:
            self.taken = number
            self._all.changed.notify_all()
        if (forced and number == forced[1]) or (not forced and self.lake.size >= self._all.terms.size):
            self._commit()
        return False

    def _rest(self, forced: bool) -> bool:
        """Nothing to bring at the moment. Raises OutputError."""
        if self._first and (forced or self._all.ending or self._age() >= self._all.terms.seconds):
            self._commit()
            return False
        with self._all.changed:
            if self._all.next(self.taken):
                return False
            if self._all.ending:
                return not self._first
            left = self._all.terms.seconds - self._age() if self._first else None
            self._all.changed.wait(left)
        return False

    def _commit(self) -> None:
        first, last = self._first, self.taken
        self.place.trying = (first, last)
        self._all.save()
        self.lake.commit(Batch(first, last))
        self._delivered(last)

    def _delivered(self, last: int) -> None:
        with self._all.changed:
            self.place.done, self.place.trying = last, None
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


def _emptied(folder: Folder) -> Path:
    """The folder for files that do not count yet, without those of an earlier run. Raises OutputError."""
    staging = folder.path / STAGING
    with told(folder, name=STAGING):
        if staging.is_symlink():
            raise OutputError(f"{folder}/{STAGING}: is a link; remove it")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(0o700)
    return staging


def _opened(folder: Folder, scan: str, last: int) -> _Notes:
    """The notes of the folder, or new ones. last: segment of the journal. Raises ConfigError, OutputError."""
    if scan and not SCAN_NAME.fullmatch(scan):
        raise ConfigError(f"--scan-name {scan!r}: letters, digits, dots, hyphens and underscores, at most 100")
    folder.refuse_foreign(NAME)
    notes = _read(folder)
    if notes is None:
        run = token_hex(8)
        return _Notes(run, scan or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{run[:6]}")
    for name, place in notes.lakes.items():
        if not place.fits(last):
            raise OutputError(f"{folder}/{NAME}: does not fit the journal ({name}); restore both from one copy")
    if scan and not any(place.done or place.trying for place in notes.lakes.values()):
        notes.scan = scan
    if scan and scan != notes.scan:
        raise ConfigError(f"--scan-name {scan}: this run is called {notes.scan}; leave the option out")
    return notes


def last_segment(journal: Journal) -> int:
    """The number of the last committed segment that has rows; 0 for none."""
    return _number(journal.records[-1].name) if journal.records else 0


def _read(folder: Folder) -> _Notes | None:
    try:
        with told(folder, name=NAME):
            descriptor = folder.read(NAME)
    except OutputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            return _notes(file.read(MAX_SIZE))
        except msgspec.MsgspecError as error:
            raise OutputError(f"{folder}/{NAME}: is damaged ({error}); restore it from a copy") from error


def lacking(folder: Folder, last: int, but: Container[str] = ()) -> list[str]:
    """The lakes of runs before that lack something of segments up to `last`. Raises OutputError."""
    notes = _read(folder)
    places = notes.lakes.items() if notes is not None else ()
    return [name for name, place in places if name not in but and (place.trying or place.done < last)]


def _number_of(record: Record) -> int:
    return _number(record.name)


def _number(name: str) -> int:
    return int(name.removeprefix(PART).partition(".")[0])
