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
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Condition

from msgspec import Struct

from engine.errors import ConfigError, OutputError
from engine.results.lake import Delivery, Lake, open_lake
from engine.state.folder import Folder, told
from engine.state.follower import Follower
from engine.state.journal import Journal
from engine.state.notes import Place, lacking, open_notes, save_notes
from engine.state.records import Record, segment_number

log = logging.getLogger("probemill.delivery")

STAGING = "staging"  # a folder in that of the run
LAG = 8  # segments that a lake may be behind before the run waits for it
STALLED_S = 60.0  # a lake that has not moved for so long is not slow but away
STUCK_S = 10.0  # the same when somebody wants the run to end
MAX_SIZE_OF_FILE = 4 << 30  # bytes; what object stores take in one piece
PATIENCE_S = 60.0  # for a lake that cannot be reached, once everything else is done
HURRIED_S = 5.0  # the same when somebody has interrupted the run


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
        self.size, self.seconds = terms.size, terms.seconds
        self._delete = terms.delete
        self._journal = journal
        self._folder = journal.folder
        self._deleted = 0  # the last segment that `delete_delivered` has seen to
        self._unwanted: list[str] = []  # keys of segments elsewhere that are still to be removed
        self._notes = open_notes(self._folder, terms.scan, self.last)
        self._staging = _emptied(self._folder)
        delivery = Delivery(self._notes.run, self._notes.scan, str(self._staging), terms.full, terms.size)
        known = set(self._notes.lakes)
        lakes: list[Lake] = []
        try:
            lakes.extend(open_lake(url, delivery) for url in urls)  # one by one: those before a failure are closed
            self._refuse_twice(lakes)
            places = self._notes.lakes
            self.followers = [Follower(self, lake, places.setdefault(lake.name, Place())) for lake in lakes]
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
        return self._journal.last

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
        if self._unwanted:
            self.delete_delivered()
        shutil.rmtree(self._staging, ignore_errors=True)
        missing = [follower.missing() for follower in self.followers if follower.place.done < self.last]
        if missing:
            safe = " and ".join(map(str, filter(None, (self._folder, self._journal.elsewhere))))
            raise OutputError(f"{'; '.join(missing)}; the rows are safe in {safe}: --resume goes on with them")

    def save(self) -> None:
        """Write down how far the lakes are. Raises OutputError."""
        with self.changed:
            save_notes(self._folder, self._notes)

    def rows(self, segment: Record) -> Iterator[bytes]:
        """Some thousand whole lines at a time. Raises OutputError; Unavailable where they lie elsewhere."""
        return self._journal.rows_of(segment)

    def next(self, behind: int) -> Record | None:
        """The first committed segment behind that number."""
        records = self._journal.records
        at = bisect_right(records, behind, key=lambda record: segment_number(record.name))
        return records[at] if at < len(records) else None

    def delete_delivered(self) -> None:
        """Remove the segments that every lake has, if that is wanted. Raises OutputError."""
        if not self._delete:
            return
        with self.changed, told(self._folder):
            done = min(place.done for place in self._notes.lakes.values())  # of lakes that were not named again, too
            while (segment := self.next(self._deleted)) and (number := segment_number(segment.name)) <= done:
                if segment.key:
                    self._unwanted.append(segment.key)
                elif self._folder.look(segment.name) is not None:
                    self._folder.remove(segment.name)
                self._deleted = number
            unwanted, self._unwanted = self._unwanted, []
        if unwanted and not self._removed(unwanted):
            with self.changed:
                self._unwanted += unwanted

    def _removed(self, keys: Sequence[str]) -> bool:
        """Whether segments could be removed elsewhere: if not, the lakes have them all the same."""
        try:
            if self._journal.elsewhere is not None:
                self._journal.elsewhere.remove(keys)
        except OutputError as error:
            log.warning("%s; delivered segments stay there until the next time", error)
            return False
        return True

    def _end_in(self, seconds: float) -> None:
        with self.changed:
            self.ending = True
            self.give_up_at = min(self.give_up_at, time.monotonic() + seconds)
            self.changed.notify_all()

    def _refuse_twice(self, lakes: Sequence[Lake]) -> None:
        if len({lake.name for lake in lakes}) < len(lakes):
            raise ConfigError("--sink: the same place is named twice")
        own = Path(os.path.realpath(self._folder.path))
        elsewhere = self._journal.elsewhere
        for lake in lakes:
            place = Path(lake.name.partition(":")[2])
            if place == own or own in place.parents:
                raise ConfigError(f"{lake.name}: is in the folder of --state, the run's own; name another one")
            segments = Path(elsewhere.where) if elsewhere is not None else None
            if segments is not None and (place == segments or segments in place.parents or place in segments.parents):
                raise ConfigError(f"{lake.name}: has the segments of --segments among its own; name another place")


def _emptied(folder: Folder) -> Path:
    """The folder for files that do not count yet, without those of an earlier run. Raises OutputError."""
    staging = folder.path / STAGING
    with told(folder, name=STAGING):
        if staging.is_symlink():
            raise OutputError(f"{folder}/{STAGING}: is a link; remove it")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(0o700)
    return staging
