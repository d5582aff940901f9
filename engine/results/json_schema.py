"""The JSON Schema of an NDJSON line of either form: lean, as a scan writes it, or full (`table.full_rows`).

What a lean row leaves out is null in a full one. A schema of today takes the rows of tomorrow: it forbids no fields.
"""

import typing
from enum import Enum
from typing import Any

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from engine.model import ServiceResult
from engine.results.schema import ABOUT, STATES
from engine.results.table import COLUMNS, VERSION, Column, Kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TYPES = {
    Kind.TEXT: "string",
    Kind.JSON: "object",
    Kind.INT32: "integer",
    Kind.INT64: "integer",
    Kind.FLOAT: "number",
    Kind.BOOL: "boolean",
    Kind.TIMESTAMP: "string",
    Kind.TEXTS: "array",
}
_NUMBERS = {Kind.INT32, Kind.INT64, Kind.BOOL}  # never null: a full row has 0 and false
_MOST = {"port": 65535, "conf": 10, "confidence": 1}


def result_schema() -> dict[str, Any]:
    """As draft 2020-12, with a definition for each struct of a row."""
    definitions: dict[str, Any] = {}
    _define(definitions, ServiceResult, COLUMNS)
    definitions["ServiceResult"]["properties"]["schema_version"] = {
        "type": "integer",
        "minimum": 1,
        "description": COLUMNS[-1].about,
    }
    return {
        "$schema": DIALECT,
        "$id": f"urn:probemill:result:{VERSION}",
        "title": f"A result row of probemill, version {VERSION}",
        "$ref": "#/$defs/ServiceResult",
        "$defs": definitions,
    }


def _define(definitions: dict[str, Any], struct: type[Struct], columns: tuple[Column, ...]) -> None:
    own: dict[str, Any] = {}
    definitions[struct.__name__] = {
        "type": "object",
        "properties": own,
        "required": [field.name for field in fields(struct) if field.default is NODEFAULT],
    }
    by_name = {column.name: column for column in columns}
    for field in fields(struct):
        column = by_name[field.name]
        kind = _inner(field)
        null = field.default is not NODEFAULT and column.kind not in _NUMBERS
        if column.fields:
            _define(definitions, kind, column.fields)
            reference = {"$ref": f"#/$defs/{kind.__name__}"}
            shape = {"anyOf": [reference, {"type": "null"}]} if null else reference
        else:
            shape = _shape(column, _words(field), null=null)
        own[field.name] = shape | {"description": ABOUT[struct][field.name]}


def _inner(field: FieldInfo) -> Any:
    """The type of a field without its `| None`."""
    return next(kind for kind in typing.get_args(field.type) or (field.type,) if kind is not type(None))


def _shape(column: Column, words: list[str], *, null: bool) -> dict[str, Any]:
    if words:
        return {"enum": [*words, None] if null else words}
    name = _TYPES[column.kind]
    shape: dict[str, Any] = {"type": [name, "null"] if null else name}
    if column.kind is Kind.TEXTS:
        shape["items"] = {"type": "string"}
    elif column.kind is Kind.TIMESTAMP:
        shape["format"] = "date-time"
    elif name in {"integer", "number"}:
        shape["minimum"] = 0
        if column.name in _MOST:
            shape["maximum"] = _MOST[column.name]
    return shape


def _words(field: FieldInfo) -> list[str]:
    """The closed list that a text is from; empty where there is none."""
    if field.name == "state":
        return STATES
    kind = _inner(field)
    if typing.get_origin(field.type) is typing.Literal:
        words = list(typing.get_args(field.type))
    elif isinstance(kind, type) and issubclass(kind, Enum):
        words = [word.value for word in kind]
    else:
        return []
    return [word for word in words if word]  # the empty one is left out of rows
