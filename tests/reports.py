"""What the tests of reports share: rows as files, reports of them, and pages read back."""

import base64
import gzip
import json
import re
from array import array
from collections.abc import Iterable
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path
from typing import Any

from engine.insight.report.making import ROWS, make_report
from engine.insight.report.told import Report
from tests.told import Told

Row = dict[str, Any]

LEAST: Row = {
    "proto": "tcp",
    "verdict": "hardmatched",
    "state": "open",
    "database": {"name": "builtin", "sha256": "00ff"},
    "started": "2026-11-20T06:00:00.000Z",
    "elapsed_ms": 12,
    "connections": 1,
    "bytes": 9,
}
_WIDTHS = {1: "B", 2: "H", 4: "I", 8: "d"}


def row(ip: str, port: int, **fields: Any) -> Row:
    return LEAST | {"ip": ip, "port": port} | fields


def written(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reported(folder: Path, rows: Iterable[Row], *outputs: str, most: int = ROWS) -> Report:
    """outputs: names of files in the folder."""
    path = written(folder / "rows.ndjson", rows)
    return make_report([str(path)], [str(folder / name) for name in outputs], most, "", Told())


class Page(HTMLParser):
    """A page's text, its tables as rows of cells, its scripts, and every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._within: list[str] = []
        self._words: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._within:
            attributes, said = self.scripts[-1]
            self.scripts[-1] = attributes, said + data
            return
        if "style" in self._within:
            return
        self.text += data
        if {"td", "th"} & set(self._within):
            self.tables[-1][-1][-1] += data

    def script(self, **wanted: str) -> str:
        (said,) = [said for attributes, said in self.scripts if wanted.items() <= attributes.items()]
        return said

    def table(self, *heads: str) -> list[list[str]]:
        """The rows of the first table with these heads."""
        return next(table[1:] for table in self.tables if table[0] == list(heads))

    def tiles(self) -> dict[str, int]:
        block = self.text[: self.text.index("What was scanned", self.text.index("All rows"))]
        return {
            name.strip(): int(number.replace(",", "")) for number, name in re.findall(r"([\d,]+)([a-z][a-z ,]+)", block)
        }

    def rows(self) -> list[Row]:
        layout = json.loads(self.script(id="layout"))
        columns = {field["name"]: self._column(field, layout["rows"]) for field in layout["fields"]}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def words(self, name: str) -> list[str]:
        """The distinct texts of a field, in their order."""
        if name not in self._words:
            self._words[name] = json.loads(self._part(f"{name}-words"))
        return self._words[name]

    def _column(self, field: Row, rows: int) -> list[Any]:
        numbers = [0] * rows
        if field["width"]:
            numbers = array(_WIDTHS[field["width"]], self._part(field["numbers"])).tolist()
            numbers = list(accumulate(numbers)) if field["rising"] else numbers
        numbers = [number + field["least"] for number in numbers]
        return [self.words(field["name"])[n] for n in numbers] if "words" in field else numbers

    def _part(self, name: str) -> bytes:
        return gzip.decompress(base64.b64decode(self.script(**{"data-part": name})))


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
