"""The table that people read, per host as `nmap -sV` prints it: ports, fingerprints, the `Service Info:` line.

A host is printed when all is known, so the table waits for `close`. A run of more than `BUFFERED_ROWS` rows, or one
whose input may never end, is printed as it comes instead, one line a row:
`address:port/proto [host name] state service version`. Ports that the run did not reach are counted, not listed.
"""

import contextlib
from collections.abc import Iterable

from engine.model import ServiceResult
from engine.results.columns import service_column, service_info, state_column, version_column
from engine.results.sinks.base import (
    BUFFERED_ROWS,
    HostBuffer,
    Run,
    Summary,
    decode_rows,
    host_label,
    not_reached,
    reached,
    unresolved,
)
from engine.results.sinks.output import Output

FINGERPRINTS_SHOWN = 9  # per host
NEXT_FINGERPRINT = "NEXT SERVICE FINGERPRINT".center(74, "=")


class TextSink:
    def __init__(self, output: Output, run: Run) -> None:
        self._output = output
        self._hosts = HostBuffer(self._print_host)
        self._streaming = run.streaming
        self._hosts_left_out = self._ports_left_out = 0

    def write(self, blob: bytes, rows: int) -> None:
        decoded = decode_rows(blob)
        if not self._streaming and len(self._hosts) + len(decoded) > BUFFERED_ROWS:
            self._streaming = True
            self._print(map(line, reached(list(self._hosts.take()))))
        if self._streaming:
            self._print(map(line, reached(decoded)))
        else:
            for row in decoded:
                self._hosts.add(row)

    def close(self, summary: Summary) -> None:
        with contextlib.closing(self._output):
            self._hosts.drain()
            self._print(filter(None, [not_reached(self._ports_left_out, self._hosts_left_out)]))
            if summary.trouble:
                self._print([f"Not the whole scan: {summary.trouble}"])

    def _print_host(self, rows: list[ServiceResult]) -> None:
        if failure := unresolved(rows[0]):
            self._print([failure, ""])
            return
        known = reached(rows)
        missing = len(rows) - len(known)
        if not known:
            self._hosts_left_out += 1
            self._ports_left_out += missing
            return
        told = filter(None, [not_reached(missing), service_info(known)])
        self._print([*table(known), *fingerprints(known), *told, ""])

    def _print(self, lines: Iterable[str]) -> None:
        self._output.write("".join(f"{text}\n" for text in lines).encode(errors="backslashreplace"))


def line(row: ServiceResult) -> str:
    """One row as one line."""
    if failure := unresolved(row):
        return f"{row.host}:{row.port}/{row.proto} {failure}"
    address = f"[{row.ip}]" if ":" in row.ip else row.ip
    name = f" [{row.host}]" if row.host else ""
    told = f"{state_column(row)} {service_column(row)} {version_column(row)}".rstrip()
    return f"{address}:{row.port}/{row.proto}{name} {told}"


def table(rows: list[ServiceResult]) -> list[str]:
    """The report line of a host and its port table; every column but the last as wide as its widest cell."""
    cells = [("PORT", "STATE", "SERVICE", "VERSION")]
    cells += [(f"{row.port}/{row.proto}", state_column(row), service_column(row), version_column(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    return [
        f"Scan report for {host_label(rows[0])}",
        *(" ".join([*map(str.ljust, cell, widths), cell[-1]]).rstrip() for cell in cells),
    ]


def fingerprints(rows: list[ServiceResult]) -> list[str]:
    """The fingerprints of a host, the first nine of them, with a line that says what they are."""
    texts = [row.fingerprint for row in rows if row.fingerprint][:FINGERPRINTS_SHOWN]
    if not texts:
        return []
    separated = texts if len(texts) == 1 else [text for each in texts for text in (NEXT_FINGERPRINT, each)]
    services = "service" if len(texts) == 1 else "services"
    return [f"{len(texts)} {services} unrecognized despite returning data. What came back:", *separated]
