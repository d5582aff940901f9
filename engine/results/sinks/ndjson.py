"""NDJSON: one row a line, exactly the bytes that the workers made. Nothing is decoded, nothing held back."""

from engine.results.sinks.base import Run, Summary
from engine.results.sinks.output import Output


class NdjsonSink:
    """A sink as sinks/base.py describes it; the run it is told of leaves no trace."""

    def __init__(self, output: Output, _run: Run) -> None:
        self._output = output

    def write(self, blob: bytes, rows: int) -> None:
        self._output.write(blob)

    def close(self, summary: Summary) -> None:
        self._output.close()
