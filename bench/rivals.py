"""Other ways to match the same lines, which the engines are measured beside.

PCRE2 line by line is what Nmap does, and exact; Python's re and pyre2 read some lines otherwise or not at all. The
RE2::Set of whole patterns is in re2_set.py, in a process of its own.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

import re2

from bench.corpora import Case
from bench.re2_set import Answer, Asked, Question, ask
from bench.steps import lists_of
from matcher import Match, Matcher, ProbeDatabase, Signature
from matcher.errors import UnsupportedPattern
from matcher.patterns import bindings, pcre
from matcher.regex.translate import superset
from matcher.regex.tree import parse


class LineByLine:
    """One line after another in file order, with Nmap's limits. jit: PCRE2's compiler in place of its interpreter."""

    def __init__(self, database: ProbeDatabase, *, jit: bool) -> None:
        self.matcher = Matcher(database, "reference")  # for its fields of a match only
        self.codes = []
        for probe in database.probes:
            codes = [
                pcre.compile_pattern(line.pattern, caseless=line.caseless, dotall=line.dotall)
                for line in probe.signatures
            ]
            if jit:
                for code in codes:
                    bindings.jit_compile(code)
            self.codes.append(codes)

    def __call__(self, case: Case) -> Match | None:
        probe, response = case
        size = len(response)
        for index in probe.lists:
            for position, code in enumerate(self.codes[index]):
                try:
                    found = pcre.match(code, response, size, 0, pcre.CONTEXT)[0]
                except pcre.LibraryError:
                    continue
                if found is not None:
                    return self.matcher.line(index, position).matched(response, found)
        return None


class Wrapped(Protocol):
    """A compiled pattern of Python's re or pyre2."""

    def search(self, response: bytes, /) -> object: ...


def python_re(line: Signature) -> Wrapped | None:
    try:
        return re.compile(line.pattern, re.IGNORECASE * line.caseless | re.DOTALL * line.dotall)
    except (re.error, OverflowError, RecursionError):
        return None


def pyre2(line: Signature) -> Wrapped | None:
    """As its user would ask it, but without what it hands on to Python's re."""
    try:
        found = re2.compile(line.pattern, re.IGNORECASE * line.caseless | re.DOTALL * line.dotall)
    except (re.error, OverflowError, RecursionError, ValueError):
        return None
    return found if isinstance(found, re2.Pattern) else None


class Inexact:
    """One line after another, without fields. Lines `compiled` cannot take, or reads otherwise, are its own loss."""

    def __init__(self, database: ProbeDatabase, compiled: Callable[[Signature], Wrapped | None]) -> None:
        self.lines = [[(line, compiled(line)) for line in probe.signatures] for probe in database.probes]
        self.refused = sum(pattern is None for lines in self.lines for _, pattern in lines)

    def __call__(self, case: Case) -> int | None:
        probe, response = case
        for index in probe.lists:
            for line, pattern in self.lines[index]:
                if pattern is not None and pattern.search(response):
                    return line.line
        return None


def re2_sets(database: ProbeDatabase, passes: Sequence[list[Asked]]) -> Answer:
    """What one RE2::Set of supersets a probe finds. Raises re2_set.Absent where google-re2 cannot be had."""
    needed = lists_of([asked for questions in passes for asked in questions])
    sets = {index: [_whole(line) for line in database.probes[index].signatures] for index in needed}
    return ask(Question(sets, list(passes)))


def _whole(line: Signature) -> bytes:
    """A pattern that matches wherever the line does."""
    try:
        return superset(parse(line.pattern, caseless=line.caseless, dotall=line.dotall))
    except UnsupportedPattern:
        return b""
