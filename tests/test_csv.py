"""Rows as CSV: the columns of every table, a record a row, values as they are."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_packed import unpack
from test_sinks import ALL, RUN, SF, SSH, STOPPED, SUMMARY, blob, row

from engine.model import Also, DatabaseRef, Evidence, Pseudo, Reason, ServiceResult, TlsFacts, Tunnel, Verdict
from engine.results.sinks import Output, open_sink
from engine.results.sinks.csv_rows import HEADER, CsvSink
from engine.targets import target_reader

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "result.md"
MOST = row(
    "2001:db8::1",
    host="a.example",
    name="http",
    product='=1+1,"x"\r\ny\t',
    version="1",
    extrainfo="é€😀",
    hostname="h",
    ostype="Linux",
    devicetype="router",
    cpe=("cpe:/a:x:y", "cpe:/o:z"),
    tunnel=Tunnel.SSL,
    verdict=Verdict.INCOMPLETE,
    reason=Reason.TLS,
    evidence=Evidence("GetRequest", 5, True, "x", "y", "z"),
    confidence=0.5,
    reasons=("specific", "untested"),
    also=Also(name="http", product="p", version="v", line=7, database="builtin", recog="r"),
    fingerprint=SF,
    tls=TlsFacts(
        *("TLSv1.3", "x", "h2", "CN=a", "CN=b", ("a", "b"), "1950-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "00"),
        *("rsa 2048", True, ("00 CN=b", "01 CN=c"), ("expired", "weak-key"), "t130200_1301_0", ("0_1_2", "1_2_3")),
    ),
    post={"http": {"title": 'a,"b"', "status": 200}, "n": [1, 2.5, None]},
    pseudo=Pseudo(40, "ff"),
    database=DatabaseRef("builtin", "00"),
    connections=3,
    bytes=1 << 40,
)


def written(path: Path, rows: list[ServiceResult]) -> bytes:
    sink = open_sink("csv", str(path), RUN)
    for each in rows:
        sink.write(blob([each]), 1)
    sink.close(SUMMARY)
    return path.read_bytes()


def records(text: bytes) -> list[dict[str, str]]:
    """As any reader of CSV sees it."""
    return list(csv.DictReader(StringIO(text.decode(), newline=""), strict=True))


def flattened(row: dict[str, Any], before: str = "") -> dict[str, str]:
    """What the cells that are not empty have to hold, made from the row's NDJSON."""
    cells = {}
    for name, value in row.items():
        if isinstance(value, dict) and name != "post":
            cells |= flattened(value, f"{before}{name}.")
        elif isinstance(value, list):
            cells[before + name] = " ".join(value)
        elif value is True:
            cells[before + name] = "true"
        else:
            cells[before + name] = json.loads(json.dumps(value)) if name == "post" else str(value)
    return cells


@pytest.mark.parametrize("each", [*ALL, MOST], ids=lambda each: f"{each.port}/{each.proto}")
def test_a_row_has_its_fields_in_their_columns(tmp_path: Path, each: ServiceResult) -> None:
    """Those that are absent are empty, and nothing else is."""
    (record,) = records(written(tmp_path / "rows.csv", [each]))
    filled: dict[str, Any] = {name: text for name, text in record.items() if text}
    if each.post:
        filled["post"] = json.loads(filled["post"])
    assert filled == flattened(json.loads(each.to_json()))
    assert each is not MOST or not [name for name, text in record.items() if not text and name != "state"]


def test_the_columns_are_always_the_same(tmp_path: Path) -> None:
    """One header, first of all, whatever the rows hold and if there are none."""
    whole = written(tmp_path / "rows.csv", [*ALL, MOST])
    header = written(tmp_path / "none.csv", [])
    assert header.count(b"\r\n") == 1
    assert whole.startswith(header)
    assert whole.count(header) == 1
    assert tuple(header.decode().rstrip().split(",")) == HEADER
    assert len(set(HEADER)) == len(HEADER)
    assert HEADER[:4] == ("ip", "port", "proto", "host")
    assert {"evidence.line", "tls.names", "post", "pseudo.ports", "database.sha256", "bytes"} <= set(HEADER)


def test_columns_stand_in_the_order_of_the_schema() -> None:
    """Every field that a row may have is a column, so a new field cannot be forgotten."""
    schema = msgspec.json.schema(ServiceResult)["$defs"]

    def names(struct: str, before: str = "") -> list[str]:
        found = []
        for name, said in schema[struct]["properties"].items():
            kinds = [said, *said.get("anyOf", [])]
            inner = [kind["$ref"].rpartition("/")[2] for kind in kinds if "$ref" in kind]
            inner = [name for name in inner if "properties" in schema[name]]
            found += names(inner[0], f"{before}{name}.") if inner else [before + name]
        return found

    assert list(HEADER) == names("ServiceResult")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_no_text_can_break_out_of_its_cell(texts: list[str]) -> None:
    """Quotes, commas, lone carriage returns and line ends of any kind are in the cell, unaltered."""

    class Memory(Output):
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> None:
            self.data += data

    memory = Memory()
    CsvSink(memory, RUN).write(blob([row(extrainfo=text, product=text[::-1]) for text in texts]), len(texts))
    read = records(memory.data)
    assert [(record["extrainfo"], record["product"]) for record in read] == [(text, text[::-1]) for text in texts]
    assert all(None not in record and record["bytes"] == "0" for record in read)


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """And a run that was stopped says so in its rows, as NDJSON does: CSV has no comments."""
    path = tmp_path / "rows.csv"
    sink = open_sink("csv", str(path), RUN)
    sink.write(blob([SSH]), 1)
    before = path.read_bytes()
    assert [record["product"] for record in records(before)] == ["OpenSSH"]
    sink.close(STOPPED)
    assert path.read_bytes() == before


def test_packed(tmp_path: Path) -> None:
    plain = written(tmp_path / "rows.csv", ALL)
    written(tmp_path / "rows.csv.zst", ALL)
    assert unpack(tmp_path / "rows.csv.zst") == plain


def test_rows_of_one_line_are_targets_again(tmp_path: Path) -> None:
    """`scan -i rows.csv` scans what was found; a fingerprint, which has line ends, is for readers of CSV alone."""
    path = tmp_path / "rows.csv"
    rows = [each for each in ALL if not each.fingerprint]
    reader = target_reader(str(path), "auto")
    items: list[Any] = [*reader.feed(written(path, rows)), *reader.close()]
    assert [(item.host, item.port, item.proto) for item in items] == [(each.ip, each.port, each.proto) for each in rows]


def test_the_columns_are_documented() -> None:
    assert ",".join(HEADER) in DOCUMENT.read_text(encoding="utf-8").replace("\n", "")
