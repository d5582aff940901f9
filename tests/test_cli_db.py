"""`probemill db`: what each command prints, and its exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.cli.db import db_group
from engine.errors import ConfigError, InputError
from matcher import DatabaseError

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


# -- lint


def test_lint_uses_the_samples_beside_the_database(database: Path, samples: Path) -> None:
    result = run("lint")
    assert (result.stdout, result.exit_code) == ("", 0), result.stdout
    assert "3 samples; 0 errors, 0 warnings, 1 notes (--notes shows them)" in result.stderr


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


@pytest.mark.parametrize("engine", ["re2", "reference"])
def test_compile_leaves_the_sets_on_disk(database: Path, tmp_path: Path, engine: str) -> None:
    result = run("compile", "--matcher", engine)
    assert result.stdout == f"{database}: 3 lines of 2 probes are ready for {engine}\n"
    assert (tmp_path / "cache" / "probemill").is_dir() or engine == "reference"


def test_compile_of_nothing() -> None:
    assert isinstance(run("compile", "--probes", "/no/such/db").exception, DatabaseError)
