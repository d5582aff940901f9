"""What every match of a pattern must contain: its required literals, and the bytes it must begin with.

Contract: each requirement is a tuple of literals of which at least one occurs in any response that the tree matches;
all requirements of a line hold together. An empty list means that nothing is known, never that nothing is needed.
Used to find the few lines that can fit a response without running them.
"""

from msgspec import Struct

from matcher.regex.translate import anchored, flat
from matcher.regex.tree import LOWER, Alt, Chars, Mark, Node, Repeat, Seq

MAX_BRANCHES = 16  # alternatives one requirement may have
MAX_COPIES = 16  # bytes taken from a counted repeat such as \0{200}


class Literal(Struct, frozen=True):
    """text: lower case where caseless."""

    text: bytes
    caseless: bool = False


Requirement = tuple[Literal, ...]


def _single(mask: int) -> tuple[int, bool] | None:
    """(byte, caseless) where the set is one byte or one letter in both cases."""
    if mask and not mask & (mask - 1):
        return mask.bit_length() - 1, False
    lower = mask & LOWER
    if lower and not lower & (lower - 1) and mask == lower | (lower >> 32):
        return lower.bit_length() - 1, True
    return None


class _Collector:
    """Walks a tree from left to right; `run` is the literal that is growing."""

    def __init__(self) -> None:
        self.found: list[Requirement] = []
        self.run = bytearray()
        self.caseless = False

    def cut(self) -> None:
        if self.run:
            text = bytes(self.run)
            self.found.append((Literal(text.lower() if self.caseless else text, self.caseless),))
        self.run = bytearray()
        self.caseless = False

    def walk(self, node: Node) -> None:
        match node:
            case Chars(mask):
                single = _single(mask)
                if single is None:
                    self.cut()
                else:
                    self.run.append(single[0])
                    self.caseless = self.caseless or single[1]
            case Seq(items):
                for item in items:
                    self.walk(item)
            case Repeat(body, low, high):
                for _ in range(min(low, MAX_COPIES) if isinstance(body, Chars) else min(low, 1)):
                    self.walk(body)
                if low != high or low > (MAX_COPIES if isinstance(body, Chars) else 1):
                    self.cut()
            case Alt(branches):
                self.cut()
                either = [_longest(requirements(branch)) for branch in branches]
                if all(either):
                    merged = tuple(dict.fromkeys(literal for option in either for literal in option))
                    if len(merged) <= MAX_BRANCHES:
                        self.found.append(merged)
            case Mark():
                pass


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
        if isinstance(item, Mark):
            continue
        body, low, high = (item.body, item.low, item.high) if isinstance(item, Repeat) else (item, 1, 1)
        if not isinstance(body, Chars) or (single := _single(body.mask)) is None or single[1]:
            break
        text += bytes((single[0],)) * min(low, MAX_COPIES)
        if low != high or low > MAX_COPIES:
            break
    return bytes(text)
