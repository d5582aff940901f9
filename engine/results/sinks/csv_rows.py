"""CSV after RFC 4180, in UTF-8: a header, and one record a row, at once. The columns are those of tables (table.py).

An object's fields are columns of their own, `tls.protocol`; what may hold anything, `post`, is one cell of JSON. Lists
are joined by a blank, flags are `true`, and what a row leaves out is an empty cell. Values are not altered: a text may
hold line ends, and a spreadsheet may take one that begins with `=` for a formula. About 9 us a row.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any

import msgspec

from engine.results.sinks.base import Run, Summary
from engine.results.sinks.output import Output
from engine.results.table import COLUMNS, Column, Kind

_COLUMNS = tuple(column for column in COLUMNS if not column.derived and column.name != "schema_version")

_decoder = msgspec.json.Decoder(dict[str, Any])


class CsvSink:
    """A sink as sinks/base.py describes it. How a run ended is told by its rows alone, as in NDJSON."""

    def __init__(self, output: Output, _run: Run) -> None:
        self._output = output
        self._write([HEADER])

    def write(self, blob: bytes, rows: int) -> None:
        self._write(_cells(row, _COLUMNS) for row in _decoder.decode_lines(blob))

    def close(self, summary: Summary) -> None:
        self._output.close()

    def _write(self, records: Iterable[Iterable[str]]) -> None:
        text = StringIO(newline="")
        csv.writer(text).writerows(records)
        self._output.write(text.getvalue().encode())


def _names(columns: tuple[Column, ...], before: str = "") -> Iterator[str]:
    for column in columns:
        if column.fields:
            yield from _names(column.fields, f"{before}{column.name}.")
        else:
            yield before + column.name


def _cells(row: Mapping[str, Any], columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        value = row.get(column.name)
        if column.fields:
            yield from _cells(value or {}, column.fields)
        elif value is None or value is False:
            yield ""
        elif column.kind is Kind.JSON:
            yield msgspec.json.encode(value).decode()
        elif column.kind is Kind.TEXTS:
            yield " ".join(value)
        else:
            yield "true" if value is True else str(value)


HEADER = tuple(_names(_COLUMNS))
