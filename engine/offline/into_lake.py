"""Rows of scans that are done into a lake, each row exactly once.

The inputs stand where a state folder stands for a scan (state/delivery.py): the same inputs, in the same order, make
the same batches of BATCH_ROWS rows, under the same name, a digest over what tells each part from any other (path, size,
time of the last change). So the command that was killed, said again, asks the lake for each batch and adds
what is missing; said once too often, it adds nothing. What fails in passing is tried again in the same way.

Rows whose input says which scan they are of (`scan=NAME` in Hive's folders, a column of a Delta table) keep that name.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.errors import ConfigError, EngineError, InputError, OutputError
from engine.offline.reading import Deaf, Nothing, Reading, Watch
from engine.offline.rows_in import Part
from engine.results.lake import Batch, Delivery, Lake, Unavailable, open_lake
from engine.results.rows import hand_over
from engine.results.staged import cache_folder, own_folder
from engine.state.delivery import PATIENCE_S, Deliveries, Terms
from engine.state.follower import PAUSES_S
from engine.state.journal import Journal, read_journal
from engine.state.notes import SCAN_NAME
from engine.threads import aside

BATCH_ROWS = 500_000  # of a lake's batch; part of what makes it the same again
FORM = "convert-1"  # of the batches; another way to cut them gets another name


class Goal(Struct, frozen=True):
    """url: of the lake. scan: the name that rows get, empty for what the parts say. full: NDJSON with every field."""

    url: str
    scan: str = ""
    full: bool = False


def into_lake(parts: Sequence[Part], goal: Goal, watch: Watch, before: tuple[int, int] = (0, 0)) -> int:
    """All rows into a lake, those of each scan by themselves. -> how many

    before: bytes and rows of other inputs. Raises ConfigError, OutputError; Nothing where no row and only faults were
    found; ReadError where an input cannot be read at the moment.
    """
    if goal.scan and not SCAN_NAME.fullmatch(goal.scan):
        raise ConfigError(f"--scan-name {goal.scan!r}: letters, digits, dots, hyphens and underscores, at most 100")
    for part in parts:
        if part.told is None:
            raise ConfigError(
                f"{part.name}: a pipe cannot be told from another one, so a lake cannot say whether it has its rows; "
                "write them to a file, and convert that"
            )
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(goal.scan or part.scan, []).append(part)
    rows = 0
    done, others = before
    faulty = False
    for name, group in groups.items():
        run = _digest([FORM, name, *(part.told for part in parts)])
        named = Goal(goal.url, name or _default_name(group, run), goal.full)
        delivery = _Delivering(group, named, run, Deaf(watch), (done, others + rows))
        rows += delivery.bring()
        faulty = faulty or delivery.faults
        done += sum(part.size or 0 for part in group)
    if faulty and not rows:
        raise Nothing
    return rows


def _digest(told: object) -> str:
    return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


def _default_name(parts: Sequence[Part], run: str) -> str:
    """As a scan is called by itself: when, and a few letters; but the same each time."""
    changed = max(part.changed for part in parts)
    when = f"{datetime.fromtimestamp(changed / 1e9, UTC):%Y%m%dT%H%M%S}" if changed else "converted"
    return f"{when}-{run[:6]}"


class _Delivering:
    """The rows of one scan on their way into a lake. faults: whether anything could not be used."""

    def __init__(self, parts: Sequence[Part], goal: Goal, run: str, watch: Deaf, before: tuple[int, int]) -> None:
        self.faults = False
        self._parts = parts
        self._goal = goal
        self._run = run
        self._watch = watch
        self._before = before
        self._batches = 0  # that the lake has for certain

    def bring(self) -> int:
        """-> how many rows. Raises OutputError, ConfigError, ReadError."""
        delivery = _digest([self._run, self._goal.url])
        what = f"the delivery to {self._goal.url.partition('?')[0].partition('://')[0]}"
        with own_folder(cache_folder("convert", delivery), what) as folder:
            lake = open_lake(self._goal.url, Delivery(self._run, self._goal.scan, str(folder), self._goal.full))
            try:
                return self._patiently(lake)
            finally:
                lake.discard()
                lake.close()

    def _patiently(self, lake: Lake) -> int:
        """What fails in passing is done again from the beginning, which costs reading what the lake has."""
        attempt, since, had = 0, time.monotonic(), 0
        while True:
            try:
                return self._once(lake)
            except Unavailable as error:
                lake.discard()
                if self._batches > had:
                    attempt, since, had = 0, time.monotonic(), self._batches
                pause = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
                if time.monotonic() + pause > since + PATIENCE_S:
                    raise OutputError(f"{error}; the same command goes on from there") from error
                attempt += 1
                time.sleep(pause)
            except (EngineError, OSError):
                raise
            except Exception as error:  # a fault of a library
                raise OutputError(f"{lake.name}: {type(error).__name__}: {error}") from error

    def _once(self, lake: Lake) -> int:
        self._watch.begin()
        reading = Reading(self._parts, self._watch, strict=True, before=self._before)
        total = filled = number = 0
        there = False  # whether the lake has the present batch
        for rows in reading.rows():
            while rows.count:
                if not filled:
                    number += 1
                    there = number <= self._batches or lake.holds(Batch(number, number))
                some, rows = rows.cut(min(rows.count, BATCH_ROWS - filled))
                if not there:
                    hand_over(some, lake)
                filled += some.count
                total += some.count
                if filled == BATCH_ROWS:
                    self._end(lake, number, there)
                    filled = 0
        if filled:
            self._end(lake, number, there)
        self.faults = reading.faults
        return total

    def _end(self, lake: Lake, number: int, there: bool) -> None:
        if not there:
            lake.commit(Batch(number, number))
        self._batches = max(self._batches, number)


def state_into_lake(folder: str, goal: Goal, watch: Watch, before: tuple[int, int] = (0, 0)) -> int:
    """The committed segments of a state folder into a lake, as the scan itself would bring them. -> how many rows

    before: bytes and rows of other inputs. Raises ConfigError, also where a run is using the folder; OutputError.
    """
    header, _ = read_journal(Path(folder))
    if header is None:
        raise InputError(folder, 0, "holds no run")
    journal = Journal.open(folder, header.plan, resume=True)
    try:
        deliveries = aside(lambda: Deliveries(journal, [goal.url], Terms(scan=goal.scan, full=goal.full)))
        sizes = [record.size for record in journal.records]

        def progressed() -> None:
            done = len(sizes) - max(deliveries.behind().values())
            watch.moved(before[0] + sum(sizes[: max(done, 0)]), before[1])

        deliveries.progressed = progressed
        deliveries.finish()
        watch.moved(before[0] + sum(sizes), before[1] + journal.rows)
        return journal.rows
    finally:
        journal.close()
