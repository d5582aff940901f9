r"""Carry Perl-compatible patterns to other dialects.

`pcre2_text` keeps the meaning a pattern has in PCRE 8.39 when PCRE2 reads it. `superset` renders a tree of
tree.py as a pattern that RE2 (Latin-1) and Hyperscan accept and that matches at least as much, in time linear in
the response. Both are pure text work; no engine is imported here.
Source: pcre2pattern(3), pcre2api(3) on PCRE2_ALT_BSUX, the RE2 syntax page.
"""

import re
from functools import lru_cache

from matcher.regex.tree import ALL, Alt, Chars, Mark, Node, Repeat, Seq

# --- Perl 8.39 -> PCRE2 -------------------------------------------------------------------------------------------

# What must be rewritten: \x that is not two digits (the binding turns on ALT_BSUX, which reads those as a plain x),
# \C (locked by the binding), braces that 8.39 takes literally but PCRE2 10.43 reads as a quantifier, quotes around any.
_SUSPECT = re.compile(rb"\\(?:x(?![0-9A-Fa-f]{2})|[CuUlLQ])|\{(?!\d+(?:,\d*)?\})")
_TOKEN = re.compile(
    rb"""
      (?P<quote>   \\Q (?s:.*?) (?: \\E | \Z ) )
    | (?P<hex>     \\x (?: \{ (?P<long>[0-9A-Fa-f]+) \} | (?P<short>[0-9A-Fa-f]{0,2}) ) )
    | (?P<named>   \\[pPgko] \{ [^}]* \} )
    | (?P<any>     \\C )
    | (?P<escape>  \\ (?s:.) )
    | (?P<comment> \(\?\# [^)]* \) )
    | (?P<posix>   \[:\^?[a-z]+:\] )
    | (?P<count>   \{ \d+ (?: , \d* )? \} )
    | (?P<other>   (?s:.) )
    """,
    re.VERBOSE,
)
_UNKNOWN_ESCAPES = (b"\\u", b"\\U", b"\\l", b"\\L")


class Rewritten:
    """A pattern for PCRE2 and the way back: `origin(offset)` is the place in the original pattern.

    fault: (reason, offset) of something that 8.39 refuses and the binding would accept with another meaning.
    """

    def __init__(self, text: bytes, marks: list[tuple[int, int]], fault: tuple[str, int] | None) -> None:
        self.text = text
        self.marks = marks
        self.fault = fault

    def origin(self, offset: int) -> int:
        """marks: ascending (offset in text, offset in the original) where the two begin to differ."""
        written, original = max((mark for mark in self.marks if mark[0] <= offset), default=(0, 0))
        return original + offset - written


def pcre2_text(pattern: bytes) -> Rewritten:
    """The same pattern as PCRE2 must be told it."""
    if _SUSPECT.search(pattern) is None:
        return Rewritten(pattern, [], None)
    pieces: list[bytes] = []
    marks: list[tuple[int, int]] = []
    fault = None
    length = 0
    in_class = 0  # 0 outside; else the index behind "[" or "[^", where a "]" is still literal
    for found in _TOKEN.finditer(pattern):
        token = piece = found[0]
        kind = found.lastgroup
        if kind == "hex" or found["hex"] is not None:
            value = int(found["long"] or found["short"] or b"0", 16)
            if value > 0xFF:
                fault = fault or ("character value in \\x{} is above 0xff", found.start())
                value &= 0xFF
            piece = b"\\x%02x" % value
        elif kind == "any" and not in_class:
            piece = b"(?s:.)"
        elif kind == "escape" and token in _UNKNOWN_ESCAPES:
            fault = fault or (f"{token.decode()} is not supported", found.start())
        elif kind == "other":
            if in_class:
                if token == b"]" and found.start() > in_class - 1:
                    in_class = 0
            elif token == b"[":
                in_class = found.end() + pattern.startswith(b"^", found.end()) + 1
            elif token == b"{":
                piece = b"\\{"
        pieces.append(piece)
        length += len(piece)
        if len(piece) != len(token):
            marks.append((length, found.end()))
    return Rewritten(b"".join(pieces), marks, fault)


# --- trees -> RE2 and Hyperscan -----------------------------------------------------------------------------------

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _<>=/:;,'\"!@%&~`")


@lru_cache(maxsize=4096)
def _chars(mask: int) -> bytes:
    if mask == ALL:
        return b"[\\x00-\\xff]"
    if mask and not mask & (mask - 1):
        code = mask.bit_length() - 1
        return bytes((code,)) if code in _PLAIN else b"\\x%02x" % code
    ranges = _ranges(mask)
    inverse = _ranges(ALL ^ mask)
    return b"[%b]" % ranges if len(ranges) <= len(inverse) else b"[^%b]" % inverse


def _ranges(mask: int) -> bytes:
    text = b""
    code = 0
    while mask >> code:
        if not mask >> code & 1:
            code += 1
            continue
        end = code
        while mask >> (end + 1) & 1:
            end += 1
        text += b"\\x%02x" % code if end == code else b"\\x%02x-\\x%02x" % (code, end)
        code = end + 1
    return text


def superset(node: Node, *, max_repeat: int = 1000) -> bytes:
    r"""A pattern that matches wherever `node` does.

    max_repeat: counts above it become open ends (RE2 refuses more than 1000). Anchors stay where they stand at the
    very beginning or end, which both engines take; `$` becomes `\n?\z`. Elsewhere they are dropped.
    """
    return _render(node, True, True, max_repeat)


def _render(node: Node, head: bool, tail: bool, most: int) -> bytes:
    match node:
        case Chars(mask):
            return _chars(mask) if mask else b"[^\\x00-\\xff]"
        case Mark(kind):
            if kind == "start":
                return b"\\A" if head else b""
            return (b"\\n?\\z" if kind == "end" else b"\\z") if tail else b""
        case Seq(items):
            text = b""
            last = len(items) - 1
            for index, item in enumerate(items):
                text += _render(item, head, tail and index == last, most)
                head = head and isinstance(item, Mark)
            return text
        case Alt(branches):
            texts = dict.fromkeys(_render(branch, head, tail, most) for branch in branches)
            return b"(?:%b)" % b"|".join(texts) if any(texts) else b""
        case Repeat(body, low, high):
            text = _render(body, False, False, most)
            if not text:
                return b""
            if not isinstance(body, Chars):
                text = b"(?:%b)" % text
            return text + _count(min(low, most), high if high is not None and high <= most else None)


def _count(low: int, high: int | None) -> bytes:
    match low, high:
        case 0, None:
            return b"*"
        case 1, None:
            return b"+"
        case 0, 1:
            return b"?"
        case _, None:
            return b"{%d,}" % low
        case _ if low == high:
            return b"{%d}" % low
    return b"{%d,%d}" % (low, high or 0)


def anchored(node: Node) -> bool:
    """Whether every match begins at the first byte of the response."""
    match node:
        case Mark(kind):
            return kind == "start"
        case Seq(items):
            return bool(items) and anchored(items[0])
        case Alt(branches):
            return all(anchored(branch) for branch in branches)
        case Repeat(body, low, _):
            return low > 0 and anchored(body)
    return False


def first_bytes(node: Node) -> tuple[int, bool]:
    """(set of bytes a match can begin with as a mask, whether a match can be empty)."""
    match node:
        case Chars(mask):
            return mask, False
        case Mark():
            return 0, True
        case Seq(items):
            mask = 0
            for item in items:
                more, empty = first_bytes(item)
                mask |= more
                if not empty:
                    return mask, False
            return mask, True
        case Alt(branches):
            parts = [first_bytes(branch) for branch in branches]
            mask = 0
            for more, _ in parts:
                mask |= more
            return mask, any(empty for _, empty in parts)
        case Repeat(body, low, _):
            mask, empty = first_bytes(body)
            return mask, empty or low == 0


def flat(node: Node) -> tuple[Node, ...]:
    """The items of a sequence, or the node alone."""
    return node.items if isinstance(node, Seq) else (node,)
