"""The command's first instructions: from here on Ctrl-C ends it in one line, while the rest is still being imported.

This file imports next to nothing, because only what comes after it is safe, and `main` ends the process. For a scan it
starts the first worker ahead, which is imported at the same time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

TYPE_CHECKING = False  # as in typing, which takes longer to import than all the rest here
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130  # the exit code: 128 and the number of SIGINT
LINE = b"probemill: interrupted\n"
UNSCANNED = {"-h", "--help", "--dry-run"}  # what asks `scan` for something else
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants the command to end. No KeyboardInterrupt, which other people's code has ideas about."""


def main() -> NoReturn:
    """Run the command line and exit."""
    listen(_leave)
    gc.disable()  # until all is imported: none of it is garbage, and to look through it takes a tenth of the time
    if sys.argv[1:2] == ["scan"] and not UNSCANNED.intersection(sys.argv) and sys.stdin and sys.stdout and sys.stderr:
        from engine.ahead import start_ahead  # it imports while we do

        start_ahead()
    try:
        from engine.cli.main import main as run
    except Exception as error:
        # A library that lacks what the matcher needs says so while it is imported: one line, as for all else.
        matcher = sys.modules.get("matcher.errors")
        if matcher is None or not isinstance(error, matcher.MatcherError):
            raise
        os.write(2, f"probemill: {error}\n".encode(errors="backslashreplace"))
        sys.exit(2)
    try:
        run()
    except Interrupted:  # by a signal that came while an error, or one before, was being told
        _leave()


def listen(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Let `handler` hear the signals that end a command, but for those that the caller wants ignored (nohup)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


heard: list[int] = []  # signals that `interrupt` was called for


def interrupt(number: int, _frame: FrameType | None) -> None:
    """For `listen`, once there may be something to put in order. Other people's code may swallow what it raises."""
    heard.append(number)
    raise Interrupted


def _leave(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    listen(signal.SIG_IGN)  # a second one would wait for what the first is at
    os.write(2, LINE)
    leave_nothing_behind()
    os._exit(INTERRUPTED)


def leave_nothing_behind() -> None:
    """End the worker that was started ahead, if there is one and nobody has taken it."""
    ahead = sys.modules.get("engine.ahead")
    if ahead is not None and hasattr(ahead, "dismiss"):  # else it is only being imported
        ahead.dismiss()
