"""What every match of a pattern must contain: its required literals, and what it must begin with.

Contract: each requirement is a tuple of literals of which at least one occurs in any response that the tree matches;
all requirements of a line hold together. An empty list means that nothing is known, never that nothing is needed.
Used to find the few lines that can fit a response without running them.
"""

from itertools import pairwise, zip_longest

from msgspec import Struct

from matcher.regex.translate import anchored, flat, superset
from matcher.regex.tree import ALL, Alt, Chars, Mark, Node, Repeat, Seq

MAX_BRANCHES = 16  # alternatives one requirement may have
HEAD_BYTES = 200  # of an expression; nothing is told by what comes then
MAX_COPIES = 16  # bytes taken from a counted repeat such as \0{200}


class Literal(Struct, frozen=True):
    """text: lower case where caseless."""

    text: bytes
    caseless: bool = False


Requirement = tuple[Literal, ...]


_SINGLES = {1 << code: (code, False) for code in range(256)}  # a set of one byte, or of one letter in both cases
_SINGLES |= {1 << code | 1 << (code ^ 0x20): (code, True) for code in range(0x61, 0x7B)}


class _Collector:
    """Walks a tree from left to right; `run` is the literal that grows, `folded` where in it either case will do."""

    def __init__(self) -> None:
        self.found: list[Requirement] = []
        self.run = bytearray()
        self.folded: list[int] = []

    def cut(self) -> None:
        if self.run:
            text, folded = bytes(self.run), self.folded
            self.found.append((Literal(text.lower() if folded else text, bool(folded)),))
            self.run, self.folded = bytearray(), []
            if folded:  # of [Ss]erver: `erver` stands as it is, which is easier to find and to test
                pieces = [text[start + 1 : end] for start, end in pairwise([-1, *folded, len(text)])]
                self.found += [(Literal(piece),) for piece in pieces if piece]

    def walk(self, node: Node) -> None:
        if isinstance(node, (Chars, Seq)):
            for item in flat(node):
                if not isinstance(item, Chars):
                    self.walk(item)
                elif (single := _SINGLES.get(item.mask)) is None:
                    self.cut()
                else:
                    if single[1]:
                        self.folded.append(len(self.run))
                    self.run.append(single[0])
        elif isinstance(node, Repeat):
            body, low = node.body, node.low
            most = MAX_COPIES if isinstance(body, Chars) else 1
            for _ in range(min(low, most)):
                self.walk(body)
            if low != node.high or low > most:
                self.cut()
        elif isinstance(node, Alt):
            self.cut()
            either = [_longest(requirements(branch)) for branch in node.branches]
            if all(either):
                merged = tuple(dict.fromkeys(literal for option in either for literal in option))
                if len(merged) <= MAX_BRANCHES:
                    self.found.append(merged)


def _longest(options: list[Requirement]) -> Requirement:
    return max(options, key=lambda option: min(len(literal.text) for literal in option), default=())


def requirements(node: Node) -> list[Requirement]:
    """Everything that is known to be needed, from left to right."""
    collector = _Collector()
    collector.walk(node)
    collector.cut()
    return collector.found


def prefix(node: Node) -> bytes:
    """The bytes that every match begins with at the first byte of the response; b"" where that is not known."""
    if not anchored(node):
        return b""
    text = bytearray()
    for item in flat(node):
        single = None
        if isinstance(item, Chars):
            single = _SINGLES.get(item.mask)
            copies, ends = 1, False
        elif isinstance(item, Repeat) and isinstance(item.body, Chars):
            single = _SINGLES.get(item.body.mask)
            copies = min(item.low, MAX_COPIES)
            ends = item.low != item.high or item.low > MAX_COPIES
        elif isinstance(item, Mark):
            continue
        if single is None or single[1]:
            break
        text += bytes((single[0],)) * copies
        if ends:
            break
    return bytes(text)


def head(node: Node) -> bytes:
    """The sets of bytes that every match begins with, as a pattern that Python's `re` matches in linear time.

    With the end of the response where the pattern says nothing else. b"" where nothing is known.
    """
    text = b""
    items = flat(node) if anchored(node) else ()
    for item, following in zip_longest(items, items[1:]):
        if len(text) > HEAD_BYTES:
            break
        match item:
            case Chars():
                text += superset(item)
            case Repeat(Chars(mask) as body, low, high):
                ends = not mask & _needed(following)
                if low != high and not ends:  # it would have to be tried how often
                    return text + superset(Repeat(body, low, low), max_repeat=low)
                text += superset(item, max_repeat=max(low, high or 0))
            case Mark("start"):
                continue
            case Mark(kind):
                return text + (b"\\n?\\Z" if kind == "end" else b"\\Z")
            case _:
                return text
    return text


def _needed(node: Node | None) -> int:
    """The bytes that `node` must go on with, as a mask: all of them where that is not plain."""
    match node:
        case Chars(mask) | Repeat(Chars(mask), 1 | 2 | 3):
            return mask
    return ALL
