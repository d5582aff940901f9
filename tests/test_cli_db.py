"""`probemill db`: what each command prints, and its exit codes."""

import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.cli.db import db_group
from engine.errors import ConfigError, EngineError, InputError
from matcher import DatabaseError, find_database, load_database

DATABASE = rb"""Probe TCP NULL q||
match ssh m|^SSH-([\d.]+)-(\w+)(x)?| p/$2/ v/$1/ i/$3/ cpe:/a:b:c:$1/
softmatch ssh m|^SSH-|
Probe TCP Ask q|ask|
match answer m|^(?=answer)a| p/Answerer/
"""
SAMPLES = [
    {"banner": "SSH-2.0-ay", "source": "handmade",
     "expect": {"name": "ssh", "product": "ay", "version": "2.0", "cpe": ["cpe:/a:b:c:2.0"]}},
    {"banner": "SSH-x", "source": "handmade", "expect": {"name": "ssh", "soft": True}},
    {"banner": "answer", "probe": "Ask", "source": "handmade", "expect": {"name": "answer", "product": "Answerer"}},
]  # fmt: skip


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    monkeypatch.setenv("PROBEMILL_PROBES", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "a.ndjson").write_text("\n".join(map(json.dumps, SAMPLES)))
    return folder


def run(*arguments: str, input: bytes | None = None) -> Result:  # noqa: A002 - CliRunner's name
    return CliRunner().invoke(db_group, list(arguments), input=input)


# -- which database


def test_a_file_without_a_probe_is_a_database(tmp_path: Path) -> None:
    """Nmap takes one, too; a scan with it says that nothing will be asked."""
    empty = tmp_path / "empty"
    empty.write_bytes(b"# nothing\n")
    assert not load_database(empty).probes


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers the user often has neither HOME nor an entry in passwd."""

    def homeless(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.delenv("NMAPDIR", raising=False)
    monkeypatch.delenv("PROBEMILL_PROBES")
    assert find_database().is_file()


# -- lint


def test_lint_uses_the_samples_beside_the_database(database: Path, samples: Path) -> None:
    result = run("lint")
    assert (result.stdout, result.exit_code) == ("", 0), result.stdout
    assert "3 samples; 0 errors, 0 warnings, 1 note (--notes shows them)" in result.stderr


def test_lint_without_samples(database: Path) -> None:
    result = run("lint", str(database), "--notes")
    assert result.exit_code == 0
    assert f"{database}:5:16: note: needs backtracking: look ahead [backtracking]" in result.stdout
    assert "no samples;" in result.stderr


LINT_CODES = [  # what is put behind the database, options, exit code, text
    (b"", (), 0, ""),
    (b"match b m|^(?:a+)+b|\n", (), 0, "warning: a repeat inside a repeat"),
    (b"match b m|^(?:a+)+b|\n", ("--strict",), 1, "warning: a repeat inside a repeat"),
    (b"match b m|^b| v/$1/\n", (), 1, "error: version can never be made"),
    (b"match b m|(|\n", (), 2, "error: pattern: missing closing parenthesis"),
]


@pytest.mark.parametrize(("more", "options", "code", "text"), LINT_CODES)
def test_lint_exit_codes(database: Path, more: bytes, options: tuple[str, ...], code: int, text: str) -> None:
    database.write_bytes(DATABASE + more)
    result = run("lint", str(database), *options)
    assert result.exit_code == code
    assert text in result.stdout


def test_lint_fits_one_screen(database: Path, samples: Path) -> None:
    """A few findings of each rule, then how many there are, what helps, and the next command; --all prints each."""
    database.write_bytes(DATABASE + b"".join(b"match b m|^b%d| v/$1/\n" % number for number in range(9)))
    result = run("lint")
    assert result.exit_code == 1
    assert result.stdout.count("[unsampled]") == result.stdout.count("[field]") == 5
    assert "  8 more findings of the same rules (--all shows them)\n" in result.stderr
    assert "  9 unsampled: add a response that only this line wins, or remove the line\n" in result.stderr
    assert result.stderr.endswith(f"next: probemill db capture HOST:PORT --probes {database}\n")
    assert run("lint", "--all").stdout.count("[unsampled]") == 9


def test_lint_names_the_command_for_a_sample(database: Path, samples: Path) -> None:
    """A sample that gets something else is explained by the command that is printed."""
    (samples / "a.ndjson").write_text("\n".join(map(json.dumps, [*SAMPLES[1:], {**SAMPLES[0], "expect": None}])))
    result = run("lint")
    path = samples / "a.ndjson"
    assert f"next: sed -n 3p {path} | probemill db explain --probes {database}\n" in result.stderr
    assert run("explain", "--probes", str(database), input=path.read_bytes().splitlines()[2]).exit_code == 0


def test_lint_judges_by_the_samples_it_is_given(database: Path, samples: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ndjson"
    other.write_text(json.dumps({**SAMPLES[0], "expect": None}))
    result = run("lint", "--samples", str(other), "--samples", str(samples))
    assert result.exit_code == 1
    assert result.stdout == f"{other}:1:1: error: line 2 matches, and none may [false-match]\n"


def test_lint_of_nothing() -> None:
    assert isinstance(run("lint", "/no/such/file").exception, InputError)


# -- explain


EXPLANATIONS = [  # arguments, input, exit code, lines of the output
    (
        (), b"SSH-2.0-ab", 0,
        ["won       line 2 of NULL: match ssh ab 2.0", "          product    ab", "          version    2.0",
         "          cpe        cpe:/a:b:c:2.0", "          extrainfo  dropped: $3 took no part in the match",
         "          $1         '2.0'", "          $3         unset", "fits too  line 3 of NULL: softmatch ssh"],
    ),
    (("--probe", "Ask"), b"answer", 0,
     ["asked     Ask (1 lines), NULL (2 lines)", "won       line 5 of Ask: match answer Answerer"]),
    ((), b"nothing", 1, ["response  7 bytes to TCP NULL: 'nothing'", "won       no line"]),
    ((), b'{"banner":"answer","probe":"Ask"}\n{"banner":"SSH-"}', 0,
     ["won       line 5 of Ask: match answer Answerer", "won       line 3 of NULL: softmatch ssh"]),
    (("--raw",), b'{"banner":"SSH-"}', 1, ["""response  17 bytes to TCP NULL: '{"banner":"SSH-"}'"""]),
    ((), b'{"code": 5}', 1, ["""response  11 bytes to TCP NULL: '{"code": 5}'"""]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "data", "code", "lines"), EXPLANATIONS)
def test_explain(arguments: tuple[str, ...], data: bytes, code: int, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "response").write_bytes(data)
    for result in (run("explain", *arguments, input=data), run("explain", *arguments, str(tmp_path / "response"))):
        assert result.exit_code == code, result.stderr
        assert [line for line in lines if line not in result.stdout.splitlines()] == []


def test_explain_of_a_probe_that_is_not_there() -> None:
    error = run("explain", "--probe", "Gone", input=b"x").exception
    assert isinstance(error, ConfigError)
    assert "has no TCP probe named Gone" in str(error)
    assert isinstance(run("explain", "/no/such/file").exception, InputError)


# -- stats, compile


def test_stats_count_what_is_there(database: Path) -> None:
    out = run("stats").stdout
    facts = {line[:30].strip(): line[30:].strip() for line in out.splitlines()}
    assert facts["TCP probes"] == "2"
    assert facts["UDP probes"] == "0"
    assert facts["match lines"] == "2"
    assert facts["softmatch lines"] == "1"
    assert facts["services"] == "2"
    assert facts["products"] == "2"
    assert facts["lines that need backtracking"] == "1"


def test_nothing_that_a_database_says_is_obeyed(tmp_path: Path) -> None:
    """Neither by the terminal nor as markup: names with brackets, a path with escapes and bytes that are no UTF-8."""
    path = tmp_path / os.fsdecode(b"d\xff\x1b[2J\xe2\x80\xae[b]")
    path.write_bytes(b"Probe TCP a[/b][red] q|a|\nmatch [/i]x m|^a(.*)|s p/\x1b[2J/ cpe:/a:\x9b:\x07$9/\n")
    name = rf"{tmp_path}/d\xff\x1b[2J\u202e[b]"
    for command in (["stats"], ["lint", "--notes"], ["compile", "--probes"]):
        result = run(*command, str(path))
        assert result.exit_code in (0, 1), result.exception
        assert name in (result.stdout + result.stderr).replace("\n", "")
        assert (result.stdout + result.stderr).replace("\n", "").isprintable()
    assert "a[/b][red]" in run("stats", str(path)).stdout
    explained = run("explain", "--probes", str(path), "--probe", "a[/b][red]", input=b"a\x1b[31m\x9b")
    assert explained.stdout.replace("\n", "").isprintable()
    assert "match [/i]x" in explained.stdout


@pytest.mark.parametrize("engine", ["re2", "reference"])
def test_compile_leaves_the_sets_on_disk(database: Path, tmp_path: Path, engine: str) -> None:
    result = run("compile", "--matcher", engine)
    assert result.stdout == f"{database}: 3 lines of 2 probes are ready for {engine}\n"
    assert (tmp_path / "cache" / "probemill").is_dir() or engine == "reference"


def test_compile_of_nothing() -> None:
    assert isinstance(run("compile", "--probes", "/no/such/db").exception, DatabaseError)


# -- capture, new


class Greeter(socketserver.BaseRequestHandler):
    """Greets, then answers one line; `quit` is answered like the greeting was."""

    def handle(self) -> None:
        self.request.sendall(b"SSH-2.0-greeter\xff\r\n")
        if self.request.recv(100) == b"ask":
            self.request.sendall(b"answer\r\n")


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, link = self.request
        link.sendto(b"got " + data, self.client_address)


@pytest.fixture(params=["tcp", "udp"])
def service(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server on loopback, as HOST:PORT."""
    kind = socketserver.ThreadingTCPServer if request.param == "tcp" else socketserver.ThreadingUDPServer
    with kind(("127.0.0.1", 0), Greeter if request.param == "tcp" else Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}" + ("/udp" if request.param == "udp" else "")
        finally:
            server.shutdown()
            thread.join()


def test_capture_writes_samples_that_lint_takes(
    service: str, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each different answer, with its bytes and with what the database makes of them today."""
    monkeypatch.setattr("engine.offline.capture.QUIET_S", 0.2)
    database.write_bytes(DATABASE + b"Probe TCP Ask2 q|x|\nProbe UDP U q|u\\xff|\nmatch echo m|^got (.)| v/$1/\n")
    result = run("capture", service, "--source", "real: test")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    ssh = {"name": "ssh", "product": "greeter", "version": "2.0", "cpe": ["cpe:/a:b:c:2.0"]}
    expected = {
        "tcp": [("NULL", "SSH-2.0-greeter\xff\r\n", ssh), ("Ask", "SSH-2.0-greeter\xff\r\nanswer\r\n", ssh)],
        "udp": [("U", "got u\xff", {"name": "echo", "version": "u"})],
    }["udp" if service.endswith("udp") else "tcp"]
    assert [(row["probe"], row["banner"], row["expect"]) for row in rows] == expected
    path = tmp_path / "captured.ndjson"
    path.write_text(result.stdout)
    assert "error: line" not in run("lint", "--samples", str(path)).stdout


def test_capture_keeps_every_answer_when_told_to(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.offline.capture.QUIET_S", 0.2)
    database.write_bytes(DATABASE + b"Probe TCP Ask2 q|x|\n")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeter) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        result = run("capture", f"127.0.0.1:{server.server_address[1]}", "--every")
        server.shutdown()
        thread.join()
    assert [json.loads(line)["probe"] for line in result.stdout.splitlines()] == ["NULL", "Ask", "Ask2"]


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:1,2", "127.0.0.0/24:80", "127.0.0.1:0", "a b"])
def test_capture_wants_one_service(text: str) -> None:
    assert isinstance(run("capture", text).exception, InputError)


def test_capture_of_a_closed_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = run("capture", f"127.0.0.1:{taken.getsockname()[1]}").exception
    assert isinstance(error, EngineError)
    assert "cannot be asked: Connection refused" in str(error)


PROPOSALS = [  # response, expected answer, line
    ("SSH-2.0-dropbear_2022.83\r\n", {"name": "ssh", "product": "Dropbear sshd", "version": "2022.83"},
     r"match ssh m|^SSH-2\.0-dropbear_([\w.+~-]+)\r\n| p/Dropbear sshd/ v/$1/"),
    ("220 mx.example ESMTP Toy/1.2|3 id 123456\r\nmore",
     {"name": "smtp", "version": "1.2", "hostname": "mx.example", "cpe": ["cpe:/a:toy:toy:1.2"]},
     r"match smtp m=^220 ([\w.-]+) ESMTP Toy/([\w.+~-]+)\|3 id \d+\r\n= v/$2/ h/$1/ cpe:/a:toy:toy:$2/"),
    ("toy 3.14.1 at 192.0.2.7 ready\n", None, r"match unknown m|^toy ([\w.+~-]+) at [\d.]+ ready\n| v/$1/"),
    ("\u0000\u0001\u00ff.A", {"name": "toy", "soft": True, "product": "a/b"},
     r"softmatch toy m|^\x00\x01\xff\.A| p|a/b|"),
    ("HTTP/1.1 200 OK\r\nDate: x\r\nServer: toyd/2.0 (x)\r\n\r\n", {"name": "http", "version": "2.0"},
     r"match http m|^HTTP/1\.[01] \d\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*?Server: toyd/([\w.+~-]+) \(x\)\r\n| v/$1/"),
    ("HTTP/1.1 200 OK\r\n\r\n<html><TITLE>Toy 7.1</TITLE>", None,
     r"match unknown m|^HTTP/1\.[01] \d\d\d.*?<TITLE>Toy ([\w.+~-]+)</TITLE>|s v/$1/"),
]  # fmt: skip


@pytest.mark.parametrize(("banner", "expect", "line"), PROPOSALS)
def test_new_proposes_a_line(banner: str, expect: dict[str, object] | None, line: str, tmp_path: Path) -> None:
    """The proposal fits its sample, and gives what the sample expects."""
    path = tmp_path / "new.ndjson"
    path.write_text(json.dumps({"banner": banner, "expect": expect, "source": "handmade"}))
    result = run("new", str(path))
    assert result.exit_code == 0
    assert [text for text in result.stdout.splitlines() if text and not text.startswith("#")] == [line]
    if expect:
        (tmp_path / "own").write_text(f"Probe TCP NULL q||\n{line}\n")
        assert run("lint", str(tmp_path / "own"), "--samples", str(path)).exit_code == 0


def test_new_proposes_one_line_for_samples_of_one_kind(tmp_path: Path) -> None:
    path = tmp_path / "new.ndjson"
    rows = [{"banner": f"toy {version} ready\r\n", "expect": None} for version in ("1.0", "2.7.1-rc2")]
    path.write_text("\n".join(map(json.dumps, [*rows, {"banner": "SSH-2.0-x", "expect": None}])) + "\nbad\n")
    result = run("new", str(path), "--service", "toy")
    lines = [text for text in result.stdout.splitlines() if text.startswith("match")]
    assert lines == [r"match toy m|^toy ([\w.+~-]+) ready\r\n| v/$1/", r"match toy m|^SSH-([\w.+~-]+)| v/$1/"]
    assert "# today: line 2, ssh x 2.0 cpe:/a:b:c:2.0" in result.stdout
    assert (result.exit_code, f"{path}:4: " in result.stderr) == (1, True)
