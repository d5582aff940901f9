"""Sets of patterns: which lines of a probe can fit a response.

Every engine answers one question, `PatternSet.candidates`, under one contract: *false candidates allowed, missed lines
never*. The caller confirms candidates in file order with PCRE2 (see pcre.py), so all engines give the same answer.
An engine works in two steps, so that the dear one can be kept on disk: `analyse` turns lines into bytes, and `load`
turns those bytes into a set that is ready to be asked.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from matcher.errors import EngineUnavailable
from matcher.model import Signature


class SetFailure(Exception):  # noqa: N818 - a state of the set, told to the matcher only
    """The set cannot answer for this response; every line must be taken as a candidate. args[0]: the cause."""


class PatternSet(Protocol):
    """The lines of one probe compiled together."""

    def candidates(self, response: bytes) -> Sequence[int]:
        """Positions of lines that may match, ascending and without repeats. Raises SetFailure."""
        ...


class EveryLine:
    """The set that knows nothing: each of `size` lines is a candidate."""

    def __init__(self, size: int) -> None:
        self._all = range(size)

    def candidates(self, response: bytes) -> Sequence[int]:
        return self._all


class Engine(Protocol):
    """One way to build sets. version: changes whenever stored bytes of another version cannot be loaded."""

    name: str
    version: str

    def analyse(self, lines: Sequence[Signature]) -> bytes:
        """The storable part of a set. Raises SetFailure where the engine cannot make one."""
        ...

    def load(self, stored: bytes) -> PatternSet:
        """The set again. Raises ValueError where the bytes cannot be read, SetFailure as above."""
        ...


ENGINES = {  # name -> module of this package, best first
    "hyperscan": "hyperscan",
    "re2": "re2",
    "reference": "reference",
}


def engine(name: str) -> Engine:
    """The engine of that name; `auto` is the first one of ENGINES that is installed. Raises EngineUnavailable."""
    if name == "auto":
        for candidate in ENGINES:
            try:
                return engine(candidate)
            except EngineUnavailable:
                continue
    if name not in ENGINES:
        raise EngineUnavailable(f"unknown matching engine {name!r}; expected auto, {', '.join(ENGINES)}")
    try:
        module = import_module(f"matcher.patterns.{ENGINES[name]}")
    except ImportError as error:
        raise EngineUnavailable(f"matching engine {name!r} is not installed ({error})") from error
    made: Engine = module.ENGINE
    return made
