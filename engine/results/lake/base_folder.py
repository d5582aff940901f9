"""Files in folders by scan and day: `scan=NAME/date=2026-11-26/part-RUN-000001-000003.parquet`, or `.ndjson.zst`.

Hive's way to name partitions, which DuckDB, polars, Spark, Trino and Athena read. The files of a batch are put one by
one under names that tell the batch, so that doing it again adds what is missing and nothing else; behind the last one
comes a manifest, `_delivered/RUN-000001-000003.parquet.json`, by which `holds` knows. Readers pass over names that
begin with `_` or `.`, and no file has its suffix before it is whole.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from engine.errors import OutputError
from engine.results.lake.base import Batch, Delivery
from engine.results.lake.base_place import ENDING, open_place


class Made(Protocol):
    """A file that is being made. rows, size: so far, the latter about."""

    path: Path
    rows: int

    @property
    def size(self) -> int: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class _Written(Struct, frozen=True):
    """A file of a batch, as its manifest has it."""

    name: str
    rows: int
    size: int


File = TypeVar("File", bound=Made)


class FolderLake(Generic[File]):
    """What both forms share. suffix: of the files; make: begins one under a name that does not count yet."""

    def __init__(self, form: str, suffix: str, make: Callable[[Path], File], where: str, delivery: Delivery) -> None:
        self._place = open_place(where)
        self.name = f"{form}:{self._place.name}"
        self.delivery = delivery
        self._suffix = suffix
        self._make = make
        self._staging: Path | None = None
        self._files: dict[str, File] = {}
        self._count = 0
        self._looked = False  # whether the folder is one for such files

    @property
    def size(self) -> int:
        return max((file.size for file in self._files.values()), default=0)

    def holds(self, batch: Batch) -> bool:
        if not self._looked and next(iter(self._place.files("_delta_log")), None) is not None:
            raise OutputError(f"{self.name}: is a Delta table; write delta:{self._place.name}, or name another folder")
        self._looked = True
        return self._place.has(self._manifest(batch))

    def commit(self, batch: Batch) -> None:
        files = []
        for day, file in sorted(self._files.items()):
            file.close()
            name = f"scan={quote(self.delivery.scan, safe='')}/date={day}/part-{self._label(batch)}{self._suffix}"
            files.append(_Written(name, file.rows, self._size_of(file)))
            self._place.put(file.path, name)
        told = {"run": self.delivery.run, "scan": self.delivery.scan, "files": files}
        self._place.put_bytes(msgspec.json.encode(told), self._manifest(batch))
        self._files.clear()

    def discard(self) -> None:
        for file in self._files.values():
            file.discard()
        self._files.clear()

    def close(self) -> None:
        self.discard()
        if self._staging is not None and self._staging != Path(self.delivery.staging):
            try:
                self._staging.rmdir()
            except OSError:  # somebody has put something there
                return

    def file(self, day: str) -> File:
        """Of the present batch, for the rows of a day, `2026-11-26`. Raises OutputError."""
        file = self._files.get(day)
        if file is None:
            file = self._files[day] = self._make(self._staged())
        return file

    def _size_of(self, file: File) -> int:
        try:
            return file.path.stat().st_size
        except OSError as error:
            raise OutputError(f"{file.path}: {error.strerror or error}") from error

    def _staged(self) -> Path:
        if self._staging is None:
            self._staging = self._place.staging(
                self.delivery.run + self._suffix.replace(".", "-"), Path(self.delivery.staging)
            )
        self._count += 1
        return self._staging / f".tmp-{id(self):x}-{self._count}{self._suffix}{ENDING}"

    def _manifest(self, batch: Batch) -> str:
        return f"_delivered/{self._label(batch)}{self._suffix}.json"

    def _label(self, batch: Batch) -> str:
        return f"{self.delivery.run}-{batch.first:06}-{batch.last:06}"
