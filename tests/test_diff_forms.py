"""The forms of `probemill diff`: what programs, tickets, browsers and terminals are given, whatever rows hold."""

import fcntl
import html.parser
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import jsonschema
import pytest
from rich.cells import cell_len

from engine.insight.diff.kinds import KINDS
from engine.insight.diff.ndjson import SCHEMA
from engine.insight.diff.words import WIDTH, fitted
from tests.test_convert import ROOT
from tests.test_diff import NEW, OLD, but
from tests.test_diff_command import AFTER, BEFORE, EVIL, diff, pair

pytest.importorskip("duckdb", reason="needs probemill[report]")
pytest.importorskip("pyarrow", reason="needs probemill[report]")


def test_ndjson_is_what_the_schema_says(tmp_path: Path) -> None:
    """And holds what rows hold, unaltered."""
    out = tmp_path / "out.ndjson"
    diff(*pair(tmp_path), "-o", out, "--also", "extrainfo,cpe")
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    for row in rows:
        jsonschema.validate(row, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert [row["changes"] for row in rows] == [
        *(["renewed"], ["state"], ["gone"], ["service", "product"], ["product"], ["service", "product"], ["version"]),
        ["new"],
    ]
    assert rows[0]["old"]["tls"]["not_after"] == "2026-04-01T00:00:00Z"
    assert rows[5]["host"] == EVIL and rows[5]["new"]["name"] == EVIL
    assert "old" not in rows[7] and rows[7]["new"]["version"] == EVIL and "doubtful" not in rows[7]


def test_the_page_of_documentation_has_every_word() -> None:
    page = (ROOT / "docs" / "diff.md").read_text(encoding="utf-8")
    assert not [kind for kind, meaning in KINDS.items() if f"| `{kind}` | {meaning}" not in page]
    assert not [name for name in SCHEMA["properties"] if f"| `{name}` |" not in page]
    (printed,) = re.findall(r"```json-schema\n(.*?)```", page, re.DOTALL)
    assert json.loads(printed) == SCHEMA


class Page(html.parser.HTMLParser):
    """tags: all there are; texts: of the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "td":
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def test_a_page_holds_text_and_no_markup_of_strangers(tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    diff(*pair(tmp_path), "-o", out)
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "img", "link", "iframe", "object"}
    assert page.attributes <= {*("lang", "charset", "http-equiv", "content", "name", "href", "class", "id", "data-of")}
    assert any("<script>alert(1)</script>" in text for text in page.texts)
    assert "default-src 'none'" in text and not re.search(r"(?:src|href)=\"(?!#)", text)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u200b]", text)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1100])
def test_a_page_fits_a_telephone(tmp_path: Path, width: int) -> None:
    """Nothing is wider than the screen, and the browser has nothing to complain of."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs probemill[pagedev]")
    chromium = shutil.which("chromium") or pytest.skip("no Chromium")
    out = tmp_path / "out.html"
    diff(*pair(tmp_path), "-o", out)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(out.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert not said


def test_markdown_for_a_ticket(tmp_path: Path) -> None:
    """Counts first, a table for each kind. Every cell is code, which no text of a host ends."""
    text = diff(*pair(tmp_path), "--format", "md").stdout.decode()
    assert text.index("| renewed | 1 |") < text.index("## new (1)") < text.index("## gone (1)")
    tables = [line for line in text.splitlines() if line.startswith("|") and "192.0.2.7" in line]
    assert tables
    for line in tables:
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        assert len(cells) == 5, line
        assert all(re.fullmatch(r"(?:`[^`|\\]+`|<code>[^<>`|\\*@\[]+</code>|)", cell.strip()) for cell in cells), line
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e]", text)


def test_long_tables_are_cut_and_say_so(tmp_path: Path) -> None:
    old, new = pair(tmp_path, OLD, NEW)
    for form in ("md", "html"):
        text = diff(old, new, "--format", form, "--limit", 5).stdout.decode()
        assert text.count("nginx 2") == 5 and "46 more are left out" in text
        assert "more are left out" not in diff(old, new, "--format", form, "--limit", 0).stdout.decode()
    assert diff(old, new, "--limit", 5).stdout.count(b"version") == diff(old, new).stdout.count(b"version") > 5


def test_long_texts_are_cut_where_they_differ() -> None:
    one, other = fitted("x" * 9999 + "a", "x" * 9999 + "b")
    assert one != other and max(map(len, (one, other))) <= WIDTH + 2
    assert fitted("a" * 9999, "") == ("a" * WIDTH + "…", "")
    assert fitted("x" * 9999, "x" * 9999 + "y")[1].endswith("xy")


def on_a_terminal(*given: object, columns: int, **environment: str) -> str:
    """What a terminal so wide is given, with its control sequences."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    with subprocess.Popen(
        [sys.executable, "-m", "probemill", "diff", *map(str, given)],
        stdout=child,
        stderr=subprocess.DEVNULL,
        env=kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environment,
    ) as process:
        os.close(child)
        data = b""
        while True:
            try:
                block = os.read(parent, 1 << 16)
            except OSError:  # nobody writes any more
                break
            if not block:
                break
            data += block
        assert process.wait(60) == 0
    os.close(parent)
    return data.decode().replace("\r\n", "\n")


_COLOURS = re.compile("\x1b\\[[0-9;]*m")


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_the_table_fits_the_terminal(tmp_path: Path, columns: int) -> None:
    """Nothing is lost for that, and nothing but colours controls the terminal."""
    old, new = pair(tmp_path, [*BEFORE, but(port=7, product="日本語" * 30)], [*AFTER, but(port=7, product="日本" * 40)])
    shown = _COLOURS.sub("", on_a_terminal(old, new, columns=columns))
    assert "\x1b" not in shown
    assert all(cell_len(line) <= max(columns, 44) for line in shown.splitlines())
    joined = re.sub(r"\s", "", shown)
    for line in diff(old, new).stdout.decode().splitlines():
        assert re.sub(r"\s", "", line) in joined


def test_colours_only_where_they_are_wanted(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    assert "\x1b[32m  + " in on_a_terminal(*paths, columns=80)
    assert "\x1b" not in on_a_terminal(*paths, columns=80, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*paths, columns=80, TERM="dumb")
    assert b"\x1b" not in diff(*paths).stdout


def test_blanks_are_as_many_as_they_are(tmp_path: Path) -> None:
    """In every form: two versions that differ in them alone do not look the same."""
    old, new = pair(tmp_path, [but(version="a b")], [but(version="a  b ")])
    diff(old, new, "-o", tmp_path / "x.md", "-o", tmp_path / "x.html")
    assert "| `nginx a b` | <code>nginx a &#160;b&#160;</code> |" in (tmp_path / "x.md").read_text()
    page = (tmp_path / "x.html").read_text()
    assert "<bdi>nginx a  b </bdi>" in page
    assert re.search(r"bdi \{[^}]*white-space: pre-wrap", page)
