"""The journal of a state folder: what a crash, a power cut or a wrong second run can do to it. No network."""

import base64
import os
import shutil
import zlib
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, OutputError
from engine.state import journal as journal_module
from engine.state import ordinals as ordinals_module
from engine.state.digest import InputDigest, Position
from engine.state.journal import Journal, read_journal
from engine.state.ordinals import OrdinalSet
from engine.state.records import End, Manifest, ended, line_of, summed

RUN = "0123456789abcdef"
PLAN = {"targets": ("192.0.2.0/24",), "ports": [[22, 23]]}


def stage(folder: Path, ordinals: list[int], name: str = ".tmp-a.ndjson") -> Manifest:
    """A staged segment whose rows are its ordinals."""
    data = "".join(f"{ordinal}\n" for ordinal in ordinals).encode()
    (folder / name).write_bytes(data)
    done = OrdinalSet()
    done.update(ordinals)
    return Manifest(done.encode(), len(ordinals), name, len(data), sha256(data).hexdigest())


def visible(folder: Path) -> list[int]:
    """The rows of all segments that are to be seen."""
    return [int(line) for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]


def begun(folder: Path, *segments: list[int]) -> Journal:
    """A journal with these segments, open."""
    journal = Journal.open(folder, PLAN, resume=True)
    for number, ordinals in enumerate(segments):
        assert journal.commit(stage(folder, ordinals, f".tmp-{number}.ndjson"), Position(100 * number))
    return journal


def left(folder: Path, *segments: list[int]) -> Path:
    """A folder whose run has ended with these segments."""
    begun(folder, *segments).close()
    return folder


# --- sets of ordinals -------------------------------------------------------------------------------------------------

small_sets = st.frozensets(st.integers(0, 60), max_size=40)


def made(numbers: frozenset[int]) -> OrdinalSet:
    found = OrdinalSet()
    found.update(numbers)
    return found


@settings(deadline=None)
@given(small_sets, small_sets, st.integers(0, 60), st.integers(0, 60))
def test_a_set_of_ordinals_is_a_set(some: frozenset[int], others: frozenset[int], start: int, stop: int) -> None:
    """Everything it says agrees with a plain set of the same numbers."""
    both, plain = made(some) | made(others), some | others
    assert [n for n in range(70) if n in both] == sorted(plain)
    assert len(both) == len(plain)
    assert both.low_water == next(n for n in range(62) if n not in plain)
    if start < stop:
        assert both.covers(start, stop) == plain.issuperset(range(start, stop))
    assert [n for gap in both.missing(start, stop) for n in gap] == [n for n in range(start, stop) if n not in plain]
    assert all(stop < start for (_, stop), (start, _) in zip(both.ranges(), [*both.ranges()][1:], strict=False))
    assert OrdinalSet.decode(both.encode()) == both
    assert both == made(plain)


def test_large_ordinals() -> None:
    """A range of 2^63 costs no more than one of two."""
    ordinals = OrdinalSet([(5, 1 << 63)])
    assert len(ordinals.encode()) < 40
    assert OrdinalSet.decode(ordinals.encode()) == ordinals
    assert (1 << 63) - 1 in ordinals
    assert 1 << 63 not in ordinals


def test_memory_is_bounded_by_the_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ordinals pass through, what is kept is a buffer and the ranges."""
    monkeypatch.setattr(ordinals_module, "BUFFERED", 1000)
    ordinals = OrdinalSet()
    for start in range(0, 100_000, 100):
        ordinals.update(range(start + 99, start, -1))  # all but every hundredth, backwards
        assert len(ordinals._buffer) <= 1100
    assert len(list(ordinals.ranges())) == 1000
    ordinals.update(range(0, 100_000, 100))
    assert list(ordinals.ranges()) == [(0, 100_000)]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_commits_are_remembered(tmp_path: Path) -> None:
    """What is committed is there after the next open, once as records and once taken over by the header."""
    left(tmp_path / "run", [0, 1, 2], [4, 5])
    for _ in range(2):
        journal = Journal.open(tmp_path / "run", PLAN, resume=True)
        assert list(journal.committed.ranges()) == [(0, 3), (4, 6)]
        assert [record.name for record in journal.records] == ["part-000001.ndjson", "part-000002.ndjson"]
        assert journal.rows == 5
        assert journal.read.bytes == 100
        journal.close()
    assert visible(tmp_path / "run") == [0, 1, 2, 4, 5]


def test_numbers_go_on(tmp_path: Path) -> None:
    """A segment never gets the name of another, even of one that was moved away."""
    left(tmp_path, [0], [1])
    (tmp_path / "part-000002.ndjson").unlink()
    left(tmp_path, [2])
    assert [path.name for path in sorted(tmp_path.glob("part-*"))] == ["part-000001.ndjson", "part-000003.ndjson"]


def test_targets_without_rows_are_committed_without_a_file(tmp_path: Path) -> None:
    journal = begun(tmp_path, [0])
    assert journal.commit(Manifest(OrdinalSet([(1, 1000)]).encode()), Position())
    journal.close()
    journal = Journal.open(tmp_path, PLAN, resume=True)
    assert list(journal.committed.ranges()) == [(0, 1000)]
    assert len(journal.records) == 1
    journal.close()


def test_the_first_manifest_wins(tmp_path: Path) -> None:
    """A second attempt at the same targets, or at some of them, changes nothing."""
    journal = begun(tmp_path, [0, 1, 2])
    before = (tmp_path / "journal").read_bytes()
    assert not journal.commit(stage(tmp_path, [2, 3]), Position())
    assert (tmp_path / "journal").read_bytes() == before
    assert visible(tmp_path) == [0, 1, 2]
    assert journal.commit(stage(tmp_path, [3]), Position())
    journal.close()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """The second is told who holds the folder; a lock file without a holder is no obstacle."""
    journal = begun(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()};"):
        Journal.open(tmp_path, PLAN, resume=True)
    journal.close()
    assert (tmp_path / "lock").exists()
    Journal.open(tmp_path, PLAN, resume=True).close()


def test_a_folder_with_a_run_is_not_begun_anew(tmp_path: Path) -> None:
    left(tmp_path, [0])
    with pytest.raises(ConfigError, match="holds a run; go on with --resume"):
        Journal.open(tmp_path, PLAN)
    (tmp_path / "journal").unlink()
    with pytest.raises(ConfigError, match="holds segments but no journal"):
        Journal.open(tmp_path, PLAN, resume=True)


@pytest.mark.parametrize("change", [{"ports": [[80, 81]]}, {"targets": ()}, {"seed": 7}])
def test_another_plan_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """With the name of what differs; nothing is touched, and the right plan still fits."""
    left(tmp_path, [0])
    with pytest.raises(ConfigError, match=f"was begun with other {next(iter(change))}; give the same"):
        Journal.open(tmp_path, {**PLAN, **change}, resume=True)
    Journal.open(tmp_path, PLAN, resume=True).close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/run: Not a directory$"):
        Journal.open(tmp_path / "file" / "run", PLAN)


def test_a_journal_of_the_future_is_refused(tmp_path: Path) -> None:
    left(tmp_path)
    rewritten(tmp_path / "journal", 0, lambda header: {**header, "form": 99})
    with pytest.raises(ConfigError, match="has form 99, and this program knows form 1"):
        Journal.open(tmp_path, PLAN, resume=True)


def test_a_journal_of_form_1_is_what_it_always_was(tmp_path: Path) -> None:
    """Byte for byte: programs that know no other form read and continue it."""
    left(tmp_path, [0, 1], [5])

    def set_of(*ranges: tuple[int, int]) -> bytes:
        return base64.b64encode(OrdinalSet(ranges).encode())

    def line(body: bytes) -> bytes:
        return b"%08x %s\n" % (zlib.crc32(body), body)

    plan = b'"plan":{"targets":["192.0.2.0/24"],"ports":[[22,23]]}'
    kept = [
        b'{"name":"part-000001.ndjson","rows":2,"size":4,"sha256":"%s"' % sha256(b"0\n1\n").hexdigest().encode(),
        b'{"name":"part-000002.ndjson","rows":1,"size":2,"sha256":"%s"' % sha256(b"5\n").hexdigest().encode(),
    ]
    fresh = [
        b'{"form":1,%s,"done":"%s","read":{"bytes":0,"digest":""}}' % (plan, set_of()),
        kept[0] + b',"staged":".tmp-0.ndjson","done":"%s","read":{"bytes":0,"digest":""}}' % set_of((0, 2)),
        kept[1] + b',"staged":".tmp-1.ndjson","done":"%s","read":{"bytes":100,"digest":""}}' % set_of((5, 6)),
    ]
    assert (tmp_path / "journal").read_bytes() == b"".join(map(line, fresh))
    left(tmp_path)
    again = b'{"form":1,%s,"done":"%s","read":{"bytes":100,"digest":""}}' % (plan, set_of((0, 2), (5, 6)))
    assert (tmp_path / "journal").read_bytes() == b"".join(map(line, [again, *(record + b"}" for record in kept)]))


def test_a_record_of_another_runs_segment_is_damage(tmp_path: Path) -> None:
    """Its object would be another's to keep or to remove."""
    folder = tmp_path / "run"
    Journal.open(folder, PLAN, segments=str(tmp_path / "segments")).close()
    header, _ = read_journal(folder)
    assert header is not None
    for run, extra in ((RUN, {}), (header.run, {"staged": ".tmp-x.y"}), (header.run, {"name": ""})):
        key = f"segment-{run}-{RUN}.ndjson.zst"
        body = msgspec.json.encode({"name": "part-000001.ndjson.zst", "key": key, **extra})
        (folder / "odd").mkdir(exist_ok=True)
        (folder / "odd" / "journal").write_bytes(line_of(header) + b"%08x %s\n" % (zlib.crc32(body), body))
        with pytest.raises(OutputError, match="line 2 is damaged"):
            read_journal(folder / "odd")


def test_a_journal_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written anew while the run goes on, which keeps its lock; it says the same as one that was not."""
    for folder, bound in ((tmp_path / "short", 2000), (tmp_path / "long", 1 << 20)):
        monkeypatch.setattr(journal_module, "MAX_APPENDED", bound)
        journal = begun(folder)
        sizes = []
        for number in range(60):
            ordinals = [number * 7, number * 7 + 3]
            assert journal.commit(stage(folder, ordinals, f".tmp-{number}.ndjson"), Position(number, f"{number}"))
            sizes.append((folder / "journal").stat().st_size)
        with pytest.raises(ConfigError, match="in use"):
            Journal.open(folder, PLAN, resume=True)
        assert any(after < before for before, after in pairwise(sizes)) == (bound == 2000)
        journal.close()
    sums = []
    for folder in (tmp_path / "short", tmp_path / "long"):
        header, records = read_journal(folder)
        assert header is not None
        sums.append(summed(header, records))
    assert sums[0] == sums[1]
    assert visible(tmp_path / "short") == visible(tmp_path / "long")
    left(tmp_path / "short")
    left(tmp_path / "long")
    assert (tmp_path / "short" / "journal").read_bytes() == (tmp_path / "long" / "journal").read_bytes()


def rewritten(path: Path, number: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a record as a program that knows the checksum would."""
    lines = path.read_bytes().splitlines(keepends=True)
    body = msgspec.json.encode(change(msgspec.json.decode(lines[number][9:])))
    lines[number] = b"%08x %s\n" % (zlib.crc32(body), body)
    path.write_bytes(b"".join(lines))


def odd(value: object) -> str:
    """A header with one field changed, or the text that stands in its place."""
    if isinstance(value, str):
        return value
    header = {"form": 1, "plan": PLAN, "done": base64.b64encode(OrdinalSet().encode()), "read": {}}
    return msgspec.json.encode({**header, **value}).decode()


def packed(data: bytes) -> bytes:
    return base64.b64encode(zlib.compress(data))


ODD_SETS = {
    "not Base64": "!",
    "no zlib stream": base64.b64encode(b"x"),
    "a stream that is cut": base64.b64encode(zlib.compress(b"\1\1")[:-2]),
    "an odd count of numbers": packed(b"\1"),
    "a number that does not end": packed(b"\1\x80"),
    "an endless number": packed(b"\x80" * 1000),
    "beyond 64 bits": packed(b"\1" + b"\xff" * 9 + b"\1"),
    "an empty range": packed(b"\1\0"),
    "a bomb of empty ranges": packed(bytes(50_000_000)),
    "no gap": packed(b"\1\1\0\1"),
    "null": None,
    "a number": 5,
    "a list": [1, 2],
}
ODD_HEADERS: dict[str, object] = {
    **{text[:12]: text for text in ("", "[]", "null", "1", '"x"', "{}", "{", '{"form": 1}', '{"form": "1"}', "\0")},
    "form of 5000 digits": '{"form": ' + "9" * 5000 + "}",
    "negative form": '{"form": -1}',
    "fractional form": '{"form": 1.5}',
    "nesting": "[" * 100_000,
    "nesting inside": '{"x": ' + "[" * 100_000 + "}",
    "closed nesting inside": '{"form": 1, "x": ' + "[" * 5000 + "]" * 5000 + "}",
    "list for a plan": {"plan": []},
    "form 2 without a place": {"form": 2},
    "form 2 without a run": {"form": 2, "segments": "/x"},
    "form 2 without either's other": {"form": 2, "run": RUN},
    "a place in form 1": {"segments": "/x", "run": RUN},
    "a place that is none": {"form": 2, "segments": "x", "run": RUN},
    "a place with a line end": {"form": 2, "segments": "/x\ny", "run": RUN},
    "a run that is none": {"form": 2, "segments": "/x", "run": "../x"},
    "deep plan": {"plan": {"ports": [[[[1]]]]}},
    "plan with objects": {"plan": {"ports": {"a": 1}}},
    "huge number in the plan": odd({}).replace("22", "9" * 5000),
    "negative position": {"read": {"bytes": -1}},
    "huge position": {"read": {"bytes": 1 << 63}},
    "position of 5000 digits": odd({}).replace('"read":{', '"read":{"bytes":' + "9" * 5000),
    "digest that is none": {"read": {"digest": 1}},
    **{f"done: {kind}": {"done": value} for kind, value in ODD_SETS.items()},
}
ODD_RECORDS: dict[str, object] = {
    **{f"name {name[:20]!r}": {"name": name} for name in ("../part-1.x", "part-1", "part-x.y", "part-1./x", "/etc/x")},
    "name of 5000 digits": {"name": "part-" + "9" * 5000 + ".x"},
    "name with a line end": {"name": "part-1.x\n"},
    "name with an escape": {"name": "part-1.\x1b[2J"},
    **{f"staged {name!r}": {"staged": name} for name in ("../x", ".tmp-../x", "/etc/x", ".tmp-\0", "part-1.x", "lock")},
    **{f"key {key!r}": {"key": key} for key in ("../x", "segment-x", f"segment-{RUN}-{RUN}.ndjson.zst/x", "part-1.x")},
    "key without a place": {"name": "part-000002.x", "key": f"segment-{RUN}-{RUN}.ndjson.zst"},
    "negative rows": {"rows": -1},
    "rows as text": {"rows": "1"},
    "huge rows": {"rows": 1 << 63},
    "rows of 5000 digits": '{"rows": ' + "9" * 5000 + "}",
    "negative size": {"size": -1},
    "nesting": "[" * 100_000,
    "not UTF-8": '{"name": "\udcff"}',
    **{f"done: {kind}": {"done": value} for kind, value in ODD_SETS.items() if value is not None},
}


@pytest.mark.parametrize(
    ("line", "value"),
    [pytest.param(1, value, id=f"header: {kind}") for kind, value in ODD_HEADERS.items()]
    + [pytest.param(2, value, id=f"record: {kind}") for kind, value in ODD_RECORDS.items()],
)
def test_a_right_checksum_does_not_make_a_journal(tmp_path: Path, line: int, value: object) -> None:
    """Whatever stands behind it, JSON or not: the error says which line is damaged, at once, and nothing is touched."""
    run = tmp_path / "run"
    left(run, [0], [1])
    text = odd(value) if line == 1 or isinstance(value, str) else msgspec.json.encode(value).decode()
    lines = (run / "journal").read_bytes().splitlines(keepends=True)
    body = text.encode("utf-8", "surrogateescape").replace(b"\n", b" ")
    lines[line - 1] = b"%08x %s\n" % (zlib.crc32(body), body)
    (run / "journal").write_bytes(b"".join(lines))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for use in (lambda: Journal.open(run, PLAN, resume=True), lambda: read_journal(run)):
        with pytest.raises((OutputError, ConfigError)) as caught:
            use()
        assert str(caught.value) == f"{run}/journal: line {line} is damaged; restore it from a copy"
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
def test_any_bytes_are_a_journal_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, piece: bytes, place: int, summed_up: bool
) -> None:
    """Bytes put into a journal, with their checksums made right or not: what can be read can be gone on with."""
    folder = tmp_path_factory.mktemp("any") / "run"
    left(folder, [0, 1], [3])
    text = (folder / "journal").read_bytes()
    lines = (text[:place] + piece + text[place + len(piece) :]).split(b"\n")
    if summed_up:
        lines = [b"%08x %s" % (zlib.crc32(line[9:]), line[9:]) for line in lines[:-1]] + lines[-1:]
    (folder / "journal").write_bytes(b"\n".join(lines))
    try:
        header, records = read_journal(folder)
    except (ConfigError, OutputError):
        return
    assert header is not None
    summed(header, records)
    try:
        Journal.open(folder, PLAN, resume=True).close()
    except (ConfigError, OutputError):
        return
    Journal.open(folder, PLAN, resume=True).close()


@pytest.mark.parametrize("name", ["../x", ".tmp-", "journal", ".tmp-a/b", ".tmp-\x1b"])
def test_a_segment_that_is_offered_under_another_name(tmp_path: Path, name: str) -> None:
    """What would be no staged file is not committed, and the journal stays readable."""
    journal = begun(tmp_path, [0])
    with pytest.raises(OutputError, match="a staged segment cannot be named"):
        journal.commit(Manifest(OrdinalSet([(5, 6)]).encode(), 1, name), Position())
    journal.close()
    left(tmp_path, [1])


# --- after a sudden end -----------------------------------------------------------------------------------------------


def test_a_torn_record_never_was(tmp_path: Path) -> None:
    """The journal cut all over its last record: the segment counts when the record is whole, else it does not.

    A segment that is visible without a record, as after a disk that lied about its writes, is set aside.
    """
    left(tmp_path / "whole", [0, 1], [2, 3])
    text = (tmp_path / "whole" / "journal").read_bytes()
    last = text.rindex(b"\n", 0, -1) + 1
    for end in (*range(last, len(text), 13), len(text) - 1, len(text)):
        folder = tmp_path / f"cut-{end}"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "journal").write_bytes(text[:end])
        left(folder)
        if end == len(text):
            assert visible(folder) == [0, 1, 2, 3]
        else:
            assert visible(folder) == [0, 1]
            assert [path.name for path in folder.glob(".*")] == [".orphan-part-000002.ndjson"]
            left(folder, [2, 3])
            assert visible(folder) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "garbage", [bytes(4096), b"\n", b"\n\n00000000 {}\n", os.urandom(512)], ids=["zeros", "line", "record", "noise"]
)
def test_garbage_behind_the_last_record(tmp_path: Path, garbage: bytes) -> None:
    left(tmp_path, [0, 1])
    with (tmp_path / "journal").open("ab") as file:
        file.write(garbage)
    left(tmp_path, [2])
    assert visible(tmp_path) == [0, 1, 2]


def test_damage_inside_is_not_guessed_at(tmp_path: Path) -> None:
    """A bad record with good ones behind it is no torn write."""
    left(tmp_path, [0], [1])
    text = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(text[0] + text[1].replace(b"rows", b"sows") + text[2])
    with pytest.raises(OutputError, match="journal: line 2 is damaged; restore it"):
        Journal.open(tmp_path, PLAN, resume=True)


def unrenamed(folder: Path) -> Path:
    """A run that ended between its last commit and the renaming of the file. -> the file"""
    left(folder, [0], [1, 2])
    return (folder / "part-000002.ndjson").rename(folder / ".tmp-1.ndjson")


def test_a_missing_rename_is_made_up_for(tmp_path: Path) -> None:
    unrenamed(tmp_path)
    journal = begun(tmp_path)
    assert visible(tmp_path) == [0, 1, 2]
    assert len(journal.committed) == 3
    journal.close()


@pytest.mark.parametrize("content", [b"", b"1\n", b"1\n3\n", b"\0\0\0\0"])
def test_a_committed_file_with_garbage_is_taken_back(tmp_path: Path, content: bytes) -> None:
    """Only a disk that lies can do this. Its targets are not done any more, now and after the next open."""
    unrenamed(tmp_path).write_bytes(content)
    for _ in range(2):
        left(tmp_path)
        assert visible(tmp_path) == [0]
    journal = begun(tmp_path, [1, 2])
    assert len(journal.committed) == 3
    journal.close()
    assert visible(tmp_path) == [0, 1, 2]


def test_what_never_counted_is_removed(tmp_path: Path) -> None:
    left(tmp_path, [0])
    stage(tmp_path, [1], ".tmp-b.ndjson")
    (tmp_path / ".tmp-journal").write_bytes(b"half a journal")
    left(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "lock", "part-000001.ndjson"]


def test_a_segment_that_was_altered_stops_us(tmp_path: Path) -> None:
    left(tmp_path, [0])
    (tmp_path / "part-000001.ndjson").write_text("")
    with pytest.raises(OutputError, match=r"part-000001.ndjson: has changed since it was committed"):
        Journal.open(tmp_path, PLAN, resume=True)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """Also while a run holds the folder."""
    journal = begun(tmp_path, [0, 1])
    before = (tmp_path / "journal").read_bytes()
    header, records = read_journal(tmp_path)
    assert header is not None
    assert [record.rows for record in records] == [2]
    assert (tmp_path / "journal").read_bytes() == before
    journal.close()
    assert read_journal(tmp_path / "nowhere") == (None, [])


# --- how a run ended --------------------------------------------------------------------------------------------------

END = End(why="interrupted", read=22, done=17, not_reached=5, at="2026-11-21T06:38:13Z")


def test_a_run_that_ended_says_how(tmp_path: Path) -> None:
    """In the last record, in words and numbers; and it still does when somebody has only looked."""
    journal = begun(tmp_path, [0, 1])
    journal.end(END)
    journal.close()
    for _ in range(2):
        _, records = read_journal(tmp_path)
        assert ended(records) == END
        assert END.words() == "interrupted: 17 of 22 done, 5 not reached"
        journal = Journal.open(tmp_path, PLAN, resume=True)
        assert journal.ended == END
        assert (journal.rows, len(journal.records), journal.last) == (2, 1, 1)
        journal.close()


@pytest.mark.parametrize("how", ["go_on", "commit"])
def test_who_goes_on_has_not_ended(tmp_path: Path, how: str) -> None:
    """From the first word or the first segment on; so a run that is killed then did not end."""
    left(tmp_path, [0])
    for ordinal in (1, 2):
        journal = Journal.open(tmp_path, PLAN, resume=True)
        journal.end(END)
        if how == "go_on":
            journal.go_on()
        else:
            assert journal.commit(stage(tmp_path, [ordinal]), Position())
        assert ended(read_journal(tmp_path)[1]) is None
        assert journal.ended is None
        journal.close()
        journal = Journal.open(tmp_path, PLAN, resume=True)
        assert journal.ended is None
        journal.close()


def test_an_end_that_was_not_written_whole_is_none(tmp_path: Path) -> None:
    """Nothing else is lost with it."""
    journal = begun(tmp_path, [0, 1])
    whole = (tmp_path / "journal").stat().st_size
    journal.end(END)
    journal.close()
    text = (tmp_path / "journal").read_bytes()
    for size in range(whole, len(text)):
        (tmp_path / "journal").write_bytes(text[:size])
        header, records = read_journal(tmp_path)
        assert header is not None
        assert ended(records) is None
        assert len(summed(header, records)[0]) == 2


def test_a_run_that_did_nothing_binds_nobody(tmp_path: Path) -> None:
    """Its end is forgotten with it."""
    journal = Journal.open(tmp_path, PLAN)
    journal.end(END)
    journal.close()
    journal = Journal.open(tmp_path, {**PLAN, "seed": 7})
    assert journal.ended is None
    journal.close()
    assert ended(read_journal(tmp_path)[1]) is None


# --- power cuts -------------------------------------------------------------------------------------------------------


class Cut(BaseException):
    """The power is gone."""


def placed(path: Any, folder: int | None) -> Path:
    """Where a path leads, from an open folder."""
    return Path(path) if folder is None else Path(f"/proc/self/fd/{folder}").readlink() / path


class Power:
    """A disk as harsh as POSIX allows, whose power goes at the n-th system call.

    What was written and not synced is garbage then; files and renames whose folder was not synced have not happened.
    """

    def __init__(self, patch: pytest.MonkeyPatch, steps: int) -> None:
        self.left = steps
        self._real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename")}
        self._undo: list[tuple[str, Callable[[], None]]] = []  # what a folder would forget, and which
        self._synced: dict[str, int] = {}  # sizes of files with bytes behind them that are not safe
        for name in self._real:
            patch.setattr(os, name, getattr(self, name))

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    def open(self, path: Any, flags: int, *args: int, dir_fd: int | None = None) -> int:
        file = placed(path, dir_fd)
        if flags & os.O_CREAT and not file.exists():
            self._step()
            self._undo.append((os.path.realpath(file.parent), lambda: file.unlink(missing_ok=True)))
        return int(self._real["open"](path, flags, *args, dir_fd=dir_fd))

    def write(self, descriptor: int, data: bytes) -> int:
        self._step()
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        self._synced.setdefault(path, os.fstat(descriptor).st_size)
        return int(self._real["write"](descriptor, data))

    def fsync(self, descriptor: int) -> None:
        self._step()
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if Path(path).is_dir():
            self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]
        else:
            self._synced.pop(path, None)

    def rename(self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        self._step()
        was, becomes = placed(source, src_dir_fd), placed(target, dst_dir_fd)
        old = becomes.read_bytes() if becomes.exists() else None
        self._real["rename"](was, becomes)
        if str(was) in self._synced:
            self._synced[str(becomes)] = self._synced.pop(str(was))

        def undo() -> None:
            self._real["rename"](becomes, was)
            if old is not None:
                becomes.write_bytes(old)

        self._undo.append((os.path.realpath(was.parent), undo))

    def fail(self) -> None:
        """What the disk holds when the machine comes back."""
        for path, size in self._synced.items():
            if Path(path).exists():
                written = Path(path).read_bytes()
                Path(path).write_bytes(written[:size] + b"\x55" * (len(written) - size))
        for _, undo in reversed(self._undo):
            undo()


def work(folder: Path) -> None:
    """A run that goes on: commits what of 0 .. 5 is not done, two at a time, each file staged as a writer does it."""
    journal = Journal.open(folder, PLAN, resume=True)
    try:
        for pair in ([0, 1], [2, 3], [4, 5]):
            if pair[0] in journal.committed:
                continue
            name = f".tmp-{pair[0]}.ndjson"
            data = "".join(f"{ordinal}\n" for ordinal in pair).encode()
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            done = OrdinalSet([(pair[0], pair[1] + 1)])
            journal.commit(Manifest(done.encode(), 2, name, len(data), sha256(data).hexdigest()), Position())
    finally:
        journal.close()


def cut(work: Callable[[Path], object], folder: Path, steps: int) -> bool:
    """Work until the power goes. False if all was done before."""
    with pytest.MonkeyPatch.context() as patch:
        power = Power(patch, steps)
        try:
            work(folder)
        except Cut:
            power.fail()
            return True
    return False


def test_a_power_cut_at_every_step(tmp_path: Path) -> None:
    """After each, the visible segments are exactly what is committed, and the run that goes on completes them.

    What was to be seen when the power went, maybe by somebody who took it away, stays committed.
    """
    steps = 0
    while cut(work, folder := tmp_path / str(steps), steps):
        seen = visible(folder)
        journal = Journal.open(folder, PLAN, resume=True)
        committed = [ordinal for ordinal in range(6) if ordinal in journal.committed]
        journal.close()
        assert set(seen) <= set(committed)
        assert visible(folder) == committed
        work(folder)
        assert sorted(visible(folder)) == [0, 1, 2, 3, 4, 5]
        steps += 1
    assert steps > 25


def test_a_power_cut_while_a_damaged_file_is_taken_back(tmp_path: Path) -> None:
    """The file goes after its record, never before, or its targets would count as done without rows."""
    unrenamed(tmp_path / "damaged").write_bytes(b"garbage")
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        shutil.copytree(tmp_path / "damaged", folder)
        went = cut(left, folder, steps)
        left(folder)
        assert visible(folder) == [0]
        left(folder, [1, 2])
        assert visible(folder) == [0, 1, 2]
        if not went:
            break
        steps += 1
    assert steps > 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=6))
def test_power_cuts_in_a_row(tmp_path_factory: pytest.TempPathFactory, moments: list[int]) -> None:
    """One power cut while mending after another: nothing visible is ever withdrawn, nothing is doubled."""
    folder = tmp_path_factory.mktemp("cuts") / "run"
    seen: set[int] = set()
    for steps in moments:
        cut(work, folder, steps)
        rows = visible(folder)
        assert len(set(rows)) == len(rows)
        assert seen <= set(rows)
        seen = set(rows)
    work(folder)
    assert sorted(visible(folder)) == [0, 1, 2, 3, 4, 5]


# --- the inputs -------------------------------------------------------------------------------------------------------


def digested(digest: InputDigest, *inputs: list[bytes]) -> InputDigest:
    for chunks in inputs:
        digest.begin_input()
        for chunk in chunks:
            digest.feed(chunk)
    return digest


@settings(deadline=None)
@given(st.binary(max_size=50), st.binary(max_size=50), st.data())
def test_the_same_bytes_are_recognised(before: bytes, after: bytes, data: st.DataObject) -> None:
    """However they are cut, and if more follow."""
    position = digested(InputDigest(), [before]).position()
    text = before + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    digest = digested(InputDigest(position), pieces)
    digest.check_end()
    assert digest.verified
    assert digest.position() == digested(InputDigest(), [text]).position()


@pytest.mark.parametrize(
    "inputs",
    [
        ([b"a\nb\n"], [b"c\n"]),
        ([b"a\nb\nc\n"],),
        ([b"a\n"], [b"b\nc"]),
        ([b"b\n"], [b"a\nc\n"]),
        (),
    ],
)
def test_other_inputs_are_refused(inputs: tuple[list[bytes], ...]) -> None:
    """Changed, shorter, joined, split at another place, in another order, or none at all."""
    position = digested(InputDigest(), [b"a\n"], [b"b\nc\n"]).position()
    with pytest.raises(ConfigError, match="not those that this run was begun with"):
        digested(InputDigest(position), *inputs).check_end()


def test_a_run_that_has_done_nothing_is_in_nobodys_way(tmp_path: Path) -> None:
    """Another one may begin there, with another plan; once something is done, it may not."""
    Journal.open(tmp_path, {"targets": ["a"]}).close()
    journal = Journal.open(tmp_path, {"targets": ["b"]})
    done = OrdinalSet()
    done.update([0])
    assert journal.commit(Manifest(done.encode()), Position())
    journal.close()
    with pytest.raises(ConfigError, match="holds a run"):
        Journal.open(tmp_path, {"targets": ["b"]})
    with pytest.raises(ConfigError, match="other targets"):
        Journal.open(tmp_path, {"targets": ["a"]}, resume=True)
