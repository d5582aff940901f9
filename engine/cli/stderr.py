"""What a running scan says on standard error. A terminal that stands still, or a pipe nobody reads, does not stop it.

Contract: everything is written in order, by a thread; `settle` waits a moment for it at the end. Who does not read in
that time does not get the rest.
"""

import logging
from functools import partial

import click
from rich.console import Console
from rich.logging import RichHandler

from engine.cli.tail import LogTail
from engine.threads import Desk

LAST_S = 1.0
FORMAT = "probemill: %(levelname)s: %(message)s"


class Stderr:
    """console: of standard error. tail: the last of what was logged, and of what was wrong."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.desk = Desk()
        self.tail = LogTail()

    def warn(self, line: str) -> None:
        """Say what is wrong with something of the user's."""
        self.tail.keep("WARNING", line)
        self.say(line)

    def say(self, line: str) -> None:
        self.desk.post(partial(click.echo, line, err=True))

    def settle(self) -> None:
        """Wait until everything is written, but not for ever."""
        self.desk.settle(LAST_S)

    def take_logs(self, level: int) -> None:
        """Log there: above the live line on a terminal, else as plain lines."""
        written: logging.Handler
        if self.console.is_terminal:
            written = RichHandler(console=self.console, show_path=False, show_time=False)
        else:
            written = logging.StreamHandler()
            written.setFormatter(logging.Formatter(FORMAT))
        logging.basicConfig(level=level, format="%(message)s", handlers=[_Posted(self.desk, written), self.tail])


class _Posted(logging.Handler):
    """Hands records to a handler that may block."""

    def __init__(self, desk: Desk, written: logging.Handler) -> None:
        super().__init__()
        self._desk = desk
        self._written = written

    def emit(self, record: logging.LogRecord) -> None:
        self._desk.post(partial(self._written.handle, record))
