"""The table that people read, per host as `nmap -sV` prints it: ports, fingerprints, the `Service Info:` line.

A host is printed when all is known, so the table waits for `close`. A run of more than `BUFFERED_ROWS` rows, or one
whose input may never end, is printed as it comes instead, one line a row:
`address:port/proto [host name] state service version`. Ports that the run did not reach are counted, not listed, and so
are, in a table, closed or filtered ports of a host where there are many.

Who looks on at a terminal is shown open ports as they come, in that form, while the tables wait; and colours.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable

from engine.model import Reason, ServiceResult
from engine.results.columns import service_column, service_info, state_column, version_parts
from engine.results.paint import FAILURE, HEADING, MUTED, SERVICE, STATES, Paint, plain
from engine.results.sinks.base import (
    BUFFERED_ROWS,
    HostBuffer,
    Run,
    Summary,
    decode_rows,
    host_label,
    not_reached,
    place,
    reached,
    unresolved,
)
from engine.results.sinks.output import Output

FINGERPRINTS_SHOWN = 9  # per host
SILENT_SHOWN = 25  # closed ports of a host, and filtered ones; of more, the number: as many as Nmap lists
PATIENCE_S = 2.0  # before who looks on is shown rows; a scan that is over by then is told by its tables alone
NEXT_FINGERPRINT = "NEXT SERVICE FINGERPRINT".center(74, "=")


class TextSink:
    def __init__(self, output: Output, run: Run) -> None:
        self._output = output
        self._run = run
        self._paint = run.paint
        self._hosts = HostBuffer(self._print_host)
        self._streaming = run.streaming
        self._untold: list[ServiceResult] = []  # found, and not shown to who looks on
        self._hosts_left_out = self._ports_left_out = 0

    def write(self, blob: bytes, rows: int) -> None:
        decoded = decode_rows(blob)
        if not self._streaming and len(self._hosts) + len(decoded) > BUFFERED_ROWS:
            self._streaming = True
            self._give_up_tables()
        if self._streaming:
            self._print_lines(decoded)
            return
        for row in decoded:
            self._hosts.add(row)
        if self._run.watched:
            self._untold += filter(_is_news, decoded)
            if time.time() - self._run.started >= PATIENCE_S:
                self._tell()

    def close(self, summary: Summary) -> None:
        with contextlib.closing(self._output):
            self._hosts.drain()
            self._print(filter(None, [not_reached(self._ports_left_out, self._hosts_left_out)]))
            if summary.trouble:
                self._print([self._paint(FAILURE, f"Not the whole scan: {summary.trouble}")])

    def _give_up_tables(self) -> None:
        """What was held back goes out in lines, but for what has been shown already."""
        held = list(self._hosts.take())
        if self._run.watched:
            self._tell()
            held = [row for row in held if not _is_news(row)]
        self._print_lines(held)

    def _tell(self) -> None:
        rows, self._untold = self._untold, []
        self._print_lines(rows)

    def _print_lines(self, rows: list[ServiceResult]) -> None:
        self._print(line(row, self._paint) for row in reached(rows))

    def _print_host(self, rows: list[ServiceResult]) -> None:
        paint = self._paint
        if failure := unresolved(rows[0]):
            self._print([paint("", failure), ""])
            return
        known = reached(rows)
        missing = len(rows) - len(known)
        if not known:
            self._hosts_left_out += 1
            self._ports_left_out += missing
            return
        told = [paint(MUTED, not_reached(missing)), paint("", service_info(known))]
        self._print([*table(known, paint), *fingerprints(known, paint), *filter(None, told), ""])

    def _print(self, lines: Iterable[str]) -> None:
        if data := "".join(f"{text}\n" for text in lines).encode(errors="backslashreplace"):
            self._output.write(data)


def _is_news(row: ServiceResult) -> bool:
    return row.state == "open" and row.reason is not Reason.CANCELLED


def line(row: ServiceResult, paint: Paint = plain) -> str:
    """One row as one line."""
    if failure := unresolved(row):
        return paint("", f"{row.host}:{row.port}/{row.proto} {failure}")
    address = f"[{row.ip}]" if ":" in row.ip else place(row)
    name = f" [{row.host}]" if row.host and row.ip else ""
    state = state_column(row)
    where = paint("", f"{address}:{row.port}/{row.proto}{name}")
    told = f"{paint(STATES.get(state, ''), state)} {paint(SERVICE, service_column(row))} {_version(row, paint)}"
    return f"{where} {told.rstrip()}"


def table(rows: list[ServiceResult], paint: Paint = plain) -> list[str]:
    """The report line of a host and its port table; every column but the last as wide as its widest cell."""
    head = paint(HEADING, f"Scan report for {host_label(rows[0])}")
    states_of = Counter(row.state for row in rows)
    many = {state: count for state in ("closed", "filtered") if (count := states_of[state]) > SILENT_SHOWN}
    rows = [row for row in rows if row.state not in many]
    left_out = ", ".join(f"{count:,} {state} ports" for state, count in many.items())
    silent = [paint(MUTED, f"Not shown: {left_out}")] if many else []
    if not rows:
        return [head, *silent]
    cells = [(f"{row.port}/{row.proto}", state_column(row), service_column(row)) for row in rows]
    heads = ("PORT", "STATE", "SERVICE")
    ports, states, services = (max(map(len, column)) for column in zip(heads, *cells, strict=True))
    lines = [
        head,
        *silent,
        paint(MUTED, f"{'PORT':<{ports}} {'STATE':<{states}} {'SERVICE':<{services}} VERSION"),
    ]
    for row, (port, state, service) in zip(rows, cells, strict=True):
        known = (
            paint("", f"{port:<{ports}}"),
            paint(STATES.get(state, ""), f"{state:<{states}}"),
            paint(SERVICE, f"{service:<{services}}"),
        )
        lines.append(" ".join((*known, _version(row, paint))).rstrip())
    return lines


def _version(row: ServiceResult, paint: Paint) -> str:
    """The version column; what the service adds to it stands back."""
    return " ".join(paint(MUTED if part[0] == "(" else "", part) for part in version_parts(row))


def fingerprints(rows: list[ServiceResult], paint: Paint = plain) -> list[str]:
    """The fingerprints of a host, the first nine of them, with a line that says what they are."""
    texts = [row.fingerprint for row in rows if row.fingerprint][:FINGERPRINTS_SHOWN]
    if not texts:
        return []
    separated = texts if len(texts) == 1 else [text for each in texts for text in (NEXT_FINGERPRINT, each)]
    services = "service" if len(texts) == 1 else "services"
    lines = [f"{len(texts)} {services} unrecognized despite returning data. What came back:", *separated]
    return [paint(MUTED, text) for piece in lines for text in piece.split("\n")]
