"""The lines of `--version-trace` on standard error. Nobody who does not read them holds up the scan, or loses its rows.

A thread writes them. When BACKLOG lines wait, further ones are dropped, and how many is said where they are missing;
when nobody reads any more (`| head`), the rest is dropped without a word.
"""

import sys
from functools import partial

from engine.threads import Desk

BACKLOG = 100_000  # lines
LAST_S = 1.0  # at the end, for the lines that still wait


class TraceLines:
    """`emit(line)` for a Trace."""

    def __init__(self) -> None:
        self._desk = Desk()
        self._dropped = 0
        self._gone = False

    def emit(self, line: str) -> None:
        if self._gone:
            return
        if len(self._desk) >= BACKLOG:
            self._dropped += 1
            return
        if self._dropped:
            line = f"({self._dropped} lines of the trace are missing here)\n{line}"
            self._dropped = 0
        self._desk.post(partial(self._write, line))

    def close(self) -> None:
        self._desk.settle(LAST_S)

    def _write(self, line: str) -> None:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads, or the stream is closed
            self._gone = True
