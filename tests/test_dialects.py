"""One list of columns: `ServiceResult`, full rows, Arrow and every dialect agree, and it only ever grows."""

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner
from rows import LEAST, LINES

from engine.cli.main import cli
from engine.model import ServiceResult
from engine.results import dialects
from engine.results.json_schema import result_schema
from engine.results.table import COLUMNS, VERSION, Column, full_rows

# The columns of every version: new ones get a new number, and the entry of an old number stays as it is.
# `!` is never null.
VERSIONS = {
    1: """
        ip text!, ip_bytes address, port int32!, proto text!, host text, state text, name text, product text,
        version text, extrainfo text, hostname text, ostype text, devicetype text, cpe texts, tunnel text, method text,
        conf int32!, verdict text!, reason text,
        evidence (probe text, line int32, soft bool, sent text, file text, recog text), fingerprint text,
        tls (protocol text, cipher text, alpn text, subject text, issuer text, names texts, not_before timestamp,
            not_after timestamp, sha256 text, key text, self_signed bool),
        post json, pseudo (ports int32, hash text), database! (name text, sha256 text), started timestamp!,
        elapsed_ms int64!, connections int32!, bytes int64!, schema_version int32!
    """,
    2: """
        ip text!, ip_bytes address, port int32!, proto text!, host text, state text, name text, product text,
        version text, extrainfo text, hostname text, ostype text, devicetype text, cpe texts, tunnel text, method text,
        conf int32!, verdict text!, reason text,
        evidence (probe text, line int32, soft bool, sent text, file text, recog text),
        confidence float, reasons texts,
        also (name text, product text, version text, line int32, database text, recog text), fingerprint text,
        tls (protocol text, cipher text, alpn text, subject text, issuer text, names texts, not_before timestamp,
            not_after timestamp, sha256 text, key text, self_signed bool, chain texts, notes texts,
            ja4s text, ja4x texts),
        post json, pseudo (ports int32, hash text), database! (name text, sha256 text), started timestamp!,
        elapsed_ms int64!, connections int32!, bytes int64!, schema_version int32!
    """,
}

Fields = list[tuple[str, Any]]  # name and kind, or name and the fields of a struct


def told(columns: Iterable[Column]) -> str:
    """Columns as VERSIONS has them."""
    return ", ".join(
        f"{c.name}{'!' * c.required} ({told(c.fields)})" if c.fields else f"{c.name} {c.kind.value}{'!' * c.required}"
        for c in columns
    )


def split(text: str) -> list[str]:
    """At the commas that stand in no brackets and no quotes."""
    parts, depth, quoted = [""], 0, False
    for sign in text:
        quoted ^= sign == "'"
        depth += not quoted and ((sign in "([{<") - (sign in ")]}>"))
        if sign == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def paths(version: str) -> set[str]:
    """Every column of a version with its kind, those within structs, too."""
    found = set()
    for entry in split(version):
        name, _, kind = entry.partition(" ")
        inner = kind.startswith("(") and kind[1:-1]
        found |= {f"{name}.{path}" for path in paths(inner)} if inner else {f"{name} {kind}"}
    return found


def test_new_columns_get_a_new_version() -> None:
    """Whoever changes a field of a row gives VERSION its next number and writes down here what that has."""
    assert max(VERSIONS) == VERSION
    assert split(" ".join(VERSIONS[VERSION].split())) == split(told(COLUMNS))


def test_columns_are_only_ever_added() -> None:
    """None goes, none changes its kind."""
    for older, newer in pairwise(VERSIONS[number] for number in sorted(VERSIONS)):
        assert paths(" ".join(older.split())) <= paths(" ".join(newer.split()))


def shape(columns: Iterable[Column]) -> Fields:
    return [(c.name, shape(c.fields) if c.fields else c.kind.value) for c in columns]


def flat(fields: Fields) -> Fields:
    """As engines know them: JSON is a text."""
    return [(name, flat(kind) if isinstance(kind, list) else kind.replace("json", "text")) for name, kind in fields]


WIRE = {
    "text": str,
    "int32": int,
    "int64": int,
    "float": float,
    "bool": bool,
    "timestamp": str,
    "texts": list,
    "json": dict,
}


def test_the_fields_of_a_row_are_the_columns() -> None:
    """In the row's order, with the address's bytes behind the address and the version at the end."""
    names = [field.name for field in msgspec.structs.fields(ServiceResult)]
    assert [column.name for column in COLUMNS] == [names[0], "ip_bytes", *names[1:], "schema_version"]


def test_full_rows_have_every_column() -> None:
    """In order, and with values of its kind."""

    def agree(row: dict[str, Any], fields: Fields) -> None:
        assert list(row) == [name for name, _ in fields]
        for (name, kind), value in zip(fields, row.values(), strict=True):
            if isinstance(kind, list):
                agree(value, kind)
            else:
                assert type(value) is WIRE[kind], name

    least, most, _ = map(json.loads, full_rows(LINES).splitlines())
    own = [column for column in COLUMNS if not column.derived]
    agree(most, shape(own))
    assert list(least) == [column.name for column in own]
    assert {name for name, value in least.items() if value is None} == {c.name for c in own if not c.required}


def test_what_lean_rows_leave_out_of_columns_that_are_never_null() -> None:
    """The dialects fill it in."""
    required = {column.name for column in COLUMNS if column.required}
    always = set(result_schema()["$defs"]["ServiceResult"]["required"])
    assert required - always == set(dialects.LEFT_OUT)
    full = json.loads(full_rows(LEAST.to_json().encode() + b"\n"))
    assert {name: full[name] for name in dialects.LEFT_OUT} == dialects.LEFT_OUT


class Dialect(NamedTuple):
    """How a dialect writes columns: an entry of each, its words for kinds in KINDS' order, and structs."""

    entries: Callable[[str], list[str]]
    words: list[str]
    opening: str
    closing: str

    def read(self, entries: list[str]) -> Fields:
        parted = (entry.partition(" ") for entry in entries)
        return [(name.strip('":'), self.kind(kind)) for name, _, kind in parted]

    def kind(self, word: str) -> Any:
        if word.startswith(self.opening):
            return self.read(split(word[len(self.opening) : -len(self.closing)]))
        return KINDS[self.words.index(re.sub(r"^Nullable\((.*)\)$", r"\1", word))]


KINDS = ["text", "int32", "int64", "float", "bool", "timestamp", "address", "texts"]
DIALECTS = {
    "arrow": Dialect(
        str.splitlines,
        ["string", "int32", "int64", "double", "bool", "timestamp[us, tz=UTC]", "binary", "list<item: string>"],
        *("struct<", ">"),
    ),
    "duckdb": Dialect(
        lambda text: text.partition("(\n")[2].partition("\n)")[0].split(",\n"),
        ["VARCHAR", "INTEGER", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP WITH TIME ZONE", "BLOB", "VARCHAR[]"],
        *("STRUCT(", ")"),
    ),
    "polars": Dialect(
        lambda text: [line.rstrip(",") for line in text.splitlines()[3:-1]],
        [
            *("pl.String", "pl.Int32", "pl.Int64", "pl.Float64", "pl.Boolean", 'pl.Datetime("us", "UTC")', "pl.Binary"),
            "pl.List(pl.String)",
        ],
        *("pl.Struct({", "})"),
    ),
    "spark": Dialect(
        lambda text: text.split(",\n"),
        ["STRING", "INT", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "BINARY", "ARRAY<STRING>"],
        *("STRUCT<", ">"),
    ),
    "clickhouse": Dialect(
        lambda text: text.partition("(\n")[2].partition("\n)")[0].split(",\n"),
        ["String", "Int32", "Int64", "Float64", "Bool", "DateTime64(6, 'UTC')", "FixedString(16)", "Array(String)"],
        *("Tuple(", ")"),
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_has_the_columns(name: str) -> None:
    """Read back: names, kinds, and what is never null."""
    dialect = DIALECTS[name]
    entries = [entry.strip() for entry in dialect.entries(dialects.DIALECTS[name]())]
    bare = [re.sub(r" (NOT NULL|not null|COMMENT '|DEFAULT ).*", "", entry) for entry in entries]
    assert dialect.read(bare) == flat(shape(COLUMNS))
    marked = {column.name for column, entry in zip(COLUMNS, entries, strict=True) if "not null" in entry.lower()}
    assert marked == {column.name for column in COLUMNS if column.required and name not in {"polars", "clickhouse"}}


def test_bigquery_has_the_columns() -> None:
    """All integers have 64 bits there, and JSON is a type."""
    words = {
        "STRING": "text",
        "INTEGER": "int",
        "FLOAT": "float",
        "BOOLEAN": "bool",
        "TIMESTAMP": "timestamp",
        "BYTES": "address",
    }

    def kinds(fields: list[dict[str, Any]]) -> Fields:
        return [
            (
                field["name"],
                kinds(field["fields"])
                if field["type"] == "RECORD"
                else "texts"
                if field["mode"] == "REPEATED"
                else (words | {"JSON": "json"})[field["type"]],
            )
            for field in fields
        ]

    def wide(fields: Fields) -> Fields:
        return [(name, wide(kind) if isinstance(kind, list) else re.sub(r"\d+$", "", kind)) for name, kind in fields]

    assert kinds(json.loads(dialects.bigquery())) == wide(shape(COLUMNS))


@pytest.mark.parametrize("name", dialects.DIALECTS)
def test_the_command_prints_it(name: str) -> None:
    """And the JSON Schema where nothing else is asked for."""
    printed = CliRunner().invoke(cli, ["schema", "--as", name])
    assert (printed.exit_code, printed.output) == (0, dialects.DIALECTS[name]() + "\n")
    assert json.loads(CliRunner().invoke(cli, ["schema"]).output) == result_schema()
