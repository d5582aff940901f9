"""Files of a local folder replaced by others in one moment: the folder is exchanged with one that was made beside.

Readers see the files from before or those from after, never both and never neither; one who listed the names before and
opens the files after finds them gone. Linux's RENAME_EXCHANGE does it; where it or hard links are not to be had,
`exchange` says so, having changed nothing.

The new folder is made outside of what readers look through, in `shadow`, and holds links to all that stays. Before the
exchange its contents are written down in `shadow`, so that what stands there afterwards can be told: what went, what
stayed (links), and what somebody else put into the old folder meanwhile, which is moved to the new one. `mend` does
this, after a sudden end, too: before the exchange and behind it, it is the same.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.disk import sync

NOTE = "exchange.json"
NEW = "new"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class _Note(Struct):
    """folder: that is replaced. known: names of all that the old and the new folder hold."""

    folder: str
    known: list[str]


def exchange(folder: Path, gone: Iterable[str], come: Mapping[str, Path], shadow: Path) -> bool:
    """Replace the files `gone` by `come` (name -> where it was made, in `shadow`). Raises OSError.

    False where the system cannot do it: nothing has happened, and the files of `come` are where they were.
    """
    new = shadow / NEW
    gone = set(gone)
    with os.scandir(folder) as entries:
        there = list(entries)
    kept = [entry.name for entry in there if entry.name not in gone]
    if not gone <= {entry.name for entry in there} or any(not entry.is_file(follow_symlinks=False) for entry in there):
        return False
    new.mkdir()
    new.chmod(folder.stat().st_mode & 0o7777)
    try:
        for name in kept:
            (new / name).hardlink_to(folder / name)
        for name, made in come.items():
            (new / name).hardlink_to(made)
    except OSError:
        _clear(new)
        return False
    _write(shadow / NOTE, msgspec.json.encode(_Note(str(folder), sorted({*gone, *kept, *come}))))
    sync(new)
    sync(shadow)
    done = _swap(folder, new)
    if done:
        sync(folder.parent)
    mend(shadow)
    return done


def mend(shadow: Path) -> None:
    """Put in order what an exchange has left. Raises OSError."""
    try:
        note = msgspec.json.decode((shadow / NOTE).read_bytes(), type=_Note)
    except FileNotFoundError:
        note = None
    except msgspec.MsgspecError:  # half a note: the exchange had not begun
        note = None
        (shadow / NOTE).unlink()
    new = shadow / NEW
    while new.exists():
        if note is not None:
            for name in _names(new) - set(note.known):
                (new / name).rename(Path(note.folder, name))
        _clear(new, known=note.known if note else None)
    if note is not None:
        sync(Path(note.folder))
        (shadow / NOTE).unlink()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _clear(new: Path, known: Iterable[str] | None = None) -> None:
    """Remove what is known, and the folder if that was all."""
    for name in _names(new) if known is None else known:
        (new / name).unlink(missing_ok=True)
    with suppress(OSError):  # somebody has put a file there at this moment: it is moved in the next turn
        new.rmdir()


def _swap(one: Path, other: Path) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    result = library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(result == 0)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
