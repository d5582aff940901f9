"""Parquet files as a lake wants them: zstd, row groups of 131,072 rows, statistics; written in flat memory.

Batches are gathered until they make a row group, which a thread of the file's own then packs, while the caller goes on
making the next one: pyarrow does that without the interpreter's lock. Needs the extra `lake`.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from engine.errors import OutputError
from engine.text import first_line

GROUP_ROWS = 131_072
GROUP_BYTES = 256 << 20  # of Arrow memory: rows with long fingerprints make smaller groups
LEVEL = 1  # of zstd


class ParquetFile:
    """One file at `path`, which must not exist. Whole and on the disk when `close` has returned."""

    def __init__(self, path: Path, schema: pa.Schema, called: str = "") -> None:
        """called: how errors name it, if not by its path. Raises OutputError."""
        self.path = path
        self._called = called or str(path)
        self.rows = 0
        self._packed = 0  # bytes of row groups that are written
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._schema = schema
        self._packing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "parquet")
        try:
            self._file = path.open("xb")
            self._writer = pa.parquet.ParquetWriter(
                self._file, schema, compression="zstd", compression_level=LEVEL, version="2.6"
            )
        except (OSError, pa.ArrowException) as error:
            raise self._error(error) from error

    @property
    def size(self) -> int:
        """Bytes of the file so far, about: what waits for its row group is guessed from those that are written."""
        if not self.rows:
            return 0
        packed_rows = self.rows - self._waiting_rows
        each = self._packed / packed_rows if packed_rows > 0 and self._packed else 40
        return self._packed + int(self._waiting_rows * each)

    def write(self, batch: pa.RecordBatch) -> None:
        """Raises OutputError; then only `discard` is left to do."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._pack()

    def close(self) -> None:
        """Raises OutputError; then only `discard` is left to do."""
        if self._waiting:
            self._pack()
        self._settle()
        try:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except (OSError, pa.ArrowException) as error:
            raise self._error(error) from error
        self._thread.shutdown()

    def discard(self) -> None:
        """Remove the file. Never raises."""
        with suppress(OutputError):
            self._settle()
        self._thread.shutdown()
        self._writer.is_open = False  # or it would end the file when it is let go of
        with suppress(OSError, pa.ArrowException):
            self._file.close()
        with suppress(OSError):
            self.path.unlink()

    def _pack(self) -> None:
        """Give the waiting rows to the thread, once it is done with those before. Raises OutputError."""
        self._settle()
        group = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        self._packing = self._thread.submit(self._write_group, group)

    def _write_group(self, group: pa.Table) -> None:
        self._writer.write_table(group, row_group_size=GROUP_ROWS * 2)
        self._packed = self._file.tell()

    def _settle(self) -> None:
        packing, self._packing = self._packing, None
        if packing is None:
            return
        try:
            packing.result()
        except (OSError, pa.ArrowException) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or first_line(error)
        return OutputError(f"{self._called}: {reason}")
