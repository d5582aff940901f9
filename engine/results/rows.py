"""Rows on their way from one form to another: lines of text, or a table, until somebody needs the other.

Tables are in tables.py, which needs the extra `lake`; what is said here needs nothing.
"""

from typing import Any, Protocol

from msgspec import Struct


class Rows(Protocol):
    """table: the rows as an Arrow RecordBatch with the columns of SCHEMA, or None where they are text."""

    @property
    def count(self) -> int: ...

    @property
    def table(self) -> Any: ...

    def lines(self) -> bytes:
        """Lean NDJSON. Raises InputError where a row of a table cannot be written so."""

    def cut(self, count: int) -> tuple["Rows", "Rows"]:
        """The first `count` rows, and the others."""


class TextRows(Struct, frozen=True):
    """Lean NDJSON lines, each with its end."""

    text: bytes
    count: int

    @property
    def table(self) -> None:
        return None

    def lines(self) -> bytes:
        return self.text

    def cut(self, count: int) -> tuple[Rows, Rows]:
        at = 0
        for _ in range(count):
            at = self.text.index(b"\n", at) + 1
        return TextRows(self.text[:at], count), TextRows(self.text[at:], self.count - count)


class TakesText(Protocol):
    def write(self, lines: bytes, /) -> None: ...


def hand_over(rows: Rows, destination: TakesText) -> None:
    """As a table, where that is what there is and what the destination takes by `write_table`; else as text."""
    take = getattr(destination, "write_table", None)
    if rows.table is not None and take is not None:
        take(rows.table)
    else:
        destination.write(rows.lines())
