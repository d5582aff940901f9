"""Reports of rows that strangers have written for us: their texts stay texts, in every form."""

import csv
import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.insight.report.markdown import WIDTH, code
from engine.insight.report.markup import Html, lines, script_json, tag, text
from engine.insight.report.tickets import guarded
from tests.reports import Row, page_of, reported, row

EVIL = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</style><link rel=stylesheet href=//e.example/x>",
    "\u202egnp.exe",
    "\u0645\u0631\u062d\u0628\u0627 \u2066x",
    "a\u2028b\u2029c\nd\re",
    "\x1b]0;title\x07\x1b[31mred",
    "nul\0nul",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "`code` | [x](http://e.example) @everyone #1 ![](x) ``",
    "| --- | <b>",
    "{{script}}{{vega}}",
    "]]><!-- -->",
    "\"'; alert(1); //",
    "${alert(1)} datum.x signal()",
    "javascript:alert(1)",
    "A" * 100_000,
    'quoted "whole" and \\backslash\\',
    "\U0001f600 e\u0301",
)
TAGS = {
    *("a", "b", "bdi", "body", "br", "button", "code", "dd", "details", "dialog", "div", "dl", "dt", "footer", "form"),
    *("h1", "h2", "h3", "head", "header", "html", "input", "label", "li", "main", "meta", "nav", "noscript", "ol"),
    *("output", "p", "pre", "script", "section", "small", "span", "style", "summary", "table", "tbody", "td", "th"),
    *("thead", "title", "tr", "ul"),
}


def hostile(evil: str, port: int) -> Row:
    """A row that says it wherever a stranger may."""
    names = ("host", "name", "product", "version", "extrainfo", "hostname", "ostype", "devicetype", "fingerprint")
    return row(
        "10.0.0.1",
        port,
        **dict.fromkeys(names, evil),
        cpe=[evil],
        evidence={"probe": evil, "line": 1, "recog": evil},
        database={"name": evil, "sha256": evil},
        tls={"subject": evil, "issuer": evil, "names": [evil], "protocol": evil, "key": evil, "self_signed": True}
        | {"not_after": "2026-11-21T00:00:00Z"},
        post={evil: {"title": evil}},
    )


def unknown(evil: str, port: int) -> Row:
    said = evil[:500].replace("\\", "\\\\").replace('"', '\\"')
    return row("10.0.0.2", port, verdict="nomatch", fingerprint=f'SF-Port1-TCP:%r(NULL,1,"{said}")' + ";")


def hostile_rows() -> list[Row]:
    return [made for at, evil in enumerate(EVIL) for made in (hostile(evil, at + 1), unknown(evil, at + 1))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for library in ("duckdb", "altair", "vl_convert"):
        pytest.importorskip(library, reason="needs probemill[report]")
    place = tmp_path_factory.mktemp("hostile")
    assert reported(place, hostile_rows(), "r.html", "r.md", "r.csv").rows == 2 * len(EVIL)
    return place


def test_the_page_has_no_element_and_no_attribute_but_ours(folder: Path) -> None:
    page = page_of(folder / "r.html")
    assert {name for name, _ in page.elements} <= TAGS
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "style", "srcdoc"}]
        assert (attributes.get("href") or "#").startswith("#")
    executed = [attributes for attributes, _ in page.scripts if "type" not in attributes]
    assert executed == [{}, {}]


def test_the_page_has_no_character_that_is_obeyed(folder: Path) -> None:
    """Marks that reorder text and ends of lines that only JavaScript knows are their codes, in the file as a whole."""
    said = (folder / "r.html").read_text(encoding="utf-8")
    ours = said[: said.index("<script>")]  # behind it are Vega's and our scripts
    assert not {char for char in ours if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}} - {"\n"}
    assert r"\u202egnp.exe" in ours


def test_the_rows_of_the_page_say_what_they_said(folder: Path) -> None:
    """The table's data are unaltered, up to their bound; page/table.js makes them visible."""
    told = {one["product"] for one in page_of(folder / "r.html").rows()}
    assert told == {"", *(evil[:16_384] for evil in EVIL)}


def test_markdown_has_strangers_texts_in_code_spans_alone(folder: Path) -> None:
    said = (folder / "r.md").read_text(encoding="utf-8")
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", said)
    for mark in ("alert", "http", "@everyone", "<", "SUM", "cmd", "exe", "javascript"):
        assert mark not in outside.replace("> **Note:**", "")
    for line in said.splitlines():
        assert not line.startswith("|") or line.count("|") in {3, 4, 5, 6, 7}


def test_no_cell_of_the_csv_is_a_formula(folder: Path) -> None:
    lines_of = list(csv.reader(io.StringIO((folder / "r.csv").read_bytes().decode(), newline="")))
    assert len(lines_of) == 1 + 2 * len(EVIL)
    for line in lines_of:
        assert len(line) == 10
        assert not [cell for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert all(cell.isprintable() or unicodedata.category(cell[0]) != "Cc" for cell in line if cell)


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_one_code_span(value: str) -> None:
    """One line, its fence longer than any within, no pipe that a table would take for its own."""
    said = code(value)
    assert "|" not in said
    assert "\n" not in said
    if said:
        fence = re.match("`+", said)
        assert fence is not None
        assert said.endswith(fence[0])
        inside = said[len(fence[0]) : -len(fence[0])]
        assert fence[0] not in re.findall("`+", inside)
        assert len(inside) <= WIDTH + 10


@given(st.text(max_size=40))
def test_any_text_is_a_cell_without_a_formula(value: str) -> None:
    assert not guarded(value).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text(max_size=40))
def test_any_text_is_no_markup(value: str) -> None:
    """However often it is put into an element: what is markup stays, what is none is escaped once."""
    for said in (text(value), lines(value)):
        assert isinstance(said, Html)
        assert not {"<", ">", '"'} & set(said.removeprefix("<bdi>").removesuffix("</bdi>"))
        assert text(said) == said
    assert tag("p", value, title=value).count("<") == tag("p", text(value)).count("<")
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(script_json({value: value}))
