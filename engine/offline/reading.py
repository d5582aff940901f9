"""The rows of several parts, one after the other, while what cannot be used is told to whoever watches."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from engine.errors import EngineError, InputError, ReadError
from engine.offline.faults import Faults
from engine.offline.rows_in import Part
from engine.results.rows import Rows


class Watch(Protocol):
    """Who follows it. done: bytes of the inputs that have been read; rows: of them."""

    def moved(self, done: int, rows: int) -> None: ...

    def tell(self, name: str, faults: Faults) -> None: ...

    def damage(self, error: InputError) -> None: ...


class Nothing(EngineError):  # noqa: N818 - it says what there was
    """No input had a row that could be used, and some had what could not."""


class Reading:
    """The rows of parts, one after the other, while what cannot be used is told.

    faults: whether there was any. strict: what cannot be read ends it, because the next attempt may read more.
    """

    def __init__(
        self, parts: Sequence[Part], watch: Watch, *, strict: bool = False, before: tuple[int, int] = (0, 0)
    ) -> None:
        self.faults = False
        self._parts = parts
        self._watch = watch
        self._strict = strict
        self._bytes, self._rows = before

    def rows(self) -> Iterator[Rows]:
        """Raises ReadError where it is strict."""
        for part in self._parts:
            try:
                for piece in part.read():
                    if piece.faults.count:
                        self.faults = True
                        self._watch.tell(part.name, piece.faults)
                    self._rows += piece.rows.count
                    if piece.rows.count:
                        yield piece.rows
                    self._watch.moved(self._bytes + piece.position, self._rows)
            except ReadError as error:
                if self._strict:
                    raise
                self._damaged(error)
            except InputError as error:
                if self._strict and len(self._parts) > 1:  # mended, its rows would move those behind it
                    raise
                self._damaged(error)
            self._bytes += part.size or 0

    def _damaged(self, error: InputError) -> None:
        self.faults = True
        self._watch.damage(error)


class Deaf:
    """Passes on what has not been told: an attempt that begins anew comes by the same faults, in the same order."""

    def __init__(self, watch: Watch) -> None:
        self.moved = watch.moved
        self._watch = watch
        self._told = 0
        self._met = 0

    def begin(self) -> None:
        self._met = 0

    def tell(self, name: str, faults: Faults) -> None:
        if self._is_new():
            self._watch.tell(name, faults)

    def damage(self, error: InputError) -> None:
        if self._is_new():
            self._watch.damage(error)

    def _is_new(self) -> bool:
        self._met += 1
        new = self._met > self._told
        self._told = max(self._met, self._told)
        return new
