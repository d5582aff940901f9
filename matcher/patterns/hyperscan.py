"""The hyperscan engine: every line of a probe in one Hyperscan (Vectorscan) database, scanned once per response.

Each line is compiled as a superset of its pattern, so the look-around and back-references that Hyperscan lacks are
already gone; PREFILTER lets it relax what is too large for it. What it refuses all the same is always a candidate.
Compiling cannot be interrupted, so a line that would take long is known from its tree beforehand: its counted repeats
become open ends, and where that does not help, it is always a candidate, too.
Contract: PatternSet. A stored database loads only on a CPU with the features it was compiled for; the platform is a
part of the engine's version.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import hyperscan
import msgspec
from msgspec import Struct

from matcher.errors import UnsupportedPattern
from matcher.model import Signature
from matcher.patterns import SetFailure
from matcher.regex.effort import effort
from matcher.regex.translate import superset
from matcher.regex.tree import parse

REPEATS = (64, 8, 1)  # longer counts become open ends: each step is a state, and some lines count to thousands
MAX_EFFORT = 1_000_000  # for one line: a third of a second, three at the worst; Nmap's dearest line takes 810,000
CHEAP = 20_000  # lines up to here are taken, however many; four of five of Nmap's are such
DEAR = 200_000  # a unit of lines above takes ten times as long
BUDGET = 500_000_000  # for all lines of a set but the cheap ones: half a minute; Nmap's largest set takes 196 million
FLAGS = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_ALLOWEMPTY
MODE = hyperscan.HS_MODE_BLOCK


class _Stored(Struct, array_like=True, frozen=True):
    """database: the serialised database, empty where no line is in it; always: lines that must be tried anyway."""

    database: bytes
    always: tuple[int, ...]


def _texts(lines: Sequence[Signature]) -> dict[int, bytes]:
    """What is to be compiled, by position; a line that is not there must be tried anyway."""
    texts: dict[int, bytes] = {}
    spare = BUDGET
    for position, signature in enumerate(lines):
        try:
            tree = parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
        except UnsupportedPattern:
            continue
        for most in REPEATS:
            needed = effort(tree, max_repeat=most)
            charge = 0 if needed <= CHEAP else needed if needed <= DEAR else 10 * needed
            if needed <= MAX_EFFORT and charge <= spare:
                texts[position] = superset(tree, max_repeat=most) or b"(?:)"
                spare -= charge
                break
    return texts


def _compile(texts: Sequence[bytes], ids: Sequence[int]) -> hyperscan.Database:
    database = hyperscan.Database(mode=MODE)
    database.compile(expressions=texts, ids=ids, elements=len(texts), flags=FLAGS)
    return database


def _refused(texts: dict[int, bytes]) -> set[int]:
    """The lines Hyperscan will not compile, found by halving."""
    if not texts:
        return set()
    try:
        _compile(list(texts.values()), list(texts))
    except hyperscan.HyperscanError:
        if len(texts) == 1:
            return set(texts)
        ids = list(texts)
        half = len(ids) // 2
        return _refused({key: texts[key] for key in ids[:half]}) | _refused({key: texts[key] for key in ids[half:]})
    return set()


def _collect(position: int, _start: int, _end: int, _flags: int, found: Any) -> None:
    found.append(position)


class HyperscanSet:
    def __init__(self, stored: _Stored) -> None:
        self._always = stored.always
        self._scan = None
        if stored.database:
            self._database = hyperscan.loadb(stored.database, MODE)
            self._scratch = hyperscan.Scratch(self._database)
            self._scan = self._database.scan

    def candidates(self, response: bytes) -> Sequence[int]:
        if self._scan is None:
            return self._always
        found = list(self._always)
        try:
            self._scan(response, _collect, 0, found, self._scratch)
        except hyperscan.HyperscanError as error:
            raise SetFailure(f"hyperscan {type(error).__name__}") from error
        if len(found) > 1:
            found.sort()
        return found


class HyperscanEngine:
    name = "hyperscan"

    def __init__(self) -> None:
        self.version = f"{version('hyperscan')}-{_compile([b'a'], [0]).info()!r}"

    def analyse(self, lines: Sequence[Signature]) -> bytes:
        texts = _texts(lines)
        database = b""
        if texts:
            try:
                database = hyperscan.dumpb(_compile(list(texts.values()), list(texts)))
            except hyperscan.HyperscanError:
                refused = _refused(texts)
                texts = {position: text for position, text in texts.items() if position not in refused}
                if texts:
                    database = hyperscan.dumpb(_compile(list(texts.values()), list(texts)))
        always = tuple(position for position in range(len(lines)) if position not in texts)
        return msgspec.msgpack.encode(_Stored(database, always))

    def load(self, stored: bytes) -> HyperscanSet:
        try:
            return HyperscanSet(msgspec.msgpack.decode(stored, type=_Stored))
        except (msgspec.DecodeError, hyperscan.HyperscanError) as error:
            raise ValueError(str(error)) from error


ENGINE = HyperscanEngine()
