"""What is stored on disk comes back whole or not at all, and nobody depends on it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matcher import Matcher, Signature, compile_matcher, parse_database
from matcher.patterns import EveryLine, SetFailure, cache
from matcher.patterns.re2 import Re2Engine

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


class Counting(Re2Engine):
    """Counts how often the dear step is taken."""

    def __init__(self) -> None:
        self.analysed = 0

    def analyse(self, lines: Sequence[Signature]) -> bytes:
        self.analysed += 1
        return super().analyse(lines)


def compiled(engine: Counting, database: bytes = DATABASE, *, cached: bool = True) -> Matcher:
    matcher = Matcher(parse_database(database, "db"), "re2", cached)
    matcher._engine = engine
    matcher.compile_all()
    return matcher


def test_a_warm_start_analyses_nothing() -> None:
    engine = Counting()
    compiled(engine)
    assert engine.analysed == 2
    compiled(engine)
    assert engine.analysed == 2
    compiled(engine, cached=False)
    assert engine.analysed == 4


def test_an_edited_probe_is_compiled_anew_and_no_other() -> None:
    engine = Counting()
    compiled(engine)
    compiled(engine, DATABASE.replace(b"answer is", b"reply is"))
    assert engine.analysed == 3
    compiled(engine, DATABASE.replace(b"|^SSH-([\\d.]+)-|", b"|^SSH-([\\d.]+)-|i"))
    assert engine.analysed == 4


def test_another_version_and_another_cpu_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Counting()
    compiled(engine)
    engine.version = "other"
    compiled(engine)
    assert engine.analysed == 4
    monkeypatch.setattr(cache, "cpu_features", lambda: "another machine")
    compiled(engine)
    assert engine.analysed == 6


def test_what_cannot_be_loaded_is_made_anew(home: Path) -> None:
    """A file that is whole but that the engine refuses heals itself."""
    compiled(Counting())
    for file in list(home.iterdir()):
        cache.write(file.name, b"whole, but no set")
    engine = Counting()
    matcher = compiled(engine)
    assert engine.analysed == 2
    assert matcher.match(matcher.database.probes[0], b"SSH-1-") is not None
    engine = Counting()
    compiled(engine)
    assert engine.analysed == 0


def test_a_set_that_cannot_be_built_costs_speed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stored: bytes) -> EveryLine:
        raise SetFailure("re2: pattern too large")

    engine = Counting()
    monkeypatch.setattr(engine, "load", fail)
    matcher = compiled(engine)
    assert matcher.stats.failures == {"re2: pattern too large": 2}
    match = matcher.match(matcher.database.probes[1], b"answer is 42")
    assert match is not None and match.service == "answer"
