"""`probemill match`: files and pipes, exit codes, and what it says on the side."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner, Result
from test_recog import fingerprint, write

from engine.cli.match import match_command
from engine.cli.reading import SHOWN_FAULTS
from engine.errors import InputError
from matcher import DatabaseError, EngineUnavailable, MatcherError

DATABASE = rb"""Probe TCP NULL q||
match ssh m|^SSH-([\d.]+)-(\w+)| p/$2/ v/$1/
"""
GOOD = '{"ip":"192.0.2.1","banner":"SSH-2.0-x"}'
MATCH = '"match":{"name":"ssh","product":"x","version":"2.0","probe":"NULL","line":2}'
ANSWER = f"{GOOD[:-1]},{MATCH}}}"
NULL = '{"banner":"?"}'
DERIVED = '{"data":{"ntp":{"status":"success","result":{"version":3}}}}'
UNKNOWN = '{"banner":"?","probe":"Gone"}'

COMMAND = [sys.executable, "-c", "from engine.cli.match import match_command; match_command()"]


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    monkeypatch.setenv("PROBEMILL_PROBES", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def run(tmp_path: Path, text: str, *options: str) -> tuple[Result, str]:
    (tmp_path / "in").write_text(text)
    out = tmp_path / "out"
    result = CliRunner().invoke(match_command, ["-i", str(tmp_path / "in"), "-o", str(out), *options])
    return result, out.read_text() if out.exists() else ""


CASES = [  # name, input, output, exit code, what stderr says
    ("nothing", "", "", 0, "0 rows, 0 matched"),
    ("one", GOOD, ANSWER + "\n", 0, "1 rows, 1 matched"),
    ("no match", NULL, '{"banner":"?","match":null}\n', 0, "1 rows, 0 matched"),
    (
        "unknown probe",
        UNKNOWN,
        '{"banner":"?","probe":"Gone","match":null,"error":"no TCP probe is named Gone"}\n',
        0,
        "1 to probes the database does not have",
    ),
    ("bad line", f"{GOOD}\nbad\n{GOOD}\n", f"{ANSWER}\n{ANSWER}\n", 1, "in:2: not JSON"),
    ("bad lines counted", f"{GOOD}\nbad\nbad\n", f"{ANSWER}\n", 1, "2 lines skipped"),
    ("nothing good", "bad\nworse\n", "", 2, "in:1: not JSON"),
    ("nobody answered", '{"ip":"192.0.2.1","domain":"d"}\n', "", 0, "0 rows, 0 matched, 1 without a response in"),
    ("some answered", f'{GOOD}\n{{"error":"x"}}\n', f"{ANSWER}\n", 0, "1 rows, 1 matched, 1 without a response in"),
    ("no bytes kept", DERIVED, "", 2, "1 without a response, 1 of these with only what a tool made of it"),
    ("some bytes kept", f"{GOOD}\n{DERIVED}", f"{ANSWER}\n", 0, "1 of these with only what a tool made of it"),
    ("report", "Nmap scan report for x\n22/tcp open ssh\n", "", 0, "2 lines of text passed over"),
    ("report with damage", "Nmap scan report for x\nSF-Port1-TCP:V=1%r(\n", "", 2, "in:2: damaged fingerprint"),
    ("text before records", f"bad\n{GOOD}\n", f"{ANSWER}\n", 1, "in:1: not JSON"),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_outcomes(tmp_path: Path, case: tuple[str, str, str, int, str]) -> None:
    _, text, expected, code, said = case
    result, out = run(tmp_path, text)
    assert (out, result.exit_code) == (expected, code)
    assert said in result.stderr


def test_many_faults_are_counted_not_printed(tmp_path: Path) -> None:
    result, _ = run(tmp_path, GOOD + "\nbad" * (SHOWN_FAULTS + 5))
    assert result.stderr.count("not JSON") == SHOWN_FAULTS
    assert "5 more lines could not be read" in result.stderr


def test_quiet(tmp_path: Path) -> None:
    assert run(tmp_path, GOOD, "--quiet")[0].stderr == ""
    assert "in:2: not JSON" in run(tmp_path, GOOD + "\nbad", "-q")[0].stderr


def test_cut_zstd_input_is_answered_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "cut.zst"
    text = "".join(f'{{"n":{n},"banner":"SSH-2.0-x"}}\n' for n in range(100_000))
    packed = zstandard.compress(text.encode())
    path.write_bytes(packed[:-1000])
    out = tmp_path / "out"
    result = CliRunner().invoke(match_command, ["-i", str(path), "-o", str(out), "--workers", "1"])
    assert result.exit_code == 1
    assert "ends in the middle of its zstd data" in result.stderr
    assert len(out.read_bytes().splitlines()) > 10_000


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (["-i", "/no/such/file"], InputError, "/no/such/file: cannot be read"),
        (["--probes", "/no/such/db"], DatabaseError, "/no/such/db:1:1: cannot be read"),
        (["--matcher", "magic"], EngineUnavailable, "unknown matching engine 'magic'"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, options: list[str], error: type[MatcherError], text: str) -> None:
    """Known errors reach `main`, which makes one line and exit code 2 of them."""
    result, _ = run(tmp_path, GOOD, *options)
    assert isinstance(result.exception, error)
    assert text in str(result.exception)


def test_several_databases_are_told_apart(tmp_path: Path, database: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"Probe TCP NULL q||\nmatch what m|^\\?|\n")
    _, out = run(tmp_path, GOOD + "\n" + NULL, "--probes", f"{database},{other}")
    files = [json.loads(line)["match"]["file"] for line in out.splitlines()]
    assert files == [str(database), str(other)]


def test_a_pipe_in_and_a_pipe_out() -> None:
    done = subprocess.run(COMMAND, input=f"{GOOD}\n{GOOD}".encode(), capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == f"{ANSWER}\n{ANSWER}\n"


def test_an_empty_pipe_is_no_fault() -> None:
    done = subprocess.run(COMMAND, input=b"", capture_output=True, check=True, timeout=60)
    assert done.stdout == b""
    assert b"0 rows, 0 matched in" in done.stderr


def test_little_input_takes_little_memory(tmp_path: Path) -> None:
    """Whatever it unpacks to: a few kB of zstd that hold 300 MB."""
    packed = tmp_path / "rows.zst"
    text = b'{"x":""}\n' * 200_000 + (b" " * 4095 + b"\n") * 75_000
    packed.write_bytes(zstandard.ZstdCompressor(level=19).compress(text))
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n" + COMMAND[-1]
    command = [sys.executable, "-c", code, "-i", str(packed), "--matcher", "reference", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=300)
    assert (done.returncode, b"0 rows, 0 matched, 200,000 lines skipped" in done.stderr) == (2, True), done.stderr


def test_a_live_pipe_is_answered_line_by_line() -> None:
    """Nobody has to end the input to see the answer to its first line."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin and child.stdout
        for _ in range(3):
            child.stdin.write(GOOD.encode() + b"\n")
            child.stdin.flush()
            assert child.stdout.readline().decode() == ANSWER + "\n"
        child.stdin.close()
        assert child.wait(timeout=30) == 0


def test_a_reader_that_goes_away_ends_it_in_silence() -> None:
    """As `| head -1` does, even while the input goes on for ever."""
    with subprocess.Popen(
        [*COMMAND, "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin and child.stdout and child.stderr
        block = (GOOD + "\n").encode() * 10_000
        child.stdin.write(GOOD.encode() + b"\n")
        child.stdin.flush()
        assert child.stdout.readline().decode() == ANSWER + "\n"
        child.stdout.close()
        deadline = time.monotonic() + 60
        with suppress(BrokenPipeError):
            while child.poll() is None and time.monotonic() < deadline:
                child.stdin.write(block)
        assert child.wait(timeout=30) == 0
        assert child.stderr.read() == b""
        with suppress(BrokenPipeError):
            child.stdin.close()


@pytest.fixture
def recog(tmp_path: Path) -> Path:
    """Fingerprints made up for these tests."""
    folder = tmp_path / "recog"
    write(
        folder,
        "ssh.xml",
        'matches="ssh.banner"',
        fingerprint(r"^Acme_(\S+)", "Acme", service__product="Acme sshd", service__version=1, os__version="7"),
        fingerprint("^acmed$", "x", service__product="acmed", service__cpe23="cpe:/a:acme:acmed:-"),
    )
    return folder


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_opinion(tmp_path: Path, recog: Path, workers: str) -> None:
    """What was empty is filled in; where no line fits, a text that proves the service makes a match of its own."""
    unknown = '{"banner":"SSH-1.99-Acme_2.1","probe":"NULL"}'
    result, out = run(tmp_path, f'{GOOD[:-3]}acmed"}}\n{NULL}\n', "--recog", str(recog), "--workers", workers)
    assert result.exit_code == 0
    first, second = map(json.loads, out.splitlines())
    assert first["match"] == {
        **{
            "name": "ssh",
            "product": "acmed",
            "version": "2.0",
            "cpe": ["cpe:/a:acme:acmed"],
            "probe": "NULL",
            "line": 2,
        },
        "recog": "ssh.xml: x",
        "post": {
            "recog": {
                "ssh.banner": {
                    "fingerprint": "ssh.xml: x",
                    "service.product": "acmed",
                    "service.cpe23": "cpe:/a:acme:acmed:-",
                }
            }
        },
    }
    assert second["match"] is None
    (tmp_path / "db").write_bytes(b"Probe TCP NULL q||\nmatch x m|^never|\n")
    result, out = run(tmp_path, unknown, "--recog", str(recog), "--workers", workers)
    match = json.loads(out)["match"]
    assert (match["name"], match["product"], match["version"]) == ("ssh", "Acme sshd", "2.1")
    assert (match["probe"], match["line"], match["recog"]) == ("", 0, "ssh.xml: Acme")
    assert match["post"]["recog"]["ssh.banner"]["os.version"] == "7"
    assert "1 matched" in result.stderr


def test_a_folder_without_fingerprints(tmp_path: Path) -> None:
    result, _ = run(tmp_path, GOOD, "--recog", str(tmp_path / "none"))
    assert isinstance(result.exception, MatcherError)
