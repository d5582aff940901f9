"""A run seen through its state folder: the journal, and the rows of the segments that are committed.

Contract: nothing is written or locked. Each look reads segments for `LOOK_S` at most, the newest first, so that what
goes on now is seen at once however much was done before; older ones follow at the next looks. What a folder cannot
tell, `View.unknown` names. Rows count at the second in which they were finished, by the clock of who scanned.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.cli.top.view import KEPT, Asked, UnseenError, View
from engine.errors import EngineError
from engine.model import Reason
from engine.results.slow_hosts import SLOW_MS, SlowHosts
from engine.state.elsewhere import Elsewhere
from engine.state.folder import Folder
from engine.state.journal import NAME, read_journal
from engine.state.reading import segment_rows
from engine.state.records import End, Header, Record, ended
from matcher import shown

LOOK_S = 0.5
SLOW = 20  # hosts shown
RATE_S = 10  # rows come by the segment, so the present rate is taken over more than a moment
UNKNOWN = "a folder does not tell what is in flight, how long probes take, the log"
UNKNOWN_YET = ", or how many targets there are until the run has ended"


class _Evidence(Struct):
    probe: str = ""
    sent: str = ""
    line: int = 0


class _Row(Struct):
    """What is looked at of a row."""

    ip: str = ""
    name: str = ""
    verdict: str = ""
    reason: str = ""
    evidence: _Evidence | None = None
    started: str = ""
    elapsed_ms: int = 0


class StateFolder:
    """The source."""

    def __init__(self, path: str) -> None:
        self.where = shown(path)
        self._path = Path(path)
        self._journal_was: tuple[int, ...] = ()
        self._header: Header | None = None
        self._records: list[Record] = []
        self._end: End | None = None
        self._rest: list[Record] = []  # not looked at yet, oldest first
        self._known: set[str] = set()
        self._unopened: list[Record] = []  # taken away, or only just on the way to their names: asked for at each look
        self._lost = 0
        self._rows: dict[str, Counter[str]] = {kind: Counter() for kind in ("verdict", "reason", "service", "hit")}
        self._slow = SlowHosts()
        self._finished: Counter[int] = Counter()  # rows by the second since the epoch
        self._decoder = msgspec.json.Decoder(_Row)

    def look(self) -> View:
        """Raises UnseenError."""
        try:
            self._read_journal()
            self._read_segments()
        except EngineError as error:
            raise UnseenError(str(error)) from error
        except OSError as error:
            raise UnseenError(f"{self.where}: {error.strerror}") from error
        rows, end = self._rows, self._end
        rates = self._rates()
        return View(
            where=self.where,
            done=sum(record.rows for record in self._records),
            read=end.read if end is not None else None,
            input_ended=end is not None,
            ended=f"{end.at}, {end.words() or 'all was done'}" if end is not None else "",
            rate=None if end is not None else sum(rates[-RATE_S:]) / min(RATE_S, len(rates)) if rates else 0.0,
            rates=rates,
            verdicts=rows["verdict"].copy(),
            reasons=rows["reason"].copy(),
            services=rows["service"].copy(),
            probes={name: Asked(hits=hits) for name, hits in rows["hit"].items()},
            slow=self._slow.longest(SLOW),
            unknown="; ".join((UNKNOWN + UNKNOWN_YET * (end is None), *self._unread())),
        )

    def _read_journal(self) -> None:
        """Raises EngineError, OSError, UnseenError where there is none."""
        try:
            facts = (self._path / NAME).stat()
        except FileNotFoundError:
            raise UnseenError(f"{self.where}: holds no run of a scan with --state") from None
        is_now = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        if is_now == self._journal_was:
            return
        header, records = read_journal(self._path)
        if header is None:
            raise UnseenError(f"{self.where}: holds no run")
        self._header, self._journal_was = header, is_now
        self._records, self._end = [record for record in records if record.name], ended(records)
        self._rest += [record for record in self._records if record.name not in self._known]
        self._known.update(record.name for record in self._rest)

    def _read_segments(self) -> None:
        self._rest[:0], self._unopened = self._unopened, []
        if not self._rest or self._header is None:
            return
        until = time.monotonic() + LOOK_S
        elsewhere = Elsewhere(self._header.segments, self._header.run) if self._header.segments else None
        folder = Folder.open(self._path)
        try:
            while self._rest and time.monotonic() < until:
                record, counted = self._rest.pop(), False
                try:
                    for block in segment_rows(folder, record, elsewhere):
                        self._count(block)
                        counted = True
                except EngineError:
                    if counted:  # a second reading would count its first rows twice
                        self._lost += 1
                    else:
                        self._unopened.append(record)
        finally:
            folder.close()

    def _count(self, block: bytes) -> None:
        rows = self._rows
        for row in self._decoded(block):
            rows["verdict"][row.verdict] += 1
            if row.reason:
                rows["reason"][row.reason] += 1
            if row.evidence is not None and row.evidence.line:
                if row.reason != Reason.CANCELLED.value:  # which counts as not reached
                    rows["service"][row.name] += 1
                rows["hit"][row.evidence.sent or row.evidence.probe] += 1
            if row.elapsed_ms >= SLOW_MS and row.ip:
                self._slow.add(row.ip, row.elapsed_ms)
            with suppress(ValueError, OverflowError):
                self._finished[int(datetime.fromisoformat(row.started).timestamp() + row.elapsed_ms / 1000)] += 1
        if len(self._finished) > 4 * KEPT:
            self._finished = Counter(dict(sorted(self._finished.items())[-2 * KEPT :]))

    def _decoded(self, block: bytes) -> Iterator[_Row]:
        for line in block.splitlines():
            with suppress(msgspec.MsgspecError):
                yield self._decoder.decode(line)

    def _rates(self) -> list[float]:
        """Rows a second, until the last second that has any."""
        last = max(self._finished, default=0)
        first = max(min(self._finished, default=0), last - KEPT + 1)
        return [float(self._finished[second]) for second in range(first, last)]  # the last one is not over

    def _unread(self) -> Iterator[str]:
        if self._rest:
            yield f"{len(self._rest):,} of {len(self._known):,} segments are still to be read"
        if lost := self._lost + len(self._unopened):
            yield f"{lost:,} segments could not be read"
