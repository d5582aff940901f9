"""Texts of a report's page that are long, empty, or hold what cannot be seen: they stay whole words for its scripts."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.insight.report.blob import LONGEST
from engine.insight.report.shortened import shortened
from tests.reports import page_of, reported, row

for library in ("duckdb", "altair", "vl_convert"):
    pytest.importorskip(library, reason="needs probemill[report]")


def test_nothing_stands_on_the_page_but_its_sections(tmp_path: Path) -> None:
    """What parts the pieces of the file are ends of lines, and no text."""
    reported(tmp_path, [row("10.0.0.1", 80, name="http")], "r.html")
    text = page_of(tmp_path / "r.html").text
    assert "\\" not in text
    assert text.split("Nothing in this page is sent anywhere.")[1].split() == ["✕"]


def test_no_version_is_before_all_versions(tmp_path: Path) -> None:
    """Of those that come before a release, too: page/store.js takes the first text for the empty one."""
    versions = ("1.0", "", "rc1", "beta", "dev")
    reported(tmp_path, [row("10.0.0.1", at, product="x", version=said) for at, said in enumerate(versions)], "r.html")
    assert page_of(tmp_path / "r.html").words("version") == ["", "dev", "beta", "rc1", "1.0"]


def test_json_that_is_too_long_is_still_json_and_has_what_is_short(tmp_path: Path) -> None:
    """Of a certificate of very many names, its end and its digest."""
    names = [f"host-{at}.cdn.example" for at in range(2000)]
    long = row(
        "10.0.0.1",
        443,
        tls={"subject": "a.example", "names": names, "sha256": "ab", "not_after": "2027-01-01T00:00:00Z"},
        post={"http": {"title": "P" * 20_000, "status": 200}},
        evidence={"probe": "é" * 20_000, "line": 7},
    )
    reported(tmp_path, [long, row("10.0.0.2", 443, post={"http": {"title": "short"}})], "r.html", "again.html")
    one, other = page_of(tmp_path / "again.html").rows()
    tls, post, evidence = (json.loads(one[name]) for name in ("tls", "post", "evidence"))
    assert (tls["subject"], tls["sha256"], tls["not_after"][:10]) == ("a.example", "ab", "2027-01-01")
    assert tls["names"] == [*names[:512], "… and 1,488 more"]
    assert post == {"http": {"title": "P" * 8192 + "… (20,000 characters)", "status": 200}}
    assert evidence["line"] == 7
    assert json.loads(other["post"]) == {"http": {"title": "short"}}


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"a":NaN}' + " " * LONGEST, '{"a":1e999,"b":"' + "\0" * LONGEST, "x" * 20_000]
)
def test_what_is_no_json_is_told_by_its_beginning(text: str) -> None:
    (said,) = json.loads(shortened(text, LONGEST)).values()
    assert said.startswith(text[:1000])
    assert said.endswith(f"… ({len(text):,} characters)")


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=200), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
)


@given(st.dictionaries(st.text(max_size=90), VALUES), st.integers(300, 2000))
def test_any_json_is_shortened_to_json(value: dict[str, object], longest: int) -> None:
    said = shortened(json.dumps(value), longest)
    assert len(said) <= longest
    assert isinstance(json.loads(said), dict)


def test_a_cell_of_the_csv_fits_a_spreadsheet(tmp_path: Path) -> None:
    """Even where each character is told by its code."""
    reported(tmp_path, [row("10.0.0.1", 1, product="p" * 50_000, version="\U000e0001" * 50_000)], "r.csv")
    (_, line) = csv.reader((tmp_path / "r.csv").read_text().splitlines())
    assert line[5] == "p" * 1000 + "…"
    assert all(len(cell) < 32_767 for cell in line)


def test_a_table_has_lines(tmp_path: Path) -> None:
    """Of what no row says, there is no card; nor of TLS that is all unknown an empty section."""
    only = {"tls": {"subject": "a.example"}}
    for fields in (only, {"tls": only["tls"] | {"protocol": "TLSv1.3"}}):
        reported(tmp_path, [row("10.0.0.1", 443, **fields)], "r.html")
        page = page_of(tmp_path / "r.html")
        assert all(len(table) > 1 for table in page.tables)
        assert "1 ports with TLS" in page.text
    assert "The rows say nothing" not in page.text


def test_certificates_that_end_together_have_one_order(tmp_path: Path) -> None:
    """Whatever the order of their rows: the same rows give the same report."""
    ends = {"subject": "a.example", "not_after": "2026-11-21T00:00:00Z"}
    rows = [row(f"10.0.{at % 7}.{at % 251}", at, tls=ends | {"sha256": f"{at:064x}"}) for at in range(1, 300)]
    told = []
    for ordered in (rows, rows[::-1]):
        reported(tmp_path, ordered, "r.html")
        told.append(
            page_of(tmp_path / "r.html").table("Certificate", "Seen at", "Ports", "Ends", "Days left", "Self-signed")
        )
    assert told[0] == told[1]
