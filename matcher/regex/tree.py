r"""Parse a Perl-compatible regular expression on bytes into a tree that forgets what no prefilter needs.

Contract: `parse(pattern, ...)` gives a tree whose language contains everything the pattern can match. Captures,
greediness, atomic groups, look-around, word boundaries and \K are relaxed away; back-references and recursion become
"any bytes". What this parser does not know raises UnsupportedPattern, and the caller then takes the line on trust.
Case is spelled out as byte sets, so that no later stage needs a flag.
Source: pcrepattern(3), in the reading of PCRE 8.39 (`{,3}` is literal text, \s has the vertical tab).
"""

import re

from msgspec import Struct

from matcher.errors import UnsupportedPattern

ALL = (1 << 256) - 1
MAX_NESTING = 100  # groups inside each other; PCRE2 takes 250, but Python's stack must hold them
MAX_REPEAT = 65535  # PCRE's own


class Chars(Struct, frozen=True):
    """One byte out of a set; bit n of mask stands for byte n."""

    mask: int


class Seq(Struct, frozen=True):
    items: tuple["Node", ...] = ()


class Alt(Struct, frozen=True):
    branches: tuple["Node", ...]


class Repeat(Struct, frozen=True):
    """high None = without limit."""

    body: "Node"
    low: int
    high: int | None


class Mark(Struct, frozen=True):
    """kind: `start`, `end` (also before one final newline) or `very_end`."""

    kind: str


Node = Chars | Seq | Alt | Repeat | Mark

EMPTY = Seq()
ANY = Repeat(Chars(ALL), 0, None)


def mask_of(codes: bytes | range) -> int:
    return sum(1 << code for code in set(codes))


NEWLINE = mask_of(b"\n")
DIGIT = mask_of(b"0123456789")
UPPER = mask_of(range(0x41, 0x5B))
LOWER = mask_of(range(0x61, 0x7B))
WORD = DIGIT | UPPER | LOWER | mask_of(b"_")
SPACE = mask_of(b" \t\n\v\f\r")
HORIZONTAL = mask_of(b" \t\xa0")
VERTICAL = mask_of(b"\n\v\f\r\x85")
_GRAPH = mask_of(range(0x21, 0x7F))

_CLASSES = {
    b"d": DIGIT,
    b"D": ALL ^ DIGIT,
    b"w": WORD,
    b"W": ALL ^ WORD,
    b"s": SPACE,
    b"S": ALL ^ SPACE,
    b"h": HORIZONTAL,
    b"H": ALL ^ HORIZONTAL,
    b"v": VERTICAL,
    b"V": ALL ^ VERTICAL,
}
_POSIX = {
    b"alnum": DIGIT | UPPER | LOWER,
    b"alpha": UPPER | LOWER,
    b"ascii": mask_of(range(128)),
    b"blank": mask_of(b" \t"),
    b"cntrl": mask_of(range(32)) | mask_of(b"\x7f"),
    b"digit": DIGIT,
    b"graph": _GRAPH,
    b"lower": LOWER,
    b"print": _GRAPH | mask_of(b" "),
    b"punct": _GRAPH & ~(DIGIT | UPPER | LOWER),
    b"space": SPACE,
    b"upper": UPPER,
    b"word": WORD,
    b"xdigit": DIGIT | mask_of(b"abcdefABCDEF"),
}
_CONTROLS = {b"a": 7, b"e": 27, b"f": 12, b"n": 10, b"r": 13, b"t": 9}

QUANTIFIER = re.compile(rb"[*+?]|\{\d+(?:,\d*)?\}")
_OCTAL = re.compile(rb"[0-7]{1,3}")
_HEX = re.compile(rb"\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{0,2})")
_OCTAL_BRACES = re.compile(rb"\{([0-7]+)\}")
_POSIX_ITEM = re.compile(rb"\[:(\^?)([a-z]+):\]")
_GROUP_NAME = re.compile(rb"P?<(?=\w)\w+>|'\w+'")
_CALL = re.compile(rb"(?:R|[+-]?\d+|&\w+|P[>=]\w+)\)")
_OPTIONS = re.compile(rb"(\^?[imsxnUJ]*)(?:-([imsxnUJ]*))?([:)])")
_REFERENCE = re.compile(rb"\{[+-]?\w+\}|[+-]?\d+|<[^>]*>|'[^']*'")

# What most of a pattern is made of, taken in one step: bytes and escapes that are one set of bytes wherever they stand,
# and classes of which the same can be told.
_PIECE = re.compile(
    rb"[\w <>=/:;,'\"!@%&~`\x80-\xff-]|\\[.()?*+/\[\]{}|$^<>:\"' -]|\\[rntdwsDWS]|\\0(?![0-7])|\\x[0-9a-fA-F]{2}"
)
_RUN = re.compile(rb"(?:%b)+(?![*+?{]|\\E)" % _PIECE.pattern)
_CLASS = re.compile(rb"\[\^?(?:[^\[\]\\^]|\\[^QEc])(?:[^\[\]\\]|\\[^QEc])*\]")
MAX_KNOWN = 4096


def fold(mask: int) -> int:
    """The set with the other case of each ASCII letter added."""
    return mask | ((mask & UPPER) << 32) | ((mask & LOWER) >> 32)


class _Parser:
    """Recursive descent. `flags` holds the option letters in force at `at`."""

    def __init__(self, pattern: bytes, flags: frozenset[str]) -> None:
        self.text = pattern
        self.at = 0
        self.flags = flags
        self.depth = 0
        self.groups = 0
        self.quoting = False

    def unsupported(self, feature: str) -> UnsupportedPattern:
        return UnsupportedPattern(self.text, feature)

    def take(self, expression: re.Pattern[bytes]) -> re.Match[bytes] | None:
        found = expression.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def byte(self) -> bytes:
        code = self.text[self.at : self.at + 1]
        if not code:
            raise self.unsupported("unexpected end")
        self.at += 1
        return code

    def alternation(self) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.unsupported("deep nesting")
        branches = [self.sequence()]
        while self.text[self.at : self.at + 1] == b"|":
            self.at += 1
            branches.append(self.sequence())
        self.depth -= 1
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def sequence(self) -> Node:
        items: list[Node] = []
        while self.at < len(self.text) and (self.quoting or self.text[self.at] not in b"|)"):
            if not self.quoting and "x" not in self.flags and (run := self.take(_RUN)):
                pieces = _CASELESS if "i" in self.flags else _EXACT
                items += [pieces[piece] for piece in _PIECE.findall(run[0])]
                continue
            atom = self.atom()
            if atom is None:
                continue
            atom = self.quantified(atom)
            items.extend(atom.items if isinstance(atom, Seq) else (atom,))
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def quantified(self, atom: Node) -> Node:
        while not self.quoting:
            if self.text.startswith(b"\\E", self.at):
                self.at += 2
            found = self.take(QUANTIFIER)
            if found is None:
                break
            if self.text[self.at : self.at + 1] in (b"?", b"+"):
                self.at += 1
            low, high = _bounds(found[0])
            if max(low, high or 0) > MAX_REPEAT:
                raise self.unsupported("repeat count")
            if not isinstance(atom, Mark) and atom != EMPTY:
                atom = Repeat(atom, low, high)
            elif low == 0:
                atom = EMPTY
        return atom

    def atom(self) -> Node | None:
        """The next thing that a quantifier may follow; None where there was only a comment, an option or a quote."""
        code = self.byte()
        if self.quoting:
            if code == b"\\" and self.text.startswith(b"E", self.at):
                self.at += 1
                self.quoting = False
                return None
            atom = self.literal(code[0])
            if self.text.startswith(b"\\E", self.at):
                self.at += 2
                self.quoting = False
            return atom
        if "x" in self.flags:
            if code in b" \t\n\v\f\r":
                return None
            if code == b"#":
                end = self.text.find(b"\n", self.at)
                self.at = len(self.text) if end < 0 else end + 1
                return None
        match code:
            case b"\\":
                return self.escape()
            case b"[":
                return self.byte_class()
            case b"(":
                return self.group()
            case b".":
                return Chars(ALL if "s" in self.flags else ALL ^ NEWLINE)
            case b"^":
                return EMPTY if "m" in self.flags else Mark("start")
            case b"$":
                return EMPTY if "m" in self.flags else Mark("end")
            case b"*" | b"+" | b"?":
                raise self.unsupported("quantifier without an operand")
            case b"{" if QUANTIFIER.match(self.text, self.at - 1):  # of what stands before a comment or a quote
                raise self.unsupported("quantifier without an operand")
        return self.literal(code[0])

    def literal(self, code: int) -> Node:
        mask = 1 << code
        return Chars(fold(mask) if "i" in self.flags else mask)

    def escape(self) -> Node | None:
        code = self.byte()
        if code in _CLASSES:
            return Chars(_CLASSES[code])
        match code:
            case b"Q":
                self.quoting = True
                return None
            case b"E":
                return None
            case b"A" | b"G":
                return Mark("start")
            case b"Z":
                return Mark("end")
            case b"z":
                return Mark("very_end")
            case b"b" | b"B" | b"K":
                return EMPTY
            case b"N":
                return Chars(ALL ^ NEWLINE)
            case b"C":
                return Chars(ALL)
            case b"R":
                return Alt((Seq((Chars(mask_of(b"\r")), Chars(NEWLINE))), Chars(VERTICAL)))
            case b"X":
                return Repeat(Chars(ALL), 1, None)
            case b"g" | b"k":
                if self.take(_REFERENCE) is None:
                    raise self.unsupported(f"\\{code.decode()}")
                return ANY
        if code.isdigit() and code != b"0":
            digits = re.compile(rb"\d+").match(self.text, self.at - 1)
            number = int(digits[0]) if digits else 0
            if number < 10 or number <= self.groups:
                self.at += len(str(number)) - 1
                return ANY
        return self.literal(self.character(code))

    def character(self, code: bytes) -> int:
        """The byte value of an escape that means one byte, in or outside a class."""
        if code in _CONTROLS:
            return _CONTROLS[code]
        if code in b"01234567":
            self.at -= 1
            found = self.take(_OCTAL)
            return int(found[0], 8) & 0xFF if found else 0
        if code == b"x":
            found = self.take(_HEX)
            value = int((found[1] or found[2] or b"0") if found else b"0", 16)
        elif code == b"o" and (found := self.take(_OCTAL_BRACES)):
            value = int(found[1], 8)
        elif code == b"c":
            return self.byte().upper()[0] ^ 0x40
        elif code.isalnum():
            raise self.unsupported(f"\\{code.decode()}")
        else:
            return code[0]
        if value > 0xFF:
            raise self.unsupported("character above 0xff")
        return value

    def byte_class(self) -> Node:
        if self.text.startswith((b"[:<:]]", b"[:>:]]"), self.at):  # the start and the end of a word
            self.at += 6
            return EMPTY
        plain = _CLASS.match(self.text, self.at - 1)
        if plain is None:
            return self.any_class()
        pieces = _CASELESS if "i" in self.flags else _EXACT
        self.at = plain.end()
        return pieces[plain[0]]

    def any_class(self) -> Node:
        negated = self.text.startswith(b"^", self.at)
        self.at += negated
        mask, first, quoting = 0, True, False
        while True:
            code = self.byte()
            if code == b"]" and not first and not quoting:
                break
            first = False
            if code == b"\\" and self.text[self.at : self.at + 1] in ((b"E",) if quoting else (b"Q", b"E")):
                quoting = self.byte() == b"Q"
                first = first and not quoting
                continue
            if quoting:
                mask |= 1 << code[0]
                continue
            if code == b"[" and self.text[self.at : self.at + 1] in (b":", b".", b"="):
                self.at -= 1
                if (found := self.take(_POSIX_ITEM)) and found[2] in _POSIX:
                    mask |= ALL ^ _POSIX[found[2]] if found[1] else _POSIX[found[2]]
                    continue
                if found:
                    raise self.unsupported("POSIX class")
                self.at += 1
            low = self.class_item(code)
            if not isinstance(low, int):
                mask |= low.mask
                continue
            if self.text.startswith(b"-", self.at) and self.text[self.at + 1 : self.at + 2] not in (b"]", b""):
                mark = self.at
                self.at += 1
                high = self.class_item(self.byte())
                if isinstance(high, int):
                    if high < low:
                        raise self.unsupported("range out of order")
                    mask |= mask_of(range(low, high + 1))
                    continue
                self.at = mark
            mask |= 1 << low
        if "i" in self.flags:
            mask = fold(mask)
        return Chars(ALL ^ mask if negated else mask)

    def class_item(self, code: bytes) -> int | Chars:
        """One byte value, or a set where the item is one."""
        if code != b"\\":
            return code[0]
        code = self.byte()
        if code in _CLASSES:
            return Chars(_CLASSES[code])
        return 8 if code == b"b" else self.character(code)

    def group(self) -> Node | None:
        if self.text.startswith(b"*", self.at):
            raise self.unsupported("verb")
        look = False
        saved = self.flags
        if not self.text.startswith(b"?", self.at):
            self.groups += 1
        else:
            self.at += 1
            rest = self.text[self.at : self.at + 2]
            if rest[:1] == b"#":
                end = self.text.find(b")", self.at)
                if end < 0:
                    raise self.unsupported("unclosed comment")
                self.at = end + 1
                return None
            if rest[:1] in (b"=", b"!") or rest in (b"<=", b"<!"):
                look = True
                self.at += 1 + rest.startswith(b"<")
            elif rest[:1] in (b"|", b">"):
                self.at += 1
            elif self.take(_GROUP_NAME):
                self.groups += 1
            elif self.take(_CALL):
                return ANY
            elif found := self.take(_OPTIONS):
                on, off, end_byte = found.groups(default=b"")
                if b"xx" in on:  # blanks mean nothing in classes, to PCRE2
                    raise self.unsupported("(?xx)")
                self.flags = (frozenset() if on[:1] == b"^" else self.flags) | set(on.decode()) - {"^"}
                self.flags -= set(off.decode())
                if end_byte == b")":
                    return None
            else:
                raise self.unsupported("group kind")
        body = self.alternation()
        if self.byte() != b")":
            raise self.unsupported("unclosed group")
        self.flags = saved
        return EMPTY if look else body


class _Pieces(dict[bytes, Node]):
    """What a piece or a plain class always means. The nodes are shared between patterns."""

    def __init__(self, flags: frozenset[str]) -> None:
        self._flags = flags

    def __missing__(self, text: bytes) -> Node:
        parser = _Parser(text, self._flags)
        code = parser.byte()
        node = parser.any_class() if code == b"[" else parser.escape() if code == b"\\" else parser.literal(code[0])
        if node is None or parser.at < len(text):
            raise parser.unsupported("class")
        if len(self) >= MAX_KNOWN:
            self.clear()
        self[text] = node
        return node


_EXACT = _Pieces(frozenset())
_CASELESS = _Pieces(frozenset("i"))


def _bounds(quantifier: bytes) -> tuple[int, int | None]:
    match quantifier:
        case b"*":
            return 0, None
        case b"+":
            return 1, None
        case b"?":
            return 0, 1
    low, comma, high = quantifier[1:-1].partition(b",")
    return int(low), (int(high) if high else None) if comma else int(low)


def parse(pattern: bytes, *, caseless: bool = False, dotall: bool = False) -> Node:
    """The tree of `pattern`. Raises UnsupportedPattern for what it cannot take."""
    parser = _Parser(pattern, frozenset("i" * caseless + "s" * dotall))
    node = parser.alternation()
    if parser.at < len(pattern):
        raise parser.unsupported("unmatched parenthesis")
    return node
