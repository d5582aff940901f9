"""How far each lake of a run is: the file `deliveries` in its state folder.

    {"run": "0123456789abcdef", "scan": "weekly", "lakes": {"delta:/lake": {"done": 7, "trying": [8, 9]}}}

Numbers are those of segments. Written anew as a whole, and on the disk, whenever something changes.
"""

import os
import re
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime
from secrets import token_hex
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from engine.errors import ConfigError, OutputError
from engine.state.digest import Count
from engine.state.folder import Folder, close, staged_name, told, write_all

NAME = "deliveries"
MAX_SIZE = 1 << 20  # bytes
SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Place(Struct, omit_defaults=True):
    """How far a lake is. done: the last segment that it has; trying: bounds of a batch that it may have or not.

    latest: bounds of the last batch that it has, by which it is asked whether it is still the same lake.
    """

    done: Count = 0
    trying: tuple[Count, Count] | None = None
    latest: tuple[Count, Count] | None = None

    def fits(self, last: int) -> bool:
        """Whether there can be such a place where that is the last committed segment."""
        if self.trying is None:
            return self.done <= last
        return self.done + 1 == self.trying[0] <= self.trying[1] <= last


class Notes(Struct):
    """The file `deliveries`. run: the name by which lakes know the run; scan: what people call it."""

    run: Annotated[str, Meta(pattern=r"\A[a-z0-9-]{8,40}\Z")]
    scan: Annotated[str, Meta(pattern=rf"\A{SCAN_NAME.pattern}\Z")]
    lakes: dict[str, Place] = field(default_factory=dict)


_decode = msgspec.json.Decoder(Notes).decode


def open_notes(folder: Folder, scan: str, last: int) -> Notes:
    """The notes of the folder, or new ones. last: segment of the journal. Raises ConfigError, OutputError."""
    if scan and not SCAN_NAME.fullmatch(scan):
        raise ConfigError(f"--scan-name {scan!r}: letters, digits, dots, hyphens and underscores, at most 100")
    folder.refuse_foreign(NAME)
    notes = _read(folder)
    if notes is None:
        run = token_hex(8)
        return Notes(run, scan or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{run[:6]}")
    for name, place in notes.lakes.items():
        if not place.fits(last):
            raise OutputError(f"{folder}/{NAME}: does not fit the journal ({name}); restore both from one copy")
    if scan and not any(place.done or place.trying for place in notes.lakes.values()):
        notes.scan = scan
    if scan and scan != notes.scan:
        raise ConfigError(f"--scan-name {scan}: this run is called {notes.scan}; leave the option out")
    return notes


def save_notes(folder: Folder, notes: Notes) -> None:
    """Raises OutputError."""
    with told(folder, name=NAME):
        staged = staged_name(NAME)
        descriptor = folder.create(staged)
        try:
            write_all(descriptor, msgspec.json.encode(notes))
            os.fsync(descriptor)
            folder.rename(staged, NAME)
            folder.sync()
        except OSError:
            with suppress(OSError):  # which leaves room for the next attempt
                folder.remove(staged)
            raise
        finally:
            close(descriptor)


def _read(folder: Folder) -> Notes | None:
    try:
        with told(folder, name=NAME):
            descriptor = folder.read(NAME)
    except OutputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            return _decode(file.read(MAX_SIZE))
        except msgspec.MsgspecError as error:
            raise OutputError(f"{folder}/{NAME}: is damaged ({error}); restore it from a copy") from error


def lacking(folder: Folder, last: int, but: Container[str] = ()) -> list[str]:
    """The lakes of runs before that lack something of segments up to `last`. Raises OutputError."""
    notes = _read(folder)
    places = notes.lakes.items() if notes is not None else ()
    return [name for name, place in places if name not in but and (place.trying or place.done < last)]
