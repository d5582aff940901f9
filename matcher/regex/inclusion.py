"""Does one line take everything that another one could match? Responses made up to fit, and a proof on automata.

Contract: `uncovered(earlier, later)` is b"" only if every response that `later` fits is one that `earlier` fits. Both
trees are read as searches in a response of at least one byte. `later` may be relaxed (see tree.py), and then a
response that is given may not fit it; `earlier` must be exact. Match limits are left out of account. `made_up` gives
responses that fit a tree's relaxed form; the caller confirms them.
Source: determinisation on the fly of two Thompson automata, walked in step.
"""

import random
from collections import deque
from collections.abc import Iterator
from functools import lru_cache

from matcher.regex.tree import ALL, Alt, Chars, Mark, Node, Repeat, Seq, mask_of

MAX_STATES = 2_000  # of one automaton
MAX_PAIRS = 4_000  # of two determinised ones, walked in step
_LIKED = tuple(  # what made-up bytes are taken from, where the pattern allows it
    mask_of(text) for text in (b"a", b"1", b"0123456789", b"abcdefghijklmnopqrstuvwxyz", bytes(range(0x20, 0x7F)), b"Z")
)


def made_up(node: Node, count: int) -> Iterator[bytes]:
    """`count` responses, the same at every call; short ones first."""
    for number in range(count):
        chance = random.Random(number)
        text = bytearray()
        _write(node, chance, number, text)
        yield bytes(text) or b"\n"


@lru_cache(maxsize=1024)
def _codes(mask: int) -> tuple[int, ...]:
    return tuple(code for code in range(256) if mask >> code & 1)


def _write(node: Node, chance: random.Random, number: int, text: bytearray) -> None:
    match node:
        case Chars(mask):
            liked = mask & (_LIKED[number] if number < len(_LIKED) else chance.choice(_LIKED)) or mask
            if codes := _codes(liked):
                text.append(codes[0] if number == 0 else chance.choice(codes))
        case Seq(items):
            for item in items:
                _write(item, chance, number, text)
        case Alt(branches):
            _write(branches[number % len(branches)] if number < 8 else chance.choice(branches), chance, number, text)
        case Repeat(body, low, high):
            most = low + min(number, 3) if high is None else min(high, low + min(number, 3))
            for _ in range(chance.randint(low, most)):
                _write(body, chance, number, text)
        case Mark():
            pass


class _TooHard(Exception):  # noqa: N818
    """Too many states, or an anchor where none is expected."""


_Pair = tuple[frozenset[int], frozenset[int]]
ACCEPT, END, VERY_END = 0, 1, 2  # fits whatever follows; fits at the end or before a last newline; fits at the end


class _Automaton:
    """A tree as an automaton that searches. Edges: (mask, target); a `start` edge may be taken at byte 0 only."""

    def __init__(self, node: Node) -> None:
        self.free: list[list[int]] = [[], [], []]
        self.at_start: list[list[int]] = [[], [], []]
        self.edges: list[list[tuple[int, int]]] = [[(ALL, ACCEPT)], [(mask_of(b"\n"), VERY_END)], []]
        entry = self.build(node, ACCEPT)
        anywhere = self.state()
        self.edges[anywhere].append((ALL, anywhere))
        self.free[anywhere].append(entry)
        self.first = self.close({entry, anywhere}, at_start=True)

    def state(self) -> int:
        if len(self.edges) >= MAX_STATES:
            raise _TooHard
        for table in (self.free, self.at_start, self.edges):
            table.append([])
        return len(self.edges) - 1

    def build(self, node: Node, then: int) -> int:
        """The state from which `node` and then whatever `then` stands for is matched."""
        match node:
            case Chars(mask):
                state = self.state()
                self.edges[state].append((mask, then))
                return state
            case Seq(items):
                for item in reversed(items):
                    then = self.build(item, then)
                return then
            case Alt(branches):
                state = self.state()
                self.free[state] += [self.build(branch, then) for branch in branches]
                return state
            case Repeat(body, low, high):
                return self.build_repeat(body, low, high, then)
            case Mark("start"):
                state = self.state()
                self.at_start[state].append(then)
                return state
            case Mark(kind):
                if then != ACCEPT:
                    raise _TooHard
                return END if kind == "end" else VERY_END
        raise _TooHard

    def build_repeat(self, body: Node, low: int, high: int | None, then: int) -> int:
        if high is None:
            loop = self.state()
            self.free[loop] += [self.build(body, loop), then]
            then = loop
        else:
            for _ in range(high - low):
                maybe = self.state()
                self.free[maybe] += [self.build(body, then), then]
                then = maybe
        for _ in range(low):
            then = self.build(body, then)
        return then

    def close(self, states: set[int], at_start: bool = False) -> frozenset[int]:
        """The states that are reached without a byte."""
        seen = set(states)
        todo = list(states)
        while todo:
            state = todo.pop()
            following = self.free[state] + self.at_start[state] if at_start else self.free[state]
            todo += [target for target in following if target not in seen]
            seen.update(following)
        return frozenset((ACCEPT,)) if ACCEPT in seen else frozenset(seen)

    def after(self, states: frozenset[int], code: int) -> frozenset[int]:
        return self.close({target for state in states for mask, target in self.edges[state] if mask >> code & 1})


def _fits(states: frozenset[int]) -> bool:
    return not states.isdisjoint((ACCEPT, END, VERY_END))


def _representatives(*automata: _Automaton) -> list[int]:
    """One byte of each set of bytes that no edge tells apart."""
    masks = sorted({mask for automaton in automata for edges in automaton.edges for mask, _ in edges})
    kinds: dict[tuple[int, ...], int] = {}
    for code in range(256):
        kinds.setdefault(tuple(mask >> code & 1 for mask in masks), code)
    return list(kinds.values())


def uncovered(earlier: Node, later: Node) -> bytes | None:
    """A shortest response that `later` fits and `earlier` does not; b"" where there is none, None: not decided."""
    try:
        taker, taken = _Automaton(earlier), _Automaton(later)
    except (_TooHard, RecursionError):
        return None
    codes = _representatives(taker, taken)
    start = (taker.first, taken.first)
    came: dict[_Pair, tuple[_Pair, int]] = {}  # start gets in only when met again: it stands for the empty response
    todo = deque([start])
    while todo:
        here = todo.popleft()
        for code in codes:
            pair = (taker.after(here[0], code), taken.after(here[1], code))
            if ACCEPT in pair[0] or pair in came:
                continue
            if _fits(pair[1]) and not _fits(pair[0]):
                text = bytearray((code,))
                while here != start:
                    here, code = came[here]
                    text.append(code)
                return bytes(reversed(text))
            if len(came) >= MAX_PAIRS:
                return None
            came[pair] = (here, code)
            todo.append(pair)
    return b""
