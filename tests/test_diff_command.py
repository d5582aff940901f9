"""`probemill diff`: its forms, its exit codes, hostile rows, and that nothing is left behind."""

import fcntl
import html.parser
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import jsonschema
import pytest
from rich.cells import cell_len

from engine.insight.diff.kinds import KINDS
from engine.insight.diff.ndjson import SCHEMA
from engine.insight.diff.words import WIDTH, fitted
from engine.model import Batch, ServiceResult
from engine.results.ending import Ending
from engine.results.sinks import Summary
from engine.state.journal import Journal
from engine.state.segments import SegmentSink
from tests.test_convert import ROOT, command, packed, state
from tests.test_diff import CANCELLED, CERTIFIED, CLOSED, NEW, OLD, ROW, but, lines, tls

pytest.importorskip("duckdb", reason="needs probemill[report]")
pytest.importorskip("pyarrow", reason="needs probemill[report]")

EVIL = "<script>alert(1)</script>|`x`\\|\x1b[31m\r\n\u202etxt [a](http://e) @root #1 \x00 **b** \u200bé</td> &amp;"
BEFORE = [
    *(
        ROW,
        CERTIFIED and but(CERTIFIED, port=1),
        but(port=2),
        but(port=3),
        but(port=4),
        but(port=5, product="x" * 9999),
    ),
    but(port=6, host=EVIL, product=EVIL),
]
AFTER = [
    *(but(version="1.24.0"), but(tls(), port=1), but(CLOSED, port=2), but(port=4, name="ssh", product="OpenSSH")),
    *(but(port=5, product="x" * 9999 + "y"), but(port=6, host=EVIL, product=EVIL + "2", name=EVIL)),
    but(ip="2001:db8::1", host="v6.example", version=EVIL),
]


def pair(folder: Path, old: list[ServiceResult] = BEFORE, new: list[ServiceResult] = AFTER) -> tuple[Path, Path]:
    return packed(folder / "old.ndjson", lines(old)), packed(folder / "new.ndjson.zst", lines(new))


def diff(*given: object, code: int = 0, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    done = command("diff", *given, data=data)
    assert done.returncode == code, done.stderr
    return done


def test_a_table_by_host(tmp_path: Path) -> None:
    """In order of address and port; standard error says what was compared."""
    done = diff(
        *pair(tmp_path, [ROW, but(port=9), but(port=8)], [but(version="1.24.0"), but(CLOSED, port=9), but(port=7)])
    )
    assert done.stdout.decode() == (
        "192.0.2.7\n"
        "  + 7/tcp      new          http nginx 1.18.0\n"
        "  - 8/tcp      gone         http nginx 1.18.0\n"
        "  ~ 9/tcp      state        open http nginx 1.18.0 → closed\n"
        "  ~ 443/tcp    version      nginx 1.18.0 → nginx 1.24.0\n"
    )
    assert b"probemill: 1 new, 1 gone, 1 state, 1 version; 2 targets compared in " in done.stderr


def test_no_difference(tmp_path: Path) -> None:
    old, _ = pair(tmp_path)
    done = diff(old, old, "--fail-on", "any")
    assert (done.stdout, b"no difference; 7 targets compared" in done.stderr) == (b"", True)
    assert diff(old, old, "-q").stderr == b""


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


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("version", 3),
        ("new,tls", 3),
        ("any", 3),
        ("tls", 0),
        ("certificate", 0),
        ("new --ignore new", 0),
        ("any --only tls", 0),
        ("any --only renewed", 3),
        ("extrainfo --also extrainfo", 0),
        ("extrainfo", 2),
        ("nonsense", 2),
    ],
)
def test_fail_on(tmp_path: Path, given: str, code: int) -> None:
    """3 where one of the kinds is told; what is not told does not count."""
    diff(*pair(tmp_path), "--fail-on", *given.split(), code=code)


def test_only_some_kinds(tmp_path: Path) -> None:
    done = diff(*pair(tmp_path), "--only", "new,gone")
    assert done.stdout.count(b"  + ") == done.stdout.count(b"  - ") == 1 and b"  ~ " not in done.stdout
    assert b"probemill: 1 new, 1 gone; " in done.stderr
    assert b"  ~ " in diff(*pair(tmp_path), "--ignore", "new,gone").stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-", "-"), "standard input can be only one"),
        (("OLD", "nowhere.ndjson"), "cannot be read"),
        (("OLD", "NEW", "-o", "x.pdf"), "its suffix tells no form"),
        (("OLD", "NEW", "-o", "NEW", "--format", "md"), "is the input of"),
        (("OLD", "NEW", "-o", "x.md", "-o", "x.md"), "is the output of"),
        (("FOLDER", "NEW", "-o", "FOLDER/x.md"), "lies in"),
        (("OLD", "NEW", "--only", "old"), "is none of new, gone"),
        (("OLD", "NEW", "--ignore", ",".join(KINDS)), "nothing to tell"),
        (("OLD", "NEW", "--scratch", "/nowhere"), "no scratch folder"),
    ],
)
def test_refusals_in_one_line(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    old, new = pair(tmp_path)
    (tmp_path / "folder").mkdir()
    packed(tmp_path / "folder" / "rows.ndjson", lines(OLD))
    places = {"OLD": str(old), "NEW": str(new), "FOLDER": str(tmp_path / "folder")}
    words = [re.sub("OLD|NEW|FOLDER", lambda found: places[found[0]], word) for word in given]
    if "--only" in given or "--ignore" in given:
        words = [*places.values()][:2] + list(given[2:])
    done = diff(*words, code=2)
    assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1, done.stderr


def test_a_bad_line_costs_itself(tmp_path: Path) -> None:
    old, new = pair(tmp_path)
    new.write_bytes(lines(AFTER) + b"{}\n")
    done = diff(old, new, code=1)
    assert done.stderr.decode().startswith(f"{new}:8: no result row")
    assert (
        b"NEW is not the whole scan (not all of it could be read): what is told as gone may only be missing there"
        in done.stderr
    )
    assert b"  - 3/tcp      gone         http nginx 1.18.0 (doubtful)\n" in done.stdout
    assert b"(doubtful)" not in done.stdout.partition(b"2001:db8::1")[2]
    diff(old, new, "--fail-on", "gone", code=3)


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    old, new = pair(tmp_path)
    new.write_bytes(b"nonsense\n")
    done = diff(old, new, "-o", tmp_path / "x.md", code=2)
    assert f"{new}: has no row that can be compared" in done.stderr.decode() and not (tmp_path / "x.md").exists()
    new.write_bytes(b"")
    assert diff(old, new).stdout.count(b" gone ") == len(BEFORE)


def test_ports_that_were_not_reached_are_told(tmp_path: Path) -> None:
    old, new = pair(tmp_path, [ROW, but(port=9)], [but(CANCELLED), but(port=9), but(port=9)])
    done = diff(old, new)
    assert done.stdout == b""
    assert b"NEW: 1 target not reached, and so not compared\n" in done.stderr
    assert b"NEW: 1 further row for targets that have one" in done.stderr


def test_a_pipe_against_a_state_folder(tmp_path: Path) -> None:
    folder = state(tmp_path / "state", lines(OLD))
    done = diff(folder, "-", "--only", "new", data=lines(NEW))
    assert done.stdout.count(b" new ") == 12


@pytest.mark.parametrize("end", [None, "interrupted\x1b[31m **b**"])
def test_a_run_that_did_not_end_is_not_the_whole_scan(tmp_path: Path, end: str | None) -> None:
    """What it lacks is doubtful, and that is no fault of the comparison."""
    journal = Journal.open(tmp_path / "run", {})
    sink = SegmentSink(journal, seconds=0)
    sink.take(Batch(lines([ROW]), 1, [0], {}))
    if end is None:
        journal.close()
    else:
        sink.close(Summary(0.0, ending=Ending(why=end, read=3, done=1, not_reached=2)))
    old, _ = pair(tmp_path, [ROW, but(port=80)])
    done = diff(old, tmp_path / "run", "-o", tmp_path / "x.md", "-o", tmp_path / "x.ndjson")
    said = "its run has not ended" if end is None else "interrupted\\x1b[31m **b**: 1 of 3 done, 2 not reached"
    assert f"probemill: NEW is not the whole scan ({said}" in done.stderr.decode()
    (row,) = map(json.loads, (tmp_path / "x.ndjson").read_text().splitlines())
    assert (row["port"], row["changes"], row["doubtful"]) == (80, ["gone"], True)
    assert "is not the whole scan" in (tmp_path / "x.md").read_text()
    assert diff(tmp_path / "run", old, "--only", "gone").stdout == b""


def test_several_outputs_at_once(tmp_path: Path) -> None:
    names = ["a.txt", "b.md", "c.html", "d.ndjson"]
    done = diff(*pair(tmp_path), *(word for name in names for word in ("-o", tmp_path / name)))
    assert done.stdout == b"" and all((tmp_path / name).stat().st_size for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "old.ndjson", "new.ndjson.zst"}


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """While it reads; neither scratch files nor half an output."""
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    old, _ = pair(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "probemill", "diff", old, "-", "--scratch", scratch, "-o", out / "x.md"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        for _ in range(300):
            if any(scratch.glob("*/rows.duckdb")):
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"probemill: interrupted\n")
    assert not [*scratch.iterdir(), *out.iterdir()]


def test_a_reader_that_goes(tmp_path: Path) -> None:
    """As `| head` does: no error."""
    rows = [but(ip=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(20000)]
    old, new = pair(tmp_path, [], rows)
    with subprocess.Popen(
        [sys.executable, "-m", "probemill", "diff", old, new, "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"10.0.0.0\n"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)
