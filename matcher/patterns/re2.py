"""The re2 engine: one RE2 set over a rare required literal of each line.

A set of whole patterns would be exact, but its lazy automaton costs a millisecond on every HTTP response it has not
seen. A set of one well-chosen literal per line is small, and the rest of what a line needs is tested directly: its
first bytes and its other literals. Lines without a usable literal are found by the response's first byte.
Contract: PatternSet. RE2 answers an empty list without an error when its memory runs out; a pattern that always
matches stands in every set, so that this cannot pass for "no line".
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import msgspec
from msgspec import Struct
from re2 import _re2

from matcher.errors import UnsupportedPattern
from matcher.literals import Literal, Requirement, prefix, requirements
from matcher.model import Signature
from matcher.patterns import SetFailure
from matcher.regex_ast import ALL, parse
from matcher.translate import anchored, first_bytes

KEY_BYTES = 16  # of a literal; longer ones make more automaton states and find nothing more
MIN_KEY_BYTES = 3  # shorter ones are found in everything
MEMORY = 48 << 20  # bytes one set may use for its automaton; it starts anew when that is full
MEMORY_PER_KEY = 64 << 10  # bytes; small sets are given less
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


def _plan(lines: Sequence[Signature]) -> _Plan:
    trees = []
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
        return sum(window(literal)[0] for literal in option) * (4 if shortest < 4 else 1), -shortest

    planned = []
    for position, (tree, need) in enumerate(zip(trees, needs, strict=True)):
        usable = [option for option in need if min(len(literal.text) for literal in option) >= MIN_KEY_BYTES]
        best = min(usable, key=cost, default=())
        plain = [option[0].text for option in need if len(option) == 1 and not option[0].caseless]
        start = b"" if tree is None else prefix(tree)
        checks = sorted((text for text in plain if text != start), key=lambda text: (spread[text[:4]], -len(text)))
        first = None
        if not best and tree is not None and anchored(tree):
            mask, empty = first_bytes(tree)
            first = None if empty else mask.to_bytes(32, "little")
        keys = tuple(dict.fromkeys(window(literal)[1] for literal in best))
        planned.append(Line(position, keys, start, tuple(checks[:MAX_CHECKS]), first))
    return _Plan(tuple(planned))


_Entry = tuple[int, bytes, tuple[bytes, ...]]  # position, prefix, checks


class Re2Set:
    """See the module's docstring. memory: bytes the automaton may use."""

    def __init__(self, plan: _Plan, memory: int | None = None) -> None:
        keys: dict[Literal, list[_Entry]] = {}
        first: list[list[_Entry]] = [[] for _ in range(256)]
        self._empty: list[int] = []
        for line in plan.lines:
            entry = (line.position, line.prefix, line.checks)
            for key in line.keys:
                keys.setdefault(key, []).append(entry)
            if line.keys:
                continue
            mask = ALL if line.first is None else int.from_bytes(line.first, "little")
            if line.first is None and not line.prefix and not line.checks:
                self._empty.append(line.position)
            for code in range(256):
                if mask >> code & 1:
                    first[code].append(entry)
        self._first = [tuple(entries) for entries in first]
        options = _re2.RE2.Options()
        options.encoding = _re2.RE2.Options.Encoding.LATIN1
        options.never_capture = True
        options.log_errors = False
        options.max_mem = memory or min(MEMORY, (4 << 20) + len(keys) * MEMORY_PER_KEY)
        made = _re2.Set(_re2.RE2.Anchor.UNANCHORED, options)
        self._lines: list[tuple[_Entry, ...]] = []
        for key, entries in keys.items():
            text = _re2.RE2.QuoteMeta(key.text)
            made.Add(b"(?i)" + text if key.caseless else text)
            self._lines.append(tuple(entries))
        made.Add(b"")  # the sentinel: always in the answer, unless RE2 gave up
        self._lines.append(())
        self._search = made.Match if made.Compile() else lambda response: []

    def candidates(self, response: bytes) -> Sequence[int]:
        hits = self._search(response)
        if not hits:
            raise SetFailure("re2 out of memory")
        if not response:
            return self._empty
        found = [
            position
            for position, start, checks in self._first[response[0]]
            if response.startswith(start) and _all_in(checks, response)
        ]
        if len(hits) == 1:
            return found
        lines = self._lines
        for hit in hits:
            for position, start, checks in lines[hit]:
                if response.startswith(start) and _all_in(checks, response):
                    found.append(position)
        return sorted(set(found)) if len(found) > 1 else found


def _all_in(checks: tuple[bytes, ...], response: bytes) -> bool:
    for check in checks:  # noqa: SIM110 - twice as fast as all() with a generator
        if check not in response:
            return False
    return True


class Re2Engine:
    name = "re2"
    version = f"1-{version('google-re2')}"

    def analyse(self, lines: Sequence[Signature]) -> bytes:
        return msgspec.msgpack.encode(_plan(lines))

    def load(self, stored: bytes) -> Re2Set:
        try:
            return Re2Set(msgspec.msgpack.decode(stored, type=_Plan))
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error


ENGINE = Re2Engine()
