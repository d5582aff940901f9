"""The schema of a row says what a row is, and the document says the same."""

import re
import typing
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any

import jsonschema
import msgspec
import pytest
from rows import LEAST, MOST

from engine.model import DatabaseRef, Reason, ServiceResult, TlsFacts, Verdict
from engine.results.json_schema import result_schema
from engine.results.schema import ABOUT, COUNTS
from engine.results.sinks import SINKS
from engine.results.table import COLUMNS, VERSION, full_rows, lean_rows

DOCUMENT = (Path(__file__).parent.parent / "docs" / "result.md").read_text()

VALIDATOR = jsonschema.Draft202012Validator(result_schema())

FULL = ServiceResult(
    ip="192.0.2.1",
    port=443,
    proto="tcp",
    verdict=Verdict.INCOMPLETE,
    reason=Reason.TLS,
    tls=TlsFacts(protocol="TLSv1.3", names=("a.example",)),
    post={"title": "x", "numbers": [1, 2.5, None]},
    database=DatabaseRef("builtin", "00"),
    started="2026-11-21T06:38:13.000Z",
)


def structs_within(struct: type[msgspec.Struct]) -> set[type[msgspec.Struct]]:
    """`struct` and every struct that stands in its fields."""
    found = {struct}
    for field in msgspec.structs.fields(struct):
        kinds = typing.get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                found |= structs_within(kind)
    return found


def test_every_struct_of_a_row_is_explained() -> None:
    """A new struct in a row needs its sentences."""
    assert set(ABOUT) == structs_within(ServiceResult)


@pytest.mark.parametrize("struct", ABOUT)
def test_every_field_is_explained(struct: type[msgspec.Struct]) -> None:
    """In the schema, and in the document, with the same words and in the same order."""
    names = [field.encode_name for field in msgspec.structs.fields(struct)]
    properties = result_schema()["$defs"][struct.__name__]["properties"]
    assert {name: properties[name]["description"] for name in names} == ABOUT[struct]
    texts = {name: re.escape(text.replace("|", "\\|")) for name, text in ABOUT[struct].items()}  # as Markdown wants it
    rows = [rf"\| `{name}` \| [^|\n]* \| {texts[name]} \|\n" for name in names]
    assert re.search("".join(rows), DOCUMENT)


def test_every_reason_and_verdict_is_explained() -> None:
    """The words that a row may use stand in the document."""
    words = {word.value for word in (*Reason, *Verdict)}
    assert words <= set(re.findall(r"`(\w+)`", DOCUMENT))


def test_a_count_of_nothing_is_written() -> None:
    """An absent zero would be missing in every average."""
    written = msgspec.json.decode(msgspec.json.encode(FULL))
    assert [written[name] for name in COUNTS] == [0, 0, 0]


def test_every_form_is_explained() -> None:
    """Whoever adds a form of output says what it is."""
    assert set(SINKS) | {"parquet"} == set(
        re.findall(r"^\| `(\w+)` \|", DOCUMENT.split("# The other forms")[1], re.MULTILINE)
    )


def test_required_fields_are_marked_in_the_document() -> None:
    """What is always there says so, and nothing else does."""
    own = DOCUMENT.split("## `evidence`")[0]
    assert re.findall(r"\| `(\w+)` \| [^|]*always there", own) == result_schema()["$defs"]["ServiceResult"]["required"]


def test_the_example_of_the_document_is_a_row() -> None:
    """Broken into lines, but a row."""
    example = re.search(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    row = msgspec.json.decode(example[1], type=ServiceResult)
    assert (row.name, row.evidence and row.evidence.probe) == ("ssh", "NULL")


@pytest.mark.parametrize("change", [{}, {"port": "22"}, {"verdict": "maybe"}, {"reason": 7}], ids=str)
def test_rows_are_valid(change: dict[str, Any]) -> None:
    """What we write, the schema accepts; what we never write, it refuses."""
    row = msgspec.json.decode(msgspec.json.encode(FULL)) | change
    assert VALIDATOR.is_valid(row) is (not change)


@pytest.mark.parametrize("form", [full_rows, lean_rows])
@pytest.mark.parametrize("row", [LEAST, MOST, FULL], ids=["least", "most", "full"])
def test_rows_of_either_form_are_valid(form: Callable[[bytes], bytes], row: ServiceResult) -> None:
    """One schema for both."""
    VALIDATOR.validate(msgspec.json.decode(form(row.to_json().encode() + b"\n")))


WRONG = [
    *({"port": value} for value in (None, -1, 65536, 22.5)),
    *({"conf": value} for value in (None, 11)),
    *({"elapsed_ms": value} for value in (None, -1)),
    *({"started": value} for value in (None, 1700000000)),
    *({"database": value} for value in (None, "builtin", {"name": "builtin"})),
    *({"evidence": value} for value in ({"probe": "NULL"}, {"probe": None, "line": 1}, {"probe": "", "line": -1})),
    *({"tls": value} for value in (True, {"names": "a"}, {"names": [1]}, {"not_after": 1}, {"self_signed": None})),
    *({"pseudo": value} for value in (40, {"ports": 40}, {"ports": "40", "hash": "x"})),
    *({"proto": value} for value in (None, "sctp")),
    *({"cpe": "cpe:/a:x"}, {"cpe": [None]}, {"post": []}, {"post": "{}"}, {"ip": None}, {"schema_version": 0}),
    *({"state": ""}, {"state": "ajar"}, {"method": ""}, {"tunnel": "tls"}, {"reason": "bored"}, {"verdict": None}),
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_is_no_row_is_not_valid(change: dict[str, Any]) -> None:
    """In either form."""
    for form in (full_rows, lean_rows):
        row = msgspec.json.decode(form(MOST.to_json().encode() + b"\n"))
        assert not VALIDATOR.is_valid(row | change)


@pytest.mark.parametrize("name", result_schema()["$defs"]["ServiceResult"]["required"])
def test_what_is_always_there_may_not_be_missing(name: str) -> None:
    """And nothing else is asked for: the least row has just that."""
    row = msgspec.json.decode(LEAST.to_json())
    assert VALIDATOR.is_valid(row)
    del row[name]
    assert not VALIDATOR.is_valid(row)


def test_a_row_of_tomorrow_is_valid() -> None:
    """Fields are only ever added, within structs, too."""
    row = msgspec.json.decode(MOST.to_json())
    assert VALIDATOR.is_valid(row | {"new": {"x": 1}, "tls": row["tls"] | {"new": 1}, "schema_version": VERSION + 1})


def test_the_schema_agrees_with_the_columns() -> None:
    """In names, in what is a time, and in what is null where a full row has nothing to say."""
    document = result_schema()
    definitions = document["$defs"]
    full = msgspec.json.decode(full_rows(LEAST.to_json().encode() + b"\n"))
    own = definitions["ServiceResult"]["properties"]
    assert list(own) == [column.name for column in COLUMNS if not column.derived]
    for name, shape in own.items():
        alone = jsonschema.Draft202012Validator(shape | {"$defs": definitions})
        assert alone.is_valid(None) is (full[name] is None), name
    shapes = [item for struct in definitions.values() for item in struct["properties"].items()]
    assert {name for name, shape in shapes if "format" in shape} == {"started", "not_before", "not_after"}
    assert document["$id"].endswith(f":{VERSION}")
    assert document["title"].endswith(f" {VERSION}")
