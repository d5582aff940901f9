"""A report as CSV, for tickets and spreadsheets: a line for each port that was open, and what is to be said of it.

RFC 4180 in UTF-8. Texts are cut at `LONGEST` characters, which a spreadsheet has room for. A text that it would take
for a formula has an apostrophe in front; controls and marks that hide or reorder text are shown as their code.
"""

import csv
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO

from matcher import shown

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

HEADS = ("host", "ip", "port", "proto", "service", "product", "version", "newest_seen", "tls_expires", "note")
LONGEST = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STEP = 10_000  # rows fetched at once

_DAYS = "date_diff('second', (SELECT max(started) FROM facts), tls.not_after) / 86400.0"
_NOTE = f"""concat_ws('; ',
    CASE WHEN is_old THEN 'older than the newest seen' END,
    CASE WHEN {_DAYS} < 0 THEN 'certificate expired' WHEN {_DAYS} < 30 THEN 'certificate ends within 30 days' END,
    CASE WHEN tls.self_signed THEN 'self-signed' END,
    CASE WHEN verdict = 'softmatched' THEN 'product not recognised' END,
    CASE WHEN is_unknown THEN 'not recognised' END,
    CASE WHEN pseudo IS NOT NULL THEN 'same answer on many ports' END)"""
_ROWS = f"""SELECT coalesce(host, ''), coalesce(ip, ''), port, proto, service, coalesce(product, ''),
    coalesce(version, ''), coalesce(newest, ''),
    coalesce(strftime(make_timestamp(epoch_us(tls.not_after)), '%Y-%m-%d'), ''), {_NOTE}
FROM judged WHERE is_known OR is_unknown ORDER BY ip_bytes NULLS FIRST, address, port, proto, row"""


def tickets(connection: "DuckDBPyConnection", file: TextIO) -> None:
    """From the view `judged`, which `gather` leaves."""
    write = csv.writer(file, lineterminator="\r\n").writerow
    write(HEADS)
    for row in _rows(connection):
        write([guarded(value[: LONGEST + 1]) if isinstance(value, str) else value for value in row])


@lru_cache(1 << 16)
def guarded(value: str) -> str:
    """A text of strangers as a cell."""
    said = shown(value if len(value) <= LONGEST else value[:LONGEST] + "…")
    return f"'{said}" if value.startswith(_FORMULA) or said.startswith(_FORMULA) else said


def _rows(connection: "DuckDBPyConnection") -> Iterator[tuple[object, ...]]:
    found = connection.execute(_ROWS)
    while rows := found.fetchmany(_STEP):
        yield from rows
