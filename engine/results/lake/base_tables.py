"""What the table formats share: the rows of a batch as Parquet files on the local disk until they are committed.

One file for each day, as tables are partitioned by scan and date. Memory stays flat: see ParquetFile. A batch is closed
at `Delivery.size`, so its files need no limit of their own.
"""

import shutil
import tempfile
from contextlib import suppress
from datetime import date
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
from msgspec import Struct

from engine.disk import sync
from engine.results.arrow import as_table, batches_of, by_date
from engine.results.lake.base import Batch, Delivery
from engine.results.lake.base_trouble import trouble
from engine.results.parquet import ParquetFile

PARTITIONS = ["scan", "date"]
ATTEMPTS = 5  # to commit, with others who change the table at the same moment


class StagedFile(Struct, frozen=True):
    path: Path
    day: date
    rows: int


class Staging:
    """The files of one batch at a time."""

    def __init__(self, delivery: Delivery, schema: pa.Schema) -> None:
        """schema: the columns of TABLE_SCHEMA that are written."""
        self._delivery = delivery
        self._schema = schema
        self._folder: Path | None = None
        self._files: dict[date, ParquetFile] = {}

    @property
    def size(self) -> int:
        return sum(file.size for file in self._files.values())

    def write(self, rows: bytes) -> None:
        """NDJSON lines. Raises InputError, OutputError, OSError; then only `discard` is left to do."""
        for batch in batches_of(rows):
            self.write_table(batch)

    def write_table(self, batch: pa.RecordBatch) -> None:
        """Rows of SCHEMA, without the way through text. Raises as `write` does."""
        for day, those in by_date(batch):
            self._file(day).write(as_table(those, self._delivery.scan, day).select(self._schema.names))

    def finish(self) -> list[StagedFile]:
        """All of them, whole. Raises OutputError; then only `discard` is left to do."""
        for file in self._files.values():
            file.close()
        return [StagedFile(file.path, day, file.rows) for day, file in sorted(self._files.items())]

    def discard(self) -> None:
        """Remove all of them. Never raises."""
        files, self._files = self._files, {}
        for file in files.values():
            file.discard()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _file(self, day: date) -> ParquetFile:
        if self._folder is None:
            Path(self._delivery.staging).mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="batch-", dir=self._delivery.staging))
        if day not in self._files:
            self._files[day] = ParquetFile(self._folder / f"{day}.parquet", self._schema)
        return self._files[day]


class TableLake:
    """What lakes of both formats are, as long as nothing is committed. Theirs are `holds`, `commit` and `close`."""

    def __init__(self, name: str, delivery: Delivery, schema: pa.Schema) -> None:
        """schema: the columns of TABLE_SCHEMA that files have."""
        self.name = name
        self._delivery = delivery
        self._staging = Staging(delivery, schema)

    @property
    def size(self) -> int:
        return self._staging.size

    def write(self, rows: bytes) -> None:
        with trouble(self.name):
            self._staging.write(rows)

    def write_table(self, batch: pa.RecordBatch) -> None:
        """Rows of SCHEMA, without the way through text."""
        with trouble(self.name):
            self._staging.write_table(batch)

    def discard(self) -> None:
        self._staging.discard()


def place_of(delivery: Delivery, batch: Batch, day: date) -> str:
    """Where in a table the file of a day lies: the same whenever the batch is tried, so a new try leaves one file.

    As Hive has it: some readers take the values of partitions from here.
    """
    name = f"{delivery.run}-{batch.first}-{batch.last}.parquet"
    return f"scan={quote(delivery.scan, safe='')}/date={day}/{name}"


def marks_of(delivery: Delivery, batch: Batch) -> dict[str, str]:
    """What a commit says about itself."""
    segments = f"{batch.first}-{batch.last}"
    return {"probemill.run": delivery.run, "probemill.scan": delivery.scan, "probemill.segments": segments}


def settle(*paths: Path) -> None:
    """Have files, and that their folders name them, on the disk: what writes tables to local folders does not."""
    for path in {*paths, *(path.parent for path in paths)}:
        with suppress(FileNotFoundError):  # maintenance of the table may have been there since
            sync(path)
