"""Texts of a report's page that are long, empty, or hold what cannot be seen: they stay whole words for its scripts."""

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
