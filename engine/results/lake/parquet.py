"""`parquet:PATH`: Parquet files in folders by scan and day (base_folder.py)."""

from pathlib import Path

import pyarrow as pa

from engine.results.arrow import SCHEMA, batches_of, by_date
from engine.results.lake.base import Delivery
from engine.results.lake.base_folder import FolderLake
from engine.results.parquet import ParquetFile


class ParquetLake(FolderLake[ParquetFile]):
    def __init__(self, where: str, delivery: Delivery) -> None:
        super().__init__("parquet", ".parquet", _begun, where, delivery)

    def write(self, rows: bytes) -> None:
        for batch in batches_of(rows):
            self.write_table(batch)

    def write_table(self, batch: pa.RecordBatch) -> None:
        """Rows of SCHEMA, without the way through text."""
        for day, part in by_date(batch):
            self.file(str(day)).write(part)


def _begun(path: Path) -> ParquetFile:
    return ParquetFile(path, SCHEMA)
