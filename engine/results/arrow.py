"""Rows as Arrow: the schema, NDJSON lines -> RecordBatch, RecordBatch -> NDJSON lines.

Arrow's own JSON reader makes the columns, on all cores and without the interpreter's lock; `post`, which stays JSON,
and the sortable address are added here. About 2 us a row. Needs the extra `lake`.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, get_args

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from msgspec import Raw, Struct

from engine.errors import InputError
from engine.model import Reason, Tunnel, Verdict
from engine.results.table import COLUMNS, VERSION, Column, Kind, address_bytes, lean_rows, pieces
from engine.text import first_line
from matcher import Proto

PIECE = 4 << 20  # bytes of NDJSON made into one batch: enough for Arrow to use its threads
BLOCK = 1 << 20  # bytes that one thread reads; a line has to fit

_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.JSON: pa.string(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOL: pa.bool_(),
    Kind.TIMESTAMP: pa.timestamp("us", "UTC"),
    Kind.ADDRESS: pa.binary(),
    Kind.TEXTS: pa.list_(pa.string()),
}
_ZEROS: dict[Kind, int | bool] = {Kind.INT32: 0, Kind.INT64: 0, Kind.BOOL: False}


def _field(column: Column) -> pa.Field:
    kind = pa.struct([_field(field) for field in column.fields]) if column.fields else _TYPES[column.kind]
    return pa.field(column.name, kind, nullable=not column.required)


SCHEMA = pa.schema([_field(column) for column in COLUMNS], metadata={"probemill.schema_version": str(VERSION)})
"""Of every batch of rows."""

TABLE_SCHEMA = SCHEMA.append(pa.field("scan", pa.string())).append(pa.field("date", pa.date32()))
"""Of tables that hold several scans: rows, the scan's name, and the day on which the row was begun, in UTC."""

_WORDS = {  # columns that hold one of a few
    "proto": get_args(Proto),
    "verdict": [verdict.value for verdict in Verdict],
    "reason": [reason.value for reason in Reason],
    "tunnel": [Tunnel.SSL.value],
    "method": ["probed", "table"],
}
_BESIDE = {"post", "ip_bytes", "schema_version"}  # what Arrow's JSON reader does not make
_READ = pyarrow.json.ParseOptions(
    explicit_schema=pa.schema([pa.field(f.name, f.type) for f in SCHEMA if f.name not in _BESIDE]),
    unexpected_field_behavior="ignore",
)


class _Beside(Struct, gc=False):
    ip: str
    post: Raw = Raw(b"null")
    schema_version: int = VERSION


_beside = msgspec.json.Decoder(_Beside).decode_lines
_object = msgspec.json.Decoder(dict[str, Raw]).decode


def batches_of(blob: bytes) -> Iterator[pa.RecordBatch]:
    """NDJSON rows of either form as batches of some thousand rows. Raises InputError for lines that are no rows."""
    for piece in pieces(blob, PIECE):
        yield batch_of(piece)


def batch_of(blob: bytes) -> pa.RecordBatch:
    """As one batch. Raises InputError."""
    try:
        beside = _beside(blob)
        read = _read(blob)
        columns = [_column(column, read, beside) for column in COLUMNS]
        batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    except (pa.ArrowException, msgspec.MsgspecError, UnicodeError, OSError, ValueError) as error:
        raise InputError("rows", 0, f"cannot be read as result rows: {first_line(error)}") from error
    if any(batch.column(column.name).null_count for column in COLUMNS if column.required):
        raise InputError("rows", 0, "a field that every row has is missing")
    return batch


def by_date(batch: pa.RecordBatch) -> Iterator[tuple[date, pa.RecordBatch]]:
    """The rows of each day, in UTC. Nearly always all of them."""
    days = batch.column("started").cast(pa.date32())
    found = pc.unique(days).to_pylist()
    for day in found:
        yield day, batch if len(found) == 1 else batch.filter(pc.equal(days, pa.scalar(day, pa.date32())))


def as_table(batch: pa.RecordBatch, scan: str, day: date) -> pa.RecordBatch:
    """The rows of a day with the columns of TABLE_SCHEMA."""
    count = batch.num_rows
    beside = [pa.repeat(scan, count), pa.repeat(pa.scalar(day, pa.date32()), count)]
    return pa.RecordBatch.from_arrays([*batch.columns, *beside], schema=TABLE_SCHEMA)


def lines_of(batch: pa.RecordBatch) -> bytes:
    """The rows of a batch as lean NDJSON. Columns may be missing or in another order; others are passed over.

    Raises InputError for columns of other types.
    """
    names = [column for column in COLUMNS if not column.derived and column.name in batch.schema.names]
    values = [_values(batch.column(column.name), column) for column in names]
    keys = [column.name for column in names]
    rows = (dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True))
    try:
        return lean_rows(msgspec.json.Encoder().encode_lines(rows))
    except (msgspec.MsgspecError, TypeError) as error:
        raise InputError("rows", 0, f"cannot be read as result rows: {first_line(error)}") from error


def conformed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch that was read from a table, with the columns of SCHEMA: what it does not have is null or zero, others go.

    Raises InputError for columns of other types. What the rows hold is for `faults_of` to say.
    """
    names = batch.schema.names
    try:
        columns = [
            _filled(_fitted(batch.column(field.name) if field.name in names else None, field, batch.num_rows), column)
            for field, column in zip(SCHEMA, COLUMNS, strict=True)
        ]
        at = SCHEMA.get_field_index("ip_bytes")
        if "ip_bytes" not in names:
            columns[at] = pa.array(map(_bytes_or_none, columns[SCHEMA.get_field_index("ip")].to_pylist()), pa.binary())
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    except pa.ArrowException as error:
        raise InputError("rows", 0, f"its columns are not those of result rows: {first_line(error)}") from error


def faults_of(batch: pa.RecordBatch) -> dict[int, str]:
    """Rows of a conformed batch that are none, by their place, and why."""
    found: dict[int, str] = {}

    def tell(wrong: pa.Array, reason: str) -> None:
        for at in pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist():
            found.setdefault(at, reason)

    for column in COLUMNS:
        array = batch.column(column.name)
        if column.required and array.null_count:
            tell(array.is_null(), f"has no `{column.name}`")
        if column.name in _WORDS:
            known = pc.is_in(array, value_set=pa.array(_WORDS[column.name], pa.string()))
            tell(pc.and_(array.is_valid(), pc.invert(known)), f"`{column.name}` is none that is known")
    port = batch.column("port")
    tell(pc.or_(pc.less(port, 0), pc.greater(port, 65535)), "`port` is none")
    ip = batch.column("ip")
    tell(pc.and_(pc.not_equal(ip, ""), batch.column("ip_bytes").is_null()), "`ip` is no address")
    for at, text in enumerate(batch.column("post").to_pylist()):
        if text is not None and not _is_object(text):
            found.setdefault(at, "`post` is no JSON object")
    return found


def without(batch: pa.RecordBatch, gone: Iterable[int]) -> pa.RecordBatch:
    """The batch without some of its rows."""
    gone = set(gone)
    return batch.filter(pa.array([at not in gone for at in range(batch.num_rows)]))


def _fitted(array: pa.Array | None, field: pa.Field, count: int) -> pa.Array:
    """A column, or a field of one, as the schema has it, whatever fields of its own it lacks."""
    if array is None:
        return (
            pa.array([VERSION] * count, field.type) if field.name == "schema_version" else pa.nulls(count, field.type)
        )
    if not (pa.types.is_struct(field.type) and pa.types.is_struct(array.type)):
        return array.cast(field.type)
    fields = list(field.type)
    given = [array.type.get_field_index(inner.name) for inner in fields]
    inner = [_fitted(array.field(at) if at >= 0 else None, own, count) for at, own in zip(given, fields, strict=True)]
    return pa.StructArray.from_arrays(inner, fields=fields, mask=array.is_null())


def _is_object(text: str) -> bool:
    try:
        _object(text)
    except (msgspec.MsgspecError, UnicodeError):
        return False
    return True


def _bytes_or_none(ip: str | None) -> bytes | None:
    try:
        return address_bytes(ip or "")
    except OSError:
        return None


def _read(blob: bytes) -> pa.Table:
    try:
        return _table(blob, BLOCK)
    except pa.ArrowInvalid as error:
        if "block" not in str(error):
            raise
        return _table(blob, len(blob) + 1)  # a line that is longer than a block


def _table(blob: bytes, block: int) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=block)
    return pyarrow.json.read_json(pa.BufferReader(blob), read_options=options, parse_options=_READ)


def _column(column: Column, read: pa.Table, beside: Sequence[_Beside]) -> pa.Array:
    if column.name == "post":
        return pa.array([_json(row.post) for row in beside], pa.binary()).cast(pa.string())
    if column.name == "ip_bytes":
        return pa.array([address_bytes(row.ip) for row in beside], pa.binary())
    if column.name == "schema_version":
        return pa.array([row.schema_version for row in beside], pa.int32())
    return _filled(read.column(column.name).combine_chunks(), column)


def _filled(array: pa.Array, column: Column) -> pa.Array:
    """Zeros where a count or flag was left out, null where a text is empty."""
    if column.kind in _ZEROS:
        return pc.fill_null(array, _ZEROS[column.kind])
    if column.fields:
        inner = [_filled(array.field(at), field) for at, field in enumerate(column.fields)]
        return pa.StructArray.from_arrays(inner, fields=list(array.type), mask=array.is_null())
    return array


def _json(raw: Raw) -> bytes | None:
    value = bytes(raw)
    return None if value == b"null" or not value else value


def _values(array: pa.Array, column: Column) -> list[Any]:
    """As a JSON encoder takes them."""
    if column.kind is Kind.TIMESTAMP:
        return _moments(array, "ms" if column.name == "started" else "s")
    values: list[Any] = array.to_pylist()
    if column.kind is Kind.JSON:
        return [None if value is None else Raw(value.encode()) for value in values]
    for field in column.fields:
        index = array.type.get_field_index(field.name)
        if field.kind is Kind.TIMESTAMP and index >= 0:
            for value, moment in zip(values, _values(array.field(index), field), strict=True):
                if value is not None:
                    value[field.name] = moment
    return values


def _moments(array: pa.Array, unit: str) -> list[str | None]:
    """RFC 3339, to the millisecond or the second as rows have it."""
    shown = pc.strftime(array.cast(pa.timestamp(unit, "UTC"), safe=False), "%Y-%m-%dT%H:%M:%SZ", locale="C")
    return shown.to_pylist()  # type: ignore[no-any-return]
