"""The place where a run's segments lie that are not in its state folder: another folder, or an object store.

An object of the run is called `segment-<run>-<16 hex>.ndjson.zst` and bears that name for good; what makes it count is
the journal alone. Others may keep what they like in the same place: nothing else is read or removed.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from engine.errors import ConfigError, OutputError
from engine.results.lake import Unavailable
from engine.results.lake.base_place import canonical, open_place
from engine.results.lake.base_trouble import trouble
from engine.state.folder import Folder, told
from engine.state.records import UNFINISHED, is_key, is_place
from matcher import shown


class Elsewhere:
    """where: canonical. run: whose objects these are. `str` is the place as it can be shown."""

    def __init__(self, where: str, run: str) -> None:
        """Raises ConfigError for a place that cannot be, OutputError."""
        self.where = where
        self.run = run
        self._place = open_place(where)

    def __str__(self) -> str:
        return shown(self.where)

    def make(self) -> None:
        """The folder, if it is one and not there yet. Raises OutputError."""
        if "://" not in self.where:
            with told(Path(self.where)):
                Folder.open(Path(self.where), make=True).close()

    def listed(self) -> dict[str, int]:
        """The sizes in bytes of all objects of the run, by name, unfinished ones too. Raises OutputError, Unavailable.

        Whoever shares the place pays for it: stores can list no part of a folder.
        """
        own = (found for found in self._place.files() if self.owns(found.name.removeprefix(UNFINISHED)))
        return {found.name: found.size for found in own}

    def owns(self, key: str) -> bool:
        """Whether this is the name of a segment of the run."""
        return is_key(key, self.run)

    def size(self, key: str) -> int | None:
        """In bytes; None for nothing. One request. Raises OutputError, Unavailable."""
        try:
            with self._told(key), self._place.open(key) as file:
                return file.seek(0, os.SEEK_END)
        except OutputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    @contextmanager
    def opened(self, key: str) -> Iterator[BinaryIO]:
        """An object for reading. What fails inside the block is told, too. Raises OutputError, Unavailable."""
        with self._told(key), self._place.open(key) as file:
            yield file

    def remove(self, names: Iterable[str]) -> None:
        """Objects of the run that may be there or not. Raises OutputError, Unavailable."""
        self._place.remove(names)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Errors of reading as ours. A store's come wrapped in the system's, around what the library had to say."""
        name = f"{self}/{key}"
        try:
            yield
        except OSError as error:
            cause = error.__cause__
            if isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
                reason = "No such object" if "://" in self.where else error.strerror or error
                raise OutputError(f"{name}: {reason}") from error
            with trouble(name):
                raise cause from None


def chosen_place(text: str, folder: Path) -> str:
    """One spelling for a place of segments that somebody names. folder: of the run. Raises ConfigError."""
    where = canonical(text)
    if not is_place(where):
        raise ConfigError(f"--segments {shown(text)}: is no place that a journal can name")
    own = Path(os.path.realpath(folder))
    if "://" not in where and (Path(where) == own or own in Path(where).parents):
        raise ConfigError(f"--segments {shown(text)}: is in the folder of --state, where they lie by themselves")
    return where


def listed_once(elsewhere: Elsewhere) -> dict[str, int]:
    """What there is in the place before anything begins. Raises OutputError where it cannot be reached now."""
    try:
        elsewhere.make()
        return elsewhere.listed()
    except Unavailable as error:
        raise OutputError(f"{error}; nothing was begun: see that the place of segments can be reached") from error
