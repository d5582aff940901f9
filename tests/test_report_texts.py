"""Texts of a report's page that are long, empty, or hold what cannot be seen: they stay whole words for its scripts."""

from pathlib import Path

import pytest

from tests.reports import page_of, reported, row

for library in ("duckdb", "altair", "vl_convert"):
    pytest.importorskip(library, reason="needs probemill[report]")


def test_nothing_stands_on_the_page_but_its_sections(tmp_path: Path) -> None:
    """What parts the pieces of the file are ends of lines, and no text."""
    reported(tmp_path, [row("10.0.0.1", 80, name="http")], "r.html")
    text = page_of(tmp_path / "r.html").text
    assert "\\" not in text
    assert text.split("Nothing in this page is sent anywhere.")[1].split() == ["✕"]
