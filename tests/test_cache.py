"""What is stored on disk comes back whole or not at all, from nobody but ourselves, and nobody depends on it."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matcher import EngineUnavailable, Matcher, Signature, compile_matcher, parse_database
from matcher.patterns import ENGINES, Engine, Finder, SetFailure, cache, plan

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef0123456789abcdef01234567"
STRANGER = 4711  # a user who is neither us nor root

DATABASE = b"""Probe TCP NULL q||
match ssh m|^SSH-([\\d.]+)-| v/$1/
Probe TCP Ask q|ask|
match answer m|^answer is \\d+|
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "probemill"


def test_round_trip(home: Path) -> None:
    name = cache.key("set", "re2", b"\0\xff")
    assert cache.read(name) is None
    assert cache.write(name, b"content")
    assert cache.read(name) == b"content"
    assert [file.name for file in home.iterdir()] == [name]


def test_a_key_depends_on_every_part_and_where_it_ends() -> None:
    assert len({cache.key("ab", "c"), cache.key("a", "bc"), cache.key("abc"), cache.key("ab", b"d")}) == 4


@pytest.mark.parametrize("damage", [b"", b"probemill-1\n", b"probemill-0\n" + b"x" * 60, b"\0" * 500])
def test_a_damaged_file_is_no_file(home: Path, damage: bytes) -> None:
    cache.write("name", b"content")
    (home / "name").write_bytes(damage)
    assert cache.read("name") is None


def test_one_flipped_bit_is_noticed(home: Path) -> None:
    cache.write("name", b"content" * 100)
    data = bytearray((home / "name").read_bytes())
    data[-7] ^= 1
    (home / "name").write_bytes(data)
    assert cache.read("name") is None


def test_a_folder_that_cannot_be_written_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_bytes(b"a file stands where the folder should be")
    assert not cache.write("name", b"content")
    assert cache.read("name") is None
    match = compile_matcher(db := parse_database(DATABASE, "db"), "re2").match(db.probes[0], b"SSH-2.0-x")
    assert match is not None and match.info.version == "2.0"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    assert not cache.write("name", b"content")


def test_many_writers_leave_one_whole_file(home: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda content: cache.write("name", content), contents * 4))
    assert cache.read("name") in contents
    assert [file.name for file in home.iterdir()] == ["name"]


class Planned:
    """Counts how often lines are planned, which is the dear step."""

    def __init__(self) -> None:
        self.count = 0
        self._plan = plan.plan

    def __call__(self, lines: Sequence[Signature]) -> tuple[plan.Line, ...]:
        self.count += 1
        return self._plan(lines)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Planned:
    counting = Planned()
    monkeypatch.setattr(plan, "plan", counting)
    return counting


def compiled(database: bytes = DATABASE, engine: str = "re2", *, cached: bool = True) -> Matcher:
    matcher = Matcher(parse_database(database, "db"), engine, cached)
    matcher.compile_all()
    return matcher


def test_a_warm_start_plans_nothing(planned: Planned) -> None:
    compiled()
    assert planned.count == 2
    compiled()
    assert planned.count == 2
    compiled(cached=False)
    assert planned.count == 4


def test_engines_share_their_plans(planned: Planned) -> None:
    compiled()
    for engine in ENGINES:
        with suppress(EngineUnavailable):
            compiled(engine=engine)
    assert planned.count == 2


def test_an_edited_probe_is_planned_anew_and_no_other(planned: Planned) -> None:
    compiled()
    compiled(DATABASE.replace(b"answer is", b"reply is"))
    assert planned.count == 3
    compiled(DATABASE.replace(b"|^SSH-([\\d.]+)-|", b"|^SSH-([\\d.]+)-|i"))
    assert planned.count == 4


def test_plans_of_other_code_are_not_read(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled()
    monkeypatch.setattr(cache, "code", lambda *files: "other code")
    compiled()
    assert planned.count == 4


def test_what_cannot_be_loaded_is_made_anew(home: Path, planned: Planned) -> None:
    """A file that is whole but no plan heals itself."""
    compiled()
    for file in list(home.iterdir()):
        cache.write(file.name, b"whole, but no plan")
    matcher = compiled()
    assert planned.count == 4
    assert matcher.match(matcher.database.probes[0], b"SSH-1-") is not None
    compiled()
    assert planned.count == 4


def test_a_probe_is_planned_when_it_is_asked(planned: Planned) -> None:
    """Each set is made by itself, when a response first needs it."""
    matcher = Matcher(parse_database(DATABASE, "db"), "re2")
    assert planned.count == 0
    for _ in range(2):
        assert matcher.match(matcher.database.probes[0], b"SSH-2.0-x") is not None
        assert planned.count == 1
    assert matcher.match(matcher.database.probes[1], b"answer is 42") is not None
    assert planned.count == 2


def test_planning_beside_what_is_asked(planned: Planned) -> None:
    """Nothing is planned twice, whoever is first."""
    matcher = Matcher(parse_database(DATABASE, "db"), "re2")
    thread = matcher.preload()
    assert matcher.match(matcher.database.probes[1], b"answer is 42") is not None
    thread.join(timeout=60)
    matcher.compile_all()
    assert planned.count == 2


def test_processes_that_start_together_plan_once(home: Path) -> None:
    """The one waits for what the other is at."""
    script = (
        "from matcher import compile_matcher, parse_database; from matcher.patterns import plan; was = plan.plan\n"
        "def slow(lines): print('planned', flush=True); import time; time.sleep(0.5); return was(lines)\n"
        "plan.plan = slow\n"
        "compile_matcher(parse_database(b'Probe TCP NULL q||\\nmatch a m|^answer|\\n', 'db'), 're2')\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert "".join(said).count("planned") == 1


def test_what_hyperscan_compiles_is_kept_and_whatever_else_lies_there_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is large. A file that Hyperscan refuses, as from another machine, is made anew; without cache, nothing
    is written.
    """
    hyperscan = pytest.importorskip("matcher.patterns.hyperscan")
    made: list[int] = []
    make = hyperscan.Finder._database

    def counted(self: object, keys: Sequence[object], first: int) -> object:
        made.append(len(keys))
        return make(self, keys, first)

    monkeypatch.setattr(hyperscan.Finder, "_database", counted)
    count = hyperscan.DEAR
    lines = b"".join(b"match n%d m|^answer.*number-%d;|\n" % (number, number) for number in range(count))
    database = b"Probe TCP NULL q||\n" + lines

    def ask(*, cached: bool = True) -> None:
        matcher = compiled(database, "hyperscan", cached=cached)
        found = matcher.match(matcher.database.probes[0], b"answer is number-17; what else")
        assert found is not None and found.service == "n17"
        assert not matcher.stats.failures

    ask(cached=False)
    assert made == [count] and not home.exists()
    ask()
    ask()
    assert made == [count] * 2
    (dump,) = (path for path in home.iterdir() if path.stat().st_size > 10_000)
    for content in (b"", b"no database of Hyperscan"):
        cache.write(dump.name, content)
        ask()
        ask()
    assert made == [count] * 4


def test_a_set_that_cannot_be_built_costs_speed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(keys: object) -> Finder:
        raise SetFailure("re2: pattern too large")

    matcher = compiled(DATABASE.replace(b"m|^", b"m|"))
    matcher._engine = Engine("re2", fail)
    matcher._sets = [None, None]
    for count in (1, 2):
        match = matcher.match(matcher.database.probes[0], b"SSH-2.0-x")
        assert match is not None
        assert match.service == "ssh"
        assert matcher.stats.failures == {"re2: pattern too large": count}


def test_what_a_killed_writer_left_is_removed(home: Path) -> None:
    """Not at once: it may still be writing."""
    cache.write(KEY, b"content")
    old, new = home / f".{KEY}.0", home / f".{KEY}.1"
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.write(KEY, b"content")
    assert not old.exists()
    assert new.exists()


# --- what others may have written -----------------------------------------------------------------------------------


def foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file somebody else's; who is not root becomes somebody else instead."""
    if os.geteuid() == 0:
        os.chown(path, STRANGER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)


def replaced(make: Callable[[Path, Path], object]) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """The entry moves aside, and `make(entry, aside)` puts something in its place."""

    def change(entry: Path, _: pytest.MonkeyPatch) -> None:
        aside = entry.rename(entry.parent.parent / "aside")
        make(entry, aside)

    return change


ENTRIES: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "its group may write it": lambda entry, _: entry.chmod(0o620),
    "everybody may write it": lambda entry, _: entry.chmod(0o602),
    "somebody else's": foreign,
    "a link": replaced(lambda entry, aside: entry.symlink_to(aside)),
    "a file with two names": replaced(lambda entry, aside: entry.hardlink_to(aside)),
    "a FIFO": replaced(lambda entry, aside: os.mkfifo(entry)),
    "a folder": replaced(lambda entry, aside: entry.mkdir()),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_that_is_not_ours_alone_is_absent(home: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It is neither read nor waited for, and where the folder is ours it gives way to a new one."""
    assert cache.write(KEY, b"content")
    with monkeypatch.context() as patch:
        ENTRIES[kind](home / KEY, patch)
        assert cache.read(KEY) is None
    if kind != "a folder":
        assert cache.write(KEY, b"new content")
        assert cache.read(KEY) == b"new content"
        assert (home / KEY).stat().st_mode & 0o777 == 0o600


def test_an_entry_is_for_its_key_only(home: Path) -> None:
    """A whole file under another name is no entry: the answer to one question is not passed off as that to another."""
    assert cache.write(KEY, b"content")
    (home / KEY).rename(home / KEY[::-1])
    assert cache.read(KEY[::-1]) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_begun_anew(home: Path, mode: int) -> None:
    """Nothing in it is read; the first write closes it, and what was there before is gone."""
    assert cache.write(KEY, b"content")
    home.chmod(mode)
    assert cache.read(KEY) is None
    assert cache.write(KEY[::-1], b"content")
    assert home.stat().st_mode & 0o777 == 0o700
    assert cache.read(KEY) is None
    assert cache.read(KEY[::-1]) == b"content"


def test_a_folder_of_somebody_else_is_no_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.write(KEY, b"content")
    foreign(home, monkeypatch)
    assert cache.read(KEY) is None
    assert not cache.write(KEY, b"new content")


def test_a_folder_that_is_a_link_is_no_cache(home: Path) -> None:
    assert cache.write(KEY, b"content")
    home.symlink_to(home.rename(home.parent / "elsewhere"))
    assert cache.read(KEY) is None
    assert not cache.write(KEY, b"new content")


@pytest.mark.parametrize(("mode", "trusted"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_the_folder_above(home: Path, mode: int, trusted: bool) -> None:
    """Where others may write above our folder, they may put another in its place; not in a folder such as /tmp."""
    assert cache.write(KEY, b"content")
    home.parent.chmod(mode)
    assert cache.read(KEY) == (b"content" if trusted else None)
    assert cache.write(KEY, b"new content") is trusted


def test_a_folder_is_made_for_us_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the user's umask says otherwise."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "a" / "b"))
    before = os.umask(0)
    try:
        with cache.alone(KEY):
            assert cache.write(KEY, b"content")
    finally:
        os.umask(before)
    assert (home / "a" / "b" / "probemill").stat().st_mode & 0o777 == 0o700
    assert (home / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert cache.read(KEY) == b"content"


def test_a_relative_place_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG specification says: what lies in the working folder is not ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "probemill"


# --- waiting, and what fails -----------------------------------------------------------------------------------------


def test_waiting_for_another_process_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the lock, and however long: then it is made without it."""
    monkeypatch.setattr(cache, "WAIT_S", 0.2)
    with cache.alone(KEY):
        began = time.monotonic()
        assert cache.kept(KEY, lambda: b"made", bytes) == b"made"
        assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("kind", [kind for kind in ENTRIES if kind != "somebody else's"])
def test_a_lock_that_is_not_ours_alone_is_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with cache.alone(KEY):
        pass
    [lock] = home.glob("lock-*")
    ENTRIES[kind](lock, monkeypatch)
    with cache.alone(KEY):
        assert cache.kept(KEY, lambda: b"made", bytes) == b"made"


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "fstat", "fdopen", "replace", "mkdir", "write", "unlink"])
def test_whatever_fails_in_the_folder_is_no_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """With a cache that is full, empty or not there, the answers are the same."""
    if call != "mkdir":
        compiled()
    broken = SimpleNamespace(**{**vars(os), call: failing(number)})
    monkeypatch.setattr(cache, "os", broken)
    if call == "mkdir":
        monkeypatch.setattr(Path, "mkdir", failing(number))
    for database in (DATABASE, DATABASE.replace(b"is", b"was")):
        matcher = compiled(database)
        match = matcher.match(matcher.database.probes[0], b"SSH-2.0-x")
        assert match is not None
        assert match.info.version == "2.0"


def test_a_full_disk_leaves_nothing_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write(KEY, b"content")
    monkeypatch.setattr(cache, "os", SimpleNamespace(**{**vars(os), "replace": failing(errno.ENOSPC)}))
    assert not cache.write(KEY, b"new content")
    assert [file.name for file in home.iterdir()] == [KEY]
    assert cache.read(KEY) == b"content"
