"""Batches in, rows out: hands every batch to every sink and keeps the tally of the run.

The collector decodes nothing: rows arrive as the NDJSON lines that the workers made, and what is counted arrives
counted. `take` blocks as long as a sink does, so it is called in a thread; the runner gets its answer only then, and a
slow sink slows down the runner, the runner its workers, and they the reader.

An ordinary sink takes rows. A committing sink takes the batch, because it records which targets its rows are of.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from engine.model import Batch
from engine.results.sinks import Sink, Summary
from engine.results.slow_hosts import KIND, SlowHosts


class CommittingSink(Protocol):
    """A sink whose rows outlive the run: across all runs that go on with it, each target has one row."""

    def take(self, batch: Batch) -> None:
        """Take rows with their ordinals. Raises OutputError."""

    def pass_over(self, ordinals: Iterable[int]) -> None:
        """These targets will have no row and are done: they may not be contacted."""

    def put_off(self, ordinals: Iterable[int]) -> None:
        """These targets will have a row that does not count: they are not done."""

    def rotate_if_due(self) -> None:
        """Called about once a second. Raises OutputError."""

    def close(self, summary: Summary) -> None:
        """Commit what was taken. Raises OutputError."""


class Collector:
    """rows: delivered so far. tally: what the workers counted, summed (cli/metrics.py has the names).

    slow_hosts: what they counted by host, which a tally would have no bound for.
    """

    def __init__(self, sinks: Sequence[Sink], committing: CommittingSink | None = None) -> None:
        self._sinks = sinks
        self._committing = committing
        self.rows = 0
        self.tally: Counter[str] = Counter()
        self.slow_hosts = SlowHosts()

    def take(self, batch: Batch) -> None:
        """Raises OutputError or SinkClosed as the sinks do."""
        if self._committing is not None:
            self._committing.take(batch)
        self.rows += batch.count
        self._count(batch.tally)
        self._write(batch.rows, batch.count)

    def take_committed(self, blocks: Iterable[bytes], count: int, tally: Mapping[str, int]) -> None:
        """Rows that are committed already, whole lines at a time, where somebody wants them. Raises as `take`."""
        self.rows += count
        self._count(tally)
        for block in blocks:
            self._write(block, block.count(b"\n"))

    def _count(self, tally: Mapping[str, int]) -> None:
        for name, count in tally.items():
            if name.startswith(KIND):
                self.slow_hosts.add(name[len(KIND) :], count)
            else:
                self.tally[name] += count

    def _write(self, rows: bytes, count: int) -> None:
        with ExitStack() as all_of_them:  # whatever becomes of one, the others get their rows
            for sink in reversed(self._sinks):
                all_of_them.callback(sink.write, rows, count)
