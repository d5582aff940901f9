r"""One match line for several responses of a kind: literal where all agree, a class of bytes where they differ.

    220 alpha Toyd 1.4 ready\r\n
    220 beta Toyd 1.5 ready\r\n    ->   ^220 [^ \r\n]+ Toyd ([\w.]+) ready\r\n     p/Toyd/ v/$1/

Responses are cut into tokens (tokens.py), and laid upon one another as a diff does, the first beneath; what no longer
agrees becomes a gap, and stays one. A version is captured where the grammar puts one, behind a word that all have: a
product (RFC 9110), the software of an SSH banner, the words of a greeting.

Contract: `aligned` gives a pattern that fits each response that it was made of, in the order in which they are given,
whose worst case grows no faster than the response (cost.py), and that a line of a database can hold.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import reduce

from msgspec import Struct

from matcher.regex.tree import parse
from matcher.tools.cost import worst_case
from matcher.tools.propose import escaped
from matcher.tools.tokens import Telling, Token, tokens

MOST_PATTERN = 1900  # bytes; with its templates, a line that every Nmap reads
MOST_COST = 1  # exponent of the worst case
ENOUGH = 3  # different responses, after which what all have is taken for what the program says
FIXED = 64  # bytes of a gap of one length that are counted out
_PROTOCOLS = frozenset(b"http ssh rtsp sip rfb protocol tls ssl upnp icy dlnadoc xmpp".split())
_NO_NAMES = frozenset(b"server user agent basic realm title ready at is the".split())
_FORERUNNERS = frozenset(b"v ver version release".split())  # what stands between a name and its version
_CLASSES = {
    "number": rb"\d",
    "hex": b"[0-9A-Fa-f]",
    "mac": b"[0-9A-Fa-f:-]",
    "uuid": b"[0-9A-Fa-f-]",
    "address": b"[0-9A-Fa-f.:[\\]]",
    "version": rb"[\w.+~-]",
    "host": rb"[\w.-]",
    "base64": b"[\\w+/=]",
}
_MEMBERS = {kind: frozenset(re.findall(text, bytes(range(256)))) for kind, text in _CLASSES.items()}


class Slot(Struct):
    """A place in the aligned responses. key: what they have in common there; None for a gap.

    text: what all of them say, None where they differ; chars: the bytes seen; low, high: lengths seen.
    """

    key: bytes | None
    text: bytes | None
    chars: frozenset[int]
    low: int
    high: int
    kind: str = ""

    @property
    def literal(self) -> bool:
        return self.key is not None and self.text is not None


class Aligned(Struct, frozen=True):
    """form: of the parts. head, body: of the pattern; flags: of the line.

    product: what the words before the version say; empty for none.
    version: the number of its group, 0 for none. letters: bytes of literal text in the body, without the form's own.
    """

    form: str
    head: bytes
    body: bytes
    flags: bytes
    product: bytes
    version: int
    letters: int

    @property
    def pattern(self) -> bytes:
        return self.head + self.body


def aligned(parts: Sequence[Telling]) -> Aligned:
    """The pattern of the telling parts of responses, of one form and at least one; the most usual first."""
    cut = [tokens(part) for part in parts]
    slots = reduce(_laid_upon, cut[1:], [_slot(token) for token in cut[0]])
    different = len({part.text for part in parts})
    _settle(slots, different)
    slots = _without_islands(slots)
    while True:
        while slots and slots[-1].key is None:
            slots.pop()
        made = _written(slots, parts[0])
        if len(made.pattern) <= MOST_PATTERN and worst_case(parse(b"^" + made.body)) <= MOST_COST:
            return made
        slots = slots[: max((at for at, slot in enumerate(slots) if not slot.literal), default=len(slots) * 3 // 4)]


def _slot(token: Token) -> Slot:
    return Slot(token.key, token.text, frozenset(token.text), len(token.text), len(token.text), token.kind)


def _laid_upon(slots: list[Slot], member: list[Token]) -> list[Slot]:
    """The slots that are left when one more response is laid upon them."""
    ours = [slot.key if slot.key is not None else at for at, slot in enumerate(slots)]
    theirs = [token.key for token in member]
    made: list[Slot] = []
    at = other = 0
    for first, second, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        _gap(made, slots[at:first], member[other:second])
        for slot, token in zip(slots[first : first + size], member[second : second + size], strict=True):
            made.append(_joined(slot, token))
        at, other = first + size, second + size
    return made


def _joined(slot: Slot, token: Token) -> Slot:
    size = len(token.text)
    text = slot.text if slot.text == token.text else None
    chars = slot.chars | frozenset(token.text)
    return Slot(slot.key, text, chars, min(slot.low, size), max(slot.high, size), slot.kind)


def _gap(made: list[Slot], ours: list[Slot], theirs: list[Token]) -> None:
    """Append what the two do not have in common, if anything, to a gap before it or as a new one."""
    if not ours and not theirs:
        return
    chars = frozenset[int]().union(*(slot.chars for slot in ours), *(token.text for token in theirs))
    size = sum(len(token.text) for token in theirs)
    low, high = sum(slot.low for slot in ours), sum(slot.high for slot in ours)
    _append_gap(made, Slot(None, None, chars, min(low, size), max(high, size)))


def _append_gap(made: list[Slot], gap: Slot) -> None:
    if made and made[-1].key is None:
        last = made.pop()
        gap = Slot(None, None, last.chars | gap.chars, last.low + gap.low, last.high + gap.high)
    made.append(gap)


def _settle(slots: list[Slot], different: int) -> None:
    """What varies by its kind is no literal until ENOUGH different responses agree on it. A first digit or two is."""
    for at, slot in enumerate(slots):
        if slot.text is None or (slot.kind not in _CLASSES and slot.kind != "date"):
            continue
        told = len(slot.text) == 1 or (
            at and (slots[at - 2 if slots[at - 1].kind == "mark" else at - 1].text or b"").lower() in _PROTOCOLS
        )
        if different < ENOUGH and not told:
            slot.text = None


def _without_islands(slots: list[Slot]) -> list[Slot]:
    """Marks that only by chance agree between two gaps are part of them."""
    made: list[Slot] = []
    at = 0
    while at < len(slots):
        slot = slots[at]
        after = at
        while after < len(slots) and slots[after].literal and slots[after].kind in {"mark", "blank"}:
            after += 1
        island = slots[at:after]
        between = made and made[-1].key is None and after < len(slots) and slots[after].key is None
        if island and between and sum(len(one.text or b"") for one in island) <= 2 and _loose(made[-1], slots[after]):
            for one in island:
                _append_gap(made, one)
            _append_gap(made, slots[after])
            at = after + 1
            continue
        if slot.key is None:
            _append_gap(made, slot)
        else:
            made.append(slot)
        at += 1
    return made


def _loose(*gaps: Slot) -> bool:
    return any(gap.low != gap.high for gap in gaps)


def _written(slots: Sequence[Slot], part: Telling) -> Aligned:
    """The pattern of slots; up to a gap that nothing ends."""
    version, product = _version(slots)
    body = b""
    group, letters = 0, -part.said - part.said_behind
    for at, slot in enumerate(slots):
        if slot.literal:
            text = slot.text or b""
            letters += len(text.strip())
            piece = escaped(text).replace(rb"\|", rb"\x7c")
        else:
            following = slots[at + 1].text if at + 1 < len(slots) else None
            piece = _class(slot, following[0] if following else None, part.form == "binary")
            if not piece:
                break
        if at == version:
            group = 1
            piece = b"(%b)" % (_class(slot, None, False))
        body += piece
    return Aligned(
        part.form, part.head, body, part.flags, product if group else _name(slots, part.form), group, letters
    )


def _class(slot: Slot, following: int | None, binary: bool) -> bytes:
    """A class with its repeat, for what was seen and what others may have there; empty where it would not end."""
    repeat = b"+" if slot.low else b"*"
    if slot.kind in _CLASSES:
        free = following is None or bytes((following,)) not in _MEMBERS[slot.kind]
        return (
            _CLASSES[slot.kind] + repeat
            if free or slot.kind in {"version", "number"}
            else _until(slot, following, binary)
        )
    if binary and slot.low == slot.high <= FIXED:
        return b"." if slot.low == 1 else b".{%d}" % slot.low
    return _until(slot, following, binary)


def _until(slot: Slot, following: int | None, binary: bool) -> bytes:
    repeat = b"+" if slot.low else b"*"
    ends = frozenset() if binary else frozenset(b"\r\n")
    if slot.chars & ends or (binary and (following is None or following in slot.chars)):
        return b""
    if following is None or following in slot.chars:
        return rb"[^\r\n]" + repeat + (b"" if following is None else b"?")
    if following in ends:
        return rb"[^\r\n]" + repeat
    text = b"\\-" if following == ord("-") else escaped(bytes((following,))).replace(rb"\|", rb"\x7c")
    return b"[^%b%b]" % (text, b"" if binary else rb"\r\n") + repeat


def _version(slots: Sequence[Slot]) -> tuple[int, bytes]:
    """(the slot of the version, the product's name); -1 where the grammar has none. The name may be there without."""
    for at, slot in enumerate(slots):
        if slot.kind == "version":
            words = _words_before(slots, at)
            if words is not None and words.split()[-1].lower() not in _PROTOCOLS:
                return at, words
    return -1, b""


def _words_before(slots: Sequence[Slot], at: int) -> bytes | None:
    """The words that name what has this version: `Toy-Server/`, `Toy Server v`, `toyd_`; None where none does."""
    names: list[bytes] = []
    for slot in reversed(slots[max(0, at - 8) : at]):
        text = slot.text
        if text is None or slot.key is None:
            break
        if slot.kind in {"word", "number"}:
            if names or text.lower() not in _FORERUNNERS:
                names.append(text)
        elif slot.kind == "blank":
            names += [b" "] if names else []
        elif text in {b"-", b"_"}:
            names += [text] if names else []
        elif text != b"/" or names:
            break
    return _as_name(b"".join(reversed(names)))


def _as_name(text: bytes) -> bytes | None:
    """What of the words is a name: what begins sentences and headers is none."""
    words = text.split()[-3:]
    while words and (words[0].lower() in _NO_NAMES or words[0].isdigit() or (words[1:] and words[0].islower())):
        words = words[1:]
    name = b" ".join(words).strip(b" -_")
    return name if any(0x41 <= code <= 0x7A for code in name) else None


def _name(slots: Sequence[Slot], form: str) -> bytes:
    """The product of a header without a version: the words behind the header's name that all have."""
    before = {"server": b":", "maker": b":", "realm": b"=", "title": b">"}.get(form)
    if before is None:
        return b""
    start = next((at for at, slot in enumerate(slots) if slot.text == before), len(slots))
    words = b""
    for slot in slots[start + 1 :]:
        if slot.kind not in {"word", "number", "blank"} and slot.text not in {b"-", b"_", b'"'}:
            break
        if slot.text is None:
            break
        words += slot.text.replace(b'"', b"")
    return _as_name(words) or b""
