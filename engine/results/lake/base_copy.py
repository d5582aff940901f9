"""Rows as lines of PostgreSQL's COPY in text form: a column each of `table.COLUMNS`, then the scan and its day.

https://www.postgresql.org/docs/current/sql-copy.html. Nested objects and `post` stay the JSON that the row has, where
what is false or empty is left out; everything else is null or zero as in the other tables. A text or JSON value of
PostgreSQL cannot hold the character NUL: each becomes U+FFFD. About 8 us a row.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import astuple

from engine.errors import InputError
from engine.results.table import COLUMNS, VERSION, Column, Kind, address_bytes

TYPES = {
    Kind.TEXT: "text",
    Kind.JSON: "jsonb",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.FLOAT: "double precision",
    Kind.BOOL: "boolean",
    Kind.TIMESTAMP: "timestamptz",
    Kind.ADDRESS: "bytea",
    Kind.TEXTS: "text[]",
    Kind.STRUCT: "jsonb",
}
TABLE = {**{column.name: TYPES[column.kind] for column in COLUMNS}, "scan": "text", "date": "date"}
"""Name and type of each column, in order."""

_NULL = "\\N"
_TAB = "\t"
_ABSENT = Raw(b"null")
_FLAGS = {True: "t", False: "f"}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\0": "\ufffd"})
_IN_ARRAY = str.maketrans({"\\": r"\\", '"': r"\""})
_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

_KINDS: dict[Kind, tuple[Any, Any]] = {
    Kind.INT32: (int, 0),
    Kind.INT64: (int, 0),
    Kind.FLOAT: (float | None, None),
    Kind.BOOL: (bool, False),
    Kind.TEXTS: (list[str] | None, None),
    Kind.JSON: (Raw, _ABSENT),
    Kind.STRUCT: (Raw, _ABSENT),
}


def _member(column: Column) -> tuple[str, Any, Any] | tuple[str, Any]:
    kind, default = _KINDS.get(column.kind, (str | None, None))
    if column.name == "schema_version":
        default = VERSION
    if column.required and default in (None, _ABSENT):
        return column.name, Raw if kind is Raw else str
    return column.name, kind, default


_read: Callable[[bytes], list[Any]] = msgspec.json.Decoder(
    msgspec.defstruct("CopyRow", [_member(column) for column in COLUMNS if not column.derived], kw_only=True, gc=False)
).decode_lines


def copy_lines(rows: bytes, scan: str) -> bytes:
    """NDJSON rows of either form, for `COPY ... FROM STDIN`. Raises InputError for lines that are no rows."""
    beside = f"\t{_text(scan)}\t"
    try:
        return "".join([_line(row, beside) for row in _read(rows)]).encode()
    except (msgspec.MsgspecError, OSError, UnicodeError) as error:
        raise InputError("rows", 0, f"cannot be read as result rows: {error}") from error


def _line(row: Any, beside: str) -> str:
    values = [write(value) for write, value in zip(_WRITERS, astuple(row), strict=True)]
    values.insert(_ADDRESS, _address(row.ip))
    return f"{_TAB.join(values)}{beside}{row.started[:10]}\n"


def _text(value: str | None) -> str:
    if value is None:
        return _NULL
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)


def _json(value: Raw) -> str:
    text = bytes(value).decode()
    if not text or text == "null":
        return _NULL
    if "\\" not in text:
        return text
    return _JSON_NUL.sub(r"\1\\ufffd", text).replace("\\", r"\\")


def _texts(values: list[str] | None) -> str:
    if values is None:
        return _NULL
    return ("{" + ",".join([f'"{value.translate(_IN_ARRAY)}"' for value in values]) + "}").translate(_ESCAPES)


def _address(ip: str) -> str:
    address = address_bytes(ip)
    return _NULL if address is None else r"\\x" + address.hex()


def _number(value: float | None) -> str:
    return _NULL if value is None else repr(value)


_WRITE: dict[Kind, Callable[[Any], str]] = {  # every other one is a text
    Kind.INT32: str,
    Kind.INT64: str,
    Kind.FLOAT: _number,
    Kind.BOOL: _FLAGS.__getitem__,
    Kind.TEXTS: _texts,
    Kind.JSON: _json,
    Kind.STRUCT: _json,
}
_WRITERS = [_WRITE.get(column.kind, _text) for column in COLUMNS if not column.derived]
_ADDRESS = [column.kind for column in COLUMNS].index(Kind.ADDRESS)
