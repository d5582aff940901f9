"""The command with `--sink`, on a loopback farm: killed, interrupted, resumed, with a sink that fails."""

import os
import random
import signal
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs probemill[lake]")

from bench.chaos import DELAY_S, Arena, read_rows
from bench.farm import farm
from bench.lake_contents import keys

TARGETS = 1500
SMALL = ("--sink-size", "5k", "--sink-seconds", "0.5")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with farm(DELAY_S) as port:
        yield port


@pytest.fixture
def arena(tmp_path: Path, port: int) -> Arena:
    """Slow enough that a run takes about two seconds."""
    return Arena.build(tmp_path, port, TARGETS, inflight=60)


def counts(url: str) -> Counter[str]:
    found = keys(url)
    pairs = zip(found.column("ip").to_pylist(), found.column("port").to_pylist(), strict=True)
    return Counter(f"{ip}:{port}" for ip, port in pairs)


def test_killed_and_resumed(arena: Arena, tmp_path: Path) -> None:
    """Two sinks, each with every row once; and readers never see one twice on the way."""
    rng = random.Random()
    urls = [f"parquet:{tmp_path / 'parquet'}", f"ndjson+zstd:{tmp_path / 'ndjson'}"]
    options = [*SMALL, *(word for url in urls for word in ("--sink", url))]
    state = tmp_path / "state"
    for _ in range(3):
        with arena.start(state, *options) as process:
            time.sleep(rng.uniform(0.8, 1.8))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for url in urls:
            assert set(counts(url).values()) <= {1}
    code, said = arena.finish(state, *options)
    assert (code, said) == (0, "")
    for url in urls:
        assert counts(url) == Counter(arena.targets)


def test_interrupted(arena: Arena, tmp_path: Path) -> None:
    """Ctrl-C delivers what is committed; the next run the rest."""
    url = f"parquet:{tmp_path / 'lake'}"
    state = tmp_path / "state"
    with arena.start(state, "--sink", url) as process:
        while not list(state.glob("part-*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert counts(url) == Counter(f"{row.ip}:{row.port}" for row in read_rows(state))
    assert arena.finish(state, "--sink", url)[0] == 0
    assert counts(url) == Counter(arena.targets)


def test_a_sink_that_fails_costs_no_rows(arena: Arena, tmp_path: Path) -> None:
    """The scan ends with every row in the state folder, a line and exit code 1; mended, the rows are brought on."""
    lake = tmp_path / "lake"
    (lake / "_delivered").mkdir(parents=True)
    (lake / "scan=x").write_text("in the way")
    options = ["--sink", f"parquet:{lake}", "--scan-name", "x"]
    code, said = arena.finish(tmp_path / "state", *options)
    assert code == 1
    assert "lacks segment" in said and "--resume goes on" in said
    assert len(said.splitlines()) == 2, said
    assert len(read_rows(tmp_path / "state")) == TARGETS
    (lake / "scan=x").unlink()
    assert arena.finish(tmp_path / "state", *options) == (0, "")
    assert counts(f"parquet:{lake}") == Counter(arena.targets)


def test_a_sink_is_asked_before_the_scan_begins(arena: Arena, tmp_path: Path) -> None:
    """What cannot be used is said at once, in one line, with nothing contacted."""
    for url, words, expected in (
        ("parquet:ftp://x/y", "write a path, s3://", 2),
        ("nothing:x", "is no sink", 2),
        ("delta", "is no sink", 2),
    ):
        code, said = arena.finish(tmp_path / "state", "--sink", url)
        assert (code, len(said.splitlines())) == (expected, 1), said
        assert words in said
    assert not read_rows(tmp_path / "state")


def test_parquet_of_one_run(arena: Arena, tmp_path: Path) -> None:
    """`-o rows.parquet` is whole when the run has ended, and not there before; an old one is replaced."""
    rows = tmp_path / "rows.parquet"
    rows.write_text("old")
    with arena.start(tmp_path / "state", "-o", str(rows)) as process:
        time.sleep(1)
        assert rows.read_text() == "old"
        process.communicate(timeout=60)
    assert process.returncode == 0
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(rows)
    assert sorted(
        f"{ip}:{port}" for ip, port in zip(*table.select(["ip", "port"]).to_pydict().values(), strict=True)
    ) == (sorted(arena.targets))
    assert stat.S_IMODE(rows.stat().st_mode) & 0o022 == 0
    assert not list(tmp_path.glob(".probemill-*"))
