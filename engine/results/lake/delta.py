"""A Delta Lake table, partitioned by scan and date, on a disk or in an object store.

Each batch is one commit with an application transaction, `probemill/<run>` at the number of the batch's last segment:
it says whether the table has the batch, and Delta refuses a second writer of the run that does not know of it. Files
are put in place first and count from the commit on; those of a batch that is never committed are left to `vacuum`.

Runs that append to one table do not disturb each other. Columns that the table does not have yet are added to it.
Source: the Delta transaction log protocol, github.com/delta-io/delta/blob/master/PROTOCOL.md. Needs the extra `lake`.
"""

import json
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from engine.results.arrow import TABLE_SCHEMA
from engine.results.lake.base import Batch, Delivery
from engine.results.lake.base_place import canonical, endpoint, open_place
from engine.results.lake.base_tables import ATTEMPTS, PARTITIONS, StagedFile, TableLake, marks_of, place_of, settle
from engine.results.lake.base_trouble import trouble

_FILE_SCHEMA = pa.schema([field for field in TABLE_SCHEMA if field.name not in PARTITIONS])  # paths have the others


class DeltaLake(TableLake):
    """The table at `uri`: a path, or s3://, gs://, az:// with credentials from the environment as usual.

    The table is made with the first commit. A server without TLS is taken if AWS_ENDPOINT_URL names it.
    """

    def __init__(self, uri: str, delivery: Delivery) -> None:
        self._uri = canonical(uri)
        self._local = "://" not in self._uri
        super().__init__(f"delta:{self._uri}", delivery, _FILE_SCHEMA)
        self._app = f"probemill/{delivery.run}"
        self._table: DeltaTable | None = None

    def holds(self, batch: Batch) -> bool:
        with trouble(self.name):
            table = self._current()
            return table is not None and self._has(table, batch)

    def commit(self, batch: Batch) -> None:
        with trouble(self.name, CommitFailedError):
            files = self._staging.finish()
            if not self.holds(batch):
                self._commit(batch, [self._put(file, batch) for file in files])
        self._staging.discard()

    def discard(self) -> None:
        super().discard()
        self._table = None  # whatever was wrong with it

    def close(self) -> None:
        self.discard()

    def _commit(self, batch: Batch, actions: list[AddAction | RemoveAction]) -> None:
        for attempt in range(ATTEMPTS):
            properties = CommitProperties(
                custom_metadata=marks_of(self._delivery, batch),
                app_transactions=[Transaction(self._app, batch.last, _now())],
            )
            try:
                table = self._current() or self._created()
                if self._has(table, batch):
                    return
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
        """By us, or by another run at the same moment. Raises ValueError in a folder of other sinks' files."""
        if next(iter(open_place(self._uri).files("_delivered")), None) is not None:
            raise ValueError("holds files of parquet: or ndjson+zstd:; name another folder")
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
        # No bounds of columns: targets are shuffled, so those of all files would be alike; and deltalake's reader loses
        # rows where only some columns have them. Readers find those of row groups in the file.
        statistics = json.dumps({"numRecords": file.rows})
        return AddAction(place, file.path.stat().st_size, values, _now(), True, statistics)

    def _store(self) -> Any:
        if self._local:
            return obstore.store.LocalStore(self._uri, mkdir=True)
        plain = _options().get("aws_allow_http") == "true"
        return obstore.store.from_url(self._uri, client_options={"allow_http": plain, "timeout": timedelta(minutes=10)})


def open_table(uri: str) -> DeltaTable:
    """A table that is there, for reading. Raises what the library does."""
    return DeltaTable(uri, storage_options=_options())


def _options() -> dict[str, str]:
    """For the object store, beside what it reads from the environment itself. Requests here are small."""
    plain = endpoint().startswith("http://")
    return {"timeout": "30s", "connect_timeout": "10s"} | ({"aws_allow_http": "true"} if plain else {})


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
