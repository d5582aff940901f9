"""The dialects in use: the engines take them, and read every form of rows with them, of today and of tomorrow."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rows import LEAST, LINES, MOST

from engine.results import dialects
from engine.results.table import COLUMNS, VERSION, full_rows, lean_rows

pytest.importorskip("pyarrow", reason="needs probemill[lake]")
pytest.importorskip("duckdb", reason="needs probemill[lake,lakedev]")
pytest.importorskip("polars", reason="needs probemill[lake,lakedev]")

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from engine.results.arrow import SCHEMA, batch_of, batches_of, conformed, lines_of
from engine.results.parquet import ParquetFile

MANY = 30_000  # more rows than any reader looks at before it decides on the columns
TLS = json.loads(MOST.to_json())["tls"] | {
    "not_before": datetime(1950, 1, 1, tzinfo=UTC),
    "not_after": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
}
POST = MOST.post


def polars_schema() -> Any:
    names: dict[str, Any] = {}
    exec(dialects.polars(), names)
    return names["SERVICES"]


def database() -> Any:
    """DuckDB, in memory, with what the dialect defines."""
    connection = duckdb.connect()
    connection.execute(dialects.duckdb())
    return connection


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lean.ndjson, full.ndjson and rows.parquet: the last row alone has `tls`."""
    folder = tmp_path_factory.mktemp("late")
    lean = (LEAST.to_json().encode() + b"\n") * MANY + MOST.to_json().encode() + b"\n"
    (folder / "lean.ndjson").write_bytes(lean)
    (folder / "full.ndjson").write_bytes(full_rows(lean))
    file = ParquetFile(folder / "rows.parquet", SCHEMA)
    for batch in batches_of(lean):
        file.write(batch)
    file.close()
    return folder


def test_arrow_has_the_same_words() -> None:
    """Field by field, as pyarrow shows them."""
    shown = [f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in SCHEMA]
    assert dialects.arrow().splitlines() == shown


def test_duckdb_has_the_types_of_parquet(late: Path) -> None:
    """The table, and what reads NDJSON, too; and it knows what each column is about."""
    connection = database()
    parquet = connection.sql(f"FROM '{late}/rows.parquet'")
    for other in ("services", f"read_services('{late}/lean.ndjson')"):
        found = connection.sql(f"FROM {other}")
        assert (found.columns, found.types) == (parquet.columns, parquet.types)
    told = connection.sql("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'services'")
    assert dict(told.fetchall()) == {column.name: column.about for column in COLUMNS}


@pytest.mark.parametrize(
    "source", ["read_services('{}/lean.ndjson')", "read_services('{}/full.ndjson')", "'{}/rows.parquet'"]
)
def test_duckdb_loads_rows(late: Path, source: str) -> None:
    """Into its table, by name."""
    connection = database()
    connection.execute(f"INSERT INTO services BY NAME FROM {source.format(late)}")
    seen = connection.sql("SELECT count(*), count(tls), count(conf), any_value(schema_version) FROM services")
    assert seen.fetchall() == [(MANY + 1, 1, MANY + 1, VERSION)]
    ((tls, post, started),) = connection.sql("SELECT tls, post, started FROM services WHERE port > 1").fetchall()
    assert (tls, json.loads(post), started) == (TLS, POST, datetime(2026, 11, 22, tzinfo=UTC))


def test_polars_has_the_types_of_parquet(late: Path) -> None:
    """By its own reader."""
    assert pl.read_parquet(late / "rows.parquet").schema == polars_schema()


@pytest.mark.parametrize("name", ["lean.ndjson", "full.ndjson", "rows.parquet"])
def test_polars_reads_rows(late: Path, name: str) -> None:
    """NDJSON with the schema, Parquet by itself; at once and lazily."""
    path, own = late / name, {"schema": polars_schema()}
    parquet = name.endswith("parquet")
    read = [pl.read_parquet(path), pl.scan_parquet(path).collect()] if parquet else []
    for frame in read or [pl.read_ndjson(path, **own), pl.scan_ndjson(path, **own).collect()]:
        assert frame.schema == polars_schema()
        last = frame.tail(1).to_dicts()[0]
        assert (last["tls"], json.loads(last["post"])) == (TLS, POST)
        assert last["started"] == datetime(2026, 11, 22, tzinfo=UTC)


def test_a_column_that_comes_late_is_kept_without_the_schema(late: Path) -> None:
    """By readers that are told to look at all rows of NDJSON, and by those of Parquet by themselves."""
    for source in (f"read_json('{late}/full.ndjson', sample_size = -1)", f"'{late}/rows.parquet'"):
        assert duckdb.sql(f"SELECT tls FROM {source} WHERE port = 65535").fetchall() == [(TLS,)]
    frame = pl.read_ndjson(late / "full.ndjson", infer_schema_length=None)
    assert frame.tail(1)["tls"].to_list()[0]["protocol"] == "TLSv1.3"


def tomorrow() -> tuple[bytes, Any]:
    """LINES and their table as a later version writes them: a column more, and a field more in `tls`."""
    lines = LINES.replace(b'"verdict"', b'"new":{"x":1},"verdict"').replace(b'"protocol"', b'"ja4":"x","protocol"')
    batch = batch_of(LINES)
    tls = batch.column("tls")
    wider = pa.StructArray.from_arrays(
        [*(tls.field(at) for at in range(tls.type.num_fields)), pa.array(["x"] * len(tls))],
        fields=[*tls.type, pa.field("ja4", pa.string())],
        mask=tls.is_null(),
    )
    place = batch.schema.get_field_index("tls")
    table = pa.Table.from_batches([batch]).set_column(place, "tls", wider)
    return lines, table.append_column("new", pa.array([1] * len(tls)))


def test_our_readers_pass_over_what_is_new() -> None:
    """In lines and in columns."""
    lines, table = tomorrow()
    (batch,) = table.to_batches()
    assert (lean_rows(lines), full_rows(lines)) == (LINES, full_rows(LINES))
    assert batch_of(lines).equals(batch_of(LINES))
    assert conformed(batch).equals(batch_of(LINES))
    assert lines_of(batch) == LINES


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of today, `today.*`, and files of tomorrow, `later.*`, as NDJSON and as Parquet."""
    folder = tmp_path_factory.mktemp("mixed")
    lines, table = tomorrow()
    (folder / "today.ndjson").write_bytes(LINES)
    (folder / "later.ndjson").write_bytes(lines)
    pa.parquet.write_table(pa.Table.from_batches([batch_of(LINES)]), folder / "today.parquet")
    pa.parquet.write_table(table, folder / "later.parquet")
    return folder


ORDERS = pytest.mark.parametrize("order", [["today", "later"], ["later", "today"]], ids="-".join)


@ORDERS
def test_duckdb_reads_old_files_beside_new_ones(mixed: Path, order: list[str]) -> None:
    """Parquet with all columns of both, NDJSON with those of the schema."""
    parquet = [f"{mixed}/{name}.parquet" for name in order]
    seen = duckdb.sql(
        "SELECT count(*), count(new), count(tls.protocol), count(tls.ja4)"
        f" FROM read_parquet({parquet}, union_by_name = true)"
    )
    assert seen.fetchall() == [(6, 3, 2, 1)]
    lines = [f"{mixed}/{name}.ndjson" for name in order]
    assert database().sql(f"SELECT count(*), count(tls.protocol) FROM read_services({lines})").fetchall() == [(6, 2)]


@ORDERS
def test_polars_reads_old_files_beside_new_ones(mixed: Path, order: list[str]) -> None:
    """With the columns of the schema."""
    frame = pl.scan_parquet(
        [mixed / f"{name}.parquet" for name in order],
        schema=polars_schema(),
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore"),
    ).collect()
    lines = pl.read_ndjson([mixed / f"{name}.ndjson" for name in order], schema=polars_schema())
    for one in (frame, lines):
        assert one.schema == polars_schema()
        assert [row["self_signed"] for row in one["tls"].drop_nulls().to_list()] == [True, True]
        assert one.height == 6
