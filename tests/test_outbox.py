"""The outbox and its alarm: what leaves when, and what is counted. Time is a clock that the tests move."""

from collections import Counter

import msgspec
import pytest
from clock import Clock
from msgspec.structs import replace
from peers import row

from engine.model import Batch, Evidence, Reason, ServiceResult, Verdict
from engine.pool.alarm import Alarm
from engine.pool.outbox import Outbox
from engine.results.sinks.base import decode_rows

ROW = row("http", 80)


class Post:
    """An outbox whose batches come to lie in a list."""

    def __init__(self, *, batch_rows: int = 3, batch_s: float = 0.5, failures: dict[str, int] | None = None) -> None:
        self.clock = Clock()
        self.batches: list[Batch] = []
        self.outbox = Outbox(
            self.batches.append,
            lambda: False,
            self.clock.call_later,
            batch_rows=batch_rows,
            batch_s=batch_s,
            failures={} if failures is None else failures,
        )

    def put(self, *ordinals: int, result: ServiceResult = ROW) -> None:
        for ordinal in ordinals:
            self.outbox.put(ordinal, result)
        self.outbox.settle(self.clock.now)

    @property
    def delivered(self) -> list[list[int]]:
        return [batch.done for batch in self.batches]


def test_a_row_that_cannot_be_written_takes_no_other_with_it() -> None:
    """Its target leaves as crashed, in its place, and is counted as that."""
    post = Post(batch_rows=4)
    huge = replace(ROW, post={"snmp": {"boots": 10**5000}})
    torn = replace(ROW, host="\ud800", verdict=Verdict.INCOMPLETE, reason=Reason.RESET)
    post.put(0)
    post.put(1, result=huge)
    post.put(2, result=torn)
    post.put(3)
    (batch,) = post.batches
    rows = decode_rows(batch.rows)
    assert batch.done == [0, 1, 2, 3]
    assert [row.reason for row in rows] == [None, Reason.CRASHED, Reason.CRASHED, None]
    assert (rows[2].host, rows[1].ip, rows[1].post) == ("\\ud800", ROW.ip, None)
    tally = {name: count for name, count in batch.tally.items() if name[:7] in ("verdict", "reason:") and count}
    assert tally == {"verdict:hardmatched": 2, "verdict:incomplete": 2, "reason:crashed": 2}


def test_services_are_those_of_targets_that_are_done() -> None:
    """What a conversation had found when the run was ended is in its row, but the target counts as not reached."""
    post = Post(batch_rows=3)
    soft = replace(ROW, verdict=Verdict.INCOMPLETE, name="ssh", evidence=Evidence("NULL", 7))
    post.put(0, result=replace(ROW, evidence=Evidence("NULL", 7)))
    post.put(1, result=replace(soft, reason=Reason.CANCELLED))
    post.put(2, result=replace(soft, reason=Reason.BUDGET))
    (batch,) = post.batches
    services = {name: count for name, count in batch.tally.items() if name.startswith("service:")}
    assert services == {"service:http": 1, "service:ssh": 1}


# --- alarm ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rung() -> list[float]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alarm(clock: Clock, rung: list[float]) -> Alarm:
    return Alarm(clock.call_later, lambda: rung.append(clock.now))


@pytest.mark.parametrize("times", [(101.0, 102.0), (102.0, 101.0), (101.0, 101.0)])
def test_an_alarm_rings_once_at_the_earliest_time_it_was_set_to(
    alarm: Alarm, clock: Clock, rung: list[float], times: tuple[float, ...]
) -> None:
    for at in times:
        alarm.set(at, clock.now)
    assert clock.pending == [101.0]
    clock.move(9)
    assert rung == [101.0]


@pytest.mark.parametrize("at", [99.0, float("-inf")])
def test_an_alarm_for_the_past_rings_at_once(alarm: Alarm, clock: Clock, rung: list[float], at: float) -> None:
    alarm.set(at, clock.now)
    clock.move(0)
    assert rung == [100.0]


def test_an_alarm_is_set_again_after_it_rang_or_was_stopped(alarm: Alarm, clock: Clock, rung: list[float]) -> None:
    alarm.stop()
    for _ in range(2):
        alarm.set(clock.now + 1, clock.now)
        alarm.stop()
        alarm.set(clock.now + 2, clock.now)
        clock.move(5)
    assert rung == [102.0, 107.0]


def test_an_alarm_may_be_set_while_it_rings(clock: Clock) -> None:
    rung: list[float] = []

    def ring() -> None:
        rung.append(clock.now)
        alarm.set(clock.now + 1, clock.now)

    alarm = Alarm(clock.call_later, ring)
    alarm.set(101.0, clock.now)
    clock.move(3)
    assert rung == [101.0, 102.0, 103.0]


# --- outbox ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_as_many_rows_as_were_asked_for() -> None:
    post = Post(batch_rows=3)
    post.put(5, 6, 7, 8)
    assert post.delivered == [[5, 6, 7]]
    assert (post.batches[0].count, decode_rows(post.batches[0].rows)) == (3, [ROW] * 3)


def test_rows_that_do_not_make_a_batch_leave_in_time() -> None:
    """batch_s runs from the turn that brought the first of them, whatever comes after it."""
    post = Post(batch_s=0.5)
    post.put(1)
    post.clock.move(0.4)
    post.put(2)
    assert post.delivered == []
    post.clock.move(0.1)
    assert post.delivered == [[1, 2]]
    post.clock.move(9)
    assert len(post.batches) == 1  # an empty outbox delivers nothing


def test_a_full_batch_gives_the_rest_its_own_time() -> None:
    post = Post(batch_rows=2, batch_s=0.5)
    post.put(1)
    post.clock.move(0.4)
    post.put(2, 3)
    post.clock.move(0.4)
    assert post.delivered == [[1, 2]]
    post.clock.move(0.1)
    assert post.delivered == [[1, 2], [3]]


def test_flushing_an_empty_outbox_delivers_nothing() -> None:
    post = Post()
    post.outbox.tally["starved"] += 1
    post.outbox.flush()
    assert post.batches == []
    post.put(1)
    post.outbox.flush()
    assert post.batches[0].tally["starved"] == 1


def test_a_closed_outbox_delivers_nothing() -> None:
    post = Post(batch_rows=2)
    post.put(1)
    post.outbox.close()
    assert post.clock.pending == []
    post.put(2, 3)
    post.clock.move(9)
    post.outbox.flush()
    assert post.batches == []


def test_what_a_row_counts() -> None:
    """Metrics are made of these names."""
    post = Post(batch_rows=4)
    found = replace(ROW, bytes=10, connections=2, elapsed_ms=30, verdict=Verdict.HARDMATCHED)
    post.put(0, result=replace(found, evidence=Evidence("NULL", 3)))
    post.put(1, result=replace(found, evidence=Evidence("NULL", 3, sent="Ask")))
    post.put(2, result=replace(found, evidence=Evidence("", 0, recog="a fingerprint")))
    post.put(3, result=replace(ROW, verdict=Verdict.INCOMPLETE, reason=Reason.TIMEOUT))
    assert post.batches[0].tally == {
        "bytes": 30,
        "connections": 6,
        "waited_ms": 90,
        "verdict:hardmatched": 3,
        "verdict:incomplete": 1,
        "reason:timeout": 1,
        "service:http": 2,
        "hit:NULL": 1,
        "hit:Ask": 1,
    }


def test_every_count_is_in_one_batch() -> None:
    """Those of others, and what the matcher's own counters have grown by."""
    failures = {"re2": 2}
    post = Post(batch_rows=1, failures=failures)
    sent = 0
    for ordinal in range(4):
        if ordinal % 2:
            failures["re2"] += ordinal
        post.outbox.tally["sent:Ask"] += ordinal
        sent += ordinal
        post.put(ordinal)
    tally: Counter[str] = Counter()
    for batch in post.batches:
        tally.update(batch.tally)
    assert (tally["engine:re2"], tally["sent:Ask"]) == (failures["re2"], sent)
    assert [batch.tally.get("engine:re2", 0) for batch in post.batches] == [2, 1, 0, 3]


def test_a_row_is_a_line_of_json() -> None:
    post = Post(batch_rows=2)
    post.put(1, 2)
    lines = post.batches[0].rows.splitlines(keepends=True)
    assert [msgspec.json.decode(line)["port"] for line in lines] == [80, 80]
    assert all(line.endswith(b"\n") for line in lines)


def test_hosts_that_take_long_are_counted() -> None:
    """With the batch that has their rows."""
    post = Post(batch_rows=2)
    post.put(0, 1, result=replace(ROW, elapsed_ms=6000))
    (batch,) = post.batches
    assert batch.tally[f"host_ms:{ROW.ip}"] == 12_000
