"""What a running scan says on standard error. A terminal that stands still, or a pipe nobody reads, does not stop it.

Contract: everything is written in order, by a thread; `settle` waits a moment for it at the end. Who does not read in
that time does not get the rest. On a terminal, messages scroll above the live line (terminal.py), and what strangers
have put into them is shown, not obeyed.
"""

import io
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import click
from msgspec.structs import replace

from engine.cli.help import coloured
from engine.cli.tail import LogTail
from engine.cli.terminal import VARIABLE, Mode, Terminal, TerminalOutput, progress_mode, same_terminal
from engine.results import paint
from engine.results.sinks import STDOUT, Run, Sink, open_sink
from engine.threads import Desk
from matcher import shown

if TYPE_CHECKING:  # loaded where a table is printed
    from rich.table import Table

LAST_S = 1.0
NAME = "probemill:"
STYLES = {"WARNING": paint.WARNING, "ERROR": paint.FAILURE, "CRITICAL": paint.FAILURE}


class Stderr:
    """tail: the last of what was logged, and of what was wrong. mode: what the run says of itself while it goes on.

    hushed: whether the summary is unwanted, too. is_terminal: whether people read this.
    terminal: the door to it. paint: the colours it takes.
    """

    def __init__(self, *, quiet: bool = False, traced: bool = False) -> None:
        """quiet: nobody wants to see how the run gets on. traced: workers write there, past the door.

        Raises ConfigError for a mode that there is not.
        """
        self.is_terminal = os.isatty(2)
        mode = progress_mode(os.environ, is_terminal=self.is_terminal)
        self.mode: Mode = "none" if quiet or traced else mode
        self.hushed = quiet or os.environ.get(VARIABLE) == "none"
        self.terminal = Terminal()
        self.desk = Desk()
        self.tail = LogTail()
        self.paint: paint.Paint = paint.plain
        if coloured(sys.stderr):
            self.paint = paint.coloured
        elif self.is_terminal:
            self.paint = paint.safe

    def warn(self, line: str) -> None:
        """Say what is wrong with something of the user's."""
        self.tail.keep("WARNING", line)
        self.say(line, paint.WARNING)

    def say(self, lines: str, style: str = paint.HEADING) -> None:
        """style: of our name, where it stands in front."""
        self.desk.post(partial(self._write, lines, style))

    def settle(self) -> None:
        """Wait until everything is written, but not for ever."""
        self.desk.settle(LAST_S)

    def take_logs(self, level: int) -> None:
        """Log there, one line a record, and more where an exception is told."""
        posted = _Posted(self._log)
        posted.setFormatter(logging.Formatter(f"{NAME} %(levelname)s: %(message)s"))
        logging.basicConfig(level=level, format="%(message)s", handlers=[posted, self.tail])

    def print(self, table: "Table") -> None:
        """A table, as wide as the terminal at most."""
        from rich.console import Console

        colours = self.paint is paint.coloured
        system: Literal["auto"] | None = "auto" if colours else None
        page = io.StringIO()
        Console(file=page, width=self.terminal.columns(), force_terminal=colours, color_system=system).print(table)
        self.desk.post(partial(self.terminal.above, page.getvalue().encode(errors="backslashreplace")))

    def _log(self, level: str, lines: str) -> None:
        self.say(lines, STYLES.get(level, paint.MUTED))

    def _write(self, lines: str, style: str) -> None:
        if not self.is_terminal and self.paint is paint.plain:
            click.echo(lines, err=True)
            return
        named = lines.startswith(NAME)
        rest = "\n".join(map(shown, lines.removeprefix(NAME).split("\n")))
        text = f"{self.paint(style, NAME) if named else ''}{rest}\n"
        self.terminal.above(text.encode(errors="backslashreplace"))


class _Posted(logging.Handler):
    """Hands records on, each with its level, where writing them may block."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(record.levelname, self.format(record))
        except Exception:
            self.handleError(record)


def open_result(form: str, path: str, facts: Run, stderr: Stderr) -> Sink:
    """The sink of that form. On the terminal of `stderr` its rows come above the live line.

    Raises as `open_sink` does.
    """
    if path != STDOUT:
        return open_sink(form, path, facts)
    output = TerminalOutput(stderr.terminal) if same_terminal(1, 2) else None
    if coloured(sys.stdout):
        facts = replace(facts, paint=paint.coloured)
    elif os.isatty(1):
        facts = replace(facts, paint=paint.safe)
    return open_sink(form, path, replace(facts, watched=stderr.mode == "live" and output is not None), output)
