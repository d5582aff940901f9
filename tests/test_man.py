"""The man pages: one for each command, from the texts of its help, and no program that reads them complains."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.options import ALL_OPTIONS, GROUPS

pytest.importorskip("click_man", reason="needs click-man")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "docs" / "man.py", place], check=True)
    return place


def test_every_command_has_its_page(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names > {
        "probemill.1",
        "probemill-scan.1",
        "probemill-db.1",
        "probemill-db-lint.1",
        "probemill-cluster-check.1",
    }


def test_nothing_in_a_page_is_meant_for_a_terminal(folder: Path) -> None:
    """No escape sequence, no control character, none of click's or rich's marks, no instruction by accident."""
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not [char for char in text if char != "\n" and not char.isprintable()], path.name
        assert "[bold" not in text and "[/bold" not in text


def test_the_page_of_scan_tells_all_its_options_by_groups_with_examples(folder: Path) -> None:
    text = (folder / "probemill-scan.1").read_text(encoding="utf-8").replace(r"\-", "-")
    titles = [line.removeprefix(".SS ") for line in text.splitlines() if line.startswith(".SS ")]
    assert titles[: len(GROUPS)] == [section.title for section in GROUPS]
    assert all(rf"\fB{option.opts[0]}\fP" in text for option in ALL_OPTIONS)
    assert all(section.example in text for section in GROUPS)
    assert "[default: 5s]" in text and ".SH EXIT STATUS" in text


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing_wrong(folder: Path) -> None:
    pages = sorted(map(str, folder.iterdir()))
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_a_page_reads_as_the_help_does(folder: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "ascii", folder / "probemill-scan.1"], capture_output=True, check=True
    ).stdout.decode()
    plain = "".join(char for at, char in enumerate(done) if char != "\b" and done[at + 1 : at + 2] != "\b")
    for said in ("--connect-timeout TIME", "masscan ... -oD - | probemill scan -i - -o - | jq .name", "`-100`"):
        assert said in plain
