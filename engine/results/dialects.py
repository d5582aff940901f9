"""The columns of a row in the words of other engines: what `probemill schema --as NAME` prints.

Made from `table.COLUMNS` alone, so that none of those engines has to be there. The texts describe a row as tables have
it, `ip_bytes` among its columns, and read NDJSON, too: docs/result.md says how.
"""

import json
from collections.abc import Callable
from typing import Any

from engine.results.json_schema import result_schema
from engine.results.table import COLUMNS, VERSION, Column, Kind

TABLE = "services"

_ARROW = {
    Kind.TEXT: "string",
    Kind.JSON: "string",
    Kind.INT32: "int32",
    Kind.INT64: "int64",
    Kind.FLOAT: "double",
    Kind.BOOL: "bool",
    Kind.TIMESTAMP: "timestamp[us, tz=UTC]",
    Kind.ADDRESS: "binary",
    Kind.TEXTS: "list<item: string>",
}
_DUCKDB = {
    Kind.TEXT: "VARCHAR",
    Kind.JSON: "VARCHAR",
    Kind.INT32: "INTEGER",
    Kind.INT64: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.BOOL: "BOOLEAN",
    Kind.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    Kind.ADDRESS: "BLOB",
    Kind.TEXTS: "VARCHAR[]",
}
_POLARS = {
    Kind.TEXT: "pl.String",
    Kind.JSON: "pl.String",
    Kind.INT32: "pl.Int32",
    Kind.INT64: "pl.Int64",
    Kind.FLOAT: "pl.Float64",
    Kind.BOOL: "pl.Boolean",
    Kind.TIMESTAMP: 'pl.Datetime("us", "UTC")',
    Kind.ADDRESS: "pl.Binary",
    Kind.TEXTS: "pl.List(pl.String)",
}
_SPARK = {
    Kind.TEXT: "STRING",
    Kind.JSON: "STRING",
    Kind.INT32: "INT",
    Kind.INT64: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.BOOL: "BOOLEAN",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.ADDRESS: "BINARY",
    Kind.TEXTS: "ARRAY<STRING>",
}
_BIGQUERY = {
    Kind.TEXT: "STRING",
    Kind.JSON: "JSON",
    Kind.INT32: "INTEGER",
    Kind.INT64: "INTEGER",
    Kind.FLOAT: "FLOAT",
    Kind.BOOL: "BOOLEAN",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.ADDRESS: "BYTES",
    Kind.TEXTS: "STRING",  # and REPEATED
    Kind.STRUCT: "RECORD",
}
_CLICKHOUSE = {
    Kind.TEXT: "String",
    Kind.JSON: "String",
    Kind.INT32: "Int32",
    Kind.INT64: "Int64",
    Kind.FLOAT: "Float64",
    Kind.BOOL: "Bool",
    Kind.TIMESTAMP: "DateTime64(6, 'UTC')",
    Kind.ADDRESS: "FixedString(16)",
    Kind.TEXTS: "Array(String)",
}
LEFT_OUT = {"conf": 0, "schema_version": VERSION}
"""What lean rows may leave out though its column is never null, and what it is then."""


def json_schema() -> str:
    """The JSON Schema of an NDJSON line of either form."""
    return json.dumps(result_schema(), indent=2)


def arrow() -> str:
    """One line a column, as pyarrow shows fields."""
    return "\n".join(f"{c.name}: {_arrow(c)}{' not null' * c.required}" for c in COLUMNS)


def _arrow(column: Column) -> str:
    if column.fields:
        return f"struct<{', '.join(f'{field.name}: {_arrow(field)}' for field in column.fields)}>"
    return _ARROW[column.kind]


def polars() -> str:
    """A Python module that defines SERVICES, a `pl.Schema`."""
    lines = (f'    "{column.name}": {_polars(column)},' for column in COLUMNS)
    return "\n".join(["import polars as pl", "", "SERVICES = pl.Schema({", *lines, "})"])


def _polars(column: Column) -> str:
    if column.fields:
        return "pl.Struct({" + ", ".join(f'"{field.name}": {_polars(field)}' for field in column.fields) + "})"
    return _POLARS[column.kind]


def duckdb() -> str:
    """SQL: a table `services`, and `read_services(path)`, a table function that reads NDJSON with the same columns."""
    columns = (f"    {column.name} {duckdb_type(column)}{' NOT NULL' * column.required}" for column in COLUMNS)
    comments = (f"COMMENT ON COLUMN {TABLE}.{column.name} IS {_doubled(column.about)};" for column in COLUMNS)
    read = (f"        {column.name}: {_doubled(duckdb_type(column))}" for column in COLUMNS)
    filled = (f"coalesce({name}, {value}) AS {name}" for name, value in LEFT_OUT.items())
    return "\n".join(
        [
            *(f"CREATE TABLE {TABLE} (", ",\n".join(columns), ");", *comments, ""),
            f"-- INSERT INTO {TABLE} BY NAME FROM read_{TABLE}('results.ndjson');",
            f"CREATE MACRO read_{TABLE}(path) AS TABLE",
            f"    SELECT * REPLACE ({', '.join(filled)})",
            *("    FROM read_json(path, format = 'newline_delimited', columns = {", ",\n".join(read), "    });"),
        ]
    )


def duckdb_type(column: Column) -> str:
    if column.fields:
        return f"STRUCT({', '.join(f'{field.name} {duckdb_type(field)}' for field in column.fields)})"
    return _DUCKDB[column.kind]


def spark() -> str:
    """Columns in Spark's DDL, for `spark.read.schema` and between the parentheses of CREATE TABLE."""
    return ",\n".join(
        f"{column.name} {_spark(column)}{' NOT NULL' * column.required} COMMENT {_escaped(column.about)}"
        for column in COLUMNS
    )


def _spark(column: Column) -> str:
    if column.fields:
        return f"STRUCT<{', '.join(f'{field.name}: {_spark(field)}' for field in column.fields)}>"
    return _SPARK[column.kind]


def bigquery() -> str:
    """The JSON list that `bq load` and `bq mk` take as a schema."""
    return json.dumps([_bigquery(column) for column in COLUMNS], indent=2)


def _bigquery(column: Column) -> dict[str, Any]:
    required = column.required and column.name not in LEFT_OUT
    mode = "REPEATED" if column.kind is Kind.TEXTS else "REQUIRED" if required else "NULLABLE"
    field = {"name": column.name, "type": _BIGQUERY[column.kind], "mode": mode, "description": column.about}
    return field | ({"fields": [_bigquery(field) for field in column.fields]} if column.fields else {})


def clickhouse() -> str:
    """SQL: a table `services`, ordered by address."""
    columns = (
        f"    {column.name} {_clickhouse(column)}{_default(column)} COMMENT {_escaped(column.about)}"
        for column in COLUMNS
    )
    ending = ") ENGINE = MergeTree ORDER BY (ip_bytes, port, proto);"
    return "\n".join([f"CREATE TABLE {TABLE} (", ",\n".join(columns), ending])


def _clickhouse(column: Column) -> str:
    """A tuple, an array and what the table is ordered by are never null there: all fields of the tuple are, the others
    are empty.
    """
    if column.fields:
        return f"Tuple({', '.join(f'{field.name} {_clickhouse(field)}' for field in column.fields)})"
    kind = _CLICKHOUSE[column.kind]
    return kind if column.required or column.kind in {Kind.TEXTS, Kind.ADDRESS} else f"Nullable({kind})"


def _default(column: Column) -> str:
    """Of what NDJSON rows do not have, or leave out though it is never null."""
    if column.kind is Kind.ADDRESS:
        return " DEFAULT reinterpretAsFixedString(toIPv6OrDefault(ip))"
    return f" DEFAULT {LEFT_OUT[column.name]}" if column.name in LEFT_OUT else ""


def _doubled(text: str) -> str:
    """As a literal of standard SQL."""
    return "'" + text.replace("'", "''") + "'"


def _escaped(text: str) -> str:
    """As a literal of a dialect with backslashes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


DIALECTS: dict[str, Callable[[], str]] = {
    "json-schema": json_schema,
    "arrow": arrow,
    "duckdb": duckdb,
    "polars": polars,
    "spark": spark,
    "bigquery": bigquery,
    "clickhouse": clickhouse,
}
"""By the name that `--as` takes."""
