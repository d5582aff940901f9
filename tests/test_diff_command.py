"""`probemill diff`: what it says and refuses, its exit codes, and that nothing is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.insight.diff.kinds import KINDS
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
    *(ROW, but(CERTIFIED, port=1), but(port=2), but(port=3), but(port=4), but(port=5, product="x" * 9999)),
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
    outputs = [word for name in ("x.md", "x.html", "x.ndjson") for word in ("-o", tmp_path / name)]
    done = diff(old, tmp_path / "run", *outputs)
    said = "its run has not ended" if end is None else "interrupted\\x1b[31m **b**: 1 of 3 done, 2 not reached"
    assert f"probemill: NEW is not the whole scan ({said}" in done.stderr.decode()
    (row,) = map(json.loads, (tmp_path / "x.ndjson").read_text().splitlines())
    assert (row["port"], row["changes"], row["doubtful"]) == (80, ["gone"], True)
    assert "is not the whole scan" in (tmp_path / "x.md").read_text()
    assert "| doubtful |\n" in (tmp_path / "x.md").read_text()
    assert '">doubtful</span></td></tr>\n' in (tmp_path / "x.html").read_text()
    assert diff(tmp_path / "run", old, "--only", "gone").stdout == b""


def test_several_outputs_at_once(tmp_path: Path) -> None:
    names = ["a.txt", "b.md", "c.html", "d.ndjson"]
    done = diff(*pair(tmp_path), *(word for name in names for word in ("-o", tmp_path / name)))
    assert done.stdout == b"" and all((tmp_path / name).stat().st_size for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "old.ndjson", "new.ndjson.zst"}


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


@pytest.mark.parametrize(("given", "code"), [((), 0), (("--fail-on", "any"), 3)])
def test_a_reader_that_goes(tmp_path: Path, given: tuple[str, ...], code: int) -> None:
    """As `| head` does: no error; and what was found is found."""
    rows = [but(ip=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(20000)]
    old, new = pair(tmp_path, [], rows)
    with subprocess.Popen(
        [sys.executable, "-m", "probemill", "diff", old, new, "-q", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"10.0.0.0\n"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", code)
