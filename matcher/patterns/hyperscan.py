"""The hyperscan engine: keys found by Hyperscan (Vectorscan), all in one pass.

Each key is an expression of literal bytes, so that a database of thousands takes a twentieth of a second to compile;
from the cache it takes a thousandth. It is written in escapes, because the pure literal interface of the binding ends
at a zero byte.
Contract: Finder, as matcher/patterns/__init__.py has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import hyperscan

from matcher.patterns import Entries, Entry, SetFailure, cache
from matcher.regex.literals import Literal

KEYS = 5_000  # of one database: compiling cannot be interrupted, and takes 0.1 s for so many
DEAR = 64  # keys; fewer are compiled as soon as they are read
EXACT = hyperscan.HS_FLAG_SINGLEMATCH
CASELESS = EXACT | hyperscan.HS_FLAG_CASELESS


def _collect(number: int, _start: int, _end: int, _flags: int, found: Any) -> None:
    found.append(number)


class Finder:
    """Raises SetFailure where Hyperscan refuses the keys."""

    def __init__(self, keys: Mapping[Literal, Sequence[Entry]]) -> None:
        self._entries = [tuple(entries) for entries in keys.values()].__getitem__  # by number of a key
        texts = list(keys)
        self._parts = [self._compiled(texts, first) for first in range(0, len(texts), KEYS)]

    def __call__(self, response: bytes) -> Iterable[Entries]:
        found: list[int] = []
        try:
            for scan, scratch in self._parts:
                scan(response, _collect, 0, found, scratch)
        except hyperscan.HyperscanError as error:
            raise _failure(error) from error
        return map(self._entries, found)

    def _compiled(self, keys: Sequence[Literal], first: int) -> tuple[Any, Any]:
        try:
            database = self._database(keys[first : first + KEYS], first)
            return database.scan, hyperscan.Scratch(database)
        except hyperscan.HyperscanError as error:
            raise _failure(error) from error

    def _database(self, keys: Sequence[Literal], first: int) -> Any:
        """first: the number of the first key. Raises HyperscanError."""
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        database.compile(
            expressions=[b"".join([b"\\x%02x" % code for code in key.text]) for key in keys],
            ids=list(range(first, first + len(keys))),
            elements=len(keys),
            flags=[CASELESS if key.caseless else EXACT for key in keys],
        )
        return database


class CachedFinder(Finder):
    """Keeps on disk what is dear to compile. Nobody is waited for who makes the same: a conversation needs it now."""

    def _database(self, keys: Sequence[Literal], first: int) -> Any:
        if len(keys) < DEAR:
            return super()._database(keys, first)
        texts = (b"%d%b" % (key.caseless, key.text) for key in keys)
        name = cache.key("hyperscan", cache.code("patterns/hyperscan.py"), str(first), *texts)
        stored = cache.read(name)
        if stored is not None:
            with suppress(hyperscan.HyperscanError):  # of another version, or of a machine with another processor
                return hyperscan.loadb(stored, hyperscan.HS_MODE_BLOCK)
        made = super()._database(keys, first)
        cache.write(name, hyperscan.dumpb(made))
        return made


def _failure(error: Exception) -> SetFailure:
    return SetFailure(f"hyperscan {type(error).__name__}")
