"""Rows of open ports alone, in front of another sink.

Contract: a row whose state is `open` or `open|filtered` is handed on as it came, byte for byte; others go nowhere.
"""

import msgspec
from msgspec import Struct

from engine.results.sinks.base import Sink, Summary


class _State(Struct):
    state: str = ""


_decoder = msgspec.json.Decoder(_State)


class OpenOnly:
    """sink: what takes the rows that are left."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, blob: bytes, rows: int) -> None:
        lines = blob.splitlines(keepends=True)
        kept = [line for line in lines if _decoder.decode(line).state in {"open", "open|filtered"}]
        if kept:
            self._sink.write(b"".join(kept), len(kept))

    def close(self, summary: Summary) -> None:
        self._sink.close(summary)
