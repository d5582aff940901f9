"""What is written is never what is read: refused before anything is opened, in every command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.files import check_outputs
from engine.errors import ConfigError

DATABASE = "Probe TCP NULL q||\nmatch hello m|^HELLO|\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that a scan reads, links to them, and a file of its own."""
    (tmp_path / "targets").write_text("127.0.0.1:9\n")
    (tmp_path / "never").write_text("192.0.2.0/24\n")
    (tmp_path / "probes").write_text(DATABASE)
    (tmp_path / "rows").write_text("")
    (tmp_path / "soft").symlink_to(tmp_path / "targets")
    os.link(tmp_path / "targets", tmp_path / "hard")
    (tmp_path / "away").symlink_to(tmp_path / "nowhere")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal").write_text("something")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def run(folder: Path, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "probemill", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    given = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 60} | options
    return subprocess.run(command, cwd=folder, env=environment, check=False, **given)  # type: ignore[call-overload, no-any-return]


SCAN = ("scan", "-q", "--no-post", "--workers", "0", "--probes", "probes")


@pytest.mark.parametrize(
    "arguments",
    [
        "-i targets -o targets",
        "-i targets -o ./../{name}/targets",
        "-i targets -o soft",
        "-i targets -o hard",
        "-i soft -o targets",
        "-i targets --fingerprints targets -o rows",
        "-i targets --blocklist never -o never",
        "-i targets --allowlist never --fingerprints never",
        "-i targets -o probes",
        "-i targets --state state -o state/journal",
        "-i targets -o rows -o rows",
        "-i targets -o rows --fingerprints rows",
        "-i targets -o new -o ./new",
        "-i targets -o nowhere -o away",
        "-i targets -o - -o -",
        "-i pipe -o pipe",
        "-i targets -o rows -o rows.ndjson --fingerprints ./rows.ndjson",
    ],
)
def test_scan_refuses(folder: Path, arguments: str) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = run(folder, *SCAN, *arguments.format(name=folder.name).split())
    assert done.returncode == 2
    assert done.stderr.startswith("probemill: ")
    assert "name another file" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_standard_streams_are_files_too(folder: Path) -> None:
    """`< targets -o targets` would lose the targets, and `>> targets` would be read again as targets."""
    targets = folder / "targets"
    with targets.open() as file:
        assert run(folder, *SCAN, "-i", "-", "-o", "targets", stdin=file).returncode == 2
    with targets.open("a") as file:
        done = run(folder, *SCAN, "-i", "targets", stdout=file, capture_output=False, stderr=subprocess.PIPE)
    assert (done.returncode, "name another file" in done.stderr) == (2, True)
    assert targets.read_text() == "127.0.0.1:9\n"


@pytest.mark.parametrize("arguments", ["-i rows -o rows", "-i rows -o ./rows", "-i rows -o probes", "-i pipe -o pipe"])
def test_match_refuses(folder: Path, arguments: str) -> None:
    (folder / "rows").write_text('{"proto":"tcp","probe":"NULL","banner":"HELLO"}\n')
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = run(folder, "match", "-q", "--probes", "probes", *arguments.split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name another file" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    done = run(folder, "match", "-q", "--probes", "probes", "-i", "rows", "-o", "new")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["-o rows", "-o /dev/null -o /dev/null -o rows", "-o rows --fingerprints new"])
def test_scan_accepts(folder: Path, arguments: str) -> None:
    done = run(folder, *SCAN, "-i", "targets", *arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "rows").read_text().count("\n") == 1


@pytest.mark.parametrize(("letter", "made"), [("X", "out"), ("N", "out"), ("G", "out"), ("A", "out.gnmap")])
def test_nmaps_way_to_name_a_form_makes_no_file_of_that_name(folder: Path, letter: str, made: str) -> None:
    """But the one that was named; a file that is called after the letter is still `-o`'s to make."""
    done = run(folder, *SCAN, f"-o{letter}", "out", "127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "")
    assert (folder / made).exists() and not (folder / letter).exists()
    assert run(folder, *SCAN, "-o", letter, "127.0.0.1:9").returncode == 0
    assert (folder / letter).exists()


@pytest.mark.parametrize("letter", ["X", "N", "G"])
def test_what_nmaps_options_name_is_an_output_like_any(folder: Path, letter: str) -> None:
    """Never an input, nor another output, nor a file in the folder of the run."""
    for arguments in ("-i targets -oX targets", "-oX rows -o rows", "--state state -oX state/rows"):
        done = run(folder, *SCAN, "127.0.0.1:9", *arguments.replace("-oX", f"-o{letter}").split())
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), arguments


@pytest.mark.parametrize("name", ["journal", "lock", "part-000001.ndjson.zst", "rows"])
@pytest.mark.parametrize("state", ["state", "fresh"])
def test_the_folder_of_a_run_is_its_own(folder: Path, state: str, name: str) -> None:
    """Whether the file is there yet or not."""
    done = run(folder, *SCAN, "127.0.0.1:9", "--state", state, "-o", f"./{state}/{name}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "in the folder of --state" in done.stderr
    assert not (folder / "fresh").exists()


@pytest.mark.parametrize("bad", ["nowhere-at-all/rows", ".", "targets/rows", "x" * 5000])
def test_an_output_that_cannot_be_opened_is_one_line(folder: Path, bad: str) -> None:
    """And the outputs opened before it have their tail."""
    done = run(folder, *SCAN, "127.0.0.1:9", "-o", "whole.xml", "-o", bad)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("probemill: ")
    assert (folder / "whole.xml").read_text().endswith("</nmaprun>\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--state", ""], "--state: its value is empty"),
        (["--ports", ""], "-p: its value is empty"),
        (["--source", ","], "source address ''"),
        (["--source", "\udcff"], "source address"),
        (["--seed", "9" * 30], "seed: "),
        (["--max-bytes", "99999999999G"], "max_bytes: "),
        (["--workers", "9999999"], "--workers"),
    ],
)
def test_values_that_cannot_be_used(folder: Path, arguments: list[str], said: str) -> None:
    done = run(folder, *SCAN, "127.0.0.1:9", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_deadline_before_the_first_target_is_no_bad_input(folder: Path) -> None:
    done = run(folder, *SCAN, "127.0.0.1:9", "--deadline", "1ms")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_folder_stands_for_its_files(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"-o .*journal: is the input of --state as well"):
        check_outputs([("-o", str(folder / "state" / "journal"))], [("--state", str(folder / "state"))])
    check_outputs([("-o", str(folder / "state" / "rows"))], [("--state", str(folder / "state"))])
