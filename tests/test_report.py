"""`probemill report`: its numbers are those of the rows, whatever holds them and whatever is in them."""

import csv
import io
import json
import sys
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bench import report_rows
from engine.errors import ConfigError, OutputError
from engine.insight.report import blob
from engine.insight.report.gather import LATER, WAITS
from engine.insight.report.making import form_of, make_report
from engine.insight.report.versions import compare
from engine.results.sinks import Run, Summary, open_sink
from engine.state.journal import Journal
from engine.state.records import End
from tests.reports import Row, page_of, reported, row, written
from tests.test_convert import command, state
from tests.told import Told

pytest.importorskip("duckdb", reason="needs probemill[report]")
pytest.importorskip("altair", reason="needs probemill[report]")
pytest.importorskip("pyarrow", reason="needs probemill[report]")
pytest.importorskip("vl_convert", reason="needs probemill[report]")

KNOWN = {"hardmatched", "softmatched"}
MADE = 1500


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Path]:
    """Rows of a made-up scan, and the folder with all three reports of them."""
    folder = tmp_path_factory.mktemp("report")
    rows = list(report_rows.rows(MADE, seed=7))
    reported(folder, rows, "r.html", "r.md", "r.csv")
    return rows, folder


def when(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def in_words(count: int) -> str:
    return f"{count:,}"


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_rows(made: tuple[list[Row], Path]) -> None:
    """Each that is told at the top, counted once more by plain Python."""
    rows, folder = made
    newest = max(when(one["started"]) for one in rows)
    versions = defaultdict(set)
    for one in rows:
        if one.get("version"):
            versions[one["product"]].add(one["version"])
    old = {(product, version) for product, seen in versions.items() for version in compare(seen)[1]}
    assert page_of(folder / "r.html").tiles() == {
        "hosts": len({one["ip"] for one in rows}),
        "ports asked": MADE,
        "services recognised": sum(one["verdict"] in KNOWN for one in rows),
        "products": len({one["product"] for one in rows if one.get("product")}),
        "older than the newest seen": sum((one.get("product"), one.get("version")) in old for one in rows),
        "open, not recognised": sum(one["verdict"] == "nomatch" for one in rows),
        "with an expired certificate": sum("tls" in one and when(one["tls"]["not_after"]) < newest for one in rows),
    }


def test_tables_are_those_of_the_rows(made: tuple[list[Row], Path]) -> None:
    rows, folder = made
    page = page_of(folder / "r.html")
    outcomes = Counter((one["verdict"], one.get("reason", "")) for one in rows)
    told = page.table("Verdict", "Reason", "Ports", "Hosts")
    assert {(verdict, reason): int(ports.replace(",", "")) for verdict, reason, ports, _ in told} == outcomes
    products = defaultdict(list)
    for one in rows:
        if one.get("product"):
            products[one["product"]].append(one)
    heads = ("Product", "Service", "Ports", "Hosts", "Newest seen", "Older", "Versions seen, the oldest first")
    told = page.table(*heads)
    assert {line[0]: line[2:5] for line in told} == {
        product: [
            in_words(len(seen)),
            in_words(len({one["ip"] for one in seen})),
            compare(one.get("version", "") for one in seen)[0] or "–",
        ]
        for product, seen in products.items()
    }
    services = Counter(("ssl/" if one.get("tunnel") else "") + one["name"] for one in rows if one["verdict"] in KNOWN)
    assert {name: int(ports.replace(",", "")) for name, ports, _ in page.table("Service", "Ports", "Hosts")} == services


def test_certificates_are_judged_at_the_time_of_the_newest_row(made: tuple[list[Row], Path]) -> None:
    """Not at the time of the report: the same rows give the same report on any day."""
    rows, folder = made
    newest = max(when(one["started"]) for one in rows)
    ends = [(when(one["tls"]["not_after"]) - newest).total_seconds() / 86400 for one in rows if "tls" in one]
    expected = Counter(next((name for name, days in WAITS if left < days), LATER) for left in ends)
    told = page_of(folder / "r.html").table("Ends", "Ports", "Hosts")
    assert {name: int(ports) for name, ports, _ in told} == {name: expected[name] for name in (*dict(WAITS), LATER)}


def test_the_page_holds_every_row(made: tuple[list[Row], Path]) -> None:
    rows, folder = made
    told = page_of(folder / "r.html").rows()
    found = sorted((r["address"], r["port"], r["product"], r["version"], r["started"], r["fingerprint"]) for r in told)
    assert found == sorted(
        (
            one["ip"],
            f"{one['port']}/tcp",
            one.get("product", ""),
            one.get("version", ""),
            round(when(one["started"]).timestamp() * 1000),
            one.get("fingerprint", ""),
        )
        for one in rows
    )
    certificates = {r["address"] + r["port"]: json.loads(r["tls"]) for r in told if r["tls"]}
    assert {key: value["sha256"] for key, value in certificates.items()} == {
        f"{one['ip']}{one['port']}/tcp": one["tls"]["sha256"] for one in rows if "tls" in one
    }


def test_the_same_rows_give_the_same_page(made: tuple[list[Row], Path], tmp_path: Path) -> None:
    rows, folder = made
    path = written(folder / "rows.ndjson", rows)
    make_report([str(path)], [str(tmp_path / "r.html")], 1 << 20, "", Told())
    assert (tmp_path / "r.html").read_bytes() == (folder / "r.html").read_bytes()


def test_rows_are_in_the_order_of_addresses_and_words_in_the_order_they_sort(tmp_path: Path) -> None:
    """10.0.0.10 comes behind 10.0.0.9, port 80 before 443, version 9.2 before 9.10."""
    rows = [
        row("10.0.0.10", 80, product="p", version="9.10"),
        row("10.0.0.9", 443, product="p", version="9.2"),
        row("10.0.0.9", 80, product="p", version="9.2rc1"),
        row("2001:db8::1", 80),
        row("", 80, host="lost.example", verdict="incomplete", reason="unresolved"),
    ]
    reported(tmp_path, rows, "r.html")
    page = page_of(tmp_path / "r.html")
    assert [(r["address"], r["port"]) for r in page.rows()] == [
        ("lost.example", "80/tcp"),
        ("10.0.0.9", "80/tcp"),
        ("10.0.0.9", "443/tcp"),
        ("10.0.0.10", "80/tcp"),
        ("2001:db8::1", "80/tcp"),
    ]
    assert page.words("port") == ["80/tcp", "443/tcp"]
    assert page.words("version") == ["", "9.2rc1", "9.2", "9.10"]


def test_what_nobody_recognised_is_grouped_by_its_answer(tmp_path: Path) -> None:
    """Digits, dates and long numbers in hex aside; a fingerprint is broken into lines anywhere."""

    def unknown(ip: str, answer: str, **fields: Any) -> Row:
        text = f'SF-Port9-TCP:V=1%I=7%r(NULL,1F,"{answer}")%r(Help,3,"no")' + ";"
        broken = "\nSF:".join(text[at : at + 20] for at in range(0, len(text), 20))
        return row(ip, 9, verdict="nomatch", fingerprint=broken, **fields)

    rows = [
        unknown("10.0.0.1", r"Mon,\x2003\x20Nov\x20id\x20deadbeef01\r\n"),
        unknown("10.0.0.2", r"Tue,\x2011\x20Feb\x20id\x200123456789ab\r\n"),
        unknown("10.0.0.3", r"say\x20\"hello\"\r\n"),
        row("10.0.0.4", 9, verdict="nomatch", bytes=0),
        row("10.0.0.5", 9, verdict="tcpwrapped", bytes=0),
        unknown("10.0.0.6", r"220\x20ready\r\n") | {"verdict": "softmatched", "name": "ftp"},
    ]
    report = reported(tmp_path, rows, "r.html")
    assert [(group.rows, group.service, group.probe, group.answer) for group in report.unknowns] == [
        (2, "", "NULL", r"@, # @ id #\r\n"),
        (2, "", "", "(no answer)"),
        (1, "", "NULL", r"say \"hello\"\r\n"),
        (1, "ftp", "NULL", r"# ready\r\n"),
    ]
    assert report.unknowns[0].fingerprint == rows[0]["fingerprint"]
    assert report.unknown == 5
    assert rows[0]["fingerprint"] in page_of(tmp_path / "r.html").text


# --- other forms ------------------------------------------------------------------------------------------------------


def test_markdown_holds_the_summaries(made: tuple[list[Row], Path]) -> None:
    rows, folder = made
    text = (folder / "r.md").read_text()
    assert f"| ports asked | {MADE:,} |" in text
    nginx = [one for one in rows if one.get("product") == "nginx"]
    newest, old = compare(one["version"] for one in nginx)
    older = sum(one["version"] in old for one in nginx)
    assert f"| `nginx` | `http` | {len(nginx):,} | {older:,} | `{newest}` |" in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_csv_has_a_line_for_each_port_that_was_open(made: tuple[list[Row], Path]) -> None:
    rows, folder = made
    lines = list(csv.DictReader(io.StringIO((folder / "r.csv").read_bytes().decode(), newline="")))
    wanted = [one for one in rows if one["verdict"] != "incomplete"]
    assert Counter((line["ip"], line["port"], line["version"]) for line in lines) == Counter(
        (one["ip"], str(one["port"]), one.get("version", "")) for one in wanted
    )
    _, old = compare(one["version"] for one in rows if one.get("product") == "nginx")
    for line in lines:
        if line["product"] == "nginx":
            assert ("older than the newest seen" in line["note"]) == (line["version"] in old)
    assert sum("self-signed" in line["note"] for line in lines) == sum(
        one.get("tls", {}).get("self_signed", False) for one in rows
    )


def test_inputs_of_every_form_make_one_report(tmp_path: Path) -> None:
    """A state folder, NDJSON, Parquet and Nmap's XML, each with rows of its own."""
    parts = [list(report_rows.rows(50, seed)) for seed in range(4)]
    blobs = ["".join(json.dumps(one) + "\n" for one in part).encode() for part in parts]
    paths = [state(tmp_path / "run", blobs[0]), written(tmp_path / "a.ndjson", parts[1])]
    for form, data in (("parquet", blobs[2]), ("xml", blobs[3])):
        path = tmp_path / f"a.{form}"
        sink = open_sink(form, str(path), Run("1", "x", 0.0))
        sink.write(data, 50)
        sink.close(Summary(0.0))
        paths.append(path)
    report = make_report([str(path) for path in paths], [str(tmp_path / "r.html")], 1000, "", Told())
    assert [source.rows for source in report.sources][:3] == [50, 50, 50]
    assert report.recognised >= sum(one["verdict"] in KNOWN for part in parts[:3] for one in part)
    assert {r["source"] for r in page_of(tmp_path / "r.html").rows()} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (End(why="interrupted", read=22, done=17, not_reached=5, at="2026-11-21T06:38:13Z"), "5 not reached"),
        (None, "not yet, or was killed"),
    ],
)
def test_a_run_that_was_interrupted_is_told_of(tmp_path: Path, end: End | None, words: str) -> None:
    blob_of = "".join(json.dumps(one) + "\n" for one in report_rows.rows(17)).encode()
    folder = state(tmp_path / "run", blob_of)
    journal = Journal.open(folder, {}, resume=True)
    journal.go_on()
    if end is not None:
        journal.end(end)
    journal.close()
    report = make_report([str(folder)], [str(tmp_path / "r.html"), str(tmp_path / "r.md")], 100, "", Told())
    assert words in report.notes[0]
    assert words in page_of(tmp_path / "r.html").text
    assert words in (tmp_path / "r.md").read_text()


def test_ports_that_were_not_reached_are_told_of(tmp_path: Path) -> None:
    rows = [row("10.0.0.1", 80, name="http"), row("10.0.0.2", 80, verdict="incomplete", reason="cancelled")]
    report = reported(tmp_path, rows, "r.html")
    assert report.notes == ["1 port was not reached: the run was stopped first."]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_limit_keeps_those_that_were_answered_and_says_so(tmp_path: Path) -> None:
    """The numbers are of all rows, the table of so many."""
    rows = [row("10.0.0.1", port, verdict="incomplete", reason="refused", state="closed") for port in range(1, 50)]
    rows += [row("10.0.0.2", port) for port in range(1, 11)]
    report = reported(tmp_path, rows, "r.html", most=10)
    page = page_of(tmp_path / "r.html")
    assert report.rows == 59
    assert [r["address"] for r in page.rows()] == ["10.0.0.2"] * 10
    assert "The table holds 10 of 59 rows" in page.text


def test_texts_that_have_no_room_are_left_out_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most frequent are kept; the table itself lacks nothing."""
    monkeypatch.setattr(blob, "ROOM", 300)
    rows = [row("10.0.0.1", port, verdict="nomatch", fingerprint=f"{min(port, 5)}" * 100) for port in range(1, 10)]
    reported(tmp_path, rows, "r.html")
    page = page_of(tmp_path / "r.html")
    kept = [r["fingerprint"] for r in page.rows()]
    assert kept == ["1" * 100, "2" * 100, blob.LEFT_OUT, blob.LEFT_OUT, *["5" * 100] * 5]
    assert "Of 5 different texts of `fingerprint`, the page holds the 3 most frequent." in page.text


@pytest.mark.parametrize(
    "rows", [[], [row("", 1, verdict="incomplete", reason="unresolved", state="", host="x.example")]]
)
def test_a_report_of_nothing_is_a_report(tmp_path: Path, rows: list[Row]) -> None:
    report = reported(tmp_path, rows, "r.html", "r.md", "r.csv")
    assert report.rows == len(rows)
    assert len(page_of(tmp_path / "r.html").rows()) == len(rows)
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_all_that_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ndjson", report_rows.rows(20))
    names = [tmp_path / name for name in ("r.html", "r.md", "r.csv")]
    done = command("report", path, *(word for name in names for word in ("-o", name)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"probemill: 20 rows in ")
    assert all(name.stat().st_size for name in names)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.ndjson", "r.html", "r.md", "r.csv"}


def test_a_faulty_line_is_told_and_the_rest_reported(tmp_path: Path) -> None:
    """Exit code 1, and the page says that not all could be read."""
    path = written(tmp_path / "a.ndjson", report_rows.rows(20))
    path.write_text(path.read_text() + '{"ip": "10.0.0.1", "port": 70000}\n')
    done = command("report", path, "-o", tmp_path / "r.html")
    assert done.returncode == 1
    assert b"a.ndjson:21: " in done.stderr
    assert b"20 rows, 1 line skipped" in done.stderr
    assert "Not all of" in page_of(tmp_path / "r.html").text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a.ndjson", "-o", "r.pdf"], "its suffix tells no form of a report"),
        (["nowhere.ndjson", "-o", "r.html"], "cannot be read"),
        (["a.ndjson", "-o", "a.ndjson.html", "-o", "a.ndjson.html"], "is the output of -o as well"),
        (["junk.ndjson", "-o", "r.html"], "junk.ndjson:1: "),
        (["a.ndjson", "state", "-o", "state/r.md"], "lies in "),
        (["-", "-", "-o", "r.html"], "standard input can be only one of them"),
        (["a.ndjson", "-o", "r.html", "--scratch", "nowhere"], "no scratch folder can be made there"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(tmp_path: Path, given: list[str], said: str) -> None:
    written(tmp_path / "a.ndjson", report_rows.rows(3))
    (tmp_path / "junk.ndjson").write_text("junk\n")
    (tmp_path / "r.html").write_text("before")
    state(tmp_path / "state")
    at = {
        "state",
        "state/r.md",
        "a.ndjson",
        "nowhere.ndjson",
        "junk.ndjson",
        "r.html",
        "r.pdf",
        "a.ndjson.html",
        "nowhere",
    }
    done = command("report", *(str(tmp_path / word) if word in at else word for word in given))
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1 or b"--help" in done.stderr
    assert (tmp_path / "r.html").read_text() == "before"


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ndjson", report_rows.rows(3))
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, ConfigError)):
        make_report([str(path)], [str(tmp_path / "file" / "r.md")], 10, "", Told())


@pytest.mark.parametrize("library", ["altair", "vl_convert", "duckdb", "pyarrow"])
def test_what_is_not_installed_is_said_before_anything_is_read(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=r"pip install 'probemill\[report\]'"):
        make_report([str(tmp_path / "nowhere")], [str(tmp_path / "r.html")], 10, "", Told())


def test_suffixes_are_told_whatever_their_case() -> None:
    assert form_of("A.HTML") == form_of("b.html")
    with pytest.raises(ConfigError, match=r"known are \.html, \.md, \.csv"):
        form_of("a.xlsx")
