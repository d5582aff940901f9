"""`probemill convert` into sinks: each row exactly once, whatever ends it, and however often it is said."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard

from engine.errors import ConfigError, InputError, OutputError, ReadError
from engine.offline import into_lake as module
from engine.offline.faults import Faults
from engine.offline.into_lake import Goal, into_lake, state_into_lake
from engine.offline.rows_in import Part, open_inputs
from engine.results.lake import Batch, Unavailable
from engine.results.lake import open_lake as real_open_lake
from engine.state import follower as follower_module
from engine.state.delivery import Deliveries, Terms
from engine.state.elsewhere import Elsewhere
from engine.state.journal import Journal
from tests.rows import LINES, varied
from tests.test_convert import command, packed, state, state_elsewhere

ROOT = Path(__file__).resolve().parent.parent
ROWS = varied(300)


class Watch:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.faults = 0
        self.errors: list[InputError] = []
        self.position = (0, 0)

    def moved(self, done: int, rows: int) -> None:
        self.position = done, rows

    def tell(self, _name: str, faults: Faults) -> None:
        self.faults += faults.count

    def damage(self, error: InputError) -> None:
        self.errors.append(error)


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 70)
    monkeypatch.setattr(module, "PAUSES_S", (0.01,))
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def held(folder: Path) -> Counter[bytes]:
    """Every row that a reader of the folder finds."""
    found: Counter[bytes] = Counter()
    for path in folder.rglob("*.ndjson.zst"):
        found.update(zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines())
    for batch in batches(folder):
        from engine.results.arrow import lines_of

        found.update(lines_of(batch).splitlines())
    return found


def batches(folder: Path) -> Iterator[Any]:
    """Of Parquet files, or of a Delta table."""
    if (folder / "_delta_log").exists():
        from deltalake import DeltaTable

        yield from DeltaTable(folder).to_pyarrow_table().to_batches()
        return
    for path in folder.rglob("*.parquet"):
        from pyarrow import parquet

        yield from parquet.read_table(path, partitioning=None).to_batches()


def once(rows: bytes) -> Counter[bytes]:
    return Counter(rows.splitlines())


def parts(*paths: Path) -> list[Part]:
    return [part for path in paths for part in open_inputs(str(path))]


@pytest.mark.parametrize("form", ["ndjson+zstd", "parquet", "delta"])
def test_what_is_said_twice_is_there_once(tmp_path: Path, form: str) -> None:
    """Batches are cut at the same rows each time, across inputs."""
    if form != "ndjson+zstd":
        pytest.importorskip("deltalake", reason="needs probemill[lake]")
    inputs = packed(tmp_path / "a.ndjson", ROWS), packed(tmp_path / "b.ndjson.gz", LINES)
    goal = Goal(f"{form}:{tmp_path / 'lake'}")
    for _ in range(2):
        watch = Watch()
        assert into_lake(parts(*inputs), goal, watch) == 303
        assert watch.position[1] == 303
    assert held(tmp_path / "lake") == once(ROWS + LINES)
    if form != "delta":
        assert len(list((tmp_path / "lake" / "_delivered").iterdir())) == 5
    assert not list((tmp_path / "cache" / "probemill-files" / "convert").iterdir())


def test_other_inputs_are_others(tmp_path: Path) -> None:
    """A file that has changed is another one, and so is one under another scan's name."""
    goal = f"ndjson+zstd:{tmp_path / 'lake'}"
    given = packed(tmp_path / "a.ndjson", LINES)
    into_lake(parts(given), Goal(goal, "x"), Watch())
    into_lake(parts(given), Goal(goal, "y"), Watch())
    os.utime(given, ns=(1, 1))
    into_lake(parts(given), Goal(goal, "y"), Watch())
    assert held(tmp_path / "lake") == once(LINES * 3)
    assert {path.name for path in (tmp_path / "lake").iterdir()} == {"_delivered", "scan=x", "scan=y"}


def test_rows_keep_the_name_of_their_scan(tmp_path: Path) -> None:
    """Where folders tell it; and lose it, where another is said."""
    for name, rows in (("x", ROWS), ("a b", LINES)):
        given = packed(tmp_path / f"{name}.ndjson", rows)
        (part,) = parts(given)
        part.scan = name
        into_lake([part], Goal(f"ndjson+zstd:{tmp_path / 'lake'}"), Watch())
    for _ in range(2):
        into_lake(parts(tmp_path / "lake"), Goal(f"ndjson+zstd:{tmp_path / 'other'}"), Watch())
        into_lake(parts(tmp_path / "lake"), Goal(f"ndjson+zstd:{tmp_path / 'third'}", "z"), Watch())
    assert held(tmp_path / "other" / "scan=x") == once(ROWS)
    assert held(tmp_path / "other" / "scan=a%20b") == once(LINES)
    assert held(tmp_path / "third" / "scan=z") == once(ROWS + LINES)


class Shelf:
    """A lake in memory that fails as told, before or behind what it does."""

    name = "shelf:x"
    size = 0

    def __init__(self) -> None:
        self.batches: dict[Batch, bytes] = {}
        self.fault: Callable[[str], None] = lambda _: None
        self._begun = b""

    def open(self, *_: object) -> "Shelf":
        return self

    def holds(self, batch: Batch) -> bool:
        self.fault("holds")
        return batch in self.batches

    def write(self, rows: bytes) -> None:
        self._begun += rows
        self.fault("write")

    def commit(self, batch: Batch) -> None:
        self.fault("commit")
        assert batch not in self.batches
        self.batches[batch] = self._begun
        self._begun = b""
        self.fault("committed")

    def discard(self) -> None:
        self._begun = b""

    def close(self) -> None:
        self.discard()


@pytest.mark.parametrize("when", ["holds", "write", "commit", "committed"])
def test_what_fails_in_passing_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Also where the answer got lost; and faults of the input are told once."""
    shelf = Shelf()
    monkeypatch.setattr(module, "open_lake", shelf.open)
    calls = Counter[str]()

    def fail(now: str) -> None:
        calls[now] += 1
        if now == when and calls[now] % 3 == 0:
            raise Unavailable("shelf:x: away")

    shelf.fault = fail
    watch = Watch()
    given = packed(tmp_path / "a.ndjson", b"bad\n" + ROWS)
    assert into_lake(parts(given), Goal("shelf:x"), watch) == 300
    assert b"".join(shelf.batches.values()) == ROWS
    assert (watch.faults, watch.errors) == (1, [])


def test_what_stays_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some patience; and the next call goes on behind what is there."""
    shelf = Shelf()
    monkeypatch.setattr(module, "open_lake", shelf.open)

    def fail(now: str) -> None:
        if now == "commit" and len(shelf.batches) == 2:
            raise Unavailable("shelf:x: away")

    shelf.fault = fail
    given = packed(tmp_path / "a.ndjson", ROWS)
    with pytest.raises(OutputError, match="away; the same command goes on from there"):
        into_lake(parts(given), Goal("shelf:x"), Watch())
    shelf.fault = lambda _: None
    into_lake(parts(given), Goal("shelf:x"), Watch())
    assert b"".join(shelf.batches.values()) == ROWS


def test_an_input_that_cannot_be_read_now_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows behind it would get other numbers. Damage, which stays, does not."""
    shelf = Shelf()
    monkeypatch.setattr(module, "open_lake", shelf.open)
    inputs = [*parts(packed(tmp_path / "a.ndjson", ROWS[:-9])), *parts(packed(tmp_path / "b.ndjson", LINES))]
    read = inputs[0].read

    def torn() -> Iterator[object]:
        yield from read()
        raise ReadError("a.ndjson", 0, "cannot be read: Input/output error")

    inputs[0].read = torn  # type: ignore[assignment]
    with pytest.raises(ReadError):
        into_lake(inputs, Goal("shelf:x"), Watch())
    inputs[0].read = read
    watch = Watch()
    assert into_lake(inputs, Goal("shelf:x"), watch) == 299 + 3
    assert watch.faults == 1
    assert b"".join(shelf.batches.values()) == ROWS[: ROWS[:-9].rindex(b"\n") + 1] + LINES


def test_a_state_folder_is_the_run_itself(tmp_path: Path) -> None:
    """What the scan has delivered is not delivered again, nor the other way round."""
    folder = state(tmp_path / "state")
    url = f"ndjson+zstd:{tmp_path / 'lake'}"
    assert state_into_lake(str(folder), Goal(url, "mine"), Watch()) == 300
    assert held(tmp_path / "lake" / "scan=mine") == once(ROWS)
    journal = Journal.open(folder, {}, resume=True)
    deliveries = Deliveries(journal, [url, f"ndjson+zstd:{tmp_path / 'second'}"], Terms())
    deliveries.finish()
    journal.close()
    watch = Watch()
    assert state_into_lake(str(folder), Goal(f"ndjson+zstd:{tmp_path / 'second'}"), watch) == 300
    assert watch.position[1] == 300
    assert held(tmp_path / "lake") == held(tmp_path / "second") == once(ROWS)
    with pytest.raises(ConfigError, match="is called mine"):
        state_into_lake(str(folder), Goal(url, "other"), Watch())


def test_a_state_folder_with_segments_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is the run itself, too; a place that is away for a moment is waited for."""
    folder = state_elsewhere(tmp_path / "state")
    real, left = Elsewhere.opened, 2

    @contextmanager
    def torn(self: Elsewhere, key: str) -> Iterator[BinaryIO]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Unavailable(f"{self}/{key}: away")
        with real(self, key) as file:
            yield file

    monkeypatch.setattr(Elsewhere, "opened", torn)
    monkeypatch.setattr(follower_module, "PAUSES_S", (0.01,))
    assert state_into_lake(str(folder), Goal(f"ndjson+zstd:{tmp_path / 'lake'}", "mine"), Watch()) == 300
    left = 2
    assert into_lake(parts(folder), Goal(f"ndjson+zstd:{tmp_path / 'second'}", "x"), Watch()) == 300
    assert held(tmp_path / "lake") == held(tmp_path / "second") == once(ROWS)


def test_a_state_folder_in_use(tmp_path: Path) -> None:
    """Is read into files, and refused for sinks: there is one who delivers."""
    folder = state(tmp_path / "state")
    journal = Journal.open(folder, {}, resume=True)
    done = command("convert", "-q", folder, "-")
    assert (done.returncode, done.stdout) == (0, ROWS)
    done = command("convert", "-q", folder, f"ndjson+zstd:{tmp_path / 'lake'}")
    assert done.returncode == 2
    assert b"is in use by process" in done.stderr
    journal.close()


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same inputs, by two processes."""
    given = packed(tmp_path / "a.ndjson", LINES)

    def again(*_: object) -> None:
        monkeypatch.setattr(module, "open_lake", real_open_lake)
        into_lake(parts(given), Goal(f"ndjson+zstd:{tmp_path / 'lake'}"), Watch())

    monkeypatch.setattr(module, "open_lake", again)
    with pytest.raises(ConfigError, match="another process"):
        into_lake(parts(given), Goal(f"ndjson+zstd:{tmp_path / 'lake'}"), Watch())


def files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))  # which passes over folders that go meanwhile


CODE = """
from functools import partial
from engine.offline import into_lake
into_lake.BATCH_ROWS = 500
into_lake.Terms = partial(into_lake.Terms, size=1)
from engine.cli.start import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ndjson+zstd", "parquet", "delta", "state", "delta table"])
def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """And said again, until it has come to its end: each row once."""
    if kind in {"parquet", "delta", "delta table"}:
        pytest.importorskip("deltalake", reason="needs probemill[lake]")
    rows = varied(10_000)
    given = str(state(tmp_path / "state", rows, 40) if kind == "state" else packed(tmp_path / "a.ndjson", rows))
    if kind == "delta table":
        monkeypatch.setattr(module, "BATCH_ROWS", 5000)
        into_lake(parts(Path(given)), Goal(f"delta:{tmp_path / 'table'}", "x"), Watch())
        given = f"delta:{tmp_path / 'table'}"
    form = {"state": "ndjson+zstd", "delta table": "parquet"}.get(kind, kind)
    line = [sys.executable, "-c", CODE, "convert", "-q", given, f"{form}:{tmp_path / 'lake'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    chance = random.Random(5)
    kills = 0
    for _ in range(7):
        wanted = files(tmp_path / "lake") + chance.randrange(4)
        with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE) as process:
            while process.poll() is None and files(tmp_path / "lake") < wanted:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.02)
            if process.poll() is None:
                process.kill()
                kills += 1
    subprocess.run(line, env=environment, check=True, timeout=120)
    assert kills
    assert held(tmp_path / "lake") == once(rows)
    subprocess.run(line, env=environment, check=True, timeout=120)
    assert held(tmp_path / "lake") == once(rows)
    assert not list((tmp_path / "lake").glob("scan=*/**/*.tmp"))


@pytest.mark.slow
def test_a_file_that_was_killed_is_not_there(tmp_path: Path) -> None:
    """What it left goes with the next attempt."""
    given = packed(tmp_path / "a.ndjson", varied(20_000) * 5)
    line = [sys.executable, "-m", "probemill", "convert", "-q", str(given), str(tmp_path / "b.ndjson.zst")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    left = tmp_path / ".probemill-b.ndjson.zst"
    with subprocess.Popen(line, env=environment) as process:
        while process.poll() is None and not (left.exists() and list(left.iterdir())):
            time.sleep(0.005)
        process.kill()
    assert left.exists()
    assert not (tmp_path / "b.ndjson.zst").exists()
    subprocess.run(line, env=environment, check=True, timeout=120)
    assert not left.exists()
    text = zstandard.ZstdDecompressor().stream_reader((tmp_path / "b.ndjson.zst").read_bytes()).read()
    assert text == given.read_bytes()


def test_what_people_hear(tmp_path: Path) -> None:
    """How much it was; and exit codes, as everywhere."""
    packed(tmp_path / "a.ndjson", LINES + b"bad\n")
    done = command("convert", tmp_path / "a.ndjson", f"ndjson+zstd:{tmp_path / 'lake'}", "--rows", "full")
    assert done.returncode == 1
    assert b"3 rows, 1 line skipped" in done.stderr
    assert all(b'"host":' in row for row in held(tmp_path / "lake"))
    assert all(json.loads(row)["schema_version"] for row in held(tmp_path / "lake"))
    packed(tmp_path / "a.ndjson", b"bad\n")
    assert command("convert", tmp_path / "a.ndjson", f"ndjson+zstd:{tmp_path / 'lake'}").returncode == 2
