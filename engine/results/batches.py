"""Record batches of others as input: whatever streams them, columns by name, cells as Python values.

Needs the extra `lake`.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, TypeAlias

import pyarrow as pa
from pyarrow import types

from engine.errors import ConfigError
from engine.text import first_line

Batches: TypeAlias = "Iterable[pa.RecordBatch] | pa.RecordBatch | pa.Table | pa.RecordBatchReader"
"""An iterable of RecordBatches, or anything that streams Arrow: a table, a reader, a frame of polars or pandas."""

IsKind = Callable[[pa.DataType], bool]


def is_bytes(kind: pa.DataType) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)  # type: ignore[no-any-return]


def is_text(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)  # type: ignore[no-any-return]


def is_number(kind: pa.DataType) -> bool:
    return types.is_integer(kind)  # type: ignore[no-any-return]


def record_batches(batches: Batches, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows each; of a stream without any, one of no rows, which has its columns.

    Raises ConfigError for what is neither a stream nor an iterable of batches; what these raise passes through.
    """
    if hasattr(batches, "__arrow_c_stream__"):
        batches = _streamed(batches)
    elif not isinstance(batches, Iterable):
        raise ConfigError(f"batches: {type(batches).__name__} cannot be used; expected record batches")
    for batch in batches:
        if not isinstance(batch, pa.RecordBatch):
            raise ConfigError(f"batches: {type(batch).__name__} cannot be used; expected pyarrow.RecordBatch")
        yield from _slices(batch, rows)


def _streamed(source: Any) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.RecordBatchReader.from_stream(source)
    except pa.ArrowException as error:
        raise ConfigError(f"batches: {type(source).__name__} cannot be used: {first_line(error)}") from error
    empty = True
    for batch in reader:
        empty = False
        yield batch
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=reader.schema)


def _slices(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    if batch.num_rows <= rows:
        yield batch
    else:
        yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def cells(batch: pa.RecordBatch, name: str, expected: str, *kinds: IsKind, needed: bool = True) -> Iterable[Any]:
    """The values of a column, None for null; of a column that may be missing and is, a None for each row.

    expected: what `kinds` take, in words. A column of nulls alone, without a type, is of any kind; one that is encoded
    as a dictionary is of its values'. Raises ConfigError.
    """
    found = batch.schema.get_all_field_indices(name)
    if not found and not needed:
        return repeat(None, batch.num_rows)
    if len(found) != 1:
        there = ", ".join(batch.schema.names)
        raise ConfigError(f"{'no' if not found else 'more than one'} column {name!r} in the batch; it has: {there}")
    column = batch.column(found[0])
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not types.is_null(column.type) and not any(is_kind(column.type) for is_kind in kinds):
        raise ConfigError(f"column {name!r} is of type {column.type}; expected {expected}")
    values: list[Any] = column.to_pylist()
    return values
