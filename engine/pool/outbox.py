"""Rows on their way out of a worker: counted, gathered, encoded, delivered in batches of N rows or T seconds.

Pure: who takes a batch and the loop's timer are arguments. A row is counted in the same batch that carries it. A row
that JSON cannot hold takes no other with it: its target leaves as incomplete, crashed.
docs/operations.md says which metrics are made of the tally.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from engine.conversation.scan import crashed_row
from engine.model import Batch, DatabaseRef, Reason, ServiceResult, Target, Verdict
from engine.pool.alarm import Alarm, CallLater
from engine.results.slow_hosts import slowest

log = logging.getLogger("probemill.worker")


def batch_of(rows: Sequence[ServiceResult], ordinals: Sequence[int]) -> Batch:
    """Rows of targets that no worker had, counted as far as there is something to count."""
    tally = Counter("verdict:" + row.verdict.value for row in rows)
    tally.update("reason:" + row.reason.value for row in rows if row.reason is not None)
    return Batch(msgspec.json.Encoder().encode_lines(rows), len(rows), list(ordinals), dict(tally))


class Rows(Protocol):
    """What a worker hands its rows to. congested: whether no new target should begin. tally: counters of no target."""

    congested: Callable[[], bool]
    tally: defaultdict[str, int]

    def put(self, ordinal: int, result: ServiceResult) -> None:
        """The row of a target that is done."""

    def settle(self, now: float) -> None:
        """Called after each turn."""

    def flush(self) -> None:
        """Called when the worker has nothing more to do."""

    def close(self) -> None:
        """Deliver nothing any more."""


class Outbox:
    """deliver: takes a batch, at once. congested: whether batches pile up behind deliver.

    failures: the matcher's counters (`ScanContext.failures`), live; what they grow by goes into the tally.
    tally: counters since the last batch; others than this class may count there as well.
    """

    def __init__(
        self,
        deliver: Callable[[Batch], None],
        congested: Callable[[], bool],
        call_later: CallLater,
        *,
        batch_rows: int,
        batch_s: float,
        failures: Mapping[str, int],
    ) -> None:
        self.congested = congested
        self.tally: defaultdict[str, int] = defaultdict(int)  # a Counter takes three times as long to count
        self._deliver = deliver
        self._batch_rows = batch_rows
        self._batch_s = batch_s
        self._failures = failures
        self._failures_told: Counter[str] = Counter()  # as far as they are in a tally
        self._rows: list[ServiceResult] = []
        self._done: list[int] = []
        self._encoder = msgspec.json.Encoder()
        self._alarm = Alarm(call_later, self.flush)

    def put(self, ordinal: int, result: ServiceResult) -> None:
        """The row of a target that is done."""
        tally = self.tally
        tally["bytes"] += result.bytes
        tally["connections"] += result.connections
        tally["waited_ms"] += result.elapsed_ms
        tally["verdict:" + result.verdict._value_] += 1  # `value` is a call or two
        if result.reason is not None:
            tally["reason:" + result.reason.value] += 1
        if result.evidence is not None and result.evidence.line:
            if result.reason is not Reason.CANCELLED:  # which counts as not reached
                tally["service:" + result.name] += 1
            tally["hit:" + (result.evidence.sent or result.evidence.probe)] += 1
        self._rows.append(result)
        self._done.append(ordinal)
        if len(self._rows) >= self._batch_rows:
            self.flush()

    def settle(self, now: float) -> None:
        """After each turn: what lies here leaves within batch_s."""
        if self._rows:
            self._alarm.set(now + self._batch_s, now)

    def flush(self) -> None:
        """Deliver what lies here, if anything does."""
        self._alarm.stop()
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        done, self._done = self._done, []
        failures = Counter(self._failures)
        for cause, count in (failures - self._failures_told).items():
            self.tally["engine:" + cause] += count
        self._failures_told = failures
        self.tally.update(slowest(rows))
        try:
            encoded = self._encoder.encode_lines(rows)
        except Exception:  # whatever it is in one of the rows
            encoded = b"".join(map(self._encode, rows))
        tally, self.tally = self.tally, defaultdict(int)
        self._deliver(Batch(encoded, len(rows), done, dict(tally)))

    def _encode(self, row: ServiceResult) -> bytes:
        try:
            return self._encoder.encode(row) + b"\n"
        except Exception as error:
            log.warning("the row of %s port %d/%s cannot be written: %s", row.ip, row.port, row.proto, error)
        self.tally["verdict:" + row.verdict.value] -= 1
        if row.reason is not None:
            self.tally["reason:" + row.reason.value] -= 1
        self.tally["verdict:" + Verdict.INCOMPLETE.value] += 1
        self.tally["reason:" + Reason.CRASHED.value] += 1
        target = Target(0, _plain(row.ip), row.port, row.proto, _plain(row.host))
        database = DatabaseRef(_plain(row.database.name), row.database.sha256)
        plain = crashed_row(target, database, row.started, state=row.state)
        return self._encoder.encode(plain) + b"\n"

    def close(self) -> None:
        """Deliver nothing any more: what lies here and what still comes is dropped."""
        self._alarm.stop()
        self._deliver = lambda batch: None
        self.congested = lambda: False


def _plain(text: str) -> str:
    """A text that can be written: what is no Unicode character is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()
