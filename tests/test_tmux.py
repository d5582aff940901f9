"""A scan in a real terminal, tmux: what a person sees at any width, while rows stream and the window is resized."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import DATABASE, Farm, database_file, greeting_after

PATIENCE_S = 60.0
START = "import sys; sys.argv[0] = 'probemill'; from engine.cli.start import main; main()"
ROW = re.compile(r"127\.3\.\d+\.\d+:\d+/tcp open hello Hello 1\.0")
HEIGHT = 20
TARGETS = 60

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Window:
    """A tmux server of its own with one window, in which one command runs."""

    def __init__(self, folder: Path, columns: int, command: list[str]) -> None:
        self._socket = str(folder / "tmux")
        self._done = folder / "done"
        # Some rows first: what a narrower window pushes off its top is history, which no program can mend.
        script = f"seq 5; {shlex.join(command)}; echo $? > {self._done}; exec sleep 600"
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "TMUX"}}
        self._environment = {**kept, "TERM": "xterm-256color"}
        size = ("-x", str(columns), "-y", str(HEIGHT))
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "sh", "-c", script)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, check=True, timeout=PATIENCE_S)
        return done.stdout.decode()

    def screen(self) -> list[str]:
        """The rows that are to be seen, as they are."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines()]

    def history(self) -> list[str]:
        """All lines since the begin; what the terminal has wrapped is one line."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p", "-J", "-S", "-").splitlines()]

    def resize(self, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(HEIGHT))

    @property
    def over(self) -> bool:
        return self._done.exists() and bool(self._done.read_text())

    def close(self) -> None:
        self._tmux("kill-server")


class Scan:
    """A scan of a farm that answers slowly, in a window; its rows stream."""

    def __init__(self, folder: Path, farm: Farm, columns: int, *options: str) -> None:
        targets = farm.targets(*(f"127.3.0.{number}" for number in range(1, TARGETS + 1)))
        (folder / "targets").write_text("".join(f"{target}\n" for target in targets))
        database = database_file(folder, DATABASE.replace(b"totalwaitms 400", b"totalwaitms 9000"))
        options = ("--probes", database, "--max-inflight", "8", "--workers", "1", "-i", "-", *options)
        command = [sys.executable, "-c", START, "scan", *options]
        piped = ["sh", "-c", f"{shlex.join(command)} < {folder / 'targets'}"]
        self.window = Window(folder, columns, piped)
        self.targets = targets

    def looks(self) -> Iterator[list[str]]:
        """What is to be seen, again and again until the scan is over."""
        until = time.monotonic() + PATIENCE_S
        while not self.window.over:
            assert time.monotonic() < until
            yield self.window.screen()
            time.sleep(0.05)

    def check_the_end(self) -> None:
        """Each row is there once, whole; and nothing is left of the line."""
        lines = self.window.history()
        assert sorted(line.split("/")[0] for line in lines if ROW.fullmatch(line)) == sorted(self.targets), lines
        assert not [line for line in lines if "in flight" in line or " done" in line]
        assert any(line.startswith(f"{TARGETS} targets in ") for line in lines)


@pytest.fixture
def farm() -> Iterator[Farm]:
    with Farm(greeting_after(0.4)) as made:
        yield made


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_rows_stream_above_the_line(columns: int, farm: Farm, tmp_path: Path) -> None:
    """The line is one row, the last one; above it stand whole rows, and nothing of the line that was."""
    scan = Scan(tmp_path, farm, columns)
    seen = 0
    try:
        for screen in scan.looks():
            live = [number for number, row in enumerate(screen) if " done" in row]
            assert len(live) <= 1, screen
            if not live:
                continue
            seen += 1
            row = screen[live[0]]
            assert re.match(r" \d+ done( |$)", row), screen
            assert len(row) < columns
            assert not any(screen[live[0] + 1 :]), screen
            above = "".join(line.ljust(columns) for line in screen[: live[0]])
            assert "done" not in above and "flight" not in above and "left" not in above
        scan.check_the_end()
    finally:
        scan.window.close()
    assert seen >= 5


def test_a_window_that_is_resized(farm: Farm, tmp_path: Path) -> None:
    """Narrower and wider while rows come: nothing of the line stays behind."""
    scan = Scan(tmp_path, farm, 120)
    sizes = [40, 120, 25, 90, 60, 30, 120]
    try:
        for number, screen in enumerate(scan.looks()):
            if any(" done" in row for row in screen) and number % 4 == 0 and sizes:
                scan.window.resize(sizes.pop())
        assert len(sizes) < 4
        scan.check_the_end()
    finally:
        scan.window.close()


def test_messages_scroll_as_rows_do(farm: Farm, tmp_path: Path) -> None:
    """They stand above the line, too, however long they are."""
    scan = Scan(tmp_path, farm, 80, "--stats-every", "700ms")
    try:
        for screen in scan.looks():
            assert sum(" done" in row for row in screen) <= 1
        scan.check_the_end()
        assert sum(line.startswith('{"elapsed_s"') for line in scan.window.history()) >= 3
    finally:
        scan.window.close()
