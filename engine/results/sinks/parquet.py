"""`-o rows.parquet`: one Parquet file of the whole run, there when the run has ended, however it ended but by a kill.

Until then it is made beside its place under a name that begins with `.probemill-`. Whoever wants rows that survive a
kill names a state folder, and `--sink parquet:FOLDER`.
"""

import secrets
from pathlib import Path

import pyarrow as pa

from engine.errors import OutputError
from engine.results.arrow import SCHEMA, batches_of
from engine.results.parquet import ParquetFile
from engine.results.sinks.base import Run, Summary


class ParquetSink:
    def __init__(self, path: str, _run: Run) -> None:
        """Raises OutputError."""
        self._path = Path(path)
        if self._path.is_dir():
            raise OutputError(f"{path}: Is a directory")
        staged = self._path.with_name(f".probemill-{secrets.token_hex(8)}.tmp")
        self._file = ParquetFile(staged, SCHEMA, called=path)
        self._closed = False

    def write(self, blob: bytes, rows: int) -> None:
        for batch in batches_of(blob):
            self.write_table(batch)

    def write_table(self, batch: pa.RecordBatch) -> None:
        """Rows of SCHEMA, without the way through text."""
        try:
            self._file.write(batch)
        except OutputError:
            self._file.discard()
            self._closed = True
            raise

    def close(self, summary: Summary) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._file.close()
        except OutputError:
            self._file.discard()
            raise
        try:
            self._file.path.rename(self._path)
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}; all rows are in {self._file.path}") from error
