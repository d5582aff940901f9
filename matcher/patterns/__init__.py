"""Sets of patterns: which lines of a probe can fit a response.

All engines keep one contract: *false candidates allowed, missed lines never*. The caller confirms candidates in file
order with PCRE2 (see pcre.py), so all engines give the same answer. What a line needs is planned once (plan.py) and
tested in one place (keyed.py); engines differ only in how they find keys.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Protocol

from msgspec import Struct

from matcher.errors import EngineUnavailable
from matcher.regex.literals import Literal

Entry = tuple[int, bytes, tuple[bytes, ...]]
"""What else a line needs whose key was found: (position, prefix, further literals)."""
Entries = tuple[Entry, ...]


class SetFailure(Exception):  # noqa: N818 - a state of the set, told to the matcher only
    """The set cannot answer for this response; every line must be taken as a candidate. args[0]: the cause."""


class PatternSet(Protocol):
    """The lines of one probe together."""

    def candidates(self, response: bytes) -> Sequence[int]:
        """Positions of lines that may match, ascending and without repeats. Raises SetFailure."""
        ...


class EveryLine:
    """The set that knows nothing: each of `size` lines is a candidate. What the reference engine has."""

    def __init__(self, size: int) -> None:
        self._all = range(size)

    def candidates(self, response: bytes) -> Sequence[int]:
        return self._all


class Finder(Protocol):
    """Finds keys in responses."""

    def __call__(self, response: bytes) -> Iterable[Entries]:
        """For every key that is there, at least once, what its lines need. Raises SetFailure."""
        ...


Finding = Callable[[Mapping[Literal, Sequence[Entry]]], Finder]
"""Makes a Finder of keys, at least one, and the entries of each. Raises SetFailure."""


class Engine(Struct, frozen=True):
    """One way to find keys. finding: None for the reference, which does without.

    cached: the same, that keeps on disk what is dear to make; None where nothing is.
    """

    name: str
    finding: Finding | None = None
    cached: Finding | None = None


REFERENCE = Engine("reference")  # the oracle of the tests and the baseline of the benchmarks
ENGINES = ("hyperscan", "re2", "reference")  # best first; but for the reference, modules of this package


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
    if name == REFERENCE.name:
        return REFERENCE
    try:
        module = import_module(f"matcher.patterns.{name}")
    except ImportError as error:
        raise EngineUnavailable(f"matching engine {name!r} is not installed ({error})") from error
    return Engine(name, module.Finder, getattr(module, "CachedFinder", None))
