"""Rows in DuckDB: the same table whatever held them, each fault told, nothing left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from engine.errors import ConfigError
from engine.extras import extra
from engine.insight import rows as insight
from engine.insight.rows import REQUIRED, Workspace, in_workspace, load_rows
from engine.results.table import COLUMNS, address_bytes
from tests.test_convert import COUNT, INPUTS, ROOT, ROWS, packed
from tests.told import Told

pytest.importorskip("duckdb", reason="needs probemill[report]")
pytest.importorskip("pyarrow", reason="needs probemill[report]")


ROW = ROWS.splitlines()[0]


def table(*paths: Path, columns: tuple[str, ...] | None = None) -> tuple[list[dict[str, Any]], list[str], bool]:
    """-> the rows as DuckDB has them, what was told, and whether all inputs were whole"""
    told = Told()

    def job(place: Workspace) -> tuple[list[dict[str, Any]], list[str], bool]:
        loaded = load_rows(place, "rows", [str(path) for path in paths], told, columns)
        found = place.connection.execute("SELECT * FROM rows ORDER BY rowid")
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        assert loaded.rows == len(rows)
        return rows, told.lines, loaded.whole

    return in_workspace("", job)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=str)


@pytest.mark.parametrize("given", INPUTS)
def test_the_same_table_of_every_form(tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lines are handed over at once."""
    rows, told, whole = table(INPUTS[given](tmp_path))
    monkeypatch.setattr(insight, "SPOOL", 1)
    wanted, _, _ = table(packed(tmp_path / "wanted.ndjson", ROWS))
    assert (len(rows), told, whole) == (COUNT, [], True)
    assert in_order(rows) == in_order(wanted)
    assert [*rows[0]] == [*(column.name for column in COLUMNS), "source"]
    assert all(row["ip_bytes"] == address_bytes(row["ip"]) for row in rows)


def test_several_inputs_and_some_columns(tmp_path: Path) -> None:
    one, other = packed(tmp_path / "a[1]*?.ndjson", ROWS), packed(tmp_path / "b.ndjson.zst", ROWS)
    rows, _, _ = table(one, other, columns=("product",))
    assert [row["source"] for row in rows] == [0] * COUNT + [1] * COUNT
    assert {*rows[0]} == {*REQUIRED, "product", "source"}


def test_frames_that_follow_one_another(tmp_path: Path) -> None:
    """As segments and appended files have them."""
    path = tmp_path / "rows.ndjson.zst"
    path.write_bytes(b"".join(map(zstandard.compress, ROWS.splitlines(keepends=True))))
    assert len(table(path)[0]) == COUNT


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "no result row"),
        (b'{"ip":"1.1.1.1"}', "no result row"),
        (ROW.replace(b'"port":', b'"port":77777'), "`port` is none"),
        (ROW.replace(b'"ip":"', b'"ip":"x'), "`ip` is no address"),
        (b'"\xff"', "no result row"),
        (ROW.replace(b'"port":1', b'"port":22.7'), "no result row"),  # what DuckDB would bend
        (ROW.replace(b'"port":1', b'"port":true'), "no result row"),
        (ROW.replace(b'"port":1', b'"port":1,"name":{"a":1}'), "no result row"),
        (ROW.replace(b'"port":1', b'"port":1,"conf":99999999999'), "a number is too large"),
        (ROW.replace(b'"port":1', b'"port":1,"confidence":1.5'), "`confidence` is none"),
        (ROW.replace(b'"2026-11-21T06:38:13.402Z"', b'"infinity"'), "`started` is no time"),
        (ROW.replace(b'"2026-11-21T06:38:13.402Z"', b'"2026-11-21"'), "`started` is no time"),
    ],
)
def test_a_bad_line_is_told_and_costs_itself(tmp_path: Path, bad: bytes, said: str) -> None:
    lines = ROWS.splitlines()
    path = packed(tmp_path / "rows.ndjson", b"\n".join([*lines[:7], bad, *lines[7:], b""]))
    rows, told, whole = table(path)
    assert (len(rows), whole) == (COUNT, False)
    assert [line for line in told if line.startswith(f"{path}:8: ") and said in line] == told


def test_half_a_file(tmp_path: Path) -> None:
    """What precedes the damage counts, and the caller knows that something is missing."""
    data = zstandard.compress(ROWS)
    path = tmp_path / "rows.ndjson.zst"
    path.write_bytes(data[: len(data) // 2])
    rows, told, whole = table(path)
    assert (len(rows) < COUNT, len(told), whole) == (True, 1, False)


def test_a_scratch_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*no scratch folder"):
        in_workspace(str(tmp_path / "nowhere"), print)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Not by whoever is asked to end in the middle, either."""
    code = (
        "from engine.cli.start import listen, interrupt; from engine.insight.rows import in_workspace\n"
        "listen(interrupt)\n"
        "def job(place):\n"
        "    print('there', flush=True)\n"
        "    place.connection.execute('SELECT count(*) FROM range(1000000000000) t(i) WHERE sqrt(i) = 0.5')\n"
        f"in_workspace({str(tmp_path)!r}, job)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        assert [*tmp_path.iterdir()] != []
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert [*tmp_path.iterdir()] == []


def test_a_library_that_is_broken_is_told() -> None:
    """Which is not one that is missing: installing it again under the same name would not help."""
    with pytest.raises(ConfigError, match=r"report: an extra package is broken: no numpy\.core"), extra("report"):
        raise ImportError("no numpy.core\nmore")
