"""Our Python children import nothing of the folder that the user happens to work in, whatever its files are called."""

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import isolated
from engine.databases import open_matcher
from engine.isolated import command
from engine.offline import identify as offline
from engine.offline.stream import Chunk

ROOT = Path(__file__).resolve().parent.parent
DATABASE = b"Probe TCP NULL q||\nmatch a m|^a|\n"


def imported() -> set[str]:
    """The top-level modules that our sources name, and all of the standard library."""
    names = set(sys.stdlib_module_names)
    for path in (file for package in isolated.OURS for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder full of files named like modules, each of which writes its name down when it is imported."""
    folder = tmp_path / "work"
    folder.mkdir()
    marker = tmp_path / "imported"
    for name in imported():
        (folder / f"{name}.py").write_text(
            f"open({str(marker)!r}, 'a').write(__name__ + '\\n')\nraise ImportError(__name__)\n"
        )
    monkeypatch.chdir(folder)
    return marker


def test_the_trap_works(trap: Path) -> None:
    """A child that is started as usual walks into it."""
    subprocess.run([sys.executable, "-c", "import random"], capture_output=True, check=False, timeout=60)
    assert trap.exists()


@pytest.mark.parametrize("function", ["engine.offline.identify:work", "os:close"])
@pytest.mark.parametrize("path", ["", ".", "absolute", "linked"])
def test_a_child_imports_nothing_of_the_working_folder(
    trap: Path, monkeypatch: pytest.MonkeyPatch, function: str, path: str
) -> None:
    """However the folder stands in the module path of its parent."""
    here = Path.cwd()
    link = here.parent / "link"
    link.symlink_to(here)
    folder = {"absolute": str(here), "linked": str(link)}.get(path, path)
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    monkeypatch.setenv("PYTHONPATH", folder)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(command(function, theirs.fileno()), pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()
        ours.close()  # a worker whose parent has gone ends
        assert child.communicate(timeout=60)[1] == b""
    assert child.returncode == 0
    assert not trap.exists()


@pytest.mark.usefixtures("trap")
def test_workers_answer_in_such_a_folder(trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "INLINE_BYTES", 1)
    database = tmp_path / "db"
    database.write_bytes(DATABASE)
    matcher = open_matcher([str(database)], "reference")

    def chunks() -> Iterator[Chunk]:
        return (Chunk(b'{"banner":"a"}\n', number, 0) for number in range(9))

    answers = list(offline.identify(chunks(), matcher, [str(database)], 2))
    assert sum(answer.tally.matched for answer in answers) == 9
    assert not trap.exists()


def test_a_child_runs_the_code_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another `engine` in a folder of the module path, such as an older release, is not taken for ours."""
    other = tmp_path / "other" / "engine"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('not this one')\n")
    monkeypatch.setattr(sys, "path", [str(other.parent), *sys.path])
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"):
        child = subprocess.run(
            command("engine.offline.identify:work", writing),
            pass_fds=[writing],
            capture_output=True,
            timeout=60,
            check=False,
        )
        os.close(writing)
    assert b"not this one" not in child.stderr


def test_what_only_the_parent_finds_is_found_by_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `pip install --user` or PYTHONPATH: the folders are handed over, behind the interpreter's own."""
    (tmp_path / "only_here.py").write_text("def close(descriptor):\n    print(descriptor)\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    child = subprocess.run(command("only_here:close", 7), capture_output=True, check=True, timeout=60)
    assert child.stdout == b"7\n"


def test_a_working_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert command("os:close", 7)[1] == "-I"
