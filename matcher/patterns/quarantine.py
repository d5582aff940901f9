"""Which stored sets a process was loading when it died: they are thrown away, and made anew.

A stored set goes to an engine's library as it is, and bytes that crash the library would do so at every start. So a
process notes in a file of its own what it is about to load, and then that it has. It holds a lock on that file, which
goes with the process however it ends: a file that nobody holds tells of a crash. This works between machines that
share a home, and costs two small writes a set.
Contract: nothing here raises; where notes cannot be kept, there are none. Files are as cache.py wants them.
"""

import fcntl
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from matcher.patterns import cache

Loaded = TypeVar("Loaded")

FOLDER = "loading"
MAX_NOTES = 1 << 20  # bytes of a file; a thousand sets take 100 kB
_KEY = re.compile("[0-9a-f]{40}")


class Notes:
    """A process's notes. descriptor: of their file, -1 for none."""

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor

    def around(self, name: str, load: Callable[[bytes], Loaded]) -> Callable[[bytes], Loaded]:
        """`load`, with a note of what is stored under `name` before and after. Threads may be in several at once."""

        def noted(stored: bytes) -> Loaded:
            self._note(f"+{name}\n")
            try:
                return load(stored)
            finally:
                self._note(f"-{name}\n")

        return noted

    def _note(self, line: str) -> None:
        with suppress(OSError):
            os.write(self._descriptor, line.encode())


@contextmanager
def notes(*, wanted: bool = True) -> Iterator[Notes]:
    """Throw away what others were loading when they died, and take notes until the end of the block."""
    if not wanted:
        yield Notes()
        return
    with ExitStack() as stack:
        taken = Notes()
        with suppress(OSError):
            place = stack.enter_context(_folder())
            _throw_away(place)
            name = secrets.token_hex(8)
            descriptor = cache.entry(place, name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
            stack.callback(os.close, descriptor)
            stack.callback(_remove, place, name)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = Notes(descriptor)
        yield taken


@contextmanager
def _folder() -> Iterator[int]:
    with cache.opened(make=True) as place:
        with suppress(FileExistsError):
            os.mkdir(FOLDER, 0o700, dir_fd=place)
        with cache.subfolder(place, FOLDER, make=True) as descriptor:
            yield descriptor


def _throw_away(place: int) -> None:
    """Remove the sets that were being loaded, then the notes that say so."""
    for name in os.listdir(place):
        with suppress(OSError), os.fdopen(cache.entry(place, name), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for key in _unfinished(file.read(MAX_NOTES)):
                cache.discard(key)
            os.unlink(name, dir_fd=place)


def _unfinished(written: bytes) -> list[str]:
    """The keys whose loading began and did not end."""
    count: Counter[str] = Counter()
    for line in written.decode("ascii", "replace").split("\n"):
        if _KEY.fullmatch(line[1:]):
            count[line[1:]] += 1 if line.startswith("+") else -1
    return [key for key, open_ends in count.items() if open_ends > 0]


def _remove(place: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=place)
