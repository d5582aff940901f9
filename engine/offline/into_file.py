"""Rows of scans that are done into one file, which appears when it is whole."""

import time
from collections.abc import Sequence
from contextlib import suppress

from engine.errors import EngineError
from engine.offline.reading import Nothing, Reading, Watch
from engine.offline.rows_in import Part
from engine.results.rows import hand_over
from engine.results.sinks import Run, Sink, Summary, open_sink
from engine.results.staged import staged


def into_file(parts: Sequence[Part], path: str, form: str, run: Run, watch: Watch) -> int:
    """All rows into a file of one of the forms of sinks. -> how many

    Raises OutputError, SinkClosed, ConfigError as sinks do; Nothing, where no row and only faults were found.
    """
    rows = 0
    reading = Reading(parts, watch)
    with staged(path) as place:
        sink = _Destination(open_sink(form, place, run))
        try:
            for some in reading.rows():
                rows += some.count
                sink.count = some.count
                hand_over(some, sink)
            if reading.faults and not rows:
                raise Nothing
        except BaseException:
            with suppress(EngineError):
                sink.close()
            raise
        sink.close()
    return rows


class _Destination:
    """A sink as `hand_over` sees it. count: of the rows that come next."""

    def __init__(self, sink: Sink) -> None:
        self.count = 0
        self._sink = sink
        if (take := getattr(sink, "write_table", None)) is not None:
            self.write_table = take

    def write(self, lines: bytes) -> None:
        self._sink.write(lines, self.count)

    def close(self) -> None:
        self._sink.close(Summary(time.time()))
