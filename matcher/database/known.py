"""How lines of databases fare with known responses: the table `data/known-wins` that comes with the package.

    tested 293d7b36... nmap-service-probes 9203          a database whose every line was tried, on so many responses
    8f14e45fceea167a 3 88                                a line, what it won of its own product and of others

A line is named by a hash of what it says and asks for (`line_key`): it is known in whatever file it stands, and no
longer once it is changed. Lines of a tested database that stand in no row won nothing of others. The table is made by
`python -m bench.known_wins --write` and holds no part of anybody's database.

Contract: `builtin_known` never fails: what cannot be read is an empty table, and then nothing is known of any line.
"""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from matcher.database.load import builtin_database
from matcher.model import Signature
from matcher.outside import MIB, read_file

FILE_NAME = "known-wins"
KEY_DIGITS = 16


class KnownWins(Struct, frozen=True):
    """tested: SHA-256 of databases. lines: by key, responses won of the line's own product, and of others."""

    tested: frozenset[str] = frozenset()
    lines: dict[str, tuple[int, int]] = {}


def line_key(signature: Signature) -> str:
    """A line by what it asks for and what it says first of all."""
    flags = b"%d%d%d" % (signature.soft, signature.caseless, signature.dotall)
    parts = (flags, signature.service.encode(), signature.templates.product, signature.pattern)
    return sha256(b"\0".join(parts)).hexdigest()[:KEY_DIGITS]


def parse_known(text: str) -> KnownWins:
    """The table that a text holds. Raises ValueError for a line that is none of it."""
    tested: set[str] = set()
    lines: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "tested":
            tested.add(words[1])
        else:
            key, own, others = words
            lines[key] = int(own), int(others)
    return KnownWins(frozenset(tested), lines)


def known_file() -> Path:
    """The table beside the database that comes with the package."""
    return builtin_database().with_name(FILE_NAME)


@lru_cache(1)
def builtin_known() -> KnownWins:
    """The table that comes with the package."""
    try:
        return parse_known(read_file(known_file(), MIB).decode())
    except (OSError, ValueError, IndexError):
        return KnownWins()
