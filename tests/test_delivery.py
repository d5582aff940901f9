"""Committed segments on their way into lakes: what is delivered, when, and what failing lakes cost. No network."""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from engine.errors import ConfigError, OutputError
from engine.model import Batch as Rows
from engine.model import DatabaseRef, ServiceResult, Verdict
from engine.results import lake as lakes_module
from engine.results.lake import Batch, Delivery, Unavailable
from engine.results.sinks import Summary
from engine.state import delivery as delivery_module
from engine.state import follower as follower_module
from engine.state.attempt import Attempt
from engine.state.delivery import LAG, Deliveries, Terms
from engine.state.elsewhere import Elsewhere
from engine.state.journal import Journal
from engine.state.segments import SegmentSink

SUMMARY = Summary(0.0)


def rows(*ordinals: int) -> Rows:
    """Rows whose port is their ordinal."""
    made = [
        ServiceResult(
            ip="192.0.2.1",
            port=ordinal,
            proto="tcp",
            verdict=Verdict.NOMATCH,
            database=DatabaseRef("x", "00"),
            started="2026-11-21T06:38:13.402Z",
        ).to_json()
        for ordinal in ordinals
    ]
    return Rows("".join(f"{line}\n" for line in made).encode(), len(made), list(ordinals), {})


class Shelf:
    """A lake in memory, which outlives the runs. fault: called before everything it does."""

    def __init__(self) -> None:
        self.batches: dict[tuple[int, int], list[int]] = {}
        self.fault: Callable[[str], None] = lambda _: None
        self.begun: list[int] = []
        self.name = "shelf:x"
        self.opened = 0

    def open(self, _where: str, _delivery: Delivery) -> "Shelf":
        self.begun, self.opened = [], self.opened + 1
        return self

    @property
    def size(self) -> int:
        return len(self.begun)

    def holds(self, batch: Batch) -> bool:
        self.fault("holds")
        return (batch.first, batch.last) in self.batches

    def write(self, lines: bytes) -> None:
        self.fault("write")
        self.begun += [json.loads(line)["port"] for line in lines.splitlines()]

    def commit(self, batch: Batch) -> None:
        self.fault("commit")
        assert self.batches.setdefault((batch.first, batch.last), self.begun) == self.begun
        self.begun = []
        self.fault("committed")

    def discard(self) -> None:
        self.begun = []

    def close(self) -> None:
        self.discard()

    @property
    def ports(self) -> list[int]:
        return [port for ports in self.batches.values() for port in ports]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    shelf = Shelf()
    monkeypatch.setattr(delivery_module, "open_lake", shelf.open)
    monkeypatch.setattr(follower_module, "PAUSES_S", (0.01,))
    monkeypatch.setattr(delivery_module, "PATIENCE_S", 0.3)
    yield shelf
    logging.getLogger("probemill.delivery").setLevel(logging.NOTSET)


def opened(folder: Path, terms: Terms | None = None, urls: tuple[str, ...] = ("shelf:x",)) -> SegmentSink:
    """A run whose segments are closed by their first row."""
    journal = Journal.open(folder, {}, resume=True)
    try:
        return SegmentSink(journal, deliveries=Deliveries(journal, urls, terms or Terms()), size=1, seconds=0)
    except BaseException:
        journal.close()
        raise


def wait_until(said: Callable[[], bool]) -> None:
    """At most ten seconds."""
    for _ in range(1000):
        if said():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


def notes(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "deliveries").read_text())["lakes"]["shelf:x"]
    return found


def test_everything_is_delivered_in_the_end(tmp_path: Path, shelf: Shelf) -> None:
    """In one batch, as nothing made it close earlier."""
    sink = opened(tmp_path)
    for ordinal in range(5):
        sink.take(rows(ordinal))
    sink.close(SUMMARY)
    assert shelf.batches == {(1, 5): [0, 1, 2, 3, 4]}
    assert notes(tmp_path) == {"done": 5, "latest": [1, 5]}


def test_a_batch_is_closed_by_size(tmp_path: Path, shelf: Shelf) -> None:
    """At the end of the segment that reaches it."""
    sink = opened(tmp_path, Terms(size=2))
    for ordinal in range(5):
        sink.take(rows(ordinal))
    sink.close(SUMMARY)
    assert list(shelf.batches) == [(1, 2), (3, 4), (5, 5)]


def test_a_batch_is_closed_by_age(tmp_path: Path, shelf: Shelf) -> None:
    """While no further segment comes."""
    sink = opened(tmp_path, Terms(seconds=0.05))
    sink.take(rows(0))
    wait_until(lambda: bool(shelf.batches))
    sink.close(SUMMARY)


def test_the_next_run_goes_on(tmp_path: Path, shelf: Shelf) -> None:
    """With the segments that follow; what was delivered is not asked for again."""
    for ordinal in range(3):
        sink = opened(tmp_path)
        sink.take(rows(ordinal))
        sink.close(SUMMARY)
    assert shelf.batches == {(1, 1): [0], (2, 2): [1], (3, 3): [2]}


def test_a_sink_that_is_named_later_gets_everything(tmp_path: Path, shelf: Shelf) -> None:
    """From the first segment on."""
    sink = SegmentSink(Journal.open(tmp_path, {}), size=1, seconds=0)
    sink.take(rows(0))
    sink.close(SUMMARY)
    opened(tmp_path).close(SUMMARY)
    assert shelf.ports == [0]


@pytest.mark.parametrize("moment", ["write", "commit", "committed"])
def test_a_run_that_ends_anywhere_delivers_once(tmp_path: Path, shelf: Shelf, moment: str) -> None:
    """The bounds of a batch that may have arrived are kept, so it is asked for, or brought again as it was."""

    class End(BaseException):
        pass

    def end(said: str) -> None:
        if said == moment:
            raise End

    threading.excepthook, kept = lambda _: None, threading.excepthook
    try:
        sink = opened(tmp_path)
        shelf.fault = end
        sink.take(rows(0))
        sink.take(rows(1))
        with pytest.raises(OutputError, match="lacks segments 1 to 2"):
            sink.close(SUMMARY)
    finally:
        threading.excepthook = kept
    assert notes(tmp_path).get("trying") == (None if moment == "write" else [1, 2])
    shelf.fault = lambda _: None
    sink = opened(tmp_path)
    sink.take(rows(2))
    sink.close(SUMMARY)
    assert shelf.ports == [0, 1, 2]
    if moment != "write":
        assert list(shelf.batches) == [(1, 2), (3, 3)]


@pytest.mark.parametrize("moment", ["write", "commit", "committed"])
def test_a_lake_that_was_away_gets_everything(tmp_path: Path, shelf: Shelf, moment: str) -> None:
    """Once, also where only its answer was lost."""
    left = 3

    def away(said: str) -> None:
        nonlocal left
        if said == moment and left:
            left -= 1
            raise Unavailable("shelf:x: away")

    sink = opened(tmp_path)
    shelf.fault = away
    for ordinal in range(3):
        sink.take(rows(ordinal))
    sink.close(SUMMARY)
    assert sorted(shelf.ports) == [0, 1, 2]


def test_a_lake_that_stays_away_is_said(tmp_path: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """At the end, with what it lacks; the warning comes once."""

    def away(said: str) -> None:
        if said == "write":
            raise Unavailable("shelf:x: away")

    sink = opened(tmp_path)
    shelf.fault = away
    for ordinal in range(LAG + 5):  # nobody waits for what is away
        sink.take(rows(ordinal))
    with pytest.raises(OutputError, match=r"shelf:x lacks segments 1 to 13 \(shelf:x: away\); .*--resume"):
        sink.close(SUMMARY)
    assert len(caplog.records) == 1


def test_a_lake_that_refuses_does_not_stop_the_run(
    tmp_path: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said at once, and once more at the end."""

    def refuse(said: str) -> None:
        if said == "write":
            raise OutputError("shelf:x: no such right")

    sink = opened(tmp_path)
    shelf.fault = refuse
    for ordinal in range(LAG + 5):
        sink.take(rows(ordinal))
    with pytest.raises(OutputError, match="no such right"):
        sink.close(SUMMARY)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    shelf.fault = lambda _: None
    opened(tmp_path).close(SUMMARY)
    assert sorted(shelf.ports) == list(range(LAG + 5))


def test_a_fault_of_a_library_is_a_failure_like_others(tmp_path: Path, shelf: Shelf) -> None:
    """Whatever it raises."""

    def break_down(said: str) -> None:
        if said == "write":
            raise ZeroDivisionError("x")

    sink = opened(tmp_path)
    shelf.fault = break_down
    sink.take(rows(0))
    with pytest.raises(OutputError, match="ZeroDivisionError: x"):
        sink.close(SUMMARY)


def test_a_slow_lake_slows_the_run(tmp_path: Path, shelf: Shelf) -> None:
    """It is never more than LAG segments behind, and one that is being written."""
    gate = threading.Event()
    shelf.fault = lambda said: None if said != "write" else gate.wait(10) and None
    sink = opened(tmp_path)
    taken = 0

    def take() -> None:
        nonlocal taken
        for ordinal in range(LAG * 3):
            sink.take(rows(ordinal))
            taken += 1

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    wait_until(lambda: taken > LAG)
    time.sleep(0.3)
    assert taken == LAG + 1
    gate.set()
    thread.join(10)
    sink.close(SUMMARY)
    assert len(shelf.ports) == LAG * 3


def test_nobody_waits_for_a_slow_lake_who_wants_to_end(tmp_path: Path, shelf: Shelf) -> None:
    """After Ctrl-C rows are committed at once."""
    gate = threading.Event()
    shelf.fault = lambda said: None if said != "write" else gate.wait(10) and None
    sink = opened(tmp_path)
    assert sink.deliveries is not None
    sink.deliveries.hurried = lambda: True
    for ordinal in range(LAG * 3):
        sink.take(rows(ordinal))
    gate.set()
    sink.close(SUMMARY)
    assert len(shelf.ports) == LAG * 3


def test_delivered_segments_go(tmp_path: Path, shelf: Shelf) -> None:
    """Where that is wanted; the next run takes no notice."""
    sink = opened(tmp_path, Terms(delete=True))
    for ordinal in range(3):
        sink.take(rows(ordinal))
    sink.close(SUMMARY)
    assert not list(tmp_path.glob("part-*"))
    sink = opened(tmp_path, Terms(delete=True))
    sink.take(rows(3))
    sink.close(SUMMARY)
    assert shelf.ports == [0, 1, 2, 3]


def test_a_segment_that_is_gone_is_said(tmp_path: Path, shelf: Shelf) -> None:
    """A lake that needs it cannot have the rest either: its rows would never come."""
    sink = SegmentSink(Journal.open(tmp_path, {}), size=1, seconds=0)
    sink.take(rows(0))
    sink.take(rows(1))
    sink.close(SUMMARY)
    (tmp_path / "part-000001.ndjson.zst").unlink()
    with pytest.raises(OutputError, match=r"part-000001\.ndjson\.zst: No such file"):
        opened(tmp_path).close(SUMMARY)
    assert not shelf.batches


@pytest.mark.parametrize("cut", [0, 1, 50, -4])
def test_a_segment_that_was_cut_is_not_delivered(tmp_path: Path, shelf: Shelf, cut: int) -> None:
    """Whatever part of it can be read: it has to be what was committed."""
    sink = opened(tmp_path)
    gate = threading.Event()
    shelf.fault = lambda said: None if said != "write" else gate.wait(10) and None
    sink.take(rows(0))
    sink.take(rows(1))
    part = tmp_path / "part-000002.ndjson.zst"
    part.write_bytes(part.read_bytes()[:cut])
    gate.set()
    with pytest.raises(OutputError, match=r"part-000002\.ndjson\.zst: has changed since it was committed"):
        sink.close(SUMMARY)
    assert not shelf.batches


def test_segments_stay_for_a_sink_that_is_not_named_again(
    tmp_path: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """It lacks them, and this is said."""
    sink = opened(tmp_path)
    sink.take(rows(0))
    sink.close(SUMMARY)
    path = tmp_path / "deliveries"
    notes = json.loads(path.read_text())
    notes["lakes"]["parquet:/other"] = {}
    path.write_text(json.dumps(notes))
    opened(tmp_path, Terms(delete=True)).close(SUMMARY)
    assert list(tmp_path.glob("part-*"))
    assert "parquet:/other lacks segments of this run" in caplog.text


def test_segments_that_a_killed_run_left_go(tmp_path: Path, shelf: Shelf) -> None:
    """With the next one that wants it so, though it delivers nothing."""
    sink = opened(tmp_path)
    sink.take(rows(0))
    sink.close(SUMMARY)
    opened(tmp_path, Terms(delete=True)).close(SUMMARY)
    assert not list(tmp_path.glob("part-*"))


def test_a_lake_that_never_answers_holds_nobody_up(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the rows of the scan, nor who wants it to end."""
    monkeypatch.setattr(delivery_module, "STALLED_S", 0.2)
    monkeypatch.setattr(delivery_module, "STUCK_S", 0.2)
    monkeypatch.setattr(delivery_module, "HURRIED_S", 0.2)
    gate = threading.Event()
    shelf.fault = lambda said: None if said != "commit" else gate.wait(30) and None
    sink = opened(tmp_path, Terms(size=1))
    for ordinal in range(LAG * 3):
        sink.take(rows(ordinal))
    assert sink.deliveries is not None
    sink.deliveries.hurried = lambda: True
    with pytest.raises(OutputError, match="lacks segments 1 to 24"):
        sink.close(SUMMARY)
    gate.set()


def test_a_known_lake_may_be_away_at_the_start(tmp_path: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """A supervisor that resumes must be able to scan in an outage."""
    opened(tmp_path).close(SUMMARY)
    shelf.fault = lambda said: (_ for _ in ()).throw(Unavailable("shelf:x: away")) if said == "holds" else None
    sink = opened(tmp_path)
    assert "away; trying again" in caplog.text
    sink.take(rows(0))
    sink.close(SUMMARY)
    assert shelf.ports == [0]


@pytest.mark.parametrize("place", [{"done": 2}, {"done": 1, "trying": [1, 2]}, {"trying": [2, 2]}, {"trying": [1, 9]}])
def test_notes_that_do_not_fit_the_journal_are_said(tmp_path: Path, shelf: Shelf, place: dict[str, Any]) -> None:
    """Rows would be lost or wait for ever."""
    sink = opened(tmp_path)
    sink.take(rows(0))
    sink.close(SUMMARY)
    path = tmp_path / "deliveries"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lakes": {"shelf:x": place}}))
    with pytest.raises(OutputError, match="does not fit the journal"):
        opened(tmp_path)


def test_a_lake_that_has_lost_its_rows_is_said(tmp_path: Path, shelf: Shelf) -> None:
    """Or is another one by the same name: to go on behind what it lacks would lose them in silence."""
    sink = opened(tmp_path)
    sink.take(rows(0))
    sink.close(SUMMARY)
    shelf.batches.clear()
    with pytest.raises(OutputError, match="has not what this run brought there before"):
        opened(tmp_path)
    (tmp_path / "deliveries").unlink()
    opened(tmp_path).close(SUMMARY)
    assert shelf.ports == [0]


def test_a_lake_that_is_not_there_is_said_before_anything_begins(tmp_path: Path, shelf: Shelf) -> None:
    """Nobody wants to find that out at the end of a scan."""

    def away(_said: str) -> None:
        raise Unavailable("shelf:x: away")

    shelf.fault = away
    with pytest.raises(OutputError, match="away"):
        opened(tmp_path)


def test_the_name_of_a_scan_stays(tmp_path: Path, shelf: Shelf) -> None:
    """Once it is part of names that lakes have; and it names folders."""
    opened(tmp_path, Terms(scan="weekly-0")).close(SUMMARY)
    sink = opened(tmp_path, Terms(scan="weekly-1"))
    sink.take(rows(0))
    sink.close(SUMMARY)
    opened(tmp_path).close(SUMMARY)
    with pytest.raises(ConfigError, match="this run is called weekly-1"):
        opened(tmp_path, Terms(scan="weekly-2"))
    with pytest.raises(ConfigError, match="letters, digits"):
        opened(tmp_path / "other", Terms(scan="../x"))


@pytest.mark.parametrize("text", ["", "{}", '{"run":"../../..","scan":"x"}', "[" * 100_000], ids=len)
def test_damaged_notes_are_said(tmp_path: Path, shelf: Shelf, text: str) -> None:
    """By the name of their file."""
    opened(tmp_path).close(SUMMARY)
    (tmp_path / "deliveries").write_text(text)
    with pytest.raises(OutputError, match="deliveries: is damaged"):
        opened(tmp_path)


@pytest.mark.parametrize("size", [0, 5 << 30])
def test_a_size_that_no_file_can_have_is_refused(size: int) -> None:
    """By the name of its option."""
    with pytest.raises(ConfigError, match="--sink-size"):
        Terms(size=size)


@pytest.mark.parametrize("where", [".", "x", "../run/x"])
def test_the_folder_of_the_run_is_no_sink(tmp_path: Path, where: str) -> None:
    """However it is written."""
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match="the run's own"):
        opened(folder, urls=(f"ndjson+zstd:{folder / where}",))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("x", "is no sink; write one of parquet:PATH, "),
        ("paruqet:x", "is no sink"),
        ("s3://x/y", "you may mean parquet:s3://x/y"),
        ("parquet:", "write parquet:PATH"),
        ("delta://lake", "a path from the root has one slash"),
        ("kafka:", "write kafka:BROKER:PORT/TOPIC"),
        ("parquet:ftp://x/y", "write a path, s3://"),
    ],
)
def test_what_is_no_sink_is_said(tmp_path: Path, url: str, words: str) -> None:
    """With what would be one."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        lakes_module.open_lake(url, Delivery("run", "scan", str(tmp_path)))


@pytest.mark.parametrize("url", [f"{scheme}:x/y.z" for scheme in lakes_module.LAKES if scheme != "ndjson+zstd"])
def test_a_missing_extra_is_said(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'", name="pyarrow")

    monkeypatch.setattr(lakes_module, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'probemill\[lake\]'"):
        lakes_module.open_lake(url, Delivery("run", "scan", str(tmp_path)))


def test_the_same_sink_twice_is_refused(tmp_path: Path, shelf: Shelf) -> None:
    """It would have everything twice, or fight with itself."""
    with pytest.raises(ConfigError, match="twice"):
        opened(tmp_path, urls=("shelf:x", "shelf:y"))


# --- segments that lie elsewhere --------------------------------------------------------------------------------------


def put_elsewhere(folder: Path, terms: Terms | None = None, url: str = "shelf:x") -> SegmentSink:
    """A run whose segments come whole, to a folder beside its own."""
    journal = Journal.open(folder, {}, resume=True, segments=str(folder.with_suffix(".segments")))
    try:
        return SegmentSink(journal, deliveries=Deliveries(journal, (url,), terms or Terms()), size=1, seconds=0)
    except BaseException:
        journal.close()
        raise


def give(sink: SegmentSink, *ordinals: int) -> None:
    made = Attempt()
    some = rows(*ordinals)
    made.write(some.rows, some.count, some.done)
    assert sink.take_segment(made.put(sink.journal.staging)) is not None


def test_segments_elsewhere_are_delivered_as_others(tmp_path: Path, shelf: Shelf) -> None:
    """Once, in the order of their commits, over several runs."""
    for ordinal in range(0, 6, 3):
        sink = put_elsewhere(tmp_path / "run")
        give(sink, ordinal)
        sink.take(rows(ordinal + 1))
        give(sink, ordinal + 2)
        sink.close(SUMMARY)
    assert shelf.batches == {(1, 3): [0, 1, 2], (4, 6): [3, 4, 5]}


def test_a_place_of_segments_that_is_away_is_waited_for(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a lake that is away: it is no damage, also not behind the first rows of a batch."""
    sink = put_elsewhere(tmp_path / "run")
    real, left = Elsewhere.opened, 3

    @contextmanager
    def torn(self: Elsewhere, key: str) -> Iterator[BinaryIO]:
        nonlocal left
        with real(self, key) as file:
            left -= 1
            if left >= 0:
                raise Unavailable(f"{self}/{key}: away")
            yield file

    monkeypatch.setattr(Elsewhere, "opened", torn)
    for ordinal in range(3):
        give(sink, ordinal)
    sink.close(SUMMARY)
    assert sorted(shelf.ports) == [0, 1, 2]
    assert "away; trying again until it comes back" in caplog.text


def test_delivered_segments_go_elsewhere_too(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is wanted. A place that does not let them go keeps them until the next run, and is no failure."""
    sink = put_elsewhere(tmp_path / "run", Terms(delete=True))
    place = tmp_path / "run.segments"
    give(sink, 0)

    def refuse(*_: object) -> None:
        raise OutputError("the place: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Elsewhere, "remove", refuse)
        sink.close(SUMMARY)
    assert len(list(place.iterdir())) == 1
    sink = put_elsewhere(tmp_path / "run", Terms(delete=True))
    assert not list(place.iterdir())
    give(sink, 1)
    sink.close(SUMMARY)
    assert not list(place.iterdir())
    assert shelf.ports == [0, 1]


@pytest.mark.parametrize("where", ["run.segments", "run.segments/x", "."])
def test_the_place_of_segments_is_no_sink(tmp_path: Path, where: str) -> None:
    """Nor is a sink's own a place among which they lie: who reads it would have rows twice."""
    with pytest.raises(ConfigError, match=r"the segments of --segments|the run's own"):
        put_elsewhere(tmp_path / "run", url=f"ndjson+zstd:{tmp_path / where}")
