"""`probemill db propose`: a folder of responses becomes lines that are tried, and written ready for review."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.cli.db import db_group
from engine.errors import ConfigError
from engine.insight.learn import stored
from engine.insight.learn.drafts import DATABASE, SAMPLES, write_drafts
from engine.insight.learn.kinds import propose_kinds
from engine.insight.learn.stored import read_folder
from matcher import Matcher, load_database, parse_database

PROBES = rb"""Probe TCP NULL q||
match ssh m|^SSH-([\d.]+)-OpenSSH_([\w.]+)| p/OpenSSH/ v/$2/
softmatch toy m|^\* toyd|
Probe TCP GetRequest q|GET / HTTP/1.0\r\n\r\n|
softmatch http m|^HTTP/1\.[01] \d\d\d|
Probe UDP Ask q|ask|
"""


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "db" / "my-probes"
    path.parent.mkdir()
    path.write_bytes(PROBES)
    monkeypatch.setenv("PROBEMILL_PROBES", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(db_group, list(arguments))


def toy(version: str, **fields: str) -> dict[str, object]:
    return {
        "banner": f"* toyd {version} on shelf-{len(version)}.example ready\r\n",
        "source": "real: toyd (made here)",
        "expect": {"name": "toy", "product": "toyd", "version": version, **fields},
    }


def put(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines_of(result: Result) -> list[str]:
    return [text for text in result.stdout.splitlines() if text.startswith(("match", "softmatch"))]


def test_one_line_for_responses_of_one_kind(folder: Path, tmp_path: Path) -> None:
    """Copies of one program get one line, which lint finds clean with the samples that are written beside it."""
    put(folder / "toy.ndjson", toy("1.4.2"), toy("1.5"), toy("2.0.1-rc3"))
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    (line,) = lines_of(result)
    assert line.startswith(r"match toy m|^\* toyd ([\w.+~-]+) on ")
    assert "3 responses; belongs under `Probe TCP NULL`, before line 3, which says `toy` today" in result.stdout
    assert "3 responses in 1 file: 0 need no line; 1 line proposed, 1 of them clean" in result.stderr
    written = (tmp_path / "out" / DATABASE).read_text()
    assert line in written.splitlines()
    checked = run("lint", str(tmp_path / "out" / DATABASE), "--strict")
    assert (checked.exit_code, "3 samples; 0 errors, 0 warnings" in checked.stderr) == (0, True), checked.output
    rows = [json.loads(row) for row in (tmp_path / "out" / SAMPLES).read_text().splitlines()]
    assert [row["expect"]["version"] for row in rows] == ["1.4.2", "1.5", "2.0.1-rc3"]
    assert {row["source"] for row in rows} == {"real: toyd (made here)"}


def test_what_the_database_knows_needs_no_line(folder: Path, tmp_path: Path) -> None:
    """As expected, or hard where nothing is expected. A softmatch is not enough, unless it is what is expected."""
    ssh = {"banner": "SSH-2.0-OpenSSH_9.9\r\n", "source": "handmade"}
    known = {**ssh, "expect": {"name": "ssh", "product": "OpenSSH", "version": "9.9"}}
    soft = {"banner": "* toyd\r\n", "source": "handmade", "expect": {"name": "toy", "soft": True}}
    put(folder / "a.ndjson", {**ssh, "expect": None}, known, soft)
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert (result.exit_code, lines_of(result)) == (0, [])
    assert "3 responses in 1 file: 3 need no line; 0 lines proposed" in result.stderr


def test_files_that_are_one_response_each(folder: Path) -> None:
    """The probe is the first word of the name where there is such a probe; HTTP is told by its beginning."""
    (folder / "Ask-x.bin").write_bytes(b"\0\xffanswer\n")
    (folder / "GetRequest.raw").write_bytes(b"HTTP/1.0 200 OK\r\n\r\n")
    (folder / "page.txt").write_bytes(b"HTTP/1.1 404 Not Found\r\nServer: Toy/1\r\n\r\n")
    (folder / "greeting").write_bytes(b"hello\n")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "fingerprint.txt").write_text('SF-Port1-TCP:V=7.94%r(NULL,4,"oh\\r\\n");\n')
    read = read_folder([folder], load_database(folder.parent / "db" / "my-probes"))
    assert [(Path(one.place).name, one.probe.proto, one.probe.name, one.data[:7]) for one in read.responses] == [
        ("Ask-x.bin", "udp", "Ask", b"\0\xffanswe"),
        ("GetRequest.raw", "tcp", "GetRequest", b"HTTP/1."),
        ("fingerprint.txt:1", "tcp", "NULL", b"oh\r\n"),
        ("greeting", "tcp", "NULL", b"hello\n"),
        ("page.txt", "tcp", "GetRequest", b"HTTP/1."),
    ]
    assert not read.faults


def test_what_cannot_be_read_is_told_and_the_rest_is_used(folder: Path, tmp_path: Path) -> None:
    put(folder / "a.ndjson", toy("1.0"), {"probe": "Other", "banner": "x"})
    (folder / "b.ndjson").write_text("{bad\n")
    os.mkfifo(folder / "pipe")
    (folder / ".hidden").write_text("hidden")
    (folder / "link").symlink_to(folder / "a.ndjson")
    (folder / "large.bin").write_bytes(b"x" * (stored.LONGEST + 1))
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert (result.exit_code, len(lines_of(result))) == (1, 1)
    for text in ("a.ndjson:2: no probe is named Other", "b.ndjson:1: ", "pipe:0: cannot be read", "large.bin:0: holds"):
        assert text in result.stderr
    assert "hidden" not in result.stderr
    assert "1 response in 4 files" in result.stderr


def test_what_is_read_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST_RESPONSES", 5)
    put(folder / "a.ndjson", *(toy(f"1.{number}") for number in range(8)))
    read = read_folder([folder], load_database(folder.parent / "db" / "my-probes"))
    assert (len(read.responses), read.left) == (5, 3)


def test_a_line_that_steals_is_told_and_not_proposed(folder: Path, database: Path, tmp_path: Path) -> None:
    """It is tried on the samples beside the database; the file says so, and holds the line as a comment."""
    (database.parent / "samples").mkdir()
    other = {"name": "toy", "product": "Other toyd", "version": "9"}
    banner = "* toyd 9 on shelf-1.example ready\r\n"
    put(database.parent / "samples" / "a.ndjson", {"banner": banner, "source": "handmade", "expect": other})
    put(folder / "toy.ndjson", toy("1.4.2", hostname="shelf-5.example"))
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert (result.exit_code, "# against it: steals 1 of toy Other toyd" in result.stdout) == (1, True), result.output
    (line,) = lines_of(result)
    text = (tmp_path / "out" / DATABASE).read_text()
    assert f"# against it: steals 1 of toy Other toyd\n# {line}\n" in text
    assert (tmp_path / "out" / SAMPLES).read_text() == ""


def test_what_one_line_cannot_serve_gets_another(folder: Path, tmp_path: Path) -> None:
    """Of one product, one response tells an operating system and the other does not."""
    windows = {**toy("1.0", ostype="Windows"), "banner": "* toyd 1.0 for Windows ready\r\n"}
    put(folder / "toy.ndjson", toy("1.4.2"), toy("1.5"), windows)
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert (result.exit_code, len(lines_of(result))) == (0, 2), result.output
    assert run("lint", str(tmp_path / "out" / DATABASE)).exit_code == 0


def test_a_greeting_needs_one_line_whatever_was_asked(folder: Path, tmp_path: Path) -> None:
    """Lines for the NULL probe are asked of answers to every TCP probe, so the greeting in them gets none again."""
    later = {**toy("1.4.2"), "probe": "GetRequest", "banner": "* toyd 1.4.2 on shelf-5.example ready\r\n- what?\r\n"}
    put(folder / "toy.ndjson", later, toy("1.4.2"))
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert (result.exit_code, len(lines_of(result))) == (0, 1), result.output
    assert "2 responses; belongs under `Probe TCP NULL`" in result.stdout
    checked = run("lint", str(tmp_path / "out" / DATABASE))
    assert (checked.exit_code, "2 samples; 0 errors" in checked.stderr) == (0, True), checked.output


def test_responses_without_a_name_are_put_together(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        page = b"HTTP/1.1 200 OK\r\n\r\n<html><title>Blinken Lights %d.%d</title>" % (number + 1, number)
        (folder / f"GetRequest-{number}.raw").write_bytes(page)
    result = run("propose", str(folder), "-o", str(tmp_path / "out"))
    assert (result.exit_code, len(lines_of(result))) == (0, 1), result.output
    assert lines_of(result)[0].endswith("|s p/Blinken Lights/ v/$1/")
    assert run("lint", str(tmp_path / "out" / DATABASE)).exit_code == 0


def test_earlier_proposals_are_replaced_only_when_told(folder: Path, tmp_path: Path) -> None:
    put(folder / "toy.ndjson", toy("1.4.2"))
    out = tmp_path / "out"
    assert run("propose", str(folder), "-o", str(out)).exit_code == 0
    (out / "notes").write_text("mine")
    assert isinstance(run("propose", str(folder), "-o", str(out)).exception, ConfigError)
    assert run("propose", str(folder), "-o", str(out), "--force").exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["notes", DATABASE, "samples"]


def test_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    assert isinstance(run("propose", str(folder), "-o", str(tmp_path / "out")).exception, ConfigError)
    assert not (tmp_path / "out").exists()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=6),
    st.sampled_from(["NULL-x", "GetRequest", "Ask", "x"]),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["toy", "t/o|y"])},
        optional={key: st.text(max_size=8) for key in ("product", "version", "hostname", "extrainfo")},
    ),
)
def test_whatever_responses_hold(tmp_path: Path, responses: list[bytes], name: str, expect: dict[str, str]) -> None:
    """What is written is a database, and its lines that nothing speaks against give the samples what they expect."""
    folder = tmp_path / "fuzzed"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, data in enumerate(responses):
        (folder / f"{name}.{number}").write_bytes(data)
    put(folder / "rows.ndjson", *({"banner": data.decode("latin-1"), "expect": expect} for data in responses))
    matcher = Matcher(parse_database(PROBES, "x"), "re2", cache=False)
    read = read_folder([folder], matcher.database)
    kinds = propose_kinds(read.responses, matcher, ())
    write_drafts(tmp_path / "written", kinds.drafts, "x")
    parse_database((tmp_path / "written" / DATABASE).read_bytes(), "written")
    assert kinds.known + sum(len(one.samples) for one in kinds.drafts) <= len(read.responses)
