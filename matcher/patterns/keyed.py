"""A set of lines that is asked by its plan: find keys in the response, then test what else their lines need.

Which keys can matter depends on the response's first byte: nine of ten lines of a probe that is greeted are rooted,
that is, they begin at the first byte and know it. So lines stand in a group per first byte, beside those that may begin
anywhere. A group gets its finder of keys when a response first needs it; one of few rooted lines needs none of its own.
Contract: PatternSet. Keys of which an engine can make no finder are a SetFailure, at every response from then on.
"""

import re
from collections.abc import Iterable, Sequence

from matcher.patterns import Entry, Finder, Finding, SetFailure
from matcher.patterns.plan import Line
from matcher.regex.literals import Literal
from matcher.regex.tree import ALL

HEAD_BYTES = 8000  # of all heads in one expression, which Python compiles slowly
FEW = 12  # rooted lines are tested one by one: cheaper than another automaton
SHARE = 8  # a group with one rooted line for so many that begin anywhere has the keys of both in one automaton
WIDE = 4, 16  # first bytes; a line that has one key, or several, and takes more may as well begin anywhere


class _Group:
    """What responses are tested for. direct: lines that are, one by one; headed: others, if any of their heads fits."""

    __slots__ = ("begins", "direct", "finders", "headed")

    def __init__(self, lines: Sequence[Line], *finders: Finder | None) -> None:
        """lines: those that are not found by key."""
        headed, spare = [], HEAD_BYTES
        for line in lines:
            spare -= len(line.head)
            if line.head and not line.prefix and spare >= 0:
                headed.append(line)
        self.headed = [(re.compile(line.head, re.DOTALL).match, _entry(line)) for line in headed]
        self.begins = re.compile(b"|".join([line.head for line in headed]), re.DOTALL).match if headed else None
        chosen = {line.position for line in headed}
        self.direct = tuple(_unfound(line) for line in lines if line.position not in chosen)
        # A bound method is called sooner than an object.
        self.finders = [find.__call__ for find in finders if find is not None]


def _entry(line: Line) -> Entry:
    return line.position, line.prefix, line.checks


def _unfound(line: Line) -> Entry:
    """Of a line whose key nobody looks for: the key is one more thing to test, where it is one text."""
    if len(line.keys) != 1 or line.keys[0].caseless:
        return _entry(line)
    return line.position, line.prefix, (line.keys[0].text, *line.checks)


class KeyedSet:
    """See the module's docstring."""

    def __init__(self, lines: Sequence[Line], finding: Finding) -> None:
        self._finding = finding
        self._anywhere: list[Line] = []
        self._rooted: dict[int, list[Line]] = {}  # by first byte
        self._groups: list[_Group | None] = [None] * 256
        self._free: list[Finder | None] = []  # see _everywhere; empty before it was needed
        self._failure: SetFailure | None = None
        self._empty: list[int] = []  # lines that an empty response may fit
        for line in lines:
            if line.prefix:
                self._rooted.setdefault(line.prefix[0], []).append(line)
            else:
                self._place(line)

    def _place(self, line: Line) -> None:
        mask = ALL if line.first is None else int.from_bytes(line.first, "little")
        if mask == ALL or (line.keys and mask.bit_count() > WIDE[len(line.keys) > 1]):
            self._anywhere.append(line)
        else:
            for code in range(256):
                if mask >> code & 1:
                    self._rooted.setdefault(code, []).append(line)
        if line.first is None and not line.keys and not line.checks:
            self._empty.append(line.position)

    def candidates(self, response: bytes) -> Sequence[int]:
        if not response:
            return self._empty
        group = self._groups[response[0]] or self._group(response[0])
        tested: list[Iterable[Entry]] = [group.direct]
        for find in group.finders:
            tested += find(response)
        if group.begins is not None and group.begins(response):
            tested.append([entry for fits, entry in group.headed if fits(response)])
        found: list[int] = []
        begins, seek = response.startswith, response.find  # `in` takes twice as long: it tries to read an integer first
        for entries in tested:
            for position, prefix, checks in entries:
                if not prefix or begins(prefix):  # a call is ten times as dear
                    for check in checks:
                        if seek(check) < 0:
                            break
                    else:
                        found.append(position)
        return sorted(set(found)) if len(found) > 1 else found

    def _group(self, code: int) -> _Group:
        if self._failure is not None:
            raise self._failure
        try:
            made = self._groups[code] = self._made(self._rooted.get(code, []))
        except SetFailure as failure:
            self._failure = failure
            raise
        return made

    def _made(self, rooted: list[Line]) -> _Group:
        keyless = [line for line in self._anywhere if not line.keys]
        keyed = [line for line in rooted if line.keys]
        if len(keyed) > FEW:
            keyless += [line for line in rooted if not line.keys]
            if len(keyed) * SHARE >= len(self._anywhere):
                return _Group(keyless, self._finder([*self._anywhere, *keyed]))
            return _Group(keyless, self._everywhere(), self._finder(keyed))  # 256 times the others would be too many
        return _Group([*keyless, *rooted], self._everywhere())

    def _everywhere(self) -> Finder | None:
        """Of the keys of the lines that may begin anywhere."""
        if not self._free:
            self._free.append(self._finder(self._anywhere))
        return self._free[0]

    def _finder(self, lines: Iterable[Line]) -> Finder | None:
        keys: dict[Literal, list[Entry]] = {}
        for line in lines:
            for key in line.keys:
                keys.setdefault(key, []).append(_entry(line))
        return self._finding(keys) if keys else None
