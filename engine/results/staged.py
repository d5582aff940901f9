"""A file that appears whole or not at all: made in a folder beside its place, `.probemill-NAME`, then renamed.

Contract: `staged(path)` gives the path to write to, with the same suffixes, because these tell the form; when the block
ends, the file there takes its place, on the disk; where the block raises, nothing has changed. Whoever is killed leaves
the folder to the next attempt, which empties it; two attempts at a time are refused. What is no regular file (a pipe,
a device, `-`) is written to as it is.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.disk import sync
from engine.errors import ConfigError, OutputError
from engine.results.sinks import STDOUT

FOLDER = ".probemill-"


def cache_folder(*steps: str) -> Path:
    """A place for files that do not count yet: the same one each time, by whomever it is asked for on this machine."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not home.is_absolute():
        with suppress(RuntimeError):  # a user without a home
            home = Path("~/.cache").expanduser()
    if not home.is_absolute():
        home = Path(tempfile.gettempdir(), f"probemill-{os.getuid()}")
    return home.joinpath("probemill-files", *steps)


def _nothing(_folder: Path) -> None: ...


@contextmanager
def staged(path: str) -> Iterator[str]:
    """Raises OutputError, ConfigError for a file that another process is writing."""
    if path == STDOUT or (Path(path).exists() and not Path(path).is_file()):
        yield path
        return
    place = Path(os.path.realpath(path))
    with own_folder(place.with_name(FOLDER + place.name), path) as folder:
        made = folder / place.name
        yield str(made)
        try:
            _publish(made, place)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error


@contextmanager
def own_folder(folder: Path, what: str, first: Callable[[Path], None] = _nothing, keep: str = "") -> Iterator[Path]:
    """An empty folder that no other process uses, as long as the block. what: it is for, as people may see it.

    first: called before the folder is emptied, to put in order what a process that was killed has left. keep: the name
    of a file; as long as it is there, everything stays for the next process.
    Raises ConfigError where another process has it, OutputError where it cannot be made.
    """
    try:
        lock = _locked(folder)
        if lock is None:
            raise ConfigError(f"{what}: is being written by another process; wait for it")
        first(folder)
        _empty(folder, keep)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            _empty(folder, keep)
            folder.rmdir()
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor of the folder, with its lock; None where somebody else has it."""
    while True:
        folder.mkdir(0o755, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:  # who had it has removed it
            pass
        except BlockingIOError:
            os.close(lock)
            return None
        os.close(lock)


def _publish(made: Path, place: Path) -> None:
    sync(made)
    made.rename(place)
    sync(place.parent)


def _empty(folder: Path, keep: str) -> None:
    if keep and (folder / keep).exists():
        return
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
