"""`probemill learn` as a command: what it reads, the folder it writes, what it refuses, hostile rows."""

import base64
import json
import socketserver
import threading
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.cli.main import cli
from engine.conversation.fingerprint import Fingerprint
from engine.insight.learn.writing import submission
from engine.model import Verdict
from engine.offline.forms import fingerprints
from engine.targets import Unreadable
from matcher import load_database
from probemill import ScanConfig, scan_sync

FEW = Path(__file__).parent / "inputs" / "few.probes"
TOY = b"220 host%d.example.net Toyd FTP %d.%d ready\r\n"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["learn", *map(str, words), "--probes", str(FEW)])


def fingerprint(answers: dict[str, bytes], port: int = 2121, when: float = 1.7e9) -> str:
    text = Fingerprint(port, "tcp", version="0.1.0", intensity=7, platform="x86_64-pc-linux-gnu")
    for probe, data in answers.items():
        text.add(probe, data, when)
    return text.text


def row(at: int, answers: dict[str, bytes], verdict: str = "nomatch", **more: object) -> dict[str, object]:
    return {
        "ip": f"10.0.{at // 250}.{at % 250}",
        "port": 2121,
        "proto": "tcp",
        "state": "open",
        "name": "scientia-ssdb",
        "method": "table",
        "conf": 3,
        "verdict": verdict,
        "fingerprint": fingerprint(answers, when=1.7e9 + at),
        "database": {"name": "nmap", "sha256": ""},
        "started": "2026-01-01T00:00:00.000Z",
        "elapsed_ms": 1,
        "connections": 1,
        "bytes": 1,
        **more,
    }


def toy_rows(count: int = 12) -> list[dict[str, object]]:
    return [row(at, {"NULL": TOY % (at, at % 3, at % 7)}) for at in range(count)]


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def clusters_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "clusters.ndjson").read_text().splitlines()]


def test_what_nobody_named_gets_a_line_with_samples_and_a_fingerprint(tmp_path: Path) -> None:
    """The database of one line can be read, its samples fit it and say what they should: `db lint` finds nothing."""
    out = tmp_path / "proposed"
    done = run(written(tmp_path / "rows.ndjson", toy_rows()), "-o", out)
    assert done.exit_code == 0, done.output
    assert "1 lines proposed" in done.stderr
    (cluster,) = clusters_of(out)
    assert cluster["line"] == r"match ftp m|^220 [\w.-]+ Toyd FTP ([\w.+~-]+) ready\r\n| p/Toyd FTP/ v/$1/"
    assert (cluster["hosts"], cluster["services"], cluster["held"], cluster["faults"]) == (12, 12, 1.0, [])
    assert sorted(path.name for path in out.iterdir()) == [
        *("001-ftp-toyd-ftp.ndjson", "001-ftp-toyd-ftp.probes", "001-ftp-toyd-ftp.sf.txt"),
        *("README.md", "all.probes", "clusters.ndjson"),
    ]
    word = str(out / "001-ftp-toyd-ftp")
    lint = CliRunner().invoke(
        cli, ["db", "lint", f"{word}.probes", "--samples", f"{word}.ndjson", "--strict", "--notes"]
    )
    assert lint.exit_code == 0, lint.output
    again = run(tmp_path / "rows.ndjson", "-o", tmp_path / "again", "--probes", out / "all.probes")
    assert again.exit_code == 0
    assert clusters_of(tmp_path / "again") == []


def test_a_fingerprint_for_submission_is_one_of_the_rows_own(tmp_path: Path) -> None:
    """Character by character, in lines of 74; it can be read back to the responses."""
    rows = toy_rows()
    run(written(tmp_path / "rows.ndjson", rows), "-o", tmp_path / "out")
    text = (tmp_path / "out" / "001-ftp-toyd-ftp.sf.txt").read_text()
    assert text.strip() in [one["fingerprint"] for one in rows]
    assert all(len(line) <= 75 for line in text.splitlines())
    found = list(fingerprints.responses(fingerprints.joined(text.encode())))
    assert found
    assert not any(isinstance(one, Unreadable) for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SF-Port1-TCP:V=1",
        'SF-Port1-TCP:V=1%r(NULL,1,"a");\x1b[2J',
        'SF-Port99999-TCP:V=1%r(NULL,1,"a");',
        'SF-Port1-TCP:V=1%r(NULL,1,"a"',
        'Host: x SF-Port1-TCP:V=1%r(NULL,1,"a");',
        'SF-Port1-TCP:V=1%r(NULL,1,"\u00e4");',
    ],
)
def test_what_is_no_fingerprint_is_never_submitted(text: str) -> None:
    assert submission(text) == ""


def test_a_fingerprint_on_one_line_is_wrapped() -> None:
    """As XML has it."""
    text = fingerprint({"NULL": bytes(range(200))})
    assert submission(text.replace("\nSF:", "")) == submission(text) == text


def test_named_rows_are_left_out_and_soft_ones_are_not(tmp_path: Path) -> None:
    """A hard line of the database names it; a softmatch's name is the service's."""
    soft = [row(at, {"NULL": b"220 box%d FTP server Blinkenlights ready.\r\n" % at}, "softmatched") for at in range(4)]
    named = [row(at, {"NULL": b"220 (vsFTPd 3.0.%d)\r\n" % at}) for at in range(4)]
    done = run(written(tmp_path / "rows.ndjson", soft + named), "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "4 have a name" in done.stderr
    (cluster,) = clusters_of(tmp_path / "out")
    assert str(cluster["line"]).startswith("match ftp m|")


def test_what_a_service_says_twice_counts_once(tmp_path: Path) -> None:
    rows = [row(at, {"NULL": TOY % (at, 1, 2), "GenericLines": TOY % (at, 1, 2)}) for at in range(3)]
    run(written(tmp_path / "rows.ndjson", rows), "-o", tmp_path / "out")
    assert [cluster["probe"] for cluster in clusters_of(tmp_path / "out")] == ["NULL"]


@pytest.mark.parametrize("form", ["packed", "stored", "text", "xml", "parquet", "folder"])
def test_every_form_of_input_is_read(form: str, tmp_path: Path) -> None:
    """Rows of scans however packed, tables, reports, folders of them, and stored responses."""
    rows = toy_rows(5)
    plain = written(tmp_path / "rows.ndjson", rows)
    path = tmp_path / "input"
    if form == "packed":
        path.write_bytes(zstandard.compress(plain.read_bytes()))
    elif form == "stored":
        stored = [
            {"ip": f"10.0.0.{at}", "port": 21, "data": base64.b64encode(TOY % (at, 1, 2)).decode()} for at in range(5)
        ]
        written(path, stored)
    elif form == "text":
        path.write_text("\n".join(f"Host {at}:\n{one['fingerprint']}\n" for at, one in enumerate(rows)))
    elif form == "folder":
        path.mkdir()
        written(path / "a.ndjson", rows)
    else:
        pytest.importorskip("pyarrow")
        path = tmp_path / f"rows.{form}"
        done = CliRunner().invoke(cli, ["convert", str(plain), str(path)])
        assert done.exit_code == 0, done.output
    done = run(path, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert [cluster["hosts"] for cluster in clusters_of(tmp_path / "out")] == [5]


def test_the_same_inputs_give_the_same_folder(tmp_path: Path) -> None:
    """Byte for byte; and in another order the same lines."""
    rows = [*toy_rows(), *(row(at, {"NULL": b"\x05\x01" + bytes((at,)) * 9}) for at in range(9))]
    for name, order in (("a", rows), ("b", rows), ("c", rows[::-1])):
        run(written(tmp_path / "rows.ndjson", order), "-o", tmp_path / name)
    folders = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"]
    assert folders[0] == folders[1] == folders[2]


def test_nothing_is_overwritten_without_being_asked_for(tmp_path: Path) -> None:
    """--force replaces what an earlier run proposed, and leaves every other file."""
    rows = written(tmp_path / "rows.ndjson", toy_rows())
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "007-old-line.probes").write_text("old")
    refused = run(rows, "-o", out)
    assert refused.exit_code != 0
    assert "not empty" in str(refused.exception)
    assert sorted(path.name for path in out.iterdir()) == ["007-old-line.probes", "notes.txt"]
    assert run(rows, "-o", out, "--force").exit_code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "007-old-line.probes").exists()
    assert (out / "README.md").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing.ndjson", "-o", "out"), "missing.ndjson"),
        (("-", "-", "-o", "out"), "only one of them"),
        (("rows.ndjson", "-o", "rows.ndjson"), "no folder"),
        (("rows.ndjson", "-o", "/"), "no folder"),
        (("folder", "-o", "folder/out"), "lies in folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "rows.ndjson", toy_rows(2))
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder" / "rows.ndjson", toy_rows(2))
    done = run(*words)
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_faults_are_told_and_counted(tmp_path: Path) -> None:
    """Exit code 1 where something was skipped, 2 where nothing could be used; an input without the nameless is none."""
    path = written(tmp_path / "rows.ndjson", toy_rows(3))
    path.write_text("{broken\n" + path.read_text())
    done = run(path, "-o", tmp_path / "some")
    assert done.exit_code == 1
    assert "rows.ndjson:1: " in done.stderr
    assert len(clusters_of(tmp_path / "some")) == 1
    path.write_text("{broken\n")
    assert run(path, "-o", tmp_path / "none").exit_code == 2
    assert not (tmp_path / "none").exists()
    path.write_text("")
    assert run(path, "-o", tmp_path / "empty").exit_code == 0


def test_least_and_limit(tmp_path: Path) -> None:
    rows = [
        *toy_rows(5),
        *(row(100 + at, {"NULL": b"HALLO I am Blinkenlights %d\n" % at}) for at in range(3)),
        row(200, {"NULL": b"me\n"}),
    ]
    path = written(tmp_path / "rows.ndjson", rows)
    counts = []
    for at, words in enumerate([(), ("--least", "4"), ("--least", "1"), ("--limit", "1")]):
        run(path, "-o", tmp_path / str(at), *words)
        counts.append([cluster["hosts"] for cluster in clusters_of(tmp_path / str(at))])
    assert counts == [[5, 3], [5], [5, 3, 1], [5]]


def test_known_files_show_thefts(tmp_path: Path) -> None:
    """A row says by `expect` whose response it is; a line that fits it is not among those that are clean."""
    known = {"data": base64.b64encode(TOY % (1, 2, 3)).decode(), "expect": {"name": "ftp", "product": "Toyd in truth"}}
    written(tmp_path / "known.ndjson", [known])
    run(written(tmp_path / "rows.ndjson", toy_rows()), "-o", tmp_path / "out", "--known", tmp_path / "known.ndjson")
    (cluster,) = clusters_of(tmp_path / "out")
    assert cluster["thefts"] == {"ftp Toyd in truth": 1}
    assert cluster["faults"] == ["steals"]
    assert not any(probe.signatures for probe in load_database(tmp_path / "out" / "all.probes").probes)
    assert "Toyd in truth" in (tmp_path / "out" / "README.md").read_text()


HOSTILE = st.one_of(
    st.binary(max_size=400),
    st.text(alphabet="|q=%@~!/\\$^.*+?()[]{}<>`#\r\n\t\x00\x1b1.aF-_:\u00ff", max_size=200).map(
        lambda text: text.encode("latin-1")
    ),
    st.sampled_from(
        [
            b"\n",
            b"|" * 300,
            b"q|| m|",
            b"220 " + b"$1" * 50,
            b"\x00" * 300,
            b"A" * 5000,
            b"HTTP/1.0 200 \r\nServer: `|#\x1b[2J\r\n\r\n",
        ]
    ),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    responses=st.lists(HOSTILE, min_size=1, max_size=8), probe=st.sampled_from(["NULL", "GetRequest", "x|y`", "\x1b"])
)
def test_hostile_rows_make_files_that_can_be_read(
    responses: list[bytes], probe: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a server says: databases parse, samples say what their line says, and nothing reaches a terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    rows: list[dict[str, object]] = [
        {"ip": ip, "port": at, "probe": probe, "data": base64.b64encode(data).decode(), "pseudo": at % 2 or None}
        for at, data in enumerate(responses)
        for ip in ("10.0.0.1", "\x1b]0;x\x07")
    ]
    done = run(written(folder / "rows.ndjson", rows), "-o", folder / "out", "--least", "1")
    assert done.exit_code in {0, 1}, done.output
    for path in (folder / "out").iterdir():
        assert "\x1b" not in path.read_text()
        if path.suffix == ".probes" and path.name != "all.probes":
            lint = CliRunner().invoke(cli, ["db", "lint", str(path), "--samples", str(path.with_suffix(".ndjson"))])
            assert lint.exit_code == 0, lint.output


class Toyd(socketserver.BaseRequestHandler):
    """Greets, and goes: what it is, no database knows."""

    def handle(self) -> None:
        host = self.server.server_address[0]
        self.request.sendall(f"* toyd 1.4.{host[-1]} on {host} ready\r\n".encode())


def test_a_service_is_scanned_learned_and_known(tmp_path: Path) -> None:
    """The whole way, over sockets: a scan names nobody, `learn` proposes a line, and the next scan uses it."""
    servers = [socketserver.ThreadingTCPServer((f"127.0.0.{at}", 0), Toyd) for at in range(2, 6)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        targets = [f"{host}:{port}" for host, port, *_ in (server.server_address for server in servers)]
        before = list(scan_sync(targets, ScanConfig(probes=("builtin",), intensity=0)))
        assert {one.verdict for one in before} == {Verdict.NOMATCH}
        (tmp_path / "rows.ndjson").write_text("".join(f"{one.to_json()}\n" for one in before))
        assert run(tmp_path / "rows.ndjson", "-o", tmp_path / "out").exit_code == 0
        probes = (str(tmp_path / "out" / "all.probes"), "builtin")
        after = list(scan_sync(targets, ScanConfig(probes=probes, intensity=0)))
        assert {(one.name, one.product, one.version) for one in after} == {
            ("toyd", "toyd", f"1.4.{at}") for at in range(2, 6)
        }
        assert {one.connections for one in after} == {1}
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
