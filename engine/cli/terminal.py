"""The one door to a terminal: a line that stays at its bottom, and all that scrolls above it, in order.

Contract: rows and messages are written whole, above the line, whoever writes them from whatever thread. The line never
takes more than one row of the screen, whatever its text is and however the window is resized: it is fitted to the width
at every drawing, the terminal is told not to wrap it, and the cursor rests at its beginning, so that erasing from there
removes what a narrower window has made of it. Nothing of it is left after `clear`.

`progress_mode` says what a run tells of itself while it goes on; `PROBEMILL_PROGRESS` has the last word.
"""

import os
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import Literal

from engine.errors import ConfigError
from engine.results.sinks import STDOUT, Output

VARIABLE = "PROBEMILL_PROGRESS"
ERASE = b"\r\x1b[K\x1b[J"  # in this order: of a screen that is cleared whole, tmux would keep what it held
NO_WRAP, WRAP = b"\x1b[?7l", b"\x1b[?7h"
USUAL_WIDTH = 80  # where a terminal does not know its own
PATIENCE_S = 1.0  # before people are told what they wait for
PREPARING = "preparing the database"
DUMB = {"", "dumb", "unknown"}  # values of TERM of a terminal that cannot move its cursor

Mode = Literal["live", "plain", "none"]
Render = Callable[[int], str]
"""(columns) -> one line that is no wider; escape sequences of colours take no column."""


def progress_mode(environment: Mapping[str, str], *, is_terminal: bool) -> Mode:
    """A live line where the cursor can be moved, plain lines on other terminals, else nothing. Raises ConfigError."""
    wanted = environment.get(VARIABLE) or "auto"
    if wanted not in {"auto", "plain", "none"}:
        raise ConfigError(f"{VARIABLE}: {wanted!r} is none of auto, plain, none")
    if wanted == "none" or (wanted == "auto" and not is_terminal):
        return "none"
    return "plain" if wanted == "plain" or environment.get("TERM", "") in DUMB else "live"


def same_terminal(one: int, other: int) -> bool:
    """Whether two descriptors are one terminal."""
    with suppress(OSError):
        return os.isatty(one) and os.isatty(other) and os.fstat(one).st_rdev == os.fstat(other).st_rdev
    return False


class Terminal:
    """descriptor: of the terminal, where the line is drawn."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._lock = Lock()
        self._render: Render | None = None
        self._broken = False  # what was written last has no line end yet

    def show(self, render: Render) -> None:
        """Draw this line from now on."""
        with self._lock:
            self._render = render
            if not self._broken:
                self._put(ERASE + self._line())

    def clear(self) -> None:
        """No line any more."""
        with self._lock:
            if self._render is not None and not self._broken:
                self._put(ERASE)
            self._render = None

    def above(self, data: bytes, put: Callable[[bytes], None] | None = None) -> None:
        """Write `data` where the line is, and the line below it. put: writes to the terminal, and may raise."""
        with self._lock:
            put = put or self._put
            if self._render is None:
                put(data)
                return
            erase = b"" if self._broken else ERASE
            self._broken = bool(data) and not data.endswith(b"\n")
            put(erase + data + (b"" if self._broken else self._line()))

    def columns(self) -> int:
        """How wide the terminal is."""
        with suppress(OSError):
            return os.get_terminal_size(self._descriptor).columns or USUAL_WIDTH
        return USUAL_WIDTH

    def _line(self) -> bytes:
        """The line, behind a blank for the cursor."""
        if self._render is None:
            return b""
        text = self._render(self.columns() - 2).encode(errors="backslashreplace")
        return b"".join((NO_WRAP, b" ", text, b"\r", WRAP))

    def _put(self, data: bytes) -> None:
        """All of it, however slow the terminal is. One that has gone is no error: nobody is left to be told."""
        written = 0
        with suppress(OSError):
            while written < len(data):
                try:
                    written += os.write(self._descriptor, data[written:])
                except BlockingIOError:  # somebody else has set it to non-blocking
                    select.select([], [self._descriptor], [])


class TerminalOutput(Output):
    """Standard output, where it is the terminal that has the line."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(STDOUT)
        self._terminal = terminal

    def write(self, data: bytes) -> None:
        self._terminal.above(data, super().write)
