r"""Nmap's SF-Port fingerprints, in whatever text they were pasted: a row for every probe that was answered.

    SF-Port21-TCP:V=7.93%I=7%D=7/9%Time=5B439FA7%P=x86_64-pc-linux-gnu%r(NULL,
    SF:22,"220\x20Welcome\r\n");

A fingerprint is printable text without blanks, broken into lines of 74 characters, the further ones behind `SF:`. What
people and tools do to that is undone: whatever stands before the lines of a block (blanks, quoting of mails and
scripts, prompts, tags) and behind them, lines joined to one, with `SF:` left inside or not, XML's escapes, XML's
`servicefp`. Nothing that can stand inside a fingerprint is touched.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from engine.conversation.fingerprint import LINE_WIDTH, unescape
from engine.offline.forms.base import Item, Record, Row
from engine.targets import Unreadable

MOST_LINES = 1024  # of a block; Nmap's have up to about 160
MOST_BEFORE = 200  # characters before the lines of a block, or alone on a line between them
RECORD = re.compile(rb"(?:[\s,]|\xef\xbb\xbf)*+\{")  # what a JSON record begins with
_ORNAMENT = re.compile(rb"(?:<[^<>]{0,99}>|&\w{1,9};|[^0-9A-Za-z]){0,200}+")  # letters only in tags and entities
_BEGINNING = re.compile(rb"SF-Port\d{1,5}-(?:TCP|UDP|SCTP):")
_ANY_BEGINNING = re.compile(_ORNAMENT.pattern + rb"SF-Port")
_FURTHER = re.compile(_ORNAMENT.pattern + rb"SF:")
_NUMBERS = re.compile(rb"\d+")
_END = re.compile(rb'(?:"|&quot;)\);')  # nowhere else: the quotes and brackets of a response are escaped
_END_SIZE = len("&quot;);")
_ATTRIBUTE = re.compile(rb"""servicefp=(?:"([^"]*+)"|'([^']*+)')""")
_ENTITY = re.compile(rb"&(quot|amp|lt|gt|apos|#\d{1,3}|#x[0-9A-Fa-f]{1,2});")
_NAMED = {b"quot": b'"', b"amp": b"&", b"lt": b"<", b"gt": b">", b"apos": b"'"}
_UNPRINTABLE = bytes((*range(0x21), *range(0x7F, 0x100)))
_BREAK = re.compile(rb"\s[\s>|#*]{0,99}+SF:")  # between lines that were joined
_HEADER = re.compile(rb"SF-Port(\d{1,5})-(TCP|UDP|SCTP):V=([^%]*)((?:%(?!r\()[^%]*+)*+)")
_ITEM = re.compile(rb'%r\(([\w.-]{1,99}),([0-9A-Fa-f]{1,8}),"((?:[^"\\]++|\\.)*+)"\)', re.DOTALL)


class Response(NamedTuple):
    """size: of what had been received, of which `data` may be only the beginning."""

    proto: str
    port: int
    ssl: bool
    probe: str
    size: int
    data: bytes


class Block:
    """A fingerprint of several lines being put together. done: it takes no more."""

    def __init__(self, text: bytes, before: bytes = b"", whole: bool = False) -> None:
        """text: of the line it begins on; before: what stands before it there; whole: it is all there is."""
        self.done = whole
        self._before = _NUMBERS.sub(b"0", before)
        self._lines: list[bytes] = []
        self._end = b""
        self._add(text)

    @property
    def text(self) -> bytes:
        return b"".join(self._lines)

    def takes(self, line: bytes) -> bool:
        """Take in a further line, or one of ornaments; False where the line is no part of this fingerprint."""
        if self.done or len(self._lines) >= MOST_LINES or RECORD.match(line):
            return False
        at = line.find(b"SF:", 0, MOST_BEFORE)
        if found := _FURTHER.match(line):
            self._add(line[found.end() :])
        elif at >= 0 and _NUMBERS.sub(b"0", line[:at]) == self._before:
            self._add(line[at + len(b"SF:") :])
        elif _ORNAMENT.fullmatch(line) and b"SF-Port" not in line:
            self._add(b"")
        else:
            return False
        return True

    def _add(self, text: bytes) -> None:
        text = text.strip()
        self._lines.append(text)
        self._end = self._end[-_END_SIZE:] + text
        self.done = self.done or _END.search(self._end) is not None


def begun(line: bytes) -> list[Block]:
    """The fingerprints that begin on a line of text, of which the last may go on behind it."""
    if b"SF-Port" not in line or RECORD.match(line) or _FURTHER.match(line):
        return []
    attributes = [_ENTITY.sub(_character, first or second) for first, second in _ATTRIBUTE.findall(line)]
    if blocks := [Block(text, whole=True) for text in attributes if _BEGINNING.match(text)]:
        return blocks
    found = _BEGINNING.search(line)
    if found and b"SF:" in line[: min(found.start(), MOST_BEFORE)]:
        return []  # what stands inside a line that goes on
    while found:
        end = _END.search(line, found.end())
        following = _BEGINNING.search(line, end.end()) if end else None
        blocks.append(
            Block(
                line[found.start() : following.start() if following else None], line[: min(found.start(), MOST_BEFORE)]
            )
        )
        found = following
    return blocks


def is_damaged(line: bytes) -> str:
    """What is wrong with a line of a fingerprint that cannot be read; empty for any other line."""
    if _FURTHER.match(line):
        return "a line of a fingerprint without its beginning"
    if _ANY_BEGINNING.match(line):
        return f"not a fingerprint: {line[:60].decode('latin-1')!r}"
    return ""


def unfinished(text: bytes | bytearray) -> int:
    """Where the fingerprint begins in which a text of whole lines ends; -1 where it ends in none."""
    last = text.rfind(b"\n", 0, max(len(text) - 1, 0)) + 1
    if text[last : last + 1] == b"{":  # as nearly all texts end, which are megabytes to look through
        return -1
    end = len(text.rstrip())
    further: list[bytes] = []
    while end > 0 and len(further) < MOST_LINES:
        start = text.rfind(b"\n", 0, end) + 1
        line = bytes(text[start:end])
        if blocks := begun(line):
            taken = all(map(blocks[-1].takes, reversed(further)))
            return start if taken and not blocks[-1].done else -1
        if RECORD.match(line) or not (b"SF:" in line[:MOST_BEFORE] or _ORNAMENT.fullmatch(line)):
            return -1
        further.append(line)
        end = start - 1
    return -1


def joined(text: bytes) -> bytes:
    """A fingerprint as it was before it was broken into lines. text: all of it on one line, or its lines on end."""
    if b'"' not in text:
        text = _ENTITY.sub(_character, text)
    text = _BREAK.sub(b"", text).translate(None, _UNPRINTABLE)
    lines = [text[at : at + LINE_WIDTH] for at in range(0, len(text), LINE_WIDTH)]
    if len(lines) > 1 and all(line.startswith(b"SF:"[: len(line)]) for line in lines[1:]):
        return lines[0] + b"".join([line[len(b"SF:") :] for line in lines[1:]])
    return text


def responses(text: bytes) -> Iterator[Response | Unreadable]:
    """Every response in a joined text of fingerprints; what is damaged is told of, and what follows is looked for."""
    at = 0
    while True:
        header = _HEADER.match(text, at)
        if header is None or int(header[1]) >= 1 << 16:
            yield Unreadable(f"not a fingerprint: {text[at : at + 40].decode('latin-1')!r}")
        else:
            at = first = header.end()
            ssl = b"%T=SSL" in header[4]
            while item := _ITEM.match(text, at):
                at = item.end()
                yield Response(
                    header[2].decode().lower(),
                    int(header[1]),
                    ssl,
                    item[1].decode(),
                    int(item[2], 16),
                    unescape(item[3]),
                )
            if at == first or text[at : at + 1] not in (b"", b";"):
                yield Unreadable(f"damaged fingerprint: {text[at : at + 40].decode('latin-1')!r}")
        following = _BEGINNING.search(text, at + 1)
        if following is None:
            return
        at = following.start()


def rows(text: bytes, record: Record) -> Iterator[Item]:
    """`record` with the keys that a fingerprint tells in place of its own, for each of its responses.

    text: not joined yet. `size` is given where the fingerprint holds less than what had been received.
    """
    for found in responses(joined(text)):
        if isinstance(found, Unreadable):
            yield found
            continue
        told: dict[str, bytes | None] = {"fingerprint": None, "proto": orjson.dumps(found.proto)}
        told["port"] = b"%d" % found.port
        if found.ssl:
            told["tunnel"] = b'"ssl"'
        told["probe"] = orjson.dumps(found.probe)
        told["data"] = b'"%b"' % b64encode(found.data)
        if found.size > len(found.data):
            told["size"] = b"%d" % found.size
        yield Row(found.proto, (found.probe,), found.data, record.head(told))


def _character(found: re.Match[bytes]) -> bytes:
    name = found[1]
    if name in _NAMED:
        return _NAMED[name]
    number = int(name[2:], 16) if name[1:2] == b"x" else int(name[1:])
    return bytes((number,)) if number < 256 else found[0]
