"""Keep what was dear to compute on disk: plans of patterns and parsed databases.

Contract: `read` gives exactly what `write` was given under the same key, or None; a damaged, cut or foreign file is
None. Files appear in one step, so processes that start together only do the work twice. A folder that cannot be
written is no error: the cache is then simply empty. The caller puts everything the content depends on into the key.

What is read decides what is found, so nothing is read that somebody else may have written. Our folder must be
no link, belong to us (or root) and be writable by its owner only, and so must every file in it; a file is regular, has
one name, and says itself which key it is for. The folder above must not let strangers replace ours. Where this does not
hold, the cache is empty; if the folder is ours, `write` closes it to others and begins anew.
Source: XDG Base Directory Specification for the place.
"""

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import TypeVar

Loaded = TypeVar("Loaded")

FORMAT = b"probemill-2\n"  # changes with the layout of the files
DIGEST_BYTES = 32
WAIT_S = 60.0  # for another process that makes it; then we do it ourselves
LEFT_S = 3600.0  # nobody writes a file for so long
SLICE_S = 0.02  # between two looks, so that a signal gets through

OPENING = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link is followed, no FIFO is waited for
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def folder() -> Path:
    """$XDG_CACHE_HOME/probemill, else ~/.cache/probemill. Raises OSError for a user without a home."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (home if home.is_absolute() else Path("~/.cache").expanduser()) / "probemill"
    except RuntimeError as error:
        raise FileNotFoundError("no home directory") from error


@contextmanager
def opened(*, make: bool = False) -> Iterator[int]:
    """A descriptor of our folder. make: it is to be written, so make it and close it to others.

    Raises OSError where it is not there or not ours alone.
    """
    place = folder()
    if make:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
    with ExitStack() as stack:
        above = os.open(place.parent, os.O_PATH | _FOLDER)
        stack.callback(os.close, above)
        _check_above(os.fstat(above))
        yield stack.enter_context(subfolder(above, place.name, make=make))


@contextmanager
def subfolder(place: int, name: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of a folder in a folder, which must be as `opened` wants it."""
    descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
    try:
        facts = os.fstat(descriptor)
        if make and facts.st_uid == os.geteuid() and facts.st_mode & _OTHERS_WRITE:
            _begin_anew(descriptor)
        elif not _is_ours(facts):
            raise PermissionError("others may write here")
        yield descriptor
    finally:
        os.close(descriptor)


def entry(place: int, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file in our folder. Raises OSError where there is none, or one that is not ours alone."""
    descriptor = os.open(name, flags | OPENING, 0o600, dir_fd=place)
    try:
        if not _is_entry(os.fstat(descriptor)):
            raise PermissionError("others may write here")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _begin_anew(descriptor: int) -> None:
    """Close a folder of ours to others, and trust nothing that they have seen."""
    os.fchmod(descriptor, 0o700)
    for name in os.listdir(descriptor):
        with suppress(OSError):
            os.unlink(name, dir_fd=descriptor)


def _check_above(facts: os.stat_result) -> None:
    """Whether nobody can put something in the place of a folder of ours: as in /tmp, if others may write there.

    Our own group may, as it does where users have a group each: what it could put there would still have to be ours.
    """
    others = stat.S_IWOTH | (stat.S_IWGRP if facts.st_gid != os.getegid() else 0)
    if facts.st_uid not in (os.geteuid(), 0) or (facts.st_mode & others and not facts.st_mode & stat.S_ISVTX):
        raise PermissionError("others may write here")


def _is_ours(facts: os.stat_result) -> bool:
    return facts.st_uid in (os.geteuid(), 0) and not facts.st_mode & _OTHERS_WRITE


def _is_entry(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and _is_ours(facts)


def key(*parts: str | bytes) -> str:
    """A file name for content that depends on exactly these parts."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:%b" % (len(data), data))
    return digest.hexdigest()


@lru_cache(maxsize=16)
def code(*files: str) -> str:
    """A digest of source files of this package (paths inside it): what other code made must not be read."""
    package = Path(__file__).resolve().parents[1]
    return key(*((package / file).read_bytes() for file in files))


def kept(name: str, make: Callable[[], bytes], load: Callable[[bytes], Loaded]) -> Loaded:
    """`load` of what is stored under `name`; where that is missing or refused (ValueError), it is made and stored.

    Of processes and threads that want the same at once, one makes it, and the others wait and load.
    """
    refused = None
    stored = read(name)
    if stored is not None:
        try:
            return load(stored)
        except ValueError:
            refused = stored
    with alone(name):
        stored = read(name)
        if stored is not None and stored != refused:
            with suppress(ValueError):
                return load(stored)
        made = make()
        write(name, made)
    return load(made)


def read(name: str) -> bytes | None:
    """What is stored under `name`, a result of `key`."""
    try:
        with opened() as place, os.fdopen(entry(place, name), "rb") as file:
            data = file.read()
    except OSError:
        return None
    start = len(FORMAT) + DIGEST_BYTES
    content = data[start:]
    return content if data[:start] == _head(name, content) else None


def write(name: str, content: bytes) -> bool:
    """Store `content` under `name`; False where that is not possible."""
    with suppress(OSError), opened(make=True) as place:
        temporary = f".{name}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(entry(place, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(_head(name, content) + content)
                now = os.fstat(file.fileno()).st_mtime
            os.replace(temporary, name, src_dir_fd=place, dst_dir_fd=place)
        except OSError:
            os.unlink(temporary, dir_fd=place)
            raise
        _sweep(place, now - LEFT_S)
        return True
    return False


def _sweep(place: int, before: float) -> None:
    """Remove what processes that were killed while they wrote have left. before: seconds since the epoch."""
    for name in os.listdir(place):
        if name.startswith("."):
            with suppress(OSError):
                if os.stat(name, dir_fd=place, follow_symlinks=False).st_mtime < before:
                    os.unlink(name, dir_fd=place)


def _head(name: str, content: bytes) -> bytes:
    """What stands before the content in a file: the format, and a digest that holds for this key only."""
    digest = hashlib.sha256(name.encode())
    digest.update(content)
    return FORMAT + digest.digest()


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait for other processes and threads that make what is stored under `name`.

    Where that takes longer than WAIT_S, or there is no cache, nobody is waited for. Not to be nested.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            place = stack.enter_context(opened(make=True))
            lock = entry(place, f"lock-{name[:1]}", os.O_RDWR | os.O_CREAT)  # sixteen files do for all
            stack.callback(os.close, lock)
            _wait_for(lock)
        yield


def _wait_for(lock: int) -> None:
    for _ in range(int(WAIT_S / SLICE_S)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Event().wait(SLICE_S)
        else:
            return
