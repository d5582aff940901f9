"""A state folder among strangers: what they plant is neither followed nor waited for, and every failure is one line."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engine.errors import ConfigError, EngineError, OutputError
from engine.model import Batch
from engine.results.sinks import Summary
from engine.state import folder as folder_module
from engine.state import journal as journal_module
from engine.state.folder import Folder, told
from engine.state.journal import Journal, read_journal
from engine.state.segments import SegmentSink, SegmentWriter

STRANGER = 4711  # a user who is neither us nor root
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def batch(*ordinals: int) -> Batch:
    rows = [{"ip": "192.0.2.1", "port": ordinal} for ordinal in ordinals]
    return Batch(msgspec.json.Encoder().encode_lines(rows), len(rows), list(ordinals), dict(Counter()))


def opened(folder: Path) -> Journal:
    return Journal.open(folder, {}, resume=True)


def ran(folder: Path, *ordinals: int) -> None:
    """A run that goes on in `folder` and does these targets."""
    sink = SegmentSink(opened(folder))
    sink.take(batch(*ordinals))
    sink.close(Summary(0.0))


def one_line(error: EngineError) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.isprintable()
    return text


# --- links, FIFOs and other things in the place of files -------------------------------------------------------------

PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, victim: place.symlink_to(victim),
    "dangling link": lambda place, victim: place.symlink_to(victim.parent / "nowhere"),
    "hard link": lambda place, victim: place.hardlink_to(victim),
    "FIFO": lambda place, _: os.mkfifo(place),
    "folder": lambda place, _: place.mkdir(),
}
SEVERAL = {
    "link": "is a link",
    "dangling link": "is a link",
    "hard link": "has another name",
    "FIFO": "no regular file",
}


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of ours elsewhere, which nothing here may change or read."""
    path = tmp_path / "victim"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("name", ["journal", "lock"])
@pytest.mark.parametrize("begun", [True, False])
def test_what_stands_in_the_place_of_a_file_is_refused(
    tmp_path: Path, victim: Path, kind: str, name: str, begun: bool
) -> None:
    """At once, with one line that names it; and nothing is written through it."""
    run = tmp_path / "run"
    if begun:
        ran(run, 0)
        (run / name).unlink()
    else:
        run.mkdir()
    PLANTED[kind](run / name, victim)
    with pytest.raises((ConfigError, OutputError), match=f"run/{name}: .*{SEVERAL.get(kind, '')}") as caught:
        opened(run)
    one_line(caught.value)
    (run / name).rmdir() if kind == "folder" else (run / name).unlink()


@pytest.mark.parametrize("kind", PLANTED)
def test_reading_a_journal_follows_nothing(tmp_path: Path, victim: Path, kind: str) -> None:
    """`probemill state` may be pointed at anybody's folder."""
    PLANTED[kind](tmp_path / "journal", victim)
    with pytest.raises(OutputError, match=r"/journal: ") as caught:
        read_journal(tmp_path)
    one_line(caught.value)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "FIFO"])
@pytest.mark.parametrize("name", [".tmp-journal", ".tmp-0000000000000000.ndjson.zst", "part-000001.ndjson.zst"])
def test_what_has_a_name_of_ours_is_in_nobodys_way(tmp_path: Path, victim: Path, kind: str, name: str) -> None:
    """Staged names are removed, a segment that nobody committed is set aside: the link itself, never what it names."""
    run = tmp_path / "run"
    ran(run)
    PLANTED[kind](run / name, victim)
    ran(run, 0, 1)
    journal = opened(run)
    assert list(journal.committed.ranges()) == [(0, 2)]
    journal.close()
    assert not (run / ".tmp-journal").is_symlink()


@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO"])
def test_nothing_is_created_over_something(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Even if somebody knew the name that a file will get."""
    monkeypatch.setattr(folder_module.secrets, "token_hex", lambda _: "known")
    PLANTED[kind](tmp_path / ".tmp-known.ndjson.zst", victim)
    writer = SegmentWriter(Folder.open(tmp_path))
    with pytest.raises(OutputError, match=r"known\.ndjson\.zst: File exists"):
        writer.write(batch(0))
        writer.finish()


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_a_committed_segment_is_a_file(tmp_path: Path, kind: str) -> None:
    """Also where what stands in its place has its size."""
    ran(tmp_path / "run", 0)
    part = next((tmp_path / "run").glob("part-*"))
    moved = part.rename(tmp_path / "moved")
    PLANTED[kind](part, moved)
    with pytest.raises(OutputError, match="has changed since it was committed"):
        opened(tmp_path / "run")


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / target)
    for use in (opened, read_journal):
        with pytest.raises(ConfigError, match="run: is a link; name the folder that it leads to"):
            use(tmp_path / "run")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_above_the_folder_are_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    ran(tmp_path / "data" / "run", 0)
    assert (tmp_path / "disk" / "run" / "journal").exists()


@AS_ROOT
@pytest.mark.parametrize(
    ("owner", "mode", "refused"),
    [(STRANGER, 0o777, True), (STRANGER, 0o1777, True), (STRANGER, 0o775, False), (0, 0o777, False)],
)
def test_whose_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture, owner: int, mode: int, refused: bool) -> None:
    """Another's that anybody may write is refused; a group's is the group's affair; our own deserves a warning."""
    tmp_path.chmod(mode)
    os.chown(tmp_path, owner, -1)
    if refused:
        with pytest.raises(ConfigError, match=rf"belongs to another user \({STRANGER}\), and anybody may write to it"):
            opened(tmp_path)
        assert list(tmp_path.iterdir()) == []
    else:
        opened(tmp_path).close()
        assert ("anybody may write" in caplog.text) is (owner == 0)


@AS_ROOT
def test_another_users_journal_is_refused(tmp_path: Path) -> None:
    """In whatever folder: what it says is done would not be scanned."""
    ran(tmp_path, 0)
    os.chown(tmp_path / "journal", STRANGER, -1)
    with pytest.raises(ConfigError, match=rf"/journal: belongs to another user \({STRANGER}\); let that user"):
        opened(tmp_path)
    assert read_journal(tmp_path)[0] is not None


def test_our_files_on_a_file_system_that_gives_them_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does with root, or with everybody: ours is what belongs to whom a new file of ours belongs to."""
    ran(tmp_path, 0)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    opened(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "lock", "part-000001.ndjson.zst"]


def test_nothing_is_made_for_everybody_to_write(tmp_path: Path) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        ran(tmp_path / "run", 0)
    finally:
        os.umask(before)
    for path in (tmp_path / "run", *(tmp_path / "run").iterdir()):
        assert not path.stat().st_mode & 0o002, path


def test_a_journal_that_anybody_could_write_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once: the run writes it anew."""
    ran(tmp_path, 0)
    (tmp_path / "journal").chmod(0o666)
    opened(tmp_path).close()
    assert "journal: anybody could write to this file" in caplog.text
    caplog.clear()
    opened(tmp_path).close()
    assert caplog.text == ""


def test_a_path_that_is_no_text_is_shown(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and characters that a terminal obeys, in the folder's name."""
    path = tmp_path / os.fsdecode(b"r\xff\x1b[2J\n")
    ran(path, 0)
    with pytest.raises(ConfigError, match="holds a run") as caught:
        Journal.open(path, {})
    assert r"r\xff\x1b[2J\x0a: " in one_line(caught.value)
    with pytest.raises(OutputError) as missing, told(path / "x"):
        (path / "x").read_bytes()
    assert r"r\xff\x1b[2J\x0a/x: No such file" in one_line(missing.value)


# --- whatever fails --------------------------------------------------------------------------------------------------

CALLS = ["open", "write", "fsync", "rename", "unlink", "mkdir", "stat", "fstat", "scandir", "ftruncate", "close"]
NUMBERS = [errno.ENOSPC, errno.EACCES, errno.EIO]


class Broken:
    """`os`, of which one call fails, at its n-th use and all later ones."""

    def __init__(self, call: str, number: int, after: int) -> None:
        self.used = 0
        real = getattr(os, call)

        def fail(*args: Any, **named: Any) -> Any:
            self.used += 1
            if self.used <= after or call == "close":  # which closes, whatever it says
                result = real(*args, **named)
            if self.used > after:
                raise OSError(number, os.strerror(number))
            return result

        self.os = SimpleNamespace(**{**vars(os), call: fail})


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_every_failing_call_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """At every place of a run: it ends with an OutputError, and the next one completes the rows, none of them twice."""
    for after in range(200):
        folder = tmp_path / str(after)
        ran(folder, 0, 1)
        broken = Broken(call, number, after)
        with monkeypatch.context() as patch:
            for module in (folder_module, journal_module):
                patch.setattr(module, "os", broken.os)
            patch.setattr("engine.state.segments.os", broken.os)
            try:
                ran(folder, 2, 3)
            except OutputError as error:
                one_line(error)
        journal = opened(folder)
        assert journal.committed.covers(0, 2)
        left = [ordinal for ordinal in (2, 3) if ordinal not in journal.committed]
        assert left in ([], [2, 3])
        journal.close()
        ran(folder, *left)
        journal = opened(folder)
        assert list(journal.committed.ranges()) == [(0, 4)]
        assert journal.rows == 4
        journal.close()
        if broken.used <= after:
            return
    pytest.fail("a run does not end")


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sink = SegmentSink(opened(run))
    sink.take(batch(0))
    run.rename(tmp_path / "moved")
    sink.take(batch(1))
    sink.close(Summary(0.0))
    assert list(opened(tmp_path / "moved").committed.ranges()) == [(0, 2)]
    sink = SegmentSink(opened(tmp_path / "again"))
    for path in (tmp_path / "again").iterdir():
        path.unlink()
    (tmp_path / "again").rmdir()
    with pytest.raises(OutputError, match="No such file or directory; what is committed is safe"):
        sink.take(batch(0))
        sink.close(Summary(0.0))
