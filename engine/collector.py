"""Batches in, rows out: hands every batch to every sink and keeps the tally of the run.

The collector decodes nothing: rows arrive as the NDJSON lines that the workers made, and what is counted arrives
counted. Because `deliver` returns only when the sinks have taken the batch, a slow sink slows down the runner, the
runner its workers, and they the reader.
"""

from collections import Counter
from collections.abc import Sequence

from engine.model import Batch
from engine.sinks import Sink


class Collector:
    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self.rows = 0
        self.tally: Counter[str] = Counter()

    async def deliver(self, batch: Batch) -> None:
        """Raises OutputError or SinkClosed as the sinks do."""
        for sink in self._sinks:
            sink.write(batch.rows, batch.count)
        self.rows += batch.count
        self.tally.update(batch.tally)
