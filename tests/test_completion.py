"""Tab, in the shells themselves, where they are installed: commands, options, choices, names of files."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
CASES = [
    ("probemill sca", "probemill scan"),
    ("probemill db comp", "probemill db compile"),
    ("probemill scan --blockl", "probemill scan --blocklist"),
    ("probemill scan --timing adap", "probemill scan --timing adaptive"),
    ("probemill scan --timing=adap", "probemill scan --timing=adaptive"),
    ("probemill scan --input=target-li", "probemill scan --input=target-list.txt"),
    ("probemill scan --post ssh,jar", "probemill scan --post ssh,jarm"),
    ("probemill match --matcher hyper", "probemill match --matcher hyperscan"),
    ("probemill scan -i target-li", "probemill scan -i target-list.txt"),
    ("probemill convert target-li", "probemill convert target-list.txt"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a `probemill` that runs this checkout, a file to be named, and the scripts."""
    place = tmp_path_factory.mktemp("shell")
    program = place / "bin" / "probemill"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m probemill "$@"\n')
    program.chmod(0o755)
    (place / "target-list.txt").write_text("192.0.2.7:22\n")
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run([program, "completion", shell], capture_output=True, text=True, check=True)
        (place / f"script.{shell}").write_text(done.stdout)
    return place


def environment(folder: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "TERM": "dumb", "PS1": "> ", "LC_ALL": "C.UTF-8"}


class Terminal:
    """A shell that somebody types into."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        self.shell = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdin=theirs, stdout=theirs, stderr=theirs, process_group=0
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def read_until(self, wanted: str) -> str:
        """What was shown until `wanted` is in it."""
        shown, until = "", time.monotonic() + PATIENCE_S
        while wanted not in shown:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{wanted!r} is not in {shown!r}"
            shown += os.read(self._ours, 1 << 16).decode(errors="replace")
        return shown

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self._ours)


@contextmanager
def terminal(folder: Path, *command: str) -> Iterator[Terminal]:
    opened = Terminal(folder, list(command))
    try:
        yield opened
    finally:
        opened.close()


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def press_tab(shell: Terminal) -> None:
    for typed, completed in CASES:
        shell.type(typed + "\t")
        shell.read_until(completed + " ")
        shell.type("\x15")  # the line is of no more use


@needs("bash")
def test_bash_completes(folder: Path) -> None:
    with terminal(folder, "bash", "--norc", "--noprofile", "-i") as shell:
        shell.type("bind 'set enable-bracketed-paste off'; source script.bash; echo rea''dy\n")
        shell.read_until("ready\r\n")
        press_tab(shell)


@needs("zsh")
def test_zsh_completes(folder: Path) -> None:
    with terminal(folder, "zsh", "-f", "-i") as shell:
        shell.type("unsetopt zle_bracketed_paste 2>/dev/null; bindkey -e; autoload -U compinit; compinit -u -D\n")
        shell.type("source script.zsh; echo rea''dy\n")
        shell.read_until("ready\r\n")
        press_tab(shell)


@needs("fish")
@pytest.mark.parametrize(("typed", "completed"), CASES)
def test_fish_completes(folder: Path, typed: str, completed: str) -> None:
    asked = f"source script.fish; complete -C {typed!r}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert completed.rsplit(maxsplit=1)[-1] in [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_asks_the_command_itself(folder: Path, shell: str) -> None:
    """Nothing of ours is written down in it, so that it need not change with us."""
    script = (folder / f"script.{shell}").read_text()
    assert "_PROBEMILL_COMPLETE" in script and "--timing" not in script


def test_completing_commands_imports_none_of_them() -> None:
    code = (
        "import atexit, sys; from engine.cli.main import main;"
        "atexit.register(lambda: print(*(name for name in sys.modules if name.startswith('engine.cli.')))); main()"
    )
    asked = {"_PROBEMILL_COMPLETE": "bash_complete", "COMP_WORDS": "probemill ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | asked, capture_output=True, text=True, check=True
    )
    *found, modules = done.stdout.splitlines()
    assert "plain,scan" in found and "engine.cli.scan" not in modules.split()
