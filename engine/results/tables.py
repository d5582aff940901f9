"""Rows out of tables: Parquet files, wherever they lie, and Delta tables, batch by batch. Needs the extra `lake`.

Contract: a part is read in the same order each time, in memory that its row groups bound; every row is looked at, and
one that is none is told by its number. Columns are found by name, and may be missing or more (`arrow.conformed`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from msgspec import Struct

from engine.errors import InputError, ReadError
from engine.extras import extra
from engine.results.arrow import SCHEMA, conformed, faults_of, lines_of, without
from engine.results.lake.base_place import Place
from engine.results.parquet import ParquetFile
from engine.results.rows import Rows
from engine.text import first_line

BATCH_ROWS = 1 << 14


class TableRows(Struct, frozen=True):
    """Rows of SCHEMA."""

    table: pa.RecordBatch

    @property
    def count(self) -> int:
        return int(self.table.num_rows)

    def lines(self) -> bytes:
        return lines_of(self.table)

    def cut(self, count: int) -> tuple[Rows, Rows]:
        return TableRows(self.table.slice(0, count)), TableRows(self.table.slice(count))


class Read(Struct):
    """Some rows. share: of the part that has been read, 0 to 1; faults: the number of what is no row, and why."""

    rows: TableRows
    share: float
    faults: list[tuple[int, str]]


class DeltaPart(Struct):
    """A file of a Delta table. size: in bytes; partition: column -> value."""

    name: str
    size: int
    partition: dict[str, Any]
    fragment: Any

    def read(self) -> Iterator[Read]:
        """Raises InputError behind what could be read."""
        try:
            count = self.fragment.count_rows()
            batches = self.fragment.to_batches(batch_size=BATCH_ROWS, batch_readahead=1)
            yield from _checked(self.name, batches, count, self.partition)
        except (pa.ArrowException, OSError) as error:
            kind = InputError if isinstance(error, pa.ArrowException) else ReadError
            raise kind(self.name, 0, f"cannot be read: {first_line(error)}") from error


def read_parquet(file: BinaryIO, name: str, partition: Mapping[str, str]) -> Iterator[Read]:
    """One file. name: as people may see it; partition: what the folders around it say of all its rows.

    Raises InputError behind what could be read.
    """
    try:
        with pa.parquet.ParquetFile(file) as opened:
            count = opened.metadata.num_rows
            yield from _checked(name, opened.iter_batches(BATCH_ROWS), count, partition)
    except (pa.ArrowException, OSError) as error:
        kind = ReadError if getattr(error, "errno", None) else InputError  # Arrow says OSError of damage, too
        raise kind(name, 0, f"cannot be read as Parquet: {first_line(error)}") from error


def merge_parquet(place: Place, names: Sequence[str], path: Path) -> None:
    """The rows of several files into a new one, as results/merge.py says."""
    made = ParquetFile(path, SCHEMA)
    try:
        for name in names:
            whole = f"{place.name}/{name}"
            try:
                with place.open(name) as file, pa.parquet.ParquetFile(file) as opened:
                    if not _known(opened.schema_arrow, SCHEMA):
                        raise InputError(whole, 0, "has columns that this version does not know; left as it is")
                    before = made.rows
                    for batch in opened.iter_batches(BATCH_ROWS):
                        made.write(conformed(batch))
                    if made.rows - before != opened.metadata.num_rows:
                        raise InputError(whole, 0, "holds another number of rows than it says")
            except (pa.ArrowException, OSError) as error:
                raise InputError(whole, 0, f"cannot be read: {first_line(error)}") from error
        made.close()
    except BaseException:
        made.discard()
        raise


def _known(theirs: Any, ours: Any) -> bool:
    """Whether all columns of a schema, or fields of an object, are ours; earlier versions have fewer, in objects, too.

    theirs, ours: pa.Schema or pa.StructType.
    """
    types = {field.name: field.type for field in ours}
    for field in theirs:
        own = types.get(field.name)
        if own is not None and pa.types.is_struct(own) and pa.types.is_struct(field.type):
            if not _known(field.type, own):
                return False
        elif own != field.type:
            return False
    return True


def delta_parts(url: str) -> tuple[int, list[DeltaPart]]:
    """The version of a Delta table, and its files, in the order of their names. Raises ConfigError, InputError."""
    with extra(f"delta:{url}"):
        from engine.results.lake.delta import open_table
    try:
        table = open_table(url)
        fragments = table.to_pyarrow_dataset().get_fragments()
        actions = pa.table(table.get_add_actions())
        sizes = dict(zip(*(actions.column(name).to_pylist() for name in ("path", "size_bytes")), strict=True))
    except Exception as error:  # of the library's own kinds, which share no base
        raise InputError(f"delta:{url}", 0, f"cannot be read: {first_line(error)}") from error
    parts = []
    for fragment in sorted(fragments, key=lambda fragment: fragment.path):
        keys = pa.dataset.get_partition_keys(fragment.partition_expression)
        parts.append(DeltaPart(f"delta:{url}/{fragment.path}", sizes.get(fragment.path, 0), keys, fragment))
    return table.version(), parts


def _checked(name: str, batches: Iterable[pa.RecordBatch], count: int, partition: Mapping[str, Any]) -> Iterator[Read]:
    at = 0
    for batch in batches:
        for column in partition.keys() - set(batch.schema.names):
            batch = batch.append_column(column, pa.array([partition[column]] * batch.num_rows))
        try:
            rows = conformed(batch)
        except InputError as error:
            raise InputError(name, 0, error.reason) from error
        faults = faults_of(rows)
        if faults:
            rows = without(rows, faults)
        told = [(at + row + 1, faults[row]) for row in sorted(faults)]
        at += batch.num_rows
        yield Read(TableRows(rows), at / max(count, 1), told)
