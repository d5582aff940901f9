"""What each line of a probe needs of a response, found in its pattern: the plan that all engines share.

A line needs one of its keys (literals that few other lines have), its prefix (the bytes it must begin with) and some
further literals. Whoever finds which keys are in a response (re2.py, hyperscan.py) so has the few lines that may fit.
Contract: every response that a line matches has all that its plan says. Pure; the dear part of a start, and so it is
kept on the disk.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from matcher.errors import UnsupportedPattern
from matcher.model import Signature
from matcher.regex.literals import Literal, Requirement, head, requirements
from matcher.regex.literals import prefix as required_prefix
from matcher.regex.translate import anchored, first_bytes
from matcher.regex.tree import Node, parse

KEY_BYTES = 8  # of a literal; longer ones are found no less often, but make larger automata
MIN_KEY_BYTES = 3  # of a literal; shorter ones are found in everything
MIN_CHECK_BYTES = 2
MAX_CHECKS = 3  # further literals tested per line
COMMON = 100  # lines; a short text that so many need is in nearly all responses
USUAL, LEAST_USUAL = 24, 8  # what every 24th line of a probe begins with, and at least 8 do, responses begin with
USUAL_WITHIN = 8  # what every 8th line needs, wherever, responses have
MOST_USUAL = 32  # lines that are tested one by one because of that
GRAM = 4  # bytes by which it is told how common a literal is
FURNITURE_LINES = 1000  # a piece of what stands in any page is as common as if so many more lines needed it
FURNITURE = b"""
HTTP/1.1 200 OK
HTTP/1.0 200 OK
 301 Moved Permanently
 302 Found
 400 Bad Request
 401 Unauthorized
 403 Forbidden
 404 Not Found
Server: x
Date: x, 01 Jan 1970 00:00:00 GMT
Last-Modified: x
Content-Length: 0
Content-Type: application/json; charset=UTF-8
Content-Type: text/html; charset=utf-8
Connection: close
Connection: Close
Connection: keep-alive
Transfer-Encoding: chunked
Cache-Control: no-cache, no-store, must-revalidate, max-age=0
Pragma: no-cache
Expires: 0
ETag: "x
Vary: Accept-Encoding
Accept-Ranges: bytes
Set-Cookie: x; path=/; HttpOnly
X-Powered-By: PHP/
X-Frame-Options: SAMEORIGIN
X-Content-Type-Options: nosniff
X-XSS-Protection: 1; mode=block
Access-Control-Allow-Origin: *
Location: /
Location: https://
WWW-Authenticate: Basic realm="x"

<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<html><head><title>x</title></head><body>
<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" type="text/css" href="/
<link rel="shortcut icon" type="image/x-icon" href="/favicon.ico
<script type="text/javascript" src="/
<h1></body></html>
"""


class Line(Struct, array_like=True, frozen=True):
    """What one line needs. keys: any of them must be in the response; checks: all of them.

    first: mask of the bytes that the response can begin with, None = any. head: of a line without good keys, a pattern
    for Python's `re` that fits the response's beginning; b"" = any.
    """

    position: int
    keys: tuple[Literal, ...]
    prefix: bytes
    checks: tuple[bytes, ...]
    first: bytes | None
    head: bytes


class Needs(Struct):
    """What one line needs, as its tree tells: one literal of each option, and the rest as in Line."""

    options: list[Requirement]
    prefix: bytes = b""
    first: bytes | None = None
    head: bytes = b""

    def met(self, response: bytes) -> bool:
        """Whether a response has it all."""
        if not response.startswith(self.prefix) or not re.match(self.head, response, re.DOTALL):
            return False
        if self.first is not None and not (response and int.from_bytes(self.first, "little") >> response[0] & 1):
            return False
        lower = response.lower()
        return all(
            any(literal.text in (lower if literal.caseless else response) for literal in option)
            for option in self.options
        )


def plan(lines: Sequence[Signature]) -> tuple[Line, ...]:
    """Choose the keys of every line: literals that few of the other lines share, and so few responses have."""
    needed = [_of_line(signature) for signature in lines]
    rarity = _Rarity(needed)
    planned = [rarity.line(position, needs) for position, needs in enumerate(needed)]
    usual = [line for line in planned if rarity.is_usual(line)]
    for line in usual if len(usual) <= MOST_USUAL else ():
        text = line.keys[0].text
        checks = line.checks if text in line.prefix else (text, *line.checks)
        planned[line.position] = msgspec.structs.replace(line, keys=(), checks=checks)
    return tuple(planned)


def encode(planned: Sequence[Line]) -> bytes:
    """A plan as it is kept."""
    return msgspec.msgpack.encode(planned)


def decode(stored: bytes) -> tuple[Line, ...]:
    """The plan again. Raises ValueError."""
    try:
        return msgspec.msgpack.decode(stored, type=tuple[Line, ...])
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def _of_line(signature: Signature) -> Needs:
    try:
        return needs_of(parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall))
    except UnsupportedPattern:
        return Needs([])


def needs_of(tree: Node) -> Needs:
    """What every response has that the tree matches."""
    options = [option for option in requirements(tree) if _shortest(option) >= MIN_CHECK_BYTES]
    start = required_prefix(tree)
    return Needs(options, start, None if start else _first(tree), b"" if any(map(_is_good, options)) else head(tree))


def _shortest(option: Requirement) -> int:
    return min([len(literal.text) for literal in option])


def _is_key(option: Requirement) -> bool:
    return _shortest(option) >= MIN_KEY_BYTES


def _is_good(option: Requirement) -> bool:
    """Whether it is not found by chance, in texts and in zeros."""
    return _shortest(option) >= GRAM


def _first(tree: Node) -> bytes | None:
    if not anchored(tree):
        return None
    mask, empty = first_bytes(tree)
    return None if empty else mask.to_bytes(32, "little")


def _grams(text: bytes) -> list[bytes]:
    """Its pieces of GRAM bytes, in order; a shorter text is one."""
    return [text[at : at + GRAM] for at in range(max(0, len(text) - GRAM) + 1)]


def _furniture() -> Iterator[bytes]:
    for text in (FURNITURE, FURNITURE.lower()):
        yield from _grams(text)
        yield from _grams(text.replace(b"\n", b"\r\n"))


_FURNITURE = dict.fromkeys(_furniture(), FURNITURE_LINES)


class _Rarity:
    """How many lines share a piece of text, and the choice of keys that follows from it."""

    def __init__(self, needed: Sequence[Needs]) -> None:
        self._lines = len(needed)
        self._spread: Counter[bytes] = Counter()  # gram -> lines that need it
        self._windows: dict[Literal, tuple[int, Literal]] = {}
        grams: dict[bytes, frozenset[bytes]] = {}  # by text; most lines of a probe share theirs
        for needs in needed:
            of_line: set[bytes] = set()
            for option in needs.options:
                for literal in option:
                    text = literal.text
                    if text not in grams:
                        grams[text] = frozenset(_grams(text))
                    of_line |= grams[text]
            self._spread.update(of_line)

    def line(self, position: int, needs: Needs) -> Line:
        best: Requirement = ()
        cheapest = (0, 0)
        plain: list[bytes] = []
        for option in needs.options:
            if _is_key(option):
                cost = self._cost(option)
                if not best or cost < cheapest:
                    best, cheapest = option, cost
            if len(option) == 1 and not option[0].caseless and option[0].text not in needs.prefix:
                plain.append(option[0].text)
        if needs.head and not needs.prefix:  # how it begins is rarer than a text so short
            best = ()
        keys = tuple(dict.fromkeys([self._window(literal)[1] for literal in best]))
        told = b"" if len(keys) != 1 or keys[0].caseless else keys[0].text
        plain = [
            text
            for text in dict.fromkeys(plain)
            if text not in told and (len(text) >= GRAM or self._spread[text] < COMMON)
        ]
        if len(plain) > 1:
            plain.sort(key=lambda text: (self._spread[text[:GRAM]], -len(text)))
        return Line(position, keys, needs.prefix, tuple(plain[:MAX_CHECKS]), needs.first, needs.head)

    def is_usual(self, line: Line) -> bool:
        """Whether its key is in most of what is like it, and so is tested sooner than found."""
        if len(line.keys) != 1 or line.keys[0].caseless:
            return False
        few = USUAL if line.keys[0].text in line.prefix else USUAL_WITHIN
        lines = min([self._spread[gram] for gram in _grams(line.keys[0].text)])
        return lines >= max(LEAST_USUAL, self._lines // few)

    def _cost(self, option: Requirement) -> tuple[int, int]:
        shortest = _shortest(option)
        common = sum([self._window(literal)[0] for literal in option])
        # A caseless key costs the automaton twice the edges, a short one is found by chance.
        dear = shortest < GRAM or any(literal.caseless for literal in option)
        return common * (4 if dear else 1), -shortest

    def _window(self, literal: Literal) -> tuple[int, Literal]:
        """(how common it is among the lines, the rarest KEY_BYTES of a literal)."""
        known = self._windows.get(literal)
        if known is None:
            text, spread = literal.text, self._spread
            common = [spread[gram] + _FURNITURE.get(gram, 0) for gram in _grams(text)]
            rarest = min(common)
            start = max(0, min(common.index(rarest) - (KEY_BYTES - GRAM) // 2, len(text) - KEY_BYTES))
            known = rarest, Literal(text[start : start + KEY_BYTES], literal.caseless)
            self._windows[literal] = known
        return known
