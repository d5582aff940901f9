"""Rows into segments: when they are closed, what is in them, and what a failing disk leaves. No network."""

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.chaos import read_rows
from engine.errors import OutputError
from engine.model import Batch
from engine.results.ending import Ending
from engine.results.sinks import Summary
from engine.state import segments as segments_module
from engine.state.attempt import Attempt
from engine.state.folder import Folder
from engine.state.journal import Journal, read_journal
from engine.state.ordinals import OrdinalSet
from engine.state.records import Manifest, ended
from engine.state.segments import SegmentSink, SegmentWriter, without_unfinished

SUMMARY = Summary(0.0)


def batch(*ordinals: int, cancelled: tuple[int, ...] = ()) -> Batch:
    """Rows whose port is their ordinal; the cancelled ones say so, and so does a harmless field of every row."""
    rows = []
    tally: Counter[str] = Counter()
    for ordinal in ordinals:
        row = {"ip": "192.0.2.1", "port": ordinal, "verdict": "nomatch", "post": {"reason": "cancelled"}}
        if ordinal in cancelled:
            row["reason"] = "cancelled"
            tally["reason:cancelled"] += 1
        rows.append(row)
    return Batch(msgspec.json.Encoder().encode_lines(rows), len(rows), list(ordinals), dict(tally))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(folder: Path, clock: Clock, size: int = 1 << 20) -> SegmentSink:
    return SegmentSink(Journal.open(folder, {}, resume=True), size=size, seconds=60, clock=clock)


def ports(folder: Path) -> list[int]:
    return [row.port for row in read_rows(folder)]


def committed(folder: Path) -> list[tuple[int, int]]:
    journal = Journal.open(folder, {}, resume=True)
    journal.close()
    return list(journal.committed.ranges())


def test_the_rows_of_a_run(tmp_path: Path, clock: Clock) -> None:
    """All of them in the end, byte for byte, and their ordinals."""
    sink = opened(tmp_path, clock)
    sink.take(batch(1, 0))
    sink.take(batch(5, 3))
    assert ports(tmp_path) == []
    sink.close(SUMMARY)
    assert ports(tmp_path) == [1, 0, 5, 3]
    assert committed(tmp_path) == [(0, 2), (3, 4), (5, 6)]


def test_a_segment_is_closed_by_age(tmp_path: Path, clock: Clock) -> None:
    """Counted from its first row, at the next row or the next look, whichever is first."""
    sink = opened(tmp_path, clock)
    clock.now += 1000
    sink.take(batch(0))
    clock.now += 59
    sink.rotate_if_due()
    assert ports(tmp_path) == []
    clock.now += 1
    sink.take(batch(1))
    assert ports(tmp_path) == [0, 1]
    sink.take(batch(2))
    clock.now += 60
    sink.rotate_if_due()
    assert ports(tmp_path) == [0, 1, 2]
    sink.rotate_if_due()
    sink.close(SUMMARY)
    assert len(list(tmp_path.glob("part-*"))) == 2


def test_a_segment_is_closed_by_size(tmp_path: Path, clock: Clock) -> None:
    sink = opened(tmp_path, clock, size=4096)
    for start in range(0, 100_000, 1000):
        sink.take(batch(*range(start, start + 1000)))
    sink.close(SUMMARY)
    assert ports(tmp_path) == list(range(100_000))
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("part-*"))]
    assert len(sizes) > 3
    assert all(size > 4096 for size in sizes[:-1])


def test_cancelled_rows_are_not_done(tmp_path: Path, clock: Clock) -> None:
    """They are left out with their ordinals; what else says `cancelled` stays."""
    sink = opened(tmp_path, clock)
    sink.take(batch(0, 1, 2, 3, cancelled=(1, 2)))
    sink.take(batch(4, cancelled=(4,)))
    sink.close(SUMMARY)
    assert ports(tmp_path) == [0, 3]
    assert committed(tmp_path) == [(0, 1), (3, 4)]
    untouched = batch(0, 1)
    assert without_unfinished(untouched, OrdinalSet()) is untouched


def test_targets_put_off_are_not_done(tmp_path: Path, clock: Clock) -> None:
    """Their rows are left out, whenever they come."""
    sink = opened(tmp_path, clock)
    sink.put_off([1, 5])
    sink.take(batch(0, 1, 2))
    sink.take(batch(5))
    sink.close(SUMMARY)
    assert committed(tmp_path) == [(0, 1), (2, 3)]
    assert ports(tmp_path) == [0, 2]


def test_targets_without_a_row_are_done(tmp_path: Path, clock: Clock) -> None:
    """Alone or among others; no empty segment is made of them."""
    sink = opened(tmp_path, clock)
    sink.pass_over(range(10, 20))
    sink.close(SUMMARY)
    assert committed(tmp_path) == [(10, 20)]
    assert not list(tmp_path.glob("part-*"))
    sink = opened(tmp_path, clock)
    sink.pass_over({21})
    sink.take(batch(20))
    sink.close(SUMMARY)
    assert committed(tmp_path) == [(10, 22)]
    assert ports(tmp_path) == [20]


def test_a_run_without_rows_leaves_no_segment(tmp_path: Path, clock: Clock) -> None:
    opened(tmp_path, clock).close(SUMMARY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "lock"]


def test_a_target_that_is_done_twice_stops_the_run(tmp_path: Path, clock: Clock) -> None:
    """A fault of ours must not be told from the rows: the second is not committed."""
    sink = opened(tmp_path, clock)
    sink.take(batch(0))
    clock.now += 60
    sink.take(batch(1))
    sink.take(batch(1))
    with pytest.raises(OutputError, match="done twice"):
        sink.close(SUMMARY)
    assert ports(tmp_path) == [0, 1]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow above 2,000 bytes, which is how a full disk looks to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk(tmp_path: Path, clock: Clock) -> None:
    """One line that says what to do; what was committed stays, what was not makes room, and nothing more is taken."""
    sink = opened(tmp_path, clock)
    sink.take(batch(0, 1))
    clock.now += 60
    sink.rotate_if_due()
    with pytest.raises(OutputError, match=r"File too large; what is committed is safe: .*--resume$"):
        for start in range(2, 1_000_000, 1000):
            sink.take(batch(*range(start, start + 1000)))
    with pytest.raises(OutputError, match="File too large"):
        sink.take(batch(2_000_000))
    sink.close(Summary(0.0, "the run was told"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "lock", "part-000001.ndjson.zst"]
    assert committed(tmp_path) == [(0, 2)]


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_under_the_journal(tmp_path: Path, clock: Clock) -> None:
    """The record that does not fit is taken back whole, and its segment does not count."""
    sink = opened(tmp_path, clock)
    with pytest.raises(OutputError, match="journal: File too large"):
        for ordinal in range(1000):
            sink.take(batch(ordinal))
            clock.now += 60
            sink.rotate_if_due()
    sink.close(Summary(0.0, "the run was told"))
    rows = len(ports(tmp_path))
    assert (tmp_path / "journal").read_bytes().endswith(b"\n")
    assert 0 < rows < 20
    assert committed(tmp_path) == [(0, rows)]


@pytest.mark.usefixtures("small_files")
def test_a_failure_that_nobody_was_told_of(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the age may fail when nobody listens: it is said at the next call, or at the end."""
    monkeypatch.setattr(segments_module, "write_all", failing)
    sink = opened(tmp_path, clock)
    sink.take(batch(0))
    clock.now += 60
    with pytest.raises(OutputError):
        sink.rotate_if_due()
    with pytest.raises(OutputError, match="No space left on device"):
        sink.close(SUMMARY)
    assert committed(tmp_path) == []


def failing(descriptor: int, data: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_writer_makes_no_file_before_it_has_rows(tmp_path: Path) -> None:
    """So a worker that stages an attempt and finds nothing leaves nothing behind."""
    folder = Folder.open(tmp_path)
    writer = SegmentWriter(folder)
    assert writer.finish().staged == ""
    writer = SegmentWriter(folder)
    writer.write(batch(1))
    manifest = writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == [manifest.staged]
    assert manifest.staged.startswith(".tmp-")
    writer.discard()
    assert not list(tmp_path.iterdir())


def put(sink: SegmentSink, *ordinals: int) -> Manifest:
    """An attempt that lies in the state folder."""
    made = Attempt()
    rows = batch(*ordinals)
    made.write(rows.rows, rows.count, rows.done)
    return made.put(sink.journal.staging)


def test_whole_segments_are_visible_at_once(tmp_path: Path, clock: Clock) -> None:
    """Beside those that are written here, which wait for their size or age."""
    sink = opened(tmp_path, clock)
    sink.take(batch(0))
    record = sink.take_segment(put(sink, 1, 2))
    assert record is not None
    assert (record.name, record.rows) == ("part-000001.ndjson.zst", 2)
    assert b"".join(sink.journal.rows_of(record)) == batch(1, 2).rows
    assert ports(tmp_path) == [1, 2]
    sink.close(SUMMARY)
    assert ports(tmp_path) == [1, 2, 0]
    assert committed(tmp_path) == [(0, 3)]


def test_attempts_that_nobody_wants_go_with_the_run(tmp_path: Path, clock: Clock) -> None:
    """And only they: what else is called `.tmp-` may be somebody's who is still at it."""
    sink = opened(tmp_path, clock)
    put(sink, 1)
    (tmp_path / ".tmp-0123456789abcdef.deliveries").write_text("")
    assert sink.take_segment(put(sink, 2)) is not None
    sink.close(SUMMARY)
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".tmp-0123456789abcdef.deliveries"]


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_under_the_journal_of_whole_segments(tmp_path: Path, clock: Clock) -> None:
    """Nothing more is taken, and nothing is removed: whether the last one counts, the next run finds out."""
    sink = opened(tmp_path, clock)
    ordinal = 0
    with pytest.raises(OutputError, match="journal: File too large"):
        while True:
            ordinal += 1
            manifest = put(sink, ordinal)
            sink.take_segment(manifest)
    with pytest.raises(OutputError, match="journal: File too large"):
        sink.take_segment(put(sink, 0))
    sink.close(Summary(0.0, "the run was told"))
    assert (tmp_path / manifest.staged).exists()
    assert committed(tmp_path) == [(1, ordinal)]
    assert not (tmp_path / manifest.staged).exists()


def test_how_the_run_ended(tmp_path: Path, clock: Clock) -> None:
    """In the numbers of all runs on the folder; rows that do not count are targets that were not reached."""
    for ordinals, ending, told in (
        (
            (0, 1, 2),
            Ending(why="cut", read=5, done=4, not_reached=1),
            "cut: 3 of 5 done, 2 not reached",
        ),
        ((3,), Ending(read=1, done=1), ""),
    ):
        sink = opened(tmp_path, clock)
        assert ended(read_journal(tmp_path)[1]) is None
        sink.take(batch(*ordinals))
        sink.close(Summary(1_795_243_101.75, ending=ending))
        end = ended(read_journal(tmp_path)[1])
        assert end is not None
        assert (end.words(), end.at) == (told, "2026-11-21T06:38:21Z")


def test_an_end_with_an_error(tmp_path: Path, clock: Clock) -> None:
    """What failed is why."""
    sink = opened(tmp_path, clock)
    sink.take(batch(0))
    sink.close(Summary(0.0, "x.txt: No space left on device", Ending(why="a fault of ours", read=3)))
    end = ended(read_journal(tmp_path)[1])
    assert end is not None
    assert end.words() == "x.txt: No space left on device: 1 of 3 done, 2 not reached"
