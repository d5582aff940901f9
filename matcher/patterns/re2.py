"""The re2 engine: one RE2 set over a rare required literal of each line.

A set of whole patterns would be exact, but its lazy automaton costs a millisecond on every HTTP response it has not
seen. A set of one well-chosen literal per line is small, and the rest of what a line needs is tested directly: its
first bytes and its other literals. Lines without a usable literal are found by the response's first byte.
Contract: PatternSet. A set for which RE2 lacks the memory is a SetFailure when it is loaded; see bindings.linear.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from matcher.errors import UnsupportedPattern
from matcher.model import Signature
from matcher.patterns import SetFailure, bindings
from matcher.regex.literals import Literal, Requirement, requirements
from matcher.regex.literals import prefix as required_prefix
from matcher.regex.translate import anchored, first_bytes
from matcher.regex.tree import ALL, Node, parse

KEY_BYTES = 12  # of a literal; longer ones make more automaton states and find nothing more
MIN_KEY_BYTES = 3  # shorter ones are found in everything
MEMORY = 256 << 20  # bytes, RE2's bound; a third is for this automaton, which ends at about 10 kB per key
MAX_KNOWN = 20_000  # texts whose meaning is remembered
MAX_CHECKS = 4  # further literals tested per line


class Line(Struct, array_like=True, frozen=True):
    """What one line needs. keys: any of them must be in the response; first: mask of first bytes, None = any."""

    position: int
    keys: tuple[Literal, ...]
    prefix: bytes
    checks: tuple[bytes, ...]
    first: bytes | None


class _Plan(Struct, array_like=True, frozen=True):
    lines: tuple[Line, ...]


def _grams(text: bytes) -> Iterator[bytes]:
    width = min(4, len(text))
    return (text[at : at + width] for at in range(len(text) - width + 1))


def plan(lines: Sequence[Signature]) -> _Plan:
    """Choose the keys of every line: literals that few of the other lines share, and so few responses have."""
    trees: list[Node | None] = []
    for signature in lines:
        try:
            trees.append(parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall))
        except UnsupportedPattern:
            trees.append(None)
    needs = [[] if tree is None else requirements(tree) for tree in trees]
    spread = Counter(
        gram
        for need in needs
        for gram in {gram for option in need for literal in option for gram in _grams(literal.text)}
    )

    def window(literal: Literal) -> tuple[int, Literal]:
        """(how common it is among the lines, the rarest KEY_BYTES of a literal)."""
        text = literal.text
        at = min(range(len(text) - min(4, len(text)) + 1), key=lambda at: spread[text[at : at + 4]])
        start = max(0, min(at - (KEY_BYTES - 4) // 2, len(text) - KEY_BYTES))
        return spread[text[at : at + 4]], Literal(text[start : start + KEY_BYTES], literal.caseless)

    def cost(option: Requirement) -> tuple[int, int]:
        shortest = min(len(literal.text) for literal in option)
        # A caseless key costs the automaton twice the edges, a short one is found by chance.
        dear = 4 if shortest < 4 or any(literal.caseless for literal in option) else 1
        return sum(window(literal)[0] for literal in option) * dear, -shortest

    planned = []
    for position, (tree, need) in enumerate(zip(trees, needs, strict=True)):
        usable = [option for option in need if min(len(literal.text) for literal in option) >= MIN_KEY_BYTES]
        best = min(usable, key=cost, default=())
        plain = [option[0].text for option in need if len(option) == 1 and not option[0].caseless]
        start = b"" if tree is None else required_prefix(tree)
        checks = sorted((text for text in plain if text != start), key=lambda text: (spread[text[:4]], -len(text)))
        first = None
        if not best and tree is not None and anchored(tree):
            mask, empty = first_bytes(tree)
            first = None if empty else mask.to_bytes(32, "little")
        keys = tuple(dict.fromkeys(window(literal)[1] for literal in best))
        planned.append(Line(position, keys, start, tuple(checks[:MAX_CHECKS]), first))
    return _Plan(tuple(planned))


_Entry = tuple[int, bytes, tuple[bytes, ...]]  # position, prefix, checks
_Hit = tuple[tuple[_Entry, ...], int]  # see _Keys.resolve


class _Keys:
    """The distinct keys and the automaton that finds the longest of them at each place.

    exact and caseless: key -> lines; the keys of caseless are lower case.
    """

    def __init__(self, exact: dict[bytes, list[_Entry]], caseless: dict[bytes, list[_Entry]], memory: int) -> None:
        self.tables = (exact, caseless)
        self.ordered = (sorted(exact), sorted(caseless))
        keys = [(key, bindings.escape(key)) for key in self.ordered[0]]
        keys += [(key, b"(?i:%b)" % bindings.escape(key)) for key in self.ordered[1]]
        keys.sort(key=lambda key: -len(key[0]))  # of keys that begin at one place the first counts
        try:
            self.search = bindings.linear(b"|".join(pattern for _, pattern in keys), max_mem=memory).search
        except UnsupportedPattern as error:
            raise SetFailure(f"re2: {error.feature}") from error
        self.known: dict[bytes, _Hit] = {}

    def resolve(self, text: bytes) -> _Hit:
        """What finding `text` means: the lines of all keys inside it, and how far the next search may skip."""
        size = len(text)
        entries: list[_Entry] = []
        skip = size
        for table, ordered, seen in zip(self.tables, self.ordered, (text, text.lower()), strict=True):
            inside = {seen[start:end] for start in range(size) for end in range(start + 1, size + 1)}
            entries += [entry for key in inside & table.keys() for entry in table[key]]
            skip = next((start for start in range(1, skip) if _begins(ordered, seen[start:])), skip)
        if len(self.known) >= MAX_KNOWN:
            self.known.clear()
        self.known[text] = tuple(entries), skip
        return self.known[text]


def _begins(ordered: list[bytes], text: bytes) -> bool:
    """Whether a longer key begins with `text`."""
    at = bisect_right(ordered, text)
    return at < len(ordered) and ordered[at].startswith(text)


class Re2Set:
    """See the module's docstring. memory: bytes the automaton may use."""

    def __init__(self, plan: _Plan, memory: int = MEMORY) -> None:
        exact: dict[bytes, list[_Entry]] = {}
        caseless: dict[bytes, list[_Entry]] = {}
        first: list[list[_Entry]] = [[] for _ in range(256)]
        self._empty: list[int] = []
        for line in plan.lines:
            entry = (line.position, line.prefix, line.checks)
            for key in line.keys:
                (caseless if key.caseless else exact).setdefault(key.text, []).append(entry)
            if line.keys:
                continue
            if line.first is None and not line.prefix and not line.checks:
                self._empty.append(line.position)
            mask = ALL if line.first is None else int.from_bytes(line.first, "little")
            for code in range(256):
                if mask >> code & 1:
                    first[code].append(entry)
        self._first = [tuple(entries) for entries in first]
        self._keys = _Keys(exact, caseless, memory) if exact or caseless else None

    def candidates(self, response: bytes) -> Sequence[int]:
        if not response:
            return self._empty
        found: list[int] = []
        begins = response.startswith
        groups = {b"": self._first[response[0]]}  # by the text that was found; a flood of one text counts once
        if self._keys is not None:
            search, known = self._keys.search, self._keys.known
            hit = search(response)
            while hit is not None:
                start, end = hit.span()
                text = response[start:end]
                groups[text], skip = known.get(text) or self._keys.resolve(text)
                hit = search(response, start + skip)
        for entries in groups.values():
            for position, prefix, checks in entries:
                if begins(prefix):
                    for check in checks:
                        if check not in response:
                            break
                    else:
                        found.append(position)
        return sorted(set(found)) if len(found) > 1 else found


class Re2Engine:
    name = "re2"
    version = f"pyre2 {bindings.version('pyre2')}"

    def analyse(self, lines: Sequence[Signature]) -> bytes:
        return msgspec.msgpack.encode(plan(lines))

    def load(self, stored: bytes) -> Re2Set:
        try:
            return Re2Set(msgspec.msgpack.decode(stored, type=_Plan))
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error


ENGINE = Re2Engine()
