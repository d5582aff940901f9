"""The re2 engine: keys found by one RE2 expression, an alternation of literals.

A set of whole patterns would be exact, but its lazy automaton costs a millisecond on every HTTP response it has not
seen. One of short keys is small, and smaller still where RE2 sees which keys begin alike: they are given in order.
Contract: Finder, as matcher/patterns/__init__.py has it. Keys for which RE2 lacks the memory are a SetFailure; see
bindings.linear.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from matcher.errors import UnsupportedPattern
from matcher.patterns import Entries, Entry, SetFailure, bindings
from matcher.regex.literals import Literal

MEMORY = 256 << 20  # bytes, RE2's bound; a third is for this automaton, which ends at about 10 kB per key
MAX_KNOWN = 20_000  # texts whose meaning is remembered

_Hit = tuple[Entries, int]  # see Finder.resolve


class Finder:
    """Raises SetFailure where RE2 refuses the keys. memory: bytes the automaton may use."""

    def __init__(self, keys: Mapping[Literal, Sequence[Entry]], memory: int = MEMORY) -> None:
        exact = {key.text: entries for key, entries in keys.items() if not key.caseless}
        caseless = {key.text: entries for key, entries in keys.items() if key.caseless}
        self.tables = (exact, caseless)
        self.ordered = (sorted(exact), sorted(caseless))
        # Of alternatives that match at one place the first counts: backwards, a key stands before its own beginnings.
        texts = [b"(?i:%b)" % bindings.escape(key) for key in reversed(self.ordered[1])]
        texts += [bindings.escape(key) for key in reversed(self.ordered[0])]
        try:
            self._search = bindings.linear(b"|".join(texts), max_mem=memory).search
        except UnsupportedPattern as error:
            raise SetFailure(f"re2: {error.feature}") from error
        self.known: dict[bytes, _Hit] = {}

    def __call__(self, response: bytes) -> Iterable[Entries]:
        search, known = self._search, self.known
        hits: dict[bytes, Entries] = {}  # by the text that was found; a flood of one text counts once
        hit = search(response)
        while hit is not None:
            start, end = hit.span()
            text = response[start:end]
            hits[text], skip = known.get(text) or self.resolve(text)
            hit = search(response, start + skip)
        return hits.values()

    def resolve(self, text: bytes) -> _Hit:
        """What finding `text` means: the lines of all keys that may be here, and how far the next search may skip.

        These are the keys inside it, and the longer ones that begin with it and come later in the expression: exact
        ones where the text is a key in either case, and any where RE2, but not PCRE2, knows one of its letters in two
        cases.
        """
        size = len(text)
        entries: list[Entry] = []
        skip = size
        is_plain = text.isascii() and text.lower() not in self.tables[1]
        for table, ordered, seen in zip(self.tables, self.ordered, (text, text.lower()), strict=True):
            found = table.keys() & {seen[start:end] for start in range(size) for end in range(start + 1, size + 1)}
            if not is_plain:
                found.update(ordered[bisect_right(ordered, seen) : bisect_left(ordered, seen + b"\xff" * 256)])
            entries += [entry for key in found for entry in table[key]]
            skip = next((start for start in range(1, skip) if _begins(ordered, seen[start:])), skip)
        if len(self.known) >= MAX_KNOWN:
            self.known.clear()
        self.known[text] = tuple(entries), skip
        return self.known[text]


def _begins(ordered: list[bytes], text: bytes) -> bool:
    """Whether a longer key begins with `text`."""
    at = bisect_right(ordered, text)
    return at < len(ordered) and ordered[at].startswith(text)
