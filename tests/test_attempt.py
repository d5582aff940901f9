"""Segments that come whole from whoever scans: lost, late, doubled, or put where nobody can be reached."""

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from bench.object_store import BUCKET, ObjectStore, object_store
from engine.errors import ConfigError, OutputError
from engine.model import Batch
from engine.results.lake import Unavailable
from engine.results.lake.base_place import open_place
from engine.results.sinks import Summary
from engine.state import journal as journal_module
from engine.state.attempt import Attempt, Staging
from engine.state.digest import Position
from engine.state.journal import Journal, read_journal
from engine.state.ordinals import OrdinalSet
from engine.state.records import Manifest, Record, summed
from engine.state.segments import SegmentSink
from tests.test_journal import cut

SUMMARY = Summary(0.0)
KINDS = ("state", "folder", "store")
FOREIGN = (
    "segment-0123456789abcdef-0123456789abcdef.ndjson.zst",  # of another run
    "segment-x.ndjson.zst",
    "notes.txt",
)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    pytest.importorskip("obstore", reason="needs probemill[lake]")
    pytest.importorskip("moto", reason="needs probemill[lakedev]")
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of segments, in each of the ways to have one."""
    if request.param == "store":
        request.getfixturevalue("store")
        return f"s3://{BUCKET}/{tmp_path.name}"
    return str(tmp_path / "segments") if request.param == "folder" else ""


@pytest.fixture(params=[kind for kind in KINDS if kind != "state"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of segments that is not the state folder."""
    if request.param == "store":
        request.getfixturevalue("store")
        return f"s3://{BUCKET}/{tmp_path.name}"
    return str(tmp_path / "segments")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "LOOKS_S", (0.0, 0.0))


def attempt(*ordinals: int, passed: tuple[int, ...] = ()) -> Attempt:
    """Rows that are their ordinals. passed: targets without a row."""
    made = Attempt()
    made.write("".join(f"{ordinal}\n" for ordinal in ordinals).encode(), len(ordinals), ordinals)
    made.write(b"", 0, passed)
    return made


def opened(folder: Path, where: str = "", *, resume: bool = True) -> Journal:
    return Journal.open(folder, {}, resume=resume, segments=where)


def ran(folder: Path, where: str, *segments: tuple[int, ...]) -> Path:
    """A run that has ended with these segments."""
    journal = opened(folder, where)
    for ordinals in segments:
        assert journal.commit(attempt(*ordinals).put(journal.staging), Position())
    journal.close()
    return folder


def rows(journal: Journal) -> list[int]:
    """Of all committed segments, in their order."""
    return [int(line) for record in journal.records for some in journal.rows_of(record) for line in some.splitlines()]


def content(journal: Journal) -> list[int]:
    """The same, and the folder let go."""
    try:
        return rows(journal)
    finally:
        journal.close()


def lying(where: str) -> set[str]:
    """The names of all that lies in a place."""
    return {found.name for found in open_place(where).files()} if where else set()


def waiting(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*")]


# --- one attempt ------------------------------------------------------------------------------------------------------


def test_an_attempt_is_read_as_it_was_written(tmp_path: Path, where: str) -> None:
    """Piece by piece, as one zstd frame, with the ordinals of its rows and of targets without one."""
    journal = opened(tmp_path / "run", where)
    made = Attempt()
    for start in range(0, 5000, 100):
        made.write("".join(f"{row}\n" for row in range(start, start + 100)).encode(), 100, range(start, start + 100))
    made.write(b"", 0, [7000])
    manifest = made.put(journal.staging)
    assert (manifest.rows, manifest.size, made.rows) == (5000, made.size, 5000)
    assert bool(manifest.key) == bool(where) != bool(manifest.staged)
    assert journal.commit(manifest, Position())
    assert list(journal.committed.ranges()) == [(0, 5000), (7000, 7001)]
    assert content(journal) == list(range(5000))
    if not where:
        packed = (tmp_path / "run" / "part-000001.ndjson.zst").read_bytes()
        assert zstandard.get_frame_parameters(packed).has_checksum


def test_an_attempt_is_put_once(tmp_path: Path, where: str) -> None:
    """However often it is said; one without rows is put nowhere."""
    journal = opened(tmp_path / "run", where)
    stage = journal.staging.open()
    made = attempt(1, 2)
    assert stage.put(made) is stage.put(made) is made.put(journal.staging)
    assert stage.put(attempt(passed=(3,))) == Manifest(OrdinalSet([(3, 4)]).encode())
    stage.close()
    assert len(lying(where)) + len(waiting(tmp_path / "run")) == 1
    journal.close()


def test_a_folder_is_written_as_a_state_folder_is(tmp_path: Path) -> None:
    """Never for everybody to write, whatever the umask; and no half file bears its name."""
    before = os.umask(0)
    try:
        for where in ("", str(tmp_path / "segments")):
            journal = opened(tmp_path / f"run{len(where)}", where)
            manifest = attempt(1).put(journal.staging)
            path = Path(journal.staging.where, manifest.key or manifest.staged)
            assert stat.S_IMODE(path.stat().st_mode) == 0o664
            journal.close()
    finally:
        os.umask(before)


def test_a_machine_that_does_not_see_the_folder(tmp_path: Path) -> None:
    """It is told, and makes no folder of its own."""
    with pytest.raises(OutputError, match=r"nowhere: No such file or directory"):
        attempt(1).put(Staging(str(tmp_path / "nowhere")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("kind", ["", "segments"])
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: str) -> None:
    """One line; nothing is left of it, and the next try has the same name, even if something had been left."""
    journal = opened(tmp_path / "run", str(tmp_path / kind) if kind else "")
    stage = journal.staging.open()
    made = attempt(1, 2)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if call != "rename" or kind:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(OutputError, match="No space left on device; what is committed is safe"):
                stage.put(made)
        assert not waiting(Path(journal.staging.where))
    half = f".segment-{journal.staging.run}-{made.token}" if kind else f".tmp-{made.token}"
    Path(journal.staging.where, f"{half}.ndjson.zst").write_bytes(b"half")
    manifest = stage.put(made)
    assert made.token in manifest.staged + manifest.key
    assert not kind or not waiting(Path(journal.staging.where))
    assert journal.commit(manifest, Position())
    assert content(journal) == [1, 2]


def test_a_store_that_is_away(tmp_path: Path, store: ObjectStore) -> None:
    """While an attempt is put: it is `Unavailable`, and later there once."""
    where = f"s3://{BUCKET}/{tmp_path.name}"
    journal = opened(tmp_path / "run", where)
    stage = journal.staging.open()
    made, other = attempt(1, 2), attempt(3)
    put = stage.put(other)
    store.kill()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable):
                stage.put(made)
        assert journal.commit(put, Position())  # the store has said that it has it
        with pytest.raises(OutputError, match="nothing was begun") as caught:
            opened(tmp_path / "other", where)
        assert not isinstance(caught.value, Unavailable)
        assert len(str(caught.value).splitlines()) == 1
    finally:
        store.start()
    assert journal.commit(stage.put(made), Position())
    assert len(lying(where)) == 2
    assert content(journal) == [3, 1, 2]


def test_an_object_of_many_megabytes(tmp_path: Path, store: ObjectStore) -> None:
    """More than one request of those that read it again."""
    journal = opened(tmp_path / "run", f"s3://{BUCKET}/{tmp_path.name}")
    noise = random.Random(3).randbytes(6 << 20).hex().encode() + b"\n"
    made = Attempt()
    made.write(noise, 1, [0])
    assert made.size > 5 << 20
    assert journal.commit(made.put(journal.staging), Position())
    assert b"".join(journal.rows_of(journal.records[0])) == noise
    journal.close()


# --- many attempts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_lost_late_and_doubled_attempts_change_nothing(tmp_path: Path, where: str, seed: int) -> None:
    """Each piece of work has one segment in the end, and nothing else is left anywhere, over several runs."""
    chance = random.Random(seed)
    work = [range(start, start + 10) for start in range(0, 100, 10)]
    late: list[Manifest] = []
    for _ in range(3):
        sink = SegmentSink(opened(tmp_path / "run", where))
        journal = sink.journal
        stage = journal.staging.open()
        given = [stage.put(attempt(*chance.choice(work))) for _ in range(12)]
        given += chance.choices(given, k=5)
        chance.shuffle(given)
        for manifest in given[:8]:
            (start, _), *_ = OrdinalSet.decode(manifest.done).ranges()
            there = start in journal.committed
            assert (sink.take_segment(manifest) is None) == there
        sink.close(SUMMARY)
        assert lying(where) == {record.key for record in journal.records if record.key}
        assert not waiting(tmp_path / "run")
        late += given[:8]
    sink = SegmentSink(opened(tmp_path / "run", where))
    assert [sink.take_segment(manifest) for manifest in late] == [None] * len(late)
    for piece in work:
        sink.take_segment(attempt(*piece).put(sink.journal.staging))
    sink.close(SUMMARY)
    assert sorted(content(opened(tmp_path / "run"))) == list(range(100))
    assert len(lying(where)) == (10 if where else 0)


def test_one_target_too_many_refuses_all(tmp_path: Path, where: str) -> None:
    """What overlaps in one ordinal is not committed in part; its file or object goes."""
    sink = SegmentSink(opened(tmp_path / "run", where))
    staging = sink.journal.staging
    record = sink.take_segment(attempt(1, 2, 3).put(staging))
    assert record is not None
    assert record.rows == 3
    before = (tmp_path / "run" / "journal").read_bytes()
    assert sink.take_segment(attempt(3, 4, 5).put(staging)) is None
    assert sink.take_segment(attempt(9, passed=(2,)).put(staging)) is None
    assert (tmp_path / "run" / "journal").read_bytes() == before
    assert len(lying(where)) == bool(where)
    assert not waiting(tmp_path / "run")
    assert sink.take_segment(attempt(4, 5).put(staging)) is not None
    assert rows(sink.journal) == [1, 2, 3, 4, 5]
    sink.close(SUMMARY)


def test_the_same_manifest_twice_loses_nothing(tmp_path: Path, where: str) -> None:
    """A message that came twice must not remove what the first one committed."""
    sink = SegmentSink(opened(tmp_path / "run", where))
    manifest = attempt(1, 2).put(sink.journal.staging)
    assert sink.take_segment(manifest) is not None
    assert sink.take_segment(manifest) is None
    assert rows(sink.journal) == [1, 2]
    sink.close(SUMMARY)


def test_an_attempt_without_rows(tmp_path: Path, where: str) -> None:
    """Is committed, and has a record that names nothing."""
    sink = SegmentSink(opened(tmp_path / "run", where))
    assert sink.take_segment(attempt(passed=(4, 5)).put(sink.journal.staging)) == Record()
    assert sink.take_segment(attempt(passed=(5, 6)).put(sink.journal.staging)) is None
    sink.close(SUMMARY)
    assert list(opened(tmp_path / "run").committed.ranges()) == [(4, 6)]


def test_rows_of_the_driver_stay_in_its_folder(tmp_path: Path, elsewhere: str) -> None:
    """Both kinds of segments stand in one journal, numbered as they came."""
    sink = SegmentSink(opened(tmp_path / "run", elsewhere), size=1, seconds=0)
    for ordinal in range(0, 6, 2):
        sink.take(Batch(b"%d\n" % ordinal, 1, [ordinal], {}))
        sink.take_segment(attempt(ordinal + 1).put(sink.journal.staging))
    sink.close(SUMMARY)
    journal = opened(tmp_path / "run")
    assert [bool(record.key) for record in journal.records] == [False, True] * 3
    assert [record.name for record in journal.records] == [f"part-{number:06}.ndjson.zst" for number in range(1, 7)]
    assert len(list((tmp_path / "run").glob("part-*"))) == len(lying(elsewhere)) == 3
    assert content(journal) == list(range(6))


def test_targets_put_off_are_not_done(tmp_path: Path, where: str) -> None:
    """An attempt that has one of them does not count, and goes."""
    sink = SegmentSink(opened(tmp_path / "run", where))
    sink.put_off([2])
    assert sink.take_segment(attempt(1, 2).put(sink.journal.staging)) is None
    assert sink.take_segment(attempt(1, 3).put(sink.journal.staging)) is not None
    sink.close(SUMMARY)
    assert list(opened(tmp_path / "run").committed.ranges()) == [(1, 2), (3, 4)]


# --- manifests that cannot be -----------------------------------------------------------------------------------------


def spoilt(path: Path, data: bytes | None) -> None:
    path.unlink()
    if data is not None:
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "said"), [(None, "is not there"), (b"", "has 0 bytes, not the"), (b"x" * 999, "has 999 bytes, not the")]
)
@pytest.mark.parametrize("kind", ["", "segments"])
def test_what_is_not_there_whole_is_not_committed(tmp_path: Path, kind: str, data: bytes | None, said: str) -> None:
    """The error names it, the journal is as it was, and nothing more is taken: rows would be lost."""
    sink = SegmentSink(opened(tmp_path / "run", str(tmp_path / kind) if kind else ""))
    before = (tmp_path / "run" / "journal").read_bytes()
    manifest = attempt(1).put(sink.journal.staging)
    name = manifest.key or manifest.staged
    spoilt(Path(sink.journal.staging.where, name), data)
    with pytest.raises(OutputError, match=f"{name}: {said}"):
        sink.take_segment(manifest)
    good = attempt(2).put(sink.journal.staging)
    with pytest.raises(OutputError, match=name):
        sink.take_segment(good)
    assert (tmp_path / "run" / "journal").read_bytes() == before
    sink.close(Summary(0.0, "the run was told"))
    journal = opened(tmp_path / "run")
    assert not journal.committed
    journal.close()


def test_an_object_that_is_not_there_is_not_committed(tmp_path: Path, store: ObjectStore) -> None:
    """A worker may have put it to another store by the same name."""
    journal = opened(tmp_path / "run", f"s3://{BUCKET}/{tmp_path.name}")
    manifest = attempt(1).put(journal.staging)
    open_place(journal.staging.where).remove([manifest.key])
    with pytest.raises(OutputError, match=f"{manifest.key}: is not there"):
        journal.commit(manifest, Position())
    assert not journal.committed
    journal.close()


def test_a_segment_that_is_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file system of several machines may show it: it is looked for more than once."""
    journal = opened(tmp_path / "run")
    manifest = attempt(1).put(journal.staging)
    path, hidden = tmp_path / "run" / manifest.staged, tmp_path / "hidden"
    path.rename(hidden)
    monkeypatch.setattr(journal_module.time, "sleep", lambda pause: pause and hidden.rename(path))
    monkeypatch.setattr(journal_module, "LOOKS_S", (0.0, 1.0))
    assert journal.commit(manifest, Position())
    assert content(journal) == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"key": "segment-0123456789abcdef-0123456789abcdef.ndjson.zst"},
        {"key": "../x"},
        {"key": ""},
        {"rows": 5},
        {"rows": 0},
        {"staged": ".tmp-0123456789abcdef.ndjson.zst"},
    ],
    ids=str,
)
def test_an_odd_manifest_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """Before anything is written, and nothing that it names is touched."""
    where = tmp_path / "segments"
    journal = opened(tmp_path / "run", str(where))
    for name in FOREIGN:
        (where / name).write_text("x")
    before = (tmp_path / "run" / "journal").read_bytes()
    manifest = attempt(1, 2).put(journal.staging)
    odd = msgspec.structs.replace(manifest, **change)
    with pytest.raises(OutputError):
        journal.commit(odd, Position())
    if odd.key != manifest.key:
        journal.discard(odd)
    assert lying(str(where)) == {*FOREIGN, manifest.key}
    assert (tmp_path / "run" / "journal").read_bytes() == before
    journal.close()


def test_a_key_needs_a_place(tmp_path: Path) -> None:
    journal = opened(tmp_path / "run")
    with pytest.raises(OutputError, match="cannot be named"):
        journal.commit(Manifest(OrdinalSet([(0, 1)]).encode(), 1, key=FOREIGN[0]), Position())
    journal.close()


# --- the run that goes on ---------------------------------------------------------------------------------------------


def test_what_was_put_and_not_committed_goes(tmp_path: Path, elsewhere: str) -> None:
    """With the next run; what others keep in the same place stays, another run's segments among it."""
    ran(tmp_path / "run", elsewhere, (1, 2))
    ran(tmp_path / "neighbour", elsewhere, (1,))
    place = open_place(elsewhere)
    for name in FOREIGN:
        place.put_bytes(b"x", name)
    before = lying(elsewhere)
    journal = opened(tmp_path / "run")
    lost = attempt(3).put(journal.staging)  # the driver is killed before it hears of it
    assert lying(elsewhere) == {*before, lost.key}
    journal.close()
    place.put_bytes(b"half", f".{lost.key}")  # and somebody else, while it writes
    journal = opened(tmp_path / "run")
    assert lying(elsewhere) == before
    assert journal.commit(attempt(3).put(journal.staging), Position())
    assert content(journal) == [1, 2, 3]


def test_a_run_that_has_done_nothing_clears_up_behind_itself(tmp_path: Path, elsewhere: str) -> None:
    """Said again, with its place or by `--resume` without."""
    for again in (elsewhere, ""):
        journal = opened(tmp_path / "run", elsewhere)
        attempt(1).put(journal.staging)
        journal.close()
        journal = opened(tmp_path / "run", again)
        assert journal.staging.where == elsewhere
        assert not lying(elsewhere)
        journal.close()


@pytest.mark.parametrize("kind", ["", "segments"])
def test_a_power_cut_at_every_step(tmp_path: Path, kind: str) -> None:
    """Between put and commit, between commit and rename, and anywhere else: nothing is lost, nothing doubled."""

    def work(folder: Path) -> None:
        journal = opened(folder, str(folder.with_suffix(".segments")) if kind else "")
        try:
            stage = journal.staging.open()
            for pair in ((0, 1), (2, 3), (4, 5)):
                if pair[0] not in journal.committed:
                    assert journal.commit(stage.put(attempt(*pair)), Position())
            stage.close()
        finally:
            journal.close()

    steps = 0
    while cut(work, folder := tmp_path / str(steps), steps):
        journal = opened(folder, str(folder.with_suffix(".segments")) if kind else "")
        assert rows(journal) == [ordinal for ordinal in range(6) if ordinal in journal.committed]
        assert {record.key for record in journal.records if kind} == lying(str(folder.with_suffix(".segments")))
        journal.close()
        work(folder)
        assert content(opened(folder)) == [0, 1, 2, 3, 4, 5]
        steps += 1
    assert steps > 20


def test_segments_that_were_moved_away(tmp_path: Path, elsewhere: str, caplog: pytest.LogCaptureFixture) -> None:
    """Are said to be, and stay done."""
    folder = ran(tmp_path / "run", elsewhere, (1,), (2,))
    _, records = read_journal(folder)
    open_place(elsewhere).remove([records[0].key])
    journal = opened(folder)
    assert "1 segments are no longer there, and are taken as moved away" in caplog.text
    assert list(journal.committed.ranges()) == [(1, 3)]
    with pytest.raises(OutputError, match=f"{records[0].key}: No such"):
        rows(journal)
    journal.close()


def test_a_segment_of_another_size_stops_us(tmp_path: Path, elsewhere: str) -> None:
    folder = ran(tmp_path / "run", elsewhere, (1,))
    _, (record,) = read_journal(folder)
    place = open_place(elsewhere)
    place.remove([record.key])
    place.put_bytes(b"x", record.key)
    with pytest.raises(OutputError, match=f"{record.key}: has changed since it was committed"):
        opened(folder)


def test_a_segment_with_other_bytes_is_no_segment(tmp_path: Path, elsewhere: str) -> None:
    """Its digest tells, behind its last row at the latest."""
    folder = ran(tmp_path / "run", elsewhere, (1, 2))
    _, (record,) = read_journal(folder)
    place = open_place(elsewhere)
    with place.open(record.key) as file:
        data = file.read()
    place.remove([record.key])
    place.put_bytes(data[:-1] + bytes([data[-1] ^ 1]), record.key)
    journal = opened(folder)
    with pytest.raises(OutputError, match=f"{record.key}: has changed since it was committed"):
        rows(journal)
    journal.close()


def test_a_run_stays_with_its_place(tmp_path: Path) -> None:
    """Which may be left out, or be written in another way."""
    folder = ran(tmp_path / "run", str(tmp_path / "segments"), (1,))
    for same in ("", str(tmp_path / "x" / ".." / "segments"), f"file://{tmp_path}/segments"):
        assert content(opened(folder, same)) == [1]
    with pytest.raises(ConfigError, match=rf"its segments lie in {tmp_path}/segments; leave --segments out") as caught:
        opened(folder, str(tmp_path / "other"))
    assert len(str(caught.value).splitlines()) == 1
    plain = ran(tmp_path / "plain", "", (1,))
    with pytest.raises(ConfigError, match="its segments lie in this folder"):
        opened(plain, str(tmp_path / "segments"))
    assert content(opened(plain)) == [1]


@pytest.mark.parametrize("where", [".", "x", "../run/x", "s3://u:p@x/y", "ftp://x/y", "/tmp/\udcff"])
def test_a_place_that_cannot_be(tmp_path: Path, where: str) -> None:
    """The folder of the run itself, and what cannot be named."""
    with pytest.raises(ConfigError):
        opened(tmp_path / "run", where if ":" in where or where.startswith("/") else str(tmp_path / "run" / where))
    assert not list((tmp_path / "run").glob("journal"))


def test_the_sum_of_a_journal_elsewhere(tmp_path: Path) -> None:
    """Is read without a lock, and says where the segments are."""
    journal = opened(tmp_path / "run", str(tmp_path / "segments"))
    assert journal.commit(attempt(1).put(journal.staging), Position())
    header, records = read_journal(tmp_path / "run")
    assert header is not None
    assert (header.form, header.segments, header.run) == (2, str(tmp_path / "segments"), journal.staging.run)
    assert list(summed(header, records)[0].ranges()) == [(1, 2)]
    journal.close()
