"""What a scan says on a terminal, a pseudo one, and what it says where there is none."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loopback import DATABASE, Farm, database_file, greeting_after

from engine.cli import progress
from engine.cli.terminal import ERASE, NO_WRAP, WRAP, Terminal, progress_mode, same_terminal
from engine.errors import ConfigError
from engine.results.ending import Ending

PATIENCE_S = 60.0
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
START = "import sys; sys.argv[0] = 'probemill'; from engine.cli.start import main; main()"


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    return {**kept, "TERM": "xterm-256color", **changes}


class Screen:
    """The terminal's end of a pseudo terminal; what comes is gathered."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.data = b""
        self._gathering = threading.Thread(target=self._gather, daemon=True)
        self._gathering.start()

    def _gather(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 1 << 16)
            except OSError:  # nobody has the other end any more
                return
            if not piece:
                return
            self.data += piece

    def all(self) -> bytes:
        """Everything that came, once nobody writes any more."""
        os.close(self.slave)
        self._gathering.join(10)
        os.close(self._master)
        return self.data


def scan(
    arguments: list[str], env: Mapping[str, str], *, out: str = "terminal", err: str = "terminal", program: str = START
) -> tuple[bytes, bytes, int]:
    """What the command writes to the terminal, what it writes to pipes, and its exit code."""
    screen = Screen()
    streams = {"terminal": screen.slave, "pipe": subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "-c", program, "scan", *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=streams[out],
        stderr=streams[err],
    )
    piped = b"".join(filter(None, process.communicate(timeout=PATIENCE_S)))
    return screen.all(), piped, process.returncode


@pytest.fixture
def slow(tmp_path: Path) -> str:
    return database_file(tmp_path, DATABASE.replace(b"totalwaitms 400", b"totalwaitms 8000"))


def addresses(count: int) -> list[str]:
    return [f"127.3.{number >> 8}.{number & 255}" for number in range(1, count + 1)]


# --- the door ---------------------------------------------------------------------------------------------------------


def test_everything_is_above_the_line() -> None:
    """Erased, written, drawn again, each time in one piece; and gone at the end."""
    screen = Screen()
    terminal = Terminal(screen.slave)
    drawn = NO_WRAP + b" %s\r" + WRAP
    terminal.above(b"before\n")
    terminal.show(lambda _columns: "one")
    terminal.above(b"row\n")
    terminal.show(lambda _columns: "two")
    terminal.clear()
    terminal.above(b"after\n")
    said = screen.all().replace(b"\r\n", b"\n")
    assert said == b"".join(
        [b"before\n", ERASE, drawn % b"one", ERASE, b"row\n", drawn % b"one", ERASE, drawn % b"two", ERASE, b"after\n"]
    )


def test_the_line_waits_for_the_end_of_another() -> None:
    """A row that comes in two pieces is not torn."""
    screen = Screen()
    terminal = Terminal(screen.slave)
    terminal.show(lambda _columns: "line")
    terminal.above(b"half ")
    terminal.show(lambda _columns: "line")
    terminal.above(b"a row\n")
    assert b"half a row" in screen.all()


def test_the_line_is_drawn_for_the_width_that_there_is() -> None:
    """One column is the cursor's, and the last one stays free."""
    screen = Screen()
    terminal = Terminal(screen.slave)
    for columns in (40, 200, 0):
        pty_size(screen.slave, columns)
        terminal.show(lambda columns: f"<{columns}>")
    assert re.findall(rb"<(\d+)>", screen.all()) == [b"38", b"198", b"78"]


def pty_size(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def test_a_terminal_that_has_gone_is_no_error() -> None:
    master, slave = pty.openpty()
    terminal = Terminal(slave)
    os.close(master)
    terminal.show(lambda _columns: "line")
    terminal.above(b"row\n")
    terminal.clear()
    os.close(slave)
    terminal.show(lambda _columns: "line")


def test_which_descriptors_are_one_terminal() -> None:
    master, slave = pty.openpty()
    other, third = pty.openpty()
    again = os.dup(slave)
    read, write = os.pipe()
    assert same_terminal(slave, again)
    assert not same_terminal(slave, third)
    assert not same_terminal(read, read)
    for descriptor in (master, slave, other, third, again, read, write):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("wanted", "terminal", "term", "mode"),
    [
        ("", True, "xterm", "live"),
        ("auto", True, "xterm", "live"),
        ("auto", True, "dumb", "plain"),
        ("auto", True, "", "plain"),
        ("auto", False, "xterm", "none"),
        ("plain", True, "xterm", "plain"),
        ("plain", False, "xterm", "plain"),
        ("none", True, "xterm", "none"),
    ],
)
def test_modes(wanted: str, terminal: bool, term: str, mode: str) -> None:
    """The variable has the last word; by itself, a line needs a cursor that moves."""
    assert progress_mode({"PROBEMILL_PROGRESS": wanted, "TERM": term}, is_terminal=terminal) == mode


def test_a_mode_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="PROBEMILL_PROGRESS: 'lively' is none of auto, plain, none"):
        progress_mode({"PROBEMILL_PROGRESS": "lively"}, is_terminal=False)


# --- the command ------------------------------------------------------------------------------------------------------


def test_rows_and_the_line_on_one_terminal(slow: str) -> None:
    """Every row is whole and begins its line; found ports are shown while the tables wait; the line is gone."""
    with Farm(greeting_after(0.5)) as farm:
        targets = farm.targets(*addresses(40))
        said, _, code = scan(["--probes", slow, "--max-inflight", "5", *targets], environment())
    assert code == 0
    assert NO_WRAP in said
    text = ESCAPE.sub(b"", said)
    lines = [line.rpartition(b"\r")[2] for line in text.replace(b"\r\n", b"\n").split(b"\n")]
    for target in targets:
        assert sum(line.startswith(f"{target}/tcp open hello Hello 1.0".encode()) for line in lines) in {0, 1}
        assert f"Scan report for {target.partition(':')[0]}".encode() in lines
    assert sum(b"/tcp open hello" in line for line in lines) > 10
    assert all(b"in flight" not in line or b"done" in line for line in lines)
    assert said.rindex(b"in flight") < said.rindex(ERASE) < said.rindex(b"40 targets in")
    flying = [int(count) for count in re.findall(rb"(\d+) in flight", said)]
    assert max(flying) <= 5


def test_rows_in_a_pipe_are_pure(slow: str) -> None:
    """The line is on the terminal, the pipe has rows and nothing else."""
    with Farm(greeting_after(0.3)) as farm:
        said, rows, code = scan(["--probes", slow, *farm.targets(*addresses(20))], environment(), out="pipe")
    assert code == 0
    assert len([json.loads(line) for line in rows.splitlines()]) == 20
    assert b"in flight" in said
    assert b"hello Hello" not in said


def test_text_in_a_file_has_no_colours(slow: str, tmp_path: Path) -> None:
    """Not even where they are forced; and what a terminal shows early is not in it."""
    with Farm(greeting_after(0.3)) as farm:
        env = environment(FORCE_COLOR="1")
        arguments = ["--probes", slow, "-o", str(tmp_path / "a.txt"), *farm.targets(*addresses(3))]
        scan(arguments, env)
        table = (tmp_path / "a.txt").read_bytes()
    assert b"\x1b" not in table
    assert table.startswith(b"Scan report for 127.3.0.1\nPORT")
    assert table.count(b"hello") == 3


@pytest.mark.parametrize(
    ("changes", "colours"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"PROBEMILL_PROGRESS": "none"}, True),
    ],
)
def test_colours(changes: dict[str, str], colours: bool, slow: str) -> None:
    """In the table and in messages, where the terminal has them and the user does not object."""
    with Farm(greeting_after(0.0)) as farm:
        said, _, _ = scan(["--probes", slow, *farm.targets("127.3.0.1"), "not a target"], environment(**changes))
    assert bool(COLOUR.search(said)) == colours
    assert (b"\x1b[1;36mhello" in said) == colours
    if not colours and changes.get("TERM") == "dumb":
        assert b"\x1b" not in said


def test_colours_that_are_forced_into_a_pipe(slow: str) -> None:
    """As a pager wants them: the table and the messages, but no line."""
    with Farm(greeting_after(0.0)) as farm:
        arguments = ["--probes", slow, "--format", "text", *farm.targets("127.3.0.1")]
        _, said, _ = scan(arguments, environment(FORCE_COLOR="1"), out="pipe", err="pipe")
    assert b"\x1b[1;36mhello" in said
    assert NO_WRAP not in said and b"in flight" not in said


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_plain_lines(where: str, slow: str) -> None:
    """A line of text every few seconds, and one at the end, without control characters."""
    with Farm(greeting_after(0.5)) as farm:
        arguments = ["--probes", slow, "--max-inflight", "3", *farm.targets(*addresses(12))]
        env = environment(PROBEMILL_PROGRESS="plain", NO_COLOR="1")
        quick = f"import engine.cli.progress; engine.cli.progress.PLAIN_S = 0.3; {START}"
        said, piped, code = scan(arguments, env, out="pipe", err=where, program=quick)
    assert code == 0
    lines = (said if where == "terminal" else piped).replace(b"\r\n", b"\n").splitlines()
    told = [line for line in lines if b"in flight" in line]
    assert len(told) >= 3
    assert all(line.startswith(b"probemill: ") for line in told)
    assert b"\x1b" not in b"".join(told) and b"\r" not in b"".join(told)
    assert lines[-1].startswith(b"probemill: 12 targets in ")


@pytest.mark.parametrize(
    ("options", "changes"), [(["-q"], {}), ([], {"PROBEMILL_PROGRESS": "none"}), (["-q"], {"TERM": "dumb"})]
)
def test_nothing_but_rows(options: list[str], changes: dict[str, str], slow: str) -> None:
    """Neither line nor summary, and no rows before the table."""
    with Farm(greeting_after(0.0)) as farm:
        targets = farm.targets("127.3.0.1")
        said, _, _ = scan(["--probes", slow, *options, *targets], environment(NO_COLOR="1", **changes))
    assert said.startswith(b"Scan report for 127.3.0.1\r\n")
    assert b"done" not in said and b"targets" not in said and b"\x1b" not in said


def test_no_terminal_no_word(slow: str) -> None:
    """As before: standard error is empty when all is well."""
    with Farm(greeting_after(0.0)) as farm:
        targets = farm.targets("127.3.0.1")
        _, said, _ = scan(["--probes", slow, *targets], environment(), out="pipe", err="pipe")
    assert len(said.splitlines()) == 1
    assert json.loads(said)["name"] == "hello"


def test_a_wrong_word_in_the_variable(slow: str) -> None:
    """One line, before anything is done."""
    said, _, code = scan(["--probes", slow, "127.3.0.1:9"], environment(PROBEMILL_PROGRESS="lots", NO_COLOR="1"))
    assert code == 2
    assert said == b"probemill: PROBEMILL_PROGRESS: 'lots' is none of auto, plain, none\r\n"


def test_a_service_that_commands_the_terminal(tmp_path: Path) -> None:
    """What it calls itself is shown, not obeyed; host names and messages as well."""
    database = tmp_path / "hostile"
    database.write_bytes(DATABASE.replace(b"p/Hello/", "p/\x1b]0;owned\x07\u202eH/".encode()))
    with Farm(greeting_after(0.0)) as farm:
        said, _, _ = scan(["--probes", str(database), *farm.targets("127.3.0.1")], environment(NO_COLOR="1"))
    assert b"\x1b]0;" not in said and b"\x07" not in said and "\u202e".encode() not in said
    assert b"hello" in said


def test_a_terminal_that_stands_still_does_not_stop_the_scan(slow: str, tmp_path: Path) -> None:
    """Nobody reads the terminal; the rows go to a file, and the scan ends."""
    master, slave = pty.openpty()
    out = tmp_path / "rows.ndjson"
    with Farm(greeting_after(0.2)) as farm:
        targets = farm.targets(*addresses(200))
        command = [sys.executable, "-c", START, "scan", "--probes", slow, "-o", str(out), "--stats-every", "50ms"]
        process = subprocess.Popen([*command, *targets, "--max-inflight", "20"], stderr=slave, env=environment())
        assert process.wait(PATIENCE_S) == 0
    os.close(slave)
    assert select.select([master], [], [], 1)[0]
    os.close(master)
    assert len(out.read_bytes().splitlines()) == 200


def test_a_terminal_that_stands_still_does_not_stop_the_deadline(slow: str) -> None:
    """Neither the rows that it does not take, nor what is to be said of that, is waited for without end."""
    master, slave = pty.openpty()
    with Farm(greeting_after(0.0)) as farm:
        command = [sys.executable, "-c", START, "scan", "--probes", slow, "--format", "ndjson", "--deadline", "3s"]
        process = subprocess.Popen(
            [*command, *farm.targets(*addresses(200))], stdout=slave, stderr=slave, env=environment()
        )
        assert process.wait(PATIENCE_S) == 1
    os.close(slave)
    os.close(master)


def test_ctrl_c_on_a_terminal(slow: str) -> None:
    """The words of the ending, once each: in the table, in the message, in the summary."""
    screen = Screen()
    with Farm(greeting_after(0.0)) as farm, Farm(greeting_after(30.0)) as tarpit:
        targets = [*farm.targets(*addresses(3)), *tarpit.targets(*addresses(2))]
        process = subprocess.Popen(
            [sys.executable, "-c", START, "scan", "--probes", slow, *targets],
            env=environment(NO_COLOR="1"),
            stdin=subprocess.DEVNULL,
            stdout=screen.slave,
            stderr=screen.slave,
        )
        until = time.monotonic() + PATIENCE_S
        while b"3 done of 5" not in screen.data:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.terminate()
        assert process.wait(PATIENCE_S) == 130
    said = ESCAPE.sub(b"", screen.all())
    assert b"Not the whole scan: interrupted: 3 of 5 done, 2 not reached\r\n" in said
    assert b"probemill: interrupted: 3 of 5 done, 2 not reached\r\n" in said
    assert b"3 of 5 targets in " in said
    assert b"1 port not reached" in said


def test_a_trace_has_the_terminal_for_itself(slow: str) -> None:
    """Workers write its lines themselves, so there is no live line among them."""
    with Farm(greeting_after(0.3)) as farm:
        targets = farm.targets("127.3.0.1")
        said, _, code = scan(["--probes", slow, "--version-trace", *targets], environment())
    assert code == 0
    assert b"NSOCK INFO" in said
    assert b"in flight" not in said and NO_WRAP not in said
    assert b"1 target in " in said


@pytest.mark.parametrize(
    ("hushed", "terminal", "mode", "nodes", "said"),
    [
        (False, False, "none", False, False),
        (False, False, "none", True, True),
        (False, False, "plain", False, True),
        (True, False, "plain", True, False),
        (True, True, "live", True, False),
    ],
)
def test_the_last_line_off_a_terminal(hushed: bool, terminal: bool, mode: str, nodes: bool, said: bool) -> None:
    """For who asked for lines, and for a scan on a cluster, which has nothing else to show for itself."""
    told: list[str] = []
    stderr: Any = SimpleNamespace(hushed=hushed, is_terminal=terminal, mode=mode, say=told.append)
    run: Any = SimpleNamespace(
        nodes=lambda: [None] * nodes,
        elapsed_s=61.0,
        ending=lambda: Ending(read=2, done=2),
        collector=SimpleNamespace(tally=Counter({"verdict:hardmatched": 1, "reason:timeout": 1})),
    )
    progress.summarise(run, stderr)
    assert told == ["probemill: 2 targets in 61 s, 1 found, 1 timeout"] * said
