"""The hyperscan engine: keys found by Hyperscan (Vectorscan), all in one pass.

Each key is an expression of literal bytes, so that a database of thousands takes milliseconds to compile and nothing
of it has to be kept. It is written in escapes, because the pure literal interface of the binding ends at a zero byte.
Contract: Finder, as matcher/patterns/__init__.py has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import hyperscan

from matcher.patterns import Entries, Entry, SetFailure
from matcher.regex.literals import Literal

KEYS = 5_000  # of one database: compiling cannot be interrupted, and takes 0.1 s for so many
EXACT = hyperscan.HS_FLAG_SINGLEMATCH
CASELESS = EXACT | hyperscan.HS_FLAG_CASELESS


def _collect(number: int, _start: int, _end: int, _flags: int, found: Any) -> None:
    found.append(number)


class Finder:
    """Raises SetFailure where Hyperscan refuses the keys."""

    def __init__(self, keys: Mapping[Literal, Sequence[Entry]]) -> None:
        self._entries: list[Entries] = [tuple(entries) for entries in keys.values()]
        texts = list(keys)
        self._parts = [self._compiled(texts, first) for first in range(0, len(texts), KEYS)]

    def __call__(self, response: bytes) -> Iterable[Entries]:
        found: list[int] = []
        try:
            for scan, scratch in self._parts:
                scan(response, _collect, 0, found, scratch)
        except hyperscan.HyperscanError as error:
            raise _failure(error) from error
        entries = self._entries
        return [entries[number] for number in found]

    def _compiled(self, keys: Sequence[Literal], first: int) -> tuple[Any, Any]:
        part = keys[first : first + KEYS]
        try:
            database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
            database.compile(
                expressions=[b"".join([b"\\x%02x" % code for code in key.text]) for key in part],
                ids=list(range(first, first + len(part))),
                elements=len(part),
                flags=[CASELESS if key.caseless else EXACT for key in part],
            )
            return database.scan, hyperscan.Scratch(database)
        except hyperscan.HyperscanError as error:
            raise _failure(error) from error


def _failure(error: Exception) -> SetFailure:
    return SetFailure(f"hyperscan {type(error).__name__}")
