"""Rows as Arrow, and back."""

import pytest
from rows import LEAST, LINES

from engine.errors import InputError
from engine.results.table import COLUMNS, VERSION, full_rows, lean_rows

pa = pytest.importorskip("pyarrow", reason="needs probemill[lake]")

from engine.results.arrow import SCHEMA, batch_of, batches_of, by_date, conformed, lines_of


def test_rows_come_back_as_they_were() -> None:
    """Byte for byte, the least row and the fullest."""
    assert lines_of(batch_of(LINES)) == LINES


def test_full_and_lean_rows_make_the_same_batch() -> None:
    """And full rows become lean again."""
    assert batch_of(full_rows(LINES)).equals(batch_of(LINES))
    assert lean_rows(full_rows(LINES)) == LINES
    assert lean_rows(LINES) == LINES


def test_what_every_row_has_is_never_null() -> None:
    """Counts and flags that a row leaves out are 0 and false."""
    least = batch_of(LINES).slice(0, 1).to_pylist()[0]
    assert {column.name for column in COLUMNS if least[column.name] is None} == {
        column.name for column in COLUMNS if not column.required
    } - {"database"}
    assert (least["conf"], least["elapsed_ms"]) == (0, 0)


def test_addresses_sort() -> None:
    """As bytes: IPv4 by number, then IPv6."""
    ips = ["9.0.0.1", "10.0.0.1", "::ffff:0:0:1", "2001:db8::1", "fe80::1%eth0"]
    rows = b"".join(LINES.partition(b"\n")[0].replace(b'"ip":""', f'"ip":"{ip}"'.encode()) + b"\n" for ip in ips)
    found = batch_of(rows).column("ip_bytes").to_pylist()
    assert [len(one) for one in found] == [16] * 5
    assert found[0] < found[1]


def test_a_line_may_be_longer_than_arrows_blocks() -> None:
    """A fingerprint can be."""
    line = (
        LEAST.to_json().encode().replace(b'"verdict"', b'"fingerprint":"' + b"x" * (3 << 20) + b'","verdict"') + b"\n"
    )
    texts = [text for batch in batches_of(line * 3) for text in batch.column("fingerprint").to_pylist()]
    assert [len(text) for text in texts] == [3 << 20] * 3


def test_a_field_of_tomorrow_is_passed_over() -> None:
    """By the reader of today; a column, too."""
    tomorrow = LINES.replace(b'"conf":10', b'"conf":10,"new":{"x":1}')
    assert batch_of(tomorrow).equals(batch_of(LINES))
    batch = batch_of(LINES)
    assert conformed(batch.append_column("new", batch.column("port"))).equals(batch)
    assert conformed(batch.drop_columns(["tls"])).column("tls").null_count == batch.num_rows


def test_the_days_of_a_batch() -> None:
    """Each with its rows, in UTC."""
    days = {str(day): batch.column("port").to_pylist() for day, batch in by_date(batch_of(LINES))}
    assert days == {"2026-11-21": [1, 1], "2026-11-22": [65535]}


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"{}",
        b"[]",
        b'{"ip":"::1"}',
        LINES.partition(b"\n")[0].replace(b'"ip":""', b'"ip":"x"'),
        LINES.partition(b"\n")[0].replace(b'"port":1', b'"port":"1"'),
        LINES.partition(b"\n")[0].replace(b"2026-11", b"2026-13"),
    ],
    ids=str,
)
def test_what_is_no_row_is_refused(line: bytes) -> None:
    """With our own error."""
    with pytest.raises(InputError):
        batch_of(line + b"\n")


def test_the_schema_says_its_version() -> None:
    """For whoever finds a file."""
    assert SCHEMA.metadata == {b"probemill.schema_version": b"%d" % VERSION}


def test_a_table_of_another_time_is_read() -> None:
    """Counts and flags that it does not have are zeros, and rows come back; what is no table of rows is refused."""
    batch = batch_of(LINES)
    tls = batch.column("tls")
    older = pa.StructArray.from_arrays([tls.field("protocol")], names=["protocol"], mask=tls.is_null())
    columns = {name: batch.column(name) for name in batch.schema.names if name not in {"conf", "schema_version"}}
    read = conformed(pa.RecordBatch.from_pydict(columns | {"tls": older}))
    assert read.column("conf").to_pylist() == [0, 0, 0]
    assert read.column("schema_version").to_pylist() == [VERSION] * 3
    assert read.column("tls").to_pylist()[1]["self_signed"] is False
    assert read.column("tls").to_pylist()[0] is None
    assert b'"tls":{"protocol":"TLSv1.3"' in lines_of(read)
    with pytest.raises(InputError):
        conformed(pa.RecordBatch.from_pydict(columns | {"tls": batch.column("ip")}))
