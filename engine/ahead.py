"""A worker's process and the link to it; one may be started ahead, before anybody knows what it will scan.

Contract: a process is started by exec and sees neither the caller's signals nor the caller's working folder as a place
to import from; it ends when its link closes. What it scans it is told over the link, so one that was started while the
command is still being imported is as good as any other, and is ready sooner: that is a third of a warm start.
This file imports next to nothing, because whoever starts a process ahead has imported nothing else yet.
"""

import gc
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib import import_module

from engine.isolated import command
from engine.signals import held_back

COLLECTORS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # signals that are not a worker's business

Process = tuple["subprocess.Popen[bytes]", socket.socket]
"""The process, and our end of the link."""

_ahead: list[Process] = []


def start_ahead() -> None:
    """Start the process that the next `take` gives. What keeps it from starting is told by `take`."""
    with suppress(OSError):
        _ahead.append(_start())


def take() -> Process:
    """The process that was started ahead, or a new one. Raises OSError."""
    return _ahead.pop() if _ahead else _start()


def dismiss() -> None:
    """Nobody will take the process that was started ahead."""
    for process, link in _ahead:
        process.kill()
        link.close()
        process.wait()
    _ahead.clear()


def _start() -> Process:
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = theirs.fileno()
        with held_back(*COLLECTORS):
            child = subprocess.Popen(command("engine.ahead:serve", descriptor), pass_fds=[descriptor])
    return child, ours


def serve(descriptor: int) -> None:
    """The main function of the process, which inherits its link."""
    gc.disable()  # what is imported is no garbage
    try:
        module = import_module("engine.pool.serve")
    except Exception:
        if socket.socket(fileno=descriptor).recv(1):
            raise
        sys.exit(1)  # the command could not import it either, and has said what is wrong
    gc.enable()
    module.serve(descriptor)
