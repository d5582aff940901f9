"""An Iceberg table, partitioned by scan and date, in whatever catalog pyiceberg knows.

Each batch is one transaction: a snapshot with its files, whose summary names the run and the segments, and the table
property `probemill.<run>`, the number of the run's last segment here. The property says whether the table has a batch;
it lives on when snapshots expire. Files are put in place first and count from the commit on; nothing here removes those
of a batch that is never committed (Iceberg's `remove_orphan_files` does).

Runs that append to one table do not disturb each other. Columns that the table does not have yet are added to it.
Source: iceberg.apache.org/spec and py.iceberg.apache.org/api. Needs the extra `lake`.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    ServerError,
    ServiceUnavailableError,
    TableAlreadyExistsError,
    TooManyRequestsError,
    WaitingForLockException,
)
from pyiceberg.table import Table

from engine.errors import ConfigError, OutputError
from engine.results.arrow import TABLE_SCHEMA
from engine.results.lake.base import Batch, Delivery
from engine.results.lake.base_place import endpoint
from engine.results.lake.base_tables import ATTEMPTS, PARTITIONS, StagedFile, TableLake, marks_of, place_of, settle
from engine.results.lake.base_trouble import trouble

logging.getLogger("pyiceberg").addHandler(logging.NullHandler())  # or it tells standard error of its retries

CHUNK = 8 << 20  # bytes of a file, on its way to the table

_PASSING = (
    CommitFailedException,
    CommitStateUnknownException,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    WaitingForLockException,
)


class IcebergLake(TableLake):
    """The table `CATALOG/NAMESPACE.TABLE`; `?key=value&...` behind it are properties of the catalog.

    Values are written as in URLs, %26 for &. Without properties the catalog is as .pyiceberg.yaml or
    PYICEBERG_CATALOG__* have it. Namespace and table are made with the first commit.
    """

    def __init__(self, target: str, delivery: Delivery) -> None:
        """Raises ConfigError for a target of another form."""
        name, _, query = target.partition("?")
        super().__init__(f"iceberg:{name}", delivery, TABLE_SCHEMA)
        self._catalog_name, _, self._identifier = name.partition("/")
        namespace, _, table = self._identifier.rpartition(".")
        if not (self._catalog_name and namespace and table):
            raise ConfigError(f"{self.name}: write iceberg:CATALOG/NAMESPACE.TABLE")
        self._namespace = namespace
        self._properties = _properties(query)
        self._mark = f"probemill.{delivery.run}"
        self._catalog: Catalog | None = None

    def holds(self, batch: Batch) -> bool:
        with trouble(self.name, *_PASSING):
            table = self._current()
            return table is not None and self._has(table, batch)

    def commit(self, batch: Batch) -> None:
        with trouble(self.name, *_PASSING):
            files = self._staging.finish()
            table = self._current() or self._created()
            if not self._has(table, batch):
                self._commit(batch, table, [self._put(table, file, batch) for file in files])
        self._staging.discard()

    def close(self) -> None:
        self.discard()
        catalog, self._catalog = self._catalog, None
        if catalog is not None:
            with suppress(Exception):  # a catalog that is gone has nothing to let go of
                catalog.close()

    def _commit(self, batch: Batch, table: Table, places: list[str]) -> None:
        """pyiceberg tries again by itself where only snapshots came in between; here is the rest."""
        for attempt in range(ATTEMPTS):
            try:
                _fit(table)
                with table.transaction() as change:
                    change.set_properties({self._mark: str(batch.last)})
                    if places:
                        change.add_files(
                            places,
                            snapshot_properties=marks_of(self._delivery, batch),
                            check_duplicate_files=False,  # `holds` has been asked, and looks at less
                        )
                break
            except CommitFailedException:
                if attempt == ATTEMPTS - 1:
                    raise
                table.refresh()
                if self._has(table, batch):
                    return
        _settle(table, places)

    def _current(self) -> Table | None:
        """As it is now; None if there is none."""
        try:
            return self._opened().load_table(self._identifier)
        except NoSuchTableError:
            return None

    def _opened(self) -> Catalog:
        if self._catalog is None:
            try:
                self._catalog = load_catalog(self._catalog_name, **self._properties)
            except ValueError:  # its text has the properties, and those have passwords
                raise OutputError(f"{self.name}: is in no catalog that pyiceberg knows; give uri or type") from None
            for key, value in _surroundings():
                self._catalog.properties.setdefault(key, value)
        return self._catalog

    def _created(self) -> Table:
        """By us, or by another run at the same moment."""
        catalog = self._opened()
        with suppress(NamespaceAlreadyExistsError):
            catalog.create_namespace(self._namespace)
        with (
            suppress(TableAlreadyExistsError, CommitFailedException),
            catalog.create_table_transaction(self._identifier, TABLE_SCHEMA) as change,
            change.update_spec() as spec,
        ):
            for name in PARTITIONS:
                spec.add_identity(name)
        return catalog.load_table(self._identifier)

    def _has(self, table: Table, batch: Batch) -> bool:
        return int(table.properties.get(self._mark, 0)) >= batch.last

    def _put(self, table: Table, file: StagedFile, batch: Batch) -> str:
        place = table.location_provider().new_data_location(place_of(self._delivery, batch, file.day))
        with file.path.open("rb") as source, table.io.new_output(place).create(overwrite=True) as target:
            shutil.copyfileobj(source, target, CHUNK)
        return str(place)


def _properties(query: str) -> dict[str, str]:
    """`a=b&c=d`; a + is a plus, as in the URLs of databases."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {unquote(key): unquote(value) for key, _, value in pairs}


def _surroundings() -> Iterator[tuple[str, str]]:
    """What pyiceberg does not read from the environment as others do."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    yield from ((key, value) for key, value in (("s3.endpoint", endpoint()), ("s3.region", region)) if value)


def _fit(table: Table) -> None:
    """Add the columns that the table does not have. Raises what pyiceberg has for columns of another type."""
    there = {field.name for field in table.schema().fields}
    nullable = [field if field.name in there else field.with_nullable(True) for field in TABLE_SCHEMA]
    with table.update_schema() as change:
        change.union_by_name(pa.schema(nullable))  # what is added is null in the rows that are there


def _settle(table: Table, places: list[str]) -> None:
    """Have the commit on the disk, if the table is on a local one."""
    snapshot = table.current_snapshot()
    if urlsplit(table.metadata_location).scheme not in {"", "file"} or snapshot is None:
        return
    manifests = snapshot.manifests(table.io)
    written = [one.manifest_path for one in manifests if one.added_snapshot_id == snapshot.snapshot_id]
    written += [table.metadata_location, snapshot.manifest_list, *places]
    settle(*(Path(urlsplit(place).path) for place in written))
