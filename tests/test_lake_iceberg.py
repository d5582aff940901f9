"""An Iceberg table has every row once, whatever happens to who writes it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs probemill[lake]")
pytest.importorskip("pyiceberg", reason="needs probemill[lake]")
pytest.importorskip("sqlalchemy", reason="needs probemill[lake]")

import pyarrow as pa
import pyarrow.compute as pc
from lakes import (
    BUCKET,
    LAST,
    LONG,
    S3,
    Wire,
    check_cuts,
    check_kills,
    deliver,
    delivery,
    lines_in,
    rows_of,
    s3_server,
    sorted_lines,
)
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table
from test_arrow import LINES

from engine.errors import ConfigError, OutputError
from engine.results.arrow import TABLE_SCHEMA
from engine.results.lake.base import Batch, Unavailable
from engine.results.lake.iceberg import IcebergLake

ROWS = rows_of(3000)
FIRST = Batch(1, 3)
NAME = "local/scans.services"


def target(folder: Path, warehouse: str = "") -> str:
    return f"{NAME}?uri=sqlite:///{folder}/catalog.db&warehouse={warehouse or f'file://{folder}/warehouse'}"


def catalog(folder: Path, **properties: str) -> Catalog:
    return load_catalog(
        "local", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse", **properties
    )


def table(folder: Path, **properties: str) -> Table:
    return catalog(folder, **properties).load_table("scans.services")


def read(folder: Path, **properties: str) -> Any:
    opened = catalog(folder, **properties)
    try:
        return opened.load_table("scans.services").scan().to_arrow()
    finally:
        opened.close()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[IcebergLake]:
    lake = IcebergLake(target(tmp_path), delivery(tmp_path))
    yield lake
    lake.close()
    assert not list((tmp_path / "staging").glob("*"))


def test_rows_and_types_are_those_of_the_run(lake: IcebergLake, tmp_path: Path) -> None:
    """Of both days, in one snapshot; addresses sort, and what is absent is null."""
    assert not lake.holds(FIRST)
    deliver(lake, FIRST, ROWS + LINES)
    assert lake.holds(FIRST)
    assert not lake.holds(Batch(4, 4))
    found = read(tmp_path)
    assert lines_in(found) == sorted_lines(ROWS + LINES)
    assert {field.name: field.type for field in found.schema} == {field.name: field.type for field in TABLE_SCHEMA}
    assert pc.unique(found.column("scan")).to_pylist() == ["weekly"]
    made = table(tmp_path)
    assert [(field.name, str(field.transform)) for field in made.spec().fields] == [
        ("scan", "identity"),
        ("date", "identity"),
    ]
    [snapshot] = made.snapshots()
    assert snapshot.summary is not None
    assert snapshot.summary["probemill.run"] == "run-1"
    assert snapshot.summary["probemill.segments"] == "1-3"


def test_other_engines_read_the_same(lake: IcebergLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter finds all its rows; a scan may have any name."""
    polars = pytest.importorskip("polars", reason="needs probemill[lakedev]")
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    deliver(lake, FIRST, ROWS)
    odd = IcebergLake(target(tmp_path), delivery(tmp_path, "run-2", "a b/ü=%+"))
    deliver(odd, FIRST, ROWS)
    odd.close()
    made = table(tmp_path)
    seen = polars.scan_iceberg(made)
    ports = sum(json.loads(line)["port"] for line in ROWS.splitlines())
    assert seen.select(polars.col("port").cast(polars.Int64).sum()).collect().item() == 2 * ports
    for product in ("nginx", LONG, LAST):
        wanted = 2 * sum(json.loads(line).get("product") == product for line in ROWS.splitlines())
        assert seen.filter(polars.col("product") == product).collect().height == wanted
        assert made.scan(row_filter=f"product = '{product}'").to_arrow().num_rows == wanted
    assert seen.filter(polars.col("scan") == "a b/ü=%+").collect().height == 3000
    assert lines_in(seen.filter(polars.col("scan") == "weekly").collect().to_arrow()) == sorted_lines(ROWS)


def test_a_batch_that_is_said_again_is_there_once(lake: IcebergLake, tmp_path: Path) -> None:
    """Even by a writer that did not ask."""
    deliver(lake, FIRST, ROWS)
    lake.write(ROWS)
    lake.commit(FIRST)
    deliver(lake, Batch(4, 4), LINES)
    assert lines_in(read(tmp_path)) == sorted_lines(ROWS + LINES)


def test_a_table_knows_its_batches_when_its_snapshots_are_gone(lake: IcebergLake, tmp_path: Path) -> None:
    """Maintenance expires them."""
    deliver(lake, FIRST, ROWS)
    deliver(lake, Batch(4, 4), LINES)
    made = table(tmp_path)
    current = made.current_snapshot()
    assert current is not None
    old = [one.snapshot_id for one in made.snapshots() if one.snapshot_id != current.snapshot_id]
    made.maintenance.expire_snapshots().by_ids(old).commit()
    assert lake.holds(FIRST)
    assert lake.holds(Batch(4, 4))


def test_a_batch_without_rows_counts(lake: IcebergLake, tmp_path: Path) -> None:
    """It is marked like any other."""
    lake.commit(FIRST)
    assert lake.holds(FIRST)
    assert read(tmp_path).num_rows == 0


def test_what_is_discarded_was_never_there(lake: IcebergLake, tmp_path: Path) -> None:
    """And the lake takes the next batch."""
    lake.write(ROWS)
    assert lake.size > 0
    lake.discard()
    lake.discard()
    assert lake.size == 0
    assert not (tmp_path / "warehouse").exists()
    deliver(lake, FIRST, LINES)
    assert lines_in(read(tmp_path)) == sorted_lines(LINES)


def test_runs_write_into_one_table(tmp_path: Path) -> None:
    """At the same moment, from the first commit on, which makes catalog and table."""
    runs = {f"run-{number}": rows_of(300, number) for number in range(3)}
    errors: list[str] = []
    start = threading.Barrier(len(runs))

    def write(run: str, rows: bytes) -> None:
        lake = IcebergLake(target(tmp_path), delivery(tmp_path, run))
        start.wait()
        for number in range(1, 4):
            for _ in range(10):
                try:
                    deliver(lake, Batch(number, number), rows)
                    break
                except OutputError as error:
                    lake.discard()
                    errors.append(repr(error))
        lake.close()

    threads = [threading.Thread(target=write, args=item) for item in runs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines_in(read(tmp_path)) == sorted_lines(b"".join(rows * 3 for rows in runs.values())), errors
    assert all(error.startswith("Unavailable") for error in errors), errors


def test_a_table_gets_the_columns_that_it_lacks(lake: IcebergLake, tmp_path: Path) -> None:
    """Fields of structs, too; it keeps its own."""
    few = [field for field in TABLE_SCHEMA if field.name not in {"tls", "host", "bytes"}]
    own = [pa.field("tls", pa.struct([pa.field("protocol", pa.string())])), pa.field("mine", pa.int32())]
    opened = catalog(tmp_path)
    opened.create_namespace("scans")
    with opened.create_table_transaction("scans.services", pa.schema([*few, *own])) as change:
        with change.update_spec() as spec:
            spec.add_identity("date")
        change.set_properties(
            {"schema.name-mapping.default": change.table_metadata.schema().name_mapping.model_dump_json()}
        )
    opened.close()
    deliver(lake, FIRST, ROWS)
    found = read(tmp_path)
    assert lines_in(found) == sorted_lines(ROWS)
    assert found.column("mine").null_count == found.num_rows


def test_a_table_of_another_kind_is_refused(lake: IcebergLake, tmp_path: Path) -> None:
    """In a line that says what is wrong with it."""
    opened = catalog(tmp_path)
    opened.create_namespace("scans")
    opened.create_table("scans.services", pa.schema([("port", pa.string())]))
    opened.close()
    with pytest.raises(OutputError, match=f"^iceberg:{NAME}: .*port") as caught:
        deliver(lake, FIRST, ROWS)
    assert not isinstance(caught.value, Unavailable)
    lake.discard()
    assert read(tmp_path).num_rows == 0


@pytest.mark.parametrize("wrong", ["", "local", "local/services", "/scans.services", "local/scans."])
def test_what_names_no_table(wrong: str, tmp_path: Path) -> None:
    """Is said before anything is written."""
    with pytest.raises(ConfigError, match=r"CATALOG/NAMESPACE\.TABLE"):
        IcebergLake(f"{wrong}?uri=x", delivery(tmp_path))


@pytest.mark.parametrize(
    "query", ["", "?type=none&uri=postgresql://u:secret@h/x", "?uri=sqlite:///nowhere/secret/x.db"]
)
def test_secrets_are_not_told(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the name nor by an error."""
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    lake = IcebergLake(f"nobody/scans.services{query}", delivery(tmp_path))
    with pytest.raises(OutputError, match=r"^iceberg:nobody/scans\.services: ") as caught:
        lake.holds(FIRST)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_killed_writers(tmp_path: Path) -> None:
    """Their batch arrives once."""
    check_kills(
        *("iceberg", target(tmp_path), tmp_path),
        lambda: IcebergLake(target(tmp_path), delivery(tmp_path)),
        lambda: read(tmp_path),
    )


@pytest.mark.slow
@pytest.mark.xdist_group("lakes")
class TestS3:
    """The same in an object store."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
        pytest.importorskip("moto", reason="needs probemill[lakedev]")
        with s3_server(monkeypatch) as server:
            yield server

    def test_rows_arrive_once_from_several_runs(self, server: S3, tmp_path: Path) -> None:
        """Endpoint and region are those of the environment."""
        lakes = [
            IcebergLake(target(tmp_path, f"s3://{BUCKET}/warehouse"), delivery(tmp_path, run))
            for run in ("run-1", "run-2")
        ]
        for batch in (FIRST, FIRST, Batch(4, 4)):
            for lake in lakes:
                deliver(lake, batch, ROWS)
        for lake in lakes:
            lake.close()
        found = read(tmp_path, **{"s3.endpoint": server.url, "s3.region": "us-east-1"})
        assert lines_in(found) == sorted_lines(ROWS * 4)

    def test_a_server_that_is_away(self, server: S3, tmp_path: Path) -> None:
        """Is waited for by whoever asked."""
        lake = IcebergLake(target(tmp_path, f"s3://{BUCKET}/warehouse"), delivery(tmp_path))
        lake.write(ROWS)
        server.stop()
        with pytest.raises(Unavailable, match=f"^iceberg:{NAME}: .*onnect") as caught:
            lake.commit(FIRST)
        lake.discard()
        assert "\n" not in str(caught.value)
        server.start()
        deliver(lake, FIRST, ROWS)
        lake.close()
        found = read(tmp_path, **{"s3.endpoint": server.url, "s3.region": "us-east-1"})
        assert lines_in(found) == sorted_lines(ROWS)

    def test_answers_that_are_lost(self, server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was committed is not committed again."""
        wire = Wire(server.port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        check_cuts(
            wire,
            lambda: IcebergLake(target(tmp_path, f"s3://{BUCKET}/warehouse"), delivery(tmp_path)),
            lambda: read(tmp_path, **{"s3.endpoint": server.url, "s3.region": "us-east-1"}),
        )
        wire.close()
