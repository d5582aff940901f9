"""`probemill compact`: small files into large ones, and what is never touched. On a disk, and on S3 on loopback."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError, InputError, OutputError
from engine.results.compact import opened
from engine.results.lake import Batch, Delivery, Lake, base_exchange, open_lake
from engine.results.lake.base_place import LocalPlace, open_place
from tests.rows import LINES, varied
from tests.test_convert import command
from tests.test_convert_lake import held, once

ROOT = Path(__file__).resolve().parent.parent
FORMS = ["ndjson+zstd", "parquet"]
SIZE = 128 << 20


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="needs probemill[lake]")
    return str(request.param)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def deliver(form: str, where: object, rows: bytes, batches: int, run: str = "0123456789abcdef") -> Lake:
    """Rows in so many batches."""
    staging = Path(os.environ["XDG_CACHE_HOME"])
    staging.mkdir(exist_ok=True)
    lake = open_lake(f"{form}:{where}", Delivery(run, "x", str(staging)))
    lines = rows.splitlines(keepends=True)
    step = -(-len(lines) // batches)
    for number in range(batches):
        lake.write(b"".join(lines[number * step : number * step + step]))
        lake.commit(Batch(number + 1, number + 1))
    lake.close()
    return lake


def compact(where: object, size: int = SIZE) -> None:
    with opened(str(where)) as compaction:
        for merges in compaction.plan(size).merges.values():
            compaction.run(merges)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*"))


def test_small_files_become_large_ones(tmp_path: Path, form: str) -> None:
    """One a day; the rows are the same; nothing else is left, and a second call has nothing to do."""
    rows = varied(300)
    lake = tmp_path / "lake"
    deliver(form, lake, rows, 10)
    manifests = sorted((lake / "_delivered").iterdir())
    assert len(parts(lake)) > 10
    compact(lake)
    assert len(parts(lake)) == 3
    assert held(lake) == once(rows)
    assert sorted((lake / "_delivered").iterdir()) == manifests
    there = sorted(tmp_path.rglob("*"))
    compact(f"{form}:{lake}")
    assert sorted(tmp_path.rglob("*")) == there
    assert not list(tmp_path.rglob(".probemill*"))


def test_what_was_compacted_is_compacted_again(tmp_path: Path, form: str) -> None:
    """With what has come since."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(100), 5)
    compact(lake)
    deliver(form, lake, LINES, 2, "another-run")
    compact(lake)
    assert len(parts(lake)) == 3
    assert held(lake) == once(varied(100) + LINES)


def test_files_are_of_the_wished_size(tmp_path: Path, form: str) -> None:
    """About; large ones stay as they are."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(900).replace(b"2026-11-22", b"2026-11-21").replace(b"2026-11-20", b"2026-11-21"), 9)
    sizes = [path.stat().st_size for path in parts(lake)]
    compact(lake, size=int(sum(sizes) / 3))
    assert 3 <= len(parts(lake)) <= 5
    compact(lake, size=1)
    assert 3 <= len(parts(lake)) <= 5
    assert sum(held(lake).values()) == 900


def test_a_run_knows_its_batches_afterwards(tmp_path: Path, form: str) -> None:
    """By their manifests, wherever the rows are."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(300), 5)
    compact(lake)
    again = open_lake(f"{form}:{lake}", Delivery("0123456789abcdef", "x", str(tmp_path)))
    assert all(again.holds(Batch(number, number)) for number in range(1, 6))
    again.close()


def test_what_is_still_delivered_is_left_alone(tmp_path: Path, form: str) -> None:
    """A batch without its manifest may be put again under the same names."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(300), 5)
    next((lake / "_delivered").glob("0123456789abcdef-000005-000005.*")).unlink()
    unfinished = [path for path in parts(lake) if "000005-000005" in path.name]
    (lake / "scan=x" / "date=2026-11-21" / "notes.txt").write_text("mine")
    with opened(str(lake)) as compaction:
        assert compaction.plan(SIZE).unfinished == len(unfinished) == 3
    compact(lake)
    assert len(parts(lake)) == 6
    assert all(path.exists() for path in unfinished)
    assert (lake / "scan=x" / "date=2026-11-21" / "notes.txt").read_text() == "mine"
    again = open_lake(f"{form}:{lake}", Delivery("0123456789abcdef", "x", str(tmp_path)))
    again.write(b"".join(varied(300).splitlines(keepends=True)[240:]))
    again.commit(Batch(5, 5))
    again.close()
    assert held(lake) == once(varied(300))


def test_readers_see_one_or_the_other(tmp_path: Path, form: str) -> None:
    """Whoever lists a folder while it is exchanged finds all of its rows, and none twice."""
    lake = tmp_path / "lake"
    deliver(form, lake, LINES * 40, 40)
    sizes = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            sizes.add(frozenset(path.name for path in (lake / "scan=x" / "date=2026-11-21").iterdir()))

    reader = threading.Thread(target=look)
    reader.start()
    time.sleep(0.05)
    compact(lake)
    time.sleep(0.05)
    done.set()
    reader.join()
    assert sorted(map(len, sizes)) == [1, 40]


def test_what_comes_meanwhile_stays(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a run puts into the folder just before it is exchanged is moved to the new one."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(300), 5)
    swap = base_exchange._swap

    def put_and_swap(one: Path, other: Path) -> bool:
        (one / "late").write_text("row")
        done = swap(one, other)
        (other / "later").write_text("row")
        return done

    monkeypatch.setattr(base_exchange, "_swap", put_and_swap)
    compact(lake)
    assert held(lake) == once(varied(300))
    for day in (lake / "scan=x").iterdir():
        assert {"late", "later"} < {path.name for path in day.iterdir()}


def test_a_disk_that_cannot_exchange(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are put and removed instead, one after the other."""
    monkeypatch.setattr(base_exchange, "_swap", lambda *_: False)
    lake = tmp_path / "lake"
    deliver(form, lake, varied(300), 5)
    compact(lake)
    assert len(parts(lake)) == 3
    assert held(lake) == once(varied(300))
    assert not list((lake / "_compacted").iterdir())
    assert not list(tmp_path.rglob(".probemill*"))


class Stop(BaseException):
    """As a kill is: nobody cleans up behind it."""


@pytest.mark.parametrize("step", range(4))
def test_an_intent_is_carried_out(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Or given up, where its file never came."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(300), 5)
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        if calls == step:
            raise Stop
        calls += 1

    with monkeypatch.context() as patch:
        patch.setattr(base_exchange, "_swap", lambda *_: False)
        for name in ("put_bytes", "put", "remove"):
            method = getattr(LocalPlace, name)
            patch.setattr(LocalPlace, name, lambda *given, method=method: (method(*given), stop()))
        with pytest.raises(Stop):
            compact(lake)
    compact(lake)
    assert len(parts(lake)) == 3
    assert held(lake) == once(varied(300))
    assert not list((lake / "_compacted").iterdir())


def test_damaged_files_stay(tmp_path: Path, form: str) -> None:
    """Their partition is left alone; the others are done; exit code 1."""
    lake = tmp_path / "lake"
    deliver(form, lake, varied(300), 5)
    broken = next(path for path in parts(lake) if "date=2026-11-21" in str(path))
    broken.write_bytes(broken.read_bytes()[:-20])
    before = [path for path in parts(lake) if "date=2026-11-21" in str(path)]
    done = command("compact", lake)
    assert done.returncode == 1
    assert str(broken).encode() in done.stderr
    assert [path for path in parts(lake) if "date=2026-11-21" in str(path)] == before
    assert len(parts(lake)) == len(before) + 2


def test_columns_of_tomorrow_stay(tmp_path: Path) -> None:
    """We would lose them."""
    pa = pytest.importorskip("pyarrow", reason="needs probemill[lake]")
    from pyarrow import parquet

    lake = tmp_path / "lake"
    deliver("parquet", lake, LINES, 3)
    path = parts(lake)[0]
    table = parquet.read_table(path, partitioning=None)
    parquet.write_table(table.append_column("new", pa.array([1] * len(table))), path)
    with pytest.raises(InputError, match="does not know"):
        compact(lake)
    assert len(parts(lake)) == 3


def test_files_of_yesterday_go_together(tmp_path: Path) -> None:
    """They lack columns, and fields within columns."""
    pa = pytest.importorskip("pyarrow", reason="needs probemill[lake]")
    from pyarrow import parquet

    lake = tmp_path / "lake"
    deliver("parquet", lake, LINES, 3)
    for path in parts(lake):
        table = parquet.read_table(path, partitioning=None).drop_columns(["confidence", "reasons", "also"])
        at = table.schema.get_field_index("tls")
        old = [field for field in table.schema.field(at).type if field.name not in {"ja4s", "ja4x"}]
        facts = table.column(at).combine_chunks()
        inner = [facts.field(field.name) for field in old]
        cut = pa.StructArray.from_arrays(inner, fields=old, mask=facts.is_null())
        parquet.write_table(table.set_column(at, pa.field("tls", pa.struct(old)), cut), path)
    before = held(lake)
    compact(lake)
    assert len(parts(lake)) == 2  # of two days
    assert held(lake) == before


@pytest.mark.parametrize(
    ("path", "said"),
    [("delta:x", b"own tools"), ("iceberg:x/y.z", b"own tools"), ("gone", b"is no folder"), ("table", b"Delta table")],
)
def test_what_has_its_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: bytes) -> None:
    """Is told so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    (tmp_path / "table" / "_delta_log" / "0.json").write_text("{}")
    done = command("compact", path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_people_hear(tmp_path: Path) -> None:
    """A dry run says what it would do, and does nothing."""
    lake = tmp_path / "lake"
    deliver("ndjson+zstd", lake, LINES, 3)
    done = command("compact", lake, "--dry-run", "--size", "1M")
    assert done.stdout.startswith(b"scan=x/date=2026-11-21: 2 files, ")
    assert len(parts(lake)) == 3
    assert b"2 files into 1, 1 left as they are" in command("compact", lake).stderr
    assert len(parts(lake)) == 2


def test_one_at_a_time(tmp_path: Path) -> None:
    deliver("ndjson+zstd", tmp_path / "lake", LINES, 2)
    with (
        opened(str(tmp_path / "lake")),
        pytest.raises(ConfigError, match="another process"),
        opened(str(tmp_path / "lake")),
    ):
        pass


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path, form: str) -> None:
    """While a run goes on to deliver: each row once, always."""
    lake = tmp_path / "lake"
    rows = varied(3000)
    lines = rows.splitlines(keepends=True)
    chance = random.Random(7)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "probemill", "compact", "-q", str(lake)]
    kills = 0
    shadow = tmp_path / ".probemill-compact-lake"
    for turn in range(15):
        deliver(form, lake, b"".join(lines[turn * 200 : turn * 200 + 100]), 3, f"a-run-{turn:02}")
        with subprocess.Popen(line, env=environment) as process:
            while process.poll() is None and not shadow.exists():
                time.sleep(0.001)
            deliver(form, lake, b"".join(lines[turn * 200 + 100 : turn * 200 + 200]), 3, f"b-run-{turn:02}")
            time.sleep(chance.random() * 0.15)
            if process.poll() is None:
                process.kill()
                kills += 1
    subprocess.run(line, env=environment, check=True, timeout=60)
    assert held(lake) == once(rows)
    assert not shadow.exists()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    pytest.importorskip("obstore", reason="needs probemill[lake]")
    pytest.importorskip("moto", reason="needs probemill[lakedev]")
    from bench.object_store import BUCKET, object_store

    with object_store() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


@pytest.mark.slow
@pytest.mark.parametrize("step", [*range(6), 99])
def test_in_a_store(tmp_path: Path, form: str, store: str, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Put, then removed; ended after any step, the next call puts it in order."""
    lake = f"{store}/compact/{form.partition('+')[0]}{step}"
    rows = varied(60)
    deliver(form, lake, rows, 4)
    place = type(open_place(lake))
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            raise Stop

    with monkeypatch.context() as patch:
        for name in ("put_bytes", "put", "remove"):
            method = getattr(place, name)
            patch.setattr(place, name, lambda *given, method=method: (method(*given), stop()))
        try:
            compact(lake)
        except Stop:
            assert step < 99
    compact(lake)
    names = [found.name for found in open_place(lake).files()]
    assert len([name for name in names if "/part-" in name]) == 3
    assert not [name for name in names if name.startswith("_compacted")]
    done = command("convert", "-q", lake, "-")
    assert (done.returncode, once(done.stdout)) == (0, once(rows)), done.stderr
    (tmp_path / "b.ndjson").write_bytes(rows)
    done = command("convert", "-q", lake, f"{form}:{lake}-2")
    assert done.returncode == 0, done.stderr
    done = command("convert", "-q", f"{form}:{lake}-2", "-")
    assert (done.returncode, once(done.stdout)) == (0, once(rows)), done.stderr


@pytest.mark.parametrize(
    "sources",
    [
        ["../victim"],
        ["/victim"],
        ["scan=x/date=2026-11-21/../../victim"],
        ["scan=x/date=2026-11-22/part-a.parquet"],
        ["scan=x/date=2026-11-21/notes.txt"],
    ],
    ids=str,
)
def test_an_intent_that_is_none_of_ours_removes_nothing(tmp_path: Path, sources: list[str]) -> None:
    """Whoever may write into a lake must not have other people's files removed."""
    lake = tmp_path / "lake"
    partition = lake / "scan=x" / "date=2026-11-21"
    for folder in (partition, partition.with_name("date=2026-11-22"), lake / "_compacted"):
        folder.mkdir(parents=True)
    (tmp_path / "victim").write_text("x")
    (partition / "notes.txt").write_text("x")
    (partition.with_name("date=2026-11-22") / "part-a.parquet").write_text("x")
    (partition / "part-compact-0.parquet").write_text("x")
    intent = {"target": "scan=x/date=2026-11-21/part-compact-0.parquet", "sources": sources}
    (lake / "_compacted" / "x.json").write_bytes(msgspec.json.encode(intent))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="names other files than ours; remove it"), opened(str(lake)):
        pass
    with opened(str(lake), look_only=True):
        pass
    assert sorted(path for path in tmp_path.rglob("*") if ".probemill" not in str(path)) == before
