"""The schema of a row says what a row is, and the document says the same."""

import re
import typing
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec
import pytest

from engine.model import DatabaseRef, Reason, ServiceResult, TlsFacts, Verdict
from engine.results.schema import ABOUT, COUNTS, result_schema
from engine.results.sinks import SINKS

DOCUMENT = (Path(__file__).parent.parent / "docs" / "result.md").read_text()

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
    assert set(SINKS) == set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.split("# The other forms")[1], re.MULTILINE))


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
    jsonschema = pytest.importorskip("jsonschema")
    row = msgspec.json.decode(msgspec.json.encode(FULL)) | change
    assert jsonschema.Draft202012Validator(result_schema()).is_valid(row) is (not change)
