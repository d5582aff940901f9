"""NDJSON: one row a line, exactly the bytes that the workers made, or each with every field. Nothing is held back."""

from engine.results.sinks.base import Run, Summary
from engine.results.sinks.output import Output
from engine.results.table import full_rows


class NdjsonSink:
    """A sink as sinks/base.py describes it."""

    def __init__(self, output: Output, run: Run) -> None:
        self._output = output
        self._full = run.full

    def write(self, blob: bytes, rows: int) -> None:
        self._output.write(full_rows(blob) if self._full else blob)

    def close(self, summary: Summary) -> None:
        self._output.close()
