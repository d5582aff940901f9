"""A Delta Lake table, partitioned by scan and date, on a disk or in an object store.

Each batch is one commit with an application transaction, `probemill/<run>` at the number of the batch's last segment:
it says whether the table has the batch, and Delta refuses a second writer of the run that does not know of it. Files
are put in place first and count from the commit on; those of a batch that is never committed are left to `vacuum`.

Runs that append to one table do not disturb each other. Columns that the table does not have yet are added to it.
Source: the Delta transaction log protocol, github.com/delta-io/delta/blob/master/PROTOCOL.md. Needs the extra `lake`.
"""

import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from engine.results.arrow import TABLE_SCHEMA
from engine.results.lake.base import Batch, Delivery
from engine.results.lake.base_tables import ATTEMPTS, PARTITIONS, StagedFile, Staging, marks_of, place_of, settle
from engine.results.lake.base_trouble import trouble

TEXT = 32  # characters of a text in statistics

_FILE_SCHEMA = pa.schema([field for field in TABLE_SCHEMA if field.name not in PARTITIONS])  # paths have the others


class DeltaLake:
    """The table at `uri`: a path, or s3://, gs://, az:// with credentials from the environment as usual.

    The table is made with the first commit. A server without TLS is taken if AWS_ENDPOINT_URL names it.
    """

    def __init__(self, uri: str, delivery: Delivery) -> None:
        self._local = "://" not in uri
        self._uri = str(Path(uri).absolute()) if self._local else uri
        self.name = uri.partition("?")[0]
        self._delivery = delivery
        self._app = f"probemill/{delivery.run}"
        self._staging = Staging(delivery, _FILE_SCHEMA)
        self._table: DeltaTable | None = None

    def holds(self, batch: Batch) -> bool:
        with trouble(self.name):
            table = self._current()
            return table is not None and self._has(table, batch)

    def write(self, rows: bytes) -> None:
        with trouble(self.name):
            self._staging.write(rows)

    @property
    def size(self) -> int:
        return self._staging.size

    def commit(self, batch: Batch) -> None:
        with trouble(self.name, CommitFailedError):
            files = self._staging.finish()
            if not self.holds(batch):
                self._commit(batch, [self._put(file, batch) for file in files])
        self._staging.discard()

    def discard(self) -> None:
        self._staging.discard()
        self._table = None  # whatever was wrong with it

    def close(self) -> None:
        self.discard()

    def _commit(self, batch: Batch, actions: list[AddAction | RemoveAction]) -> None:
        for attempt in range(ATTEMPTS):
            properties = CommitProperties(
                custom_metadata=marks_of(self._delivery, batch),
                app_transactions=[Transaction(self._app, batch.last, _now())],
            )
            table = self._current() or self._created()
            if self._has(table, batch):
                return
            try:
                _fit(table)
                table.create_write_transaction(
                    actions, "append", table.schema(), PARTITIONS, commit_properties=properties
                )
                break
            except CommitFailedError:
                if attempt == ATTEMPTS - 1:
                    raise
        if self._local:
            settle(Path(self._uri, "_delta_log", f"{table.version():020}.json"))

    def _current(self) -> DeltaTable | None:
        """As it is now; None if there is none."""
        try:
            if self._table is None:
                self._table = DeltaTable(self._uri, storage_options=_options())
            else:
                self._table.update_incremental()
        except TableNotFoundError:
            self._table = None
        return self._table

    def _created(self) -> DeltaTable:
        """By us, or by another run at the same moment."""
        DeltaTable.create(self._uri, TABLE_SCHEMA, mode="ignore", partition_by=PARTITIONS, storage_options=_options())
        self._table = DeltaTable(self._uri, storage_options=_options())
        return self._table

    def _has(self, table: DeltaTable, batch: Batch) -> bool:
        version = table.transaction_version(self._app)
        return version is not None and version >= batch.last

    def _put(self, file: StagedFile, batch: Batch) -> AddAction:
        place = place_of(self._delivery, batch, file.day)
        obstore.put(self._store(), place, file.path)
        if self._local:
            settle(Path(self._uri, place))
        values = {"scan": self._delivery.scan, "date": str(file.day)}
        return AddAction(place, file.path.stat().st_size, values, _now(), True, _statistics(file.path))

    def _store(self) -> Any:
        if self._local:
            return obstore.store.LocalStore(self._uri, mkdir=True)
        return obstore.store.from_url(self._uri, client_options={"allow_http": bool(_options())})


def _options() -> dict[str, str] | None:
    """For the object store, beside what it reads from the environment itself."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"aws_allow_http": "true"} if plain else None


def _now() -> int:
    return int(time.time() * 1000)


def _fit(table: DeltaTable) -> None:
    """Add the columns that the table does not have. Raises ValueError if our files do not fit into it."""
    about = table.metadata()
    if about.partition_columns != PARTITIONS:
        raise ValueError(f"is partitioned by {', '.join(about.partition_columns) or 'nothing'}, not by scan, date")
    if any(key.startswith("delta.constraints.") for key in about.configuration):
        raise ValueError("has constraints, which are not checked here: take them away, or another table")
    if _lacks(TABLE_SCHEMA, pa.schema(table.schema().to_arrow())):
        nullable = [field.with_nullable(True) for field in TABLE_SCHEMA]  # the rows that are there have no value
        table.alter.add_columns(Schema.from_arrow(pa.schema(nullable)).fields)


def _lacks(wanted: Iterable[pa.Field], found: Iterable[pa.Field]) -> bool:
    """Whether a column or a field of one is missing. Raises ValueError for one of another type."""
    there = {field.name: field.type for field in found}
    lacks = False
    for field in wanted:
        kind = there.get(field.name)
        if kind is None:
            lacks = True
        elif pa.types.is_struct(kind) and pa.types.is_struct(field.type):
            lacks |= _lacks(field.type, kind)
        elif kind != field.type:
            raise ValueError(f"its column {field.name} is of the type {kind}, not {field.type}")
    return lacks


def _statistics(path: Path) -> str:
    """Of a file, as the log has them: of columns that are no lists and structs."""
    about = pa.parquet.read_metadata(path)
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for column in range(about.num_columns):
        groups = [about.row_group(group).column(column) for group in range(about.num_row_groups)]
        name = groups[0].path_in_schema
        found = [group.statistics for group in groups]
        if "." in name or any(one is None or not one.has_null_count for one in found):
            continue
        nulls[name] = sum(one.null_count for one in found)
        valued = [one for one in found if one.num_values]
        if valued and all(one.has_min_max for one in valued):
            low |= _bound(name, min(one.min for one in valued))
            high |= _bound(name, max(one.max for one in valued), highest=True)
    return json.dumps({"numRecords": about.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls})


def _bound(name: str, value: Any, *, highest: bool = False) -> dict[str, Any]:
    """A text may be cut where it is the lowest; of the highest, the part would be lower than the whole."""
    if isinstance(value, datetime):
        return {name: value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"}
    if isinstance(value, str):
        return {name: value[:TEXT]} if len(value) <= TEXT or not highest else {}
    return {name: value} if isinstance(value, int) and not isinstance(value, bool) else {}
