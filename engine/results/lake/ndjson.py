"""`ndjson+zstd:PATH`: compressed NDJSON in folders by scan and day (base_folder.py). Needs no extra on a local disk."""

import os
from contextlib import suppress
from datetime import date
from itertools import groupby
from pathlib import Path

import msgspec
import zstandard
from msgspec import Struct

from engine.errors import InputError, OutputError
from engine.results.lake.base import Delivery
from engine.results.lake.base_folder import FolderLake
from engine.results.table import full_rows

LEVEL = 3  # of zstd


class NdjsonLake(FolderLake["NdjsonFile"]):
    def __init__(self, where: str, delivery: Delivery) -> None:
        super().__init__("ndjson+zstd", ".ndjson.zst", NdjsonFile, where, delivery)

    def write(self, rows: bytes) -> None:
        for day, lines, count in _by_date(rows):
            self.file(day).write(full_rows(lines) if self.delivery.full else lines, count)


class NdjsonFile:
    """One zstd frame with a checksum. Whole and on the disk when `close` has returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.size = 0
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
        try:
            self._file = path.open("xb")
        except OSError as error:
            raise self._error(error) from error

    def write(self, lines: bytes, count: int) -> None:
        self._put(self._compressor.compress(lines))
        self.rows += count

    def close(self) -> None:
        self._put(self._compressor.flush())
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._error(error) from error

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.path.unlink()

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._error(error) from error
        self.size += len(data)

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {error.strerror or error}")


class _Begun(Struct, gc=False):
    started: str


_begun = msgspec.json.Decoder(_Begun).decode_lines


def _by_date(rows: bytes) -> list[tuple[str, bytes, int]]:
    """(day in UTC, its lines, how many) in the order of the rows. Raises InputError for lines that are no rows."""
    try:
        days = [row.started[:10] for row in _begun(rows)]
        for day in set(days):
            date.fromisoformat(day)  # it becomes the name of a folder
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError("rows", 0, f"cannot be read as result rows: {error}") from error
    if len(set(days)) == 1:
        return [(days[0], rows, len(days))]
    lines = zip(days, rows.splitlines(keepends=True), strict=True)
    runs = [(day, [line for _, line in group]) for day, group in groupby(lines, key=lambda pair: pair[0])]
    return [(day, b"".join(found), len(found)) for day, found in runs]
