"""CSV with a header: zmap's, naabu's, and anybody's; what its columns mean stands in base_records.

    saddr,sport,classification,success        in any order; `saddr`, `ip` or `host` must be among them
    192.0.2.7,443,synack,1

A cell without text counts as no cell. A header that comes again, where files were joined, begins a new table. Without a
header the first column is the address, as zmap writes it, and the second its port where that is a number.
"""

import csv
import re

from engine.targets.base import Item, LineReader
from engine.targets.base_ports import PortSpec, Unreadable
from engine.targets.base_records import HOST_KEYS, read_record

_HOST_COLUMNS = frozenset({*HOST_KEYS, "host"})
_ALONE = frozenset({"saddr", "ip"})  # no host is called so
_DIGIT = re.compile(r"[0-9]")
_COLUMN = re.compile(r"[A-Za-z_][\w. -]*|")


def header(line: str) -> list[str]:
    """The columns that a line names, empty if it is no header."""
    cells = [cell.strip().strip('"').lower() for cell in line.split(",")]
    names = _HOST_COLUMNS if len(cells) > 1 else _ALONE
    return cells if not names.isdisjoint(cells) and all(map(_COLUMN.fullmatch, cells)) else []


class CsvReader(LineReader):
    """CSV, a row a line."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._columns: list[str] = []
        self._header = ""

    def read(self, line: str) -> list[Item]:
        text = line.strip()
        if not text or text.startswith("#"):
            return []
        may_be_header = not self._columns or text == self._header or not _DIGIT.search(text)  # an address has digits
        if may_be_header and (columns := header(text)):
            self._columns, self._header = columns, text
            return []
        cells = _cells(text)
        if not self._columns:
            self._columns = ["saddr", "sport"] if cells[1:2] and cells[1].isdigit() else ["saddr"]
        if len(cells) < len(self._columns):
            raise Unreadable(f"expected {len(self._columns)} columns, found {len(cells)}")
        row = dict(zip(self._columns, cells, strict=False))  # naabu's rows have cells without a column
        return read_record(self, row)


def _cells(text: str) -> list[str]:
    if '"' not in text:
        return [cell.strip() for cell in text.split(",")] if " " in text else text.split(",")
    try:
        return next(csv.reader([text], skipinitialspace=True))
    except (csv.Error, StopIteration) as error:
        raise Unreadable(f"not a row of CSV: {error}") from None
