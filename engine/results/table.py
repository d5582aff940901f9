"""A row as tables have it: named columns with types, the same for every format and engine.

Derived from `ServiceResult`, field by field and in its order, so that a new field is a new column. Beside the fields
there are `ip_bytes` behind `ip`, the address as 16 bytes that sort as addresses do, and `schema_version` at the end.
Every text, list and object that a row leaves out is null in its column; counts and flags are 0 and false instead.

A new column goes to VERSION's next number. Columns are only ever added: what reads by name goes on working.
"""

import socket
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
from msgspec import NODEFAULT, Raw, Struct
from msgspec.structs import fields

from engine.model import ServiceResult
from engine.results.schema import ABOUT, COUNTS

VERSION = 2


class Kind(Enum):
    """Of the values of a column."""

    TEXT = "text"
    JSON = "json"  # a text that holds a JSON value
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"  # 64 bits
    BOOL = "bool"
    TIMESTAMP = "timestamp"  # microseconds, UTC; RFC 3339 in NDJSON
    ADDRESS = "address"  # 16 bytes; IPv4 as ::ffff:a.b.c.d
    TEXTS = "texts"  # a list
    STRUCT = "struct"


class Column(Struct, frozen=True):
    """required: never null. fields: of a struct. derived: made for tables, and not in NDJSON."""

    name: str
    kind: Kind
    about: str
    required: bool = False
    fields: tuple["Column", ...] = ()
    derived: bool = False


_LONG = {"elapsed_ms", "bytes"}
_WRITTEN = {*COUNTS, "port", "line", "ports"}
_TIMES = {"started", "not_before", "not_after"}
_NULL = Raw(b"null")
_IPV4 = bytes(10) + b"\xff\xff"


def _columns(struct: type[Struct], *, nested: bool) -> tuple[Column, ...]:
    return tuple(_column(field, ABOUT[struct][field.name], nested=nested) for field in fields(struct))


def _column(field: msgspec.structs.FieldInfo, about: str, *, nested: bool) -> Column:
    kinds = [kind for kind in typing.get_args(field.type) or (field.type,) if kind is not type(None)]
    kind = kinds[0]
    written = field.default is NODEFAULT  # whatever it holds
    if isinstance(kind, type) and issubclass(kind, Struct):
        return Column(field.name, Kind.STRUCT, about, written and not nested, _columns(kind, nested=True))
    if field.name == "post":
        found = Kind.JSON
    elif field.name in _TIMES:
        found = Kind.TIMESTAMP
    elif typing.get_origin(field.type) is tuple:
        found = Kind.TEXTS
    elif kind is bool:
        found = Kind.BOOL
    elif kind is float:
        found = Kind.FLOAT
    elif kind is int:
        found = Kind.INT64 if field.name in _LONG else Kind.INT32
    else:
        found = Kind.TEXT
    counted = found in {Kind.BOOL, Kind.INT32, Kind.INT64}
    return Column(field.name, found, about, (written or counted) and not nested)


def _all_columns() -> tuple[Column, ...]:
    address = Column(
        "ip_bytes", Kind.ADDRESS, "`ip` as 16 bytes that sort as addresses do; IPv4 as `::ffff:a.b.c.d`.", derived=True
    )
    version = Column("schema_version", Kind.INT32, "Of this list of columns.", required=True)
    ip, *others = _columns(ServiceResult, nested=False)
    return ip, address, *others, version


COLUMNS = _all_columns()


def _row(name: str, columns: tuple[Column, ...], *, lean: bool) -> Any:
    """The struct that reads a row in either form, and writes it in full or lean."""
    own: list[Any] = []
    for column in columns:
        if column.derived or (lean and column.name == "schema_version"):
            continue
        kind: Any = _TYPES.get(column.kind, str)
        if column.fields:
            kind = _row(column.name, column.fields, lean=lean)
        if column.name == "schema_version":
            own.append((column.name, int, VERSION))
        elif column.kind is Kind.JSON:
            own.append((column.name, Raw, _NULL))
        elif column.name in _WRITTEN:  # in either form, zero or not
            own.append((column.name, int, msgspec.field(default_factory=int)))
        elif column.kind in _ZEROS:
            own.append((column.name, kind, _ZEROS[column.kind]))
        elif column.required:
            own.append((column.name, kind))
        else:
            own.append((column.name, kind | None, None))
    return msgspec.defstruct(name, own, kw_only=True, gc=False, omit_defaults=lean)


_TYPES = {Kind.INT32: int, Kind.INT64: int, Kind.FLOAT: float, Kind.BOOL: bool, Kind.TEXTS: list[str]}
_ZEROS: dict[Kind, int | bool] = {Kind.INT32: 0, Kind.INT64: 0, Kind.BOOL: False}
_STEP = 1 << 20  # bytes; rows beyond the processor's cache take twice as long

_full = msgspec.json.Decoder(_row("FullRow", COLUMNS, lean=False)).decode_lines
_lean = msgspec.json.Decoder(_row("LeanRow", COLUMNS, lean=True)).decode_lines
_lines = msgspec.json.Encoder().encode_lines


def full_rows(blob: bytes) -> bytes:
    """NDJSON lines of either form, written in full: every field in every row. Raises msgspec.MsgspecError."""
    return b"".join(_lines(_full(piece)) for piece in pieces(blob, _STEP))


def lean_rows(blob: bytes) -> bytes:
    """NDJSON lines of either form as a scan writes them: what is absent left out. Raises msgspec.MsgspecError."""
    return b"".join(_lines(map(_emptied, _lean(piece))) for piece in pieces(blob, _STEP))


def address_bytes(ip: str) -> bytes | None:
    """An address as 16 bytes, without its zone; None for none. Raises OSError for what is no address."""
    if not ip:
        return None
    if ":" in ip:
        return socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
    return _IPV4 + socket.inet_pton(socket.AF_INET, ip)


def pieces(blob: bytes, size: int) -> Iterator[bytes]:
    """Whole lines, `size` bytes at a time and the rest of the line."""
    start = 0
    while start < len(blob):
        end = blob.find(b"\n", start + size) + 1 or len(blob)
        yield blob[start:end]
        start = end


def _emptied(row: Any) -> Any:
    if bytes(row.post) == b"null":
        row.post = _NULL  # the default itself, which is left out
    return row
