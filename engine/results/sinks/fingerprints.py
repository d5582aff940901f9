"""The fingerprints of services that answered and were not recognised, apart from the rows, ready to be worked on.

One SF-Port text after the other with an empty line between, each behind a comment that names the host.
"""

import contextlib

from engine.results.sinks.base import Run, Summary, decode_rows, host_label
from engine.results.sinks.output import Output


class FingerprintsSink:
    def __init__(self, output: Output, _run: Run) -> None:
        self._output = output

    def write(self, blob: bytes, rows: int) -> None:
        found = (row for row in decode_rows(blob) if row.fingerprint)
        self._output.write("".join(f"# {host_label(row)}\n{row.fingerprint}\n\n" for row in found).encode())

    def close(self, summary: Summary) -> None:
        with contextlib.closing(self._output):
            if summary.trouble:
                self._output.write(f"# not the whole scan: {summary.trouble}\n".encode(errors="backslashreplace"))
