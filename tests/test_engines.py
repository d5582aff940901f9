"""The examples of docs/engines.md: each is run as it stands, on a small Parquet file, and gives what it should.

Each runs in a process of its own, with everything an engine starts bound to loopback and bounded in memory, and leaves
no process behind. An engine that is not installed is skipped, Spark also without Java.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from loopback import GREETING, Farm, database_file, greeting_after
from msgspec.structs import asdict

from probemill import ScanConfig, match

pa = pytest.importorskip("pyarrow", reason="needs probemill[lake]")

import pyarrow.parquet as pq

from engine.offline.answers import MatchRow, match_row

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("engines")]  # one after the other: Ray and Spark are large

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "engines.md").read_text()
EXAMPLES = dict(re.findall(r"^### (.+?)\n(?:(?!^#).)*?```python\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE))
LIMIT_S = 300

# What comes before an example, and how its result becomes a list of rows as plain values.
RAY = """import ray
ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
"""
SPARK = "[row.asDict(recursive=True) for row in result.collect()]"
PANDAS = "pyarrow.Table.from_pandas({}, preserve_index=False).to_pylist()"
ENGINES = {
    "DuckDB": ("duckdb", "", "result.arrow().read_all().to_pylist()"),
    "DuckDB, as a function": ("duckdb", "", "result.arrow().read_all().to_pylist()"),
    "polars": ("polars", "", "result.to_dicts()"),
    "pandas": ("pandas", "", PANDAS.format("result")),
    "Ray Data": ("ray", RAY, "result.take_all()"),
    "Spark": ("pyspark", "", SPARK),
    "Dask": ("dask", "", PANDAS.format("result.compute()")),
    "A scan": ("pyarrow", "", "result.to_pylist()"),
    "A scan with Spark": ("pyspark", "", SPARK),
}
SCANS = [title for title in ENGINES if title.startswith("A scan")]

RESPONSES = [
    ("NULL", "tcp", b"SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13.14\r\n"),
    ("NULL", "tcp", b"SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13.14\r\n"),
    ("GetRequest", "tcp", b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n\r\n"),
    ("NULL", "tcp", b"nothing \0 that \xff anybody knows"),
    ("NULL", "tcp", b""),
]


def test_every_example_is_run() -> None:
    assert list(EXAMPLES) == list(ENGINES)
    assert DOCUMENT.count("```python") == len(ENGINES)


def skip_without(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    if module == "pyspark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder whose path is short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="engines-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(title: str, room: Path, **more: str) -> list[dict[str, Any]]:
    """The rows of the example's result."""
    module, before, rows = ENGINES[title]
    skip_without(module)
    script = room / "example.py"
    script.write_text(
        f"{before}{EXAMPLES[title]}\nimport json, pyarrow\nrows = {rows}\n"
        "with open('rows.json', 'w') as file:\n    json.dump(rows, file, default=str)\n"
    )
    marker = uuid4().hex
    spark = "--master local[2] --driver-memory 512m --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "HOME": str(room),  # engines leave files there
        "TMPDIR": str(room),
        "PROBEMILL_ENGINES_TEST": marker,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds to loopback, on Linux too
        "RAY_TMPDIR": str(room),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"{spark} --conf spark.local.dir={room} pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        **more,
    }
    try:
        done = subprocess.run(
            [sys.executable, script],
            cwd=room,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    finally:
        end(marker)
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads((room / "rows.json").read_text())
    return found


def end(marker: str) -> None:
    """Leave no process of a run: agents of Ray notice late, or never, that their cluster has ended."""
    deadline = time.monotonic() + 5
    while (left := _marked(marker)) and time.monotonic() < deadline + 30:
        if time.monotonic() > deadline:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.1)
    assert not left


def _marked(marker: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("title", [title for title in ENGINES if title not in SCANS])
def test_stored_responses_are_identified(title: str, room: Path) -> None:
    """Row by row what `match` says of them, in whatever order an engine gives them."""
    rows = [(f"192.0.2.{number}", 1000 + number, *response) for number, response in enumerate(RESPONSES * 40)]
    names = ["ip", "port", "probe", "proto", "response"]
    pq.write_table(
        pa.table([list(column) for column in zip(*rows, strict=True)], names), room / "responses.parquet", 50
    )
    config = ScanConfig(probes=("builtin",))
    expected = {}
    for _, port, probe, proto, response in rows:
        found = match(response, probe, proto, config=config)
        expected[port] = found and _cells(match_row(found, "builtin"))
    assert sum(each is not None for each in expected.values()) == 3 * 40
    result = run(title, room, PROBEMILL_PROBES="builtin")
    assert {row["port"]: row["match"] for row in result} == expected
    assert len(result) == len(rows)


def _cells(row: MatchRow) -> dict[str, Any]:
    """As the column `match` has it."""
    full = {**asdict(row), "cpe": list(row.cpe)}
    return {name: value if isinstance(value, int) else value or None for name, value in full.items()}


@pytest.mark.parametrize("title", SCANS)
def test_targets_are_scanned(title: str, room: Path) -> None:
    """The open ones, with lists that hold; each row has the columns of SCHEMA."""
    with Farm(greeting_after(0.0)) as farm:
        ips = [f"127.6.0.{number}" for number in range(8)] + ["10.0.0.1", "127.6.1.1"]
        table = pa.table({"ip": ips, "port": [farm.port] * 10, "state": ["open"] * 9 + ["closed"]})
        pq.write_table(table, room / "open.parquet", 4)
        result = run(title, room, PROBEMILL_PROBES=database_file(room))
        assert sorted(row["ip"] for row in result) == ips[:8]
        assert {row["product"] for row in result} == {"Hello"} == {GREETING.split()[0].decode().capitalize()}
        assert set(farm.per_address) == set(ips[:8])
