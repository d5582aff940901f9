"""A Delta table has every row once, whatever happens to who writes it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs probemill[lake]")
pytest.importorskip("deltalake", reason="needs probemill[lake]")
pytest.importorskip("obstore", reason="needs probemill[lake]")

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
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
from test_arrow import LINES

from engine.errors import OutputError
from engine.results.arrow import TABLE_SCHEMA
from engine.results.lake.base import Batch, Unavailable
from engine.results.lake.delta import DeltaLake

ROWS = rows_of(3000)
FIRST = Batch(1, 3)


def read(uri: str | Path) -> Any:
    plain = {"aws_allow_http": "true"} if str(uri).startswith("s3") else None
    return DeltaTable(str(uri), storage_options=plain).to_pyarrow_table()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "table"


@pytest.fixture
def lake(place: Path, tmp_path: Path) -> Iterator[DeltaLake]:
    lake = DeltaLake(str(place), delivery(tmp_path))
    yield lake
    lake.close()
    assert not list((tmp_path / "staging").glob("*"))


def test_rows_and_types_are_those_of_the_run(lake: DeltaLake, place: Path) -> None:
    """Of both days, in one commit; addresses sort, and what is absent is null."""
    assert not lake.holds(FIRST)
    deliver(lake, FIRST, ROWS + LINES)
    assert lake.holds(FIRST)
    assert not lake.holds(Batch(4, 4))
    table = read(place)
    assert lines_in(table) == sorted_lines(ROWS + LINES)
    assert {field.name: field.type for field in table.schema} == {field.name: field.type for field in TABLE_SCHEMA}
    assert pc.unique(table.column("scan")).to_pylist() == ["weekly"]
    assert {str(day) for day in pc.unique(table.column("date")).to_pylist()} == {"2026-11-21", "2026-11-22"}
    assert DeltaTable(place).version() == 1
    history = DeltaTable(place).history(1)[0]
    assert (history["probemill.run"], history["probemill.segments"]) == ("run-1", "1-3")


def test_other_engines_read_the_same(lake: DeltaLake, place: Path, tmp_path: Path) -> None:
    """A filter finds all its rows, also beside files with statistics; a scan may have any name."""
    polars = pytest.importorskip("polars", reason="needs probemill[lakedev]")
    deliver(lake, FIRST, ROWS)
    odd = DeltaLake(str(place), delivery(tmp_path, "run-2", "a b/ü=%+"))
    deliver(odd, FIRST, ROWS)
    odd.close()
    DeltaTable(place).optimize.compact(partition_filters=[("scan", "=", "weekly")])
    seen = polars.scan_delta(str(place))
    ports = sum(json.loads(line)["port"] for line in ROWS.splitlines())
    assert seen.select(polars.col("port").sum().cast(polars.Int64)).collect().item() == 2 * ports
    for product in ("nginx", LONG, LAST):
        wanted = 2 * sum(json.loads(line).get("product") == product for line in ROWS.splitlines())
        assert seen.filter(polars.col("product") == product).collect().height == wanted
        found = DeltaTable(place).to_pyarrow_dataset().to_table(filter=pc.field("product") == product)
        assert found.num_rows == wanted
    assert seen.filter(polars.col("scan") == "a b/ü=%+").collect().height == 3000


def test_a_batch_that_is_said_again_is_there_once(lake: DeltaLake, place: Path) -> None:
    """Even by a writer that did not ask, and by another process's writer of the run."""
    deliver(lake, FIRST, ROWS)
    lake.write(ROWS)
    lake.commit(FIRST)
    deliver(lake, Batch(4, 4), LINES)
    assert lines_in(read(place)) == sorted_lines(ROWS + LINES)


def test_a_batch_without_rows_counts(lake: DeltaLake, place: Path) -> None:
    """It is marked like any other."""
    lake.commit(FIRST)
    assert lake.holds(FIRST)
    assert read(place).num_rows == 0


def test_what_is_discarded_was_never_there(lake: DeltaLake, place: Path) -> None:
    """And the lake takes the next batch."""
    lake.write(ROWS)
    assert lake.size > 0
    lake.discard()
    lake.discard()
    assert lake.size == 0
    assert not place.exists()
    deliver(lake, FIRST, LINES)
    assert lines_in(read(place)) == sorted_lines(LINES)


def test_what_is_no_row_is_an_error(lake: DeltaLake) -> None:
    with pytest.raises(OutputError, match="rows"):
        lake.write(b'{"ip":1}\n')
    lake.discard()


def test_runs_write_into_one_table(place: Path, tmp_path: Path) -> None:
    """At the same moment, from the first commit on, which makes the table."""
    runs = {f"run-{number}": rows_of(300, number) for number in range(3)}
    errors: list[Exception] = []
    start = threading.Barrier(len(runs))

    def write(run: str, rows: bytes) -> None:
        lake = DeltaLake(str(place), delivery(tmp_path, run))
        start.wait()
        for number in range(1, 5):
            for _ in range(5):
                try:
                    deliver(lake, Batch(number, number), rows)
                    break
                except Unavailable as error:
                    lake.discard()
                    errors.append(error)
        lake.close()

    threads = [threading.Thread(target=write, args=item) for item in runs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines_in(read(place)) == sorted_lines(b"".join(rows * 4 for rows in runs.values()))
    assert len(errors) <= len(runs)  # only over who makes the table


def test_two_writers_of_a_run_cannot_both_commit(place: Path, tmp_path: Path) -> None:
    """The second finds what the first has done."""
    writers = [DeltaLake(str(place), delivery(tmp_path)) for _ in range(2)]
    for lake in writers:
        assert not lake.holds(FIRST)
        lake.write(ROWS)
    for lake in writers:
        lake.commit(FIRST)
        lake.close()
    assert lines_in(read(place)) == sorted_lines(ROWS)


def test_a_table_gets_the_columns_that_it_lacks(lake: DeltaLake, place: Path) -> None:
    """Fields of structs, too; it keeps its own."""
    few = [field for field in TABLE_SCHEMA if field.name not in {"tls", "host", "bytes"}]
    own = [pa.field("tls", pa.struct([pa.field("protocol", pa.string())])), pa.field("mine", pa.int8())]
    DeltaTable.create(place, pa.schema([*few, *own]), partition_by=["scan", "date"])
    deliver(lake, FIRST, ROWS)
    table = read(place)
    assert lines_in(table) == sorted_lines(ROWS)
    assert table.column("mine").null_count == table.num_rows


@pytest.mark.parametrize(
    ("schema", "partitions", "why"),
    [
        (TABLE_SCHEMA, ["scan"], "partitioned by scan,"),
        (TABLE_SCHEMA, [], "partitioned by nothing"),
        (pa.schema([("port", pa.string()), ("scan", pa.string()), ("date", pa.date32())]), ["scan", "date"], "port"),
    ],
)
def test_a_table_of_another_kind_is_refused(
    lake: DeltaLake, place: Path, schema: pa.Schema, partitions: list[str], why: str
) -> None:
    """In a line that says what is wrong with it."""
    DeltaTable.create(place, schema, partition_by=partitions)
    with pytest.raises(OutputError, match=why) as caught:
        deliver(lake, FIRST, ROWS)
    assert not isinstance(caught.value, Unavailable)
    assert str(caught.value).startswith(f"delta:{place}: ")
    lake.discard()
    assert read(place).num_rows == 0


@pytest.mark.slow
def test_killed_writers(place: Path, tmp_path: Path) -> None:
    """Their batch arrives once."""
    check_kills("delta", str(place), tmp_path, lambda: DeltaLake(str(place), delivery(tmp_path)), lambda: read(place))


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
        """A server without TLS is taken because the environment names it."""
        uri = f"s3://{BUCKET}/some/table"
        lakes = [DeltaLake(uri, delivery(tmp_path, run)) for run in ("run-1", "run-2")]
        for batch in (FIRST, FIRST, Batch(4, 4)):
            for lake in lakes:
                deliver(lake, batch, ROWS)
        assert lines_in(read(uri)) == sorted_lines(ROWS * 4)

    def test_a_server_that_is_away(self, server: S3, tmp_path: Path) -> None:
        """Is waited for by whoever asked; what was committed to it is not sent again."""
        uri = f"s3://{BUCKET}/table"
        lake = DeltaLake(uri, delivery(tmp_path))
        deliver(lake, FIRST, ROWS)
        lake.write(LINES)
        server.stop()
        with pytest.raises(Unavailable, match="Connection refused") as caught:
            lake.commit(Batch(4, 4))
        lake.discard()
        assert "\n" not in str(caught.value)
        server.start()  # empty: moto keeps nothing
        assert not lake.holds(Batch(4, 4))
        deliver(lake, Batch(4, 4), LINES)
        assert lines_in(read(uri)) == sorted_lines(LINES)

    def test_answers_that_are_lost(self, server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was committed is not committed again."""
        wire = Wire(server.port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        uri = f"s3://{BUCKET}/table"
        check_cuts(wire, lambda: DeltaLake(uri, delivery(tmp_path)), lambda: read(uri))
        wire.close()

    def test_a_bucket_that_is_not_there(self, server: S3, tmp_path: Path) -> None:
        """Does not come by waiting."""
        lake = DeltaLake("s3://nowhere/table", delivery(tmp_path))
        with pytest.raises(OutputError, match=r"^delta:s3://nowhere/table: .*make the bucket") as caught:
            deliver(lake, FIRST, LINES)
        assert not isinstance(caught.value, Unavailable)
        lake.discard()
