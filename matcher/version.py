"""Expand the version templates of a matched line: `$1 $P() $SUBST() $I()` and `cpe:` -> VersionInfo.

Contract: `compile_templates(templates)` is done once per line; the result is called with the subject (the whole
response) and the spans of groups 0 to 9, (-1, -1) for a group that is unset or not there. A field that fails in any
way - a group that is not there, a helper with bad arguments, too long a text - is dropped alone; nothing raises.
Source: template behaviour and capacities as observed on Nmap 7.93 and the 2026 development head.
"""

import re
from collections.abc import Callable, Sequence

from msgspec.structs import astuple

from matcher.database.parser import unescape
from matcher.database.ports import number
from matcher.model import Templates, VersionInfo

Spans = Sequence[tuple[int, int]]
Expander = Callable[[bytes, Spans], VersionInfo]

CAPACITY = {  # bytes, Nmap's buffer sizes; see _assemble for what fits
    "product": 80,
    "version": 80,
    "extrainfo": 256,
    "hostname": 80,
    "ostype": 32,
    "devicetype": 32,
    "cpe": 80,
}
MAX_ARGUMENTS = 5
MAX_STRING = 127  # bytes of a helper's string argument, before unescaping
MAX_INTEGER = 8  # bytes that $I() takes

_PLACEHOLDER = re.compile(rb"\$(?:(\d)|([^(]{1,15})\()", re.DOTALL)
_ARGUMENT = re.compile(rb'\s*(?:"((?:\\.|[^"\\])*)"|([+-]?(?:0[xX][0-9A-Fa-f]+|\d+)))[^,)]*([,)])', re.DOTALL)
_PRINTABLE = bytes(range(0x20, 0x7F))
_UNPRINTABLE = bytes(code for code in range(256) if code not in _PRINTABLE)
_TO_DOTS = bytes(code if code in _PRINTABLE else 0x2E for code in range(256))
_TRAILING = b" \t\n\v\f\r,"
_PLACE = {name: place for place, name in enumerate(VersionInfo.__struct_fields__)}
_CPE_PARTS = {0x61: "cpe_a", 0x68: "cpe_h", 0x6F: "cpe_o"}


def _cpe_byte(code: int) -> bytes:
    if code in b":/?#[]@!$&'()*+,;=%<>\"":
        return b"%%%02X" % code
    return b"_" if code in b" \t\n\v\f\r" else bytes((code,)).lower()


_CPE_BYTES = tuple(_cpe_byte(code) for code in range(256))
_CPE_PLAIN = bytes(code for code in range(256) if _CPE_BYTES[code] == bytes((code,)).lower())


def _cpe_text(text: bytes) -> bytes:
    return b"".join([_CPE_BYTES[code] for code in text])


class _FieldDropped(Exception):  # noqa: N818 - control flow inside this module
    """The field cannot be made; the match and the other fields stand."""


_Value = Callable[[bytes, Spans], bytes]
_Piece = bytes | _Value  # literal text, or a placeholder


def _group(number: int) -> _Value:
    def value(subject: bytes, spans: Spans) -> bytes:
        start, end = spans[number]
        if start < 0:
            raise _FieldDropped
        return subject[start:end]

    return value


def _printable(number: int) -> _Value:
    raw = _group(number)
    return lambda subject, spans: raw(subject, spans).translate(None, _UNPRINTABLE)


def _substitute(number: int, find: bytes, replacement: bytes) -> _Value:
    def value(subject: bytes, spans: Spans) -> bytes:
        at, end = spans[number]
        if at < 0:
            raise _FieldDropped
        pieces = []
        while at < end:
            # The search text may reach past the group into the bytes that follow it, as it does in Nmap.
            hit = subject.find(find, at, end - 1 + len(find))
            if hit < 0:
                pieces.append(subject[at:end])
                break
            pieces += (subject[at:hit], replacement)
            at = hit + len(find)
        return b"".join(pieces)

    return value


def _integer(number: int, order: bytes) -> _Value:
    raw = _group(number)

    def value(subject: bytes, spans: Spans) -> bytes:
        data = raw(subject, spans)
        if len(data) > MAX_INTEGER:
            raise _FieldDropped
        return b"%d" % int.from_bytes(data, "big" if order == b">" else "little")

    return value


def _arguments(text: bytes, at: int) -> tuple[list[int | bytes], int]:
    """The arguments from just behind `(`, and the index behind `)`. Raises _FieldDropped."""
    arguments: list[int | bytes] = []
    while found := _ARGUMENT.match(text, at):
        string, number, separator = found.groups()
        if number is not None:
            arguments.append(_c_integer(number))
        elif len(string) > MAX_STRING:
            raise _FieldDropped
        else:
            try:
                arguments.append(unescape(string))
            except ValueError:
                raise _FieldDropped from None
        at = found.end()
        if separator == b")":
            if len(arguments) > MAX_ARGUMENTS:
                raise _FieldDropped
            return arguments, at
    raise _FieldDropped


def _c_integer(text: bytes) -> int:
    """A C integer constant: 0x is hexadecimal, a leading 0 octal; reading stops at the first byte that does not fit."""
    digits = text.lstrip(b"+-")
    sign = -1 if text.startswith(b"-") else 1
    if found := re.match(rb"0[xX]([0-9A-Fa-f]+)", digits):
        return sign * int(found[1], 16)
    if digits.startswith(b"0"):
        octal = re.match(rb"[0-7]+", digits)
        return sign * int(octal[0] if octal else b"0", 8)
    decimal = re.match(rb"\d*", digits)
    return sign * number(decimal[0] if decimal else b"")


def _helper(name: bytes, arguments: list[int | bytes]) -> _Value:
    match name, arguments:
        case b"P", [int(n)] if 1 <= n <= 9:
            return _printable(n)
        case b"SUBST", [int(n), bytes(find), bytes(replacement)] if 1 <= n <= 9 and find:
            return _substitute(n, find, replacement)
        case b"I", [int(n), (b"<" | b">") as order] if 1 <= n <= 9:
            return _integer(n, order)
    raise _FieldDropped


def _pieces(template: bytes) -> tuple[_Piece, ...]:
    """A template cut into literal texts and placeholders. Raises _FieldDropped where it can never be expanded."""
    pieces: list[_Piece] = []
    at = 0
    while (dollar := template.find(b"$", at)) >= 0:
        if dollar > at:
            pieces.append(template[at:dollar])
        found = _PLACEHOLDER.match(template, dollar)
        if found is None:
            raise _FieldDropped
        digit, name = found.groups()
        if digit is not None:
            if digit == b"0":
                raise _FieldDropped
            pieces.append(_group(int(digit)))
            at = found.end()
        else:
            arguments, at = _arguments(template, found.end())
            pieces.append(_helper(name, arguments))
    if at < len(template):
        pieces.append(template[at:])
    return tuple(pieces)


def _assemble(pieces: tuple[_Piece, ...], capacity: int, cpe: bool, subject: bytes, spans: Spans) -> str:
    """Join the pieces under Nmap's length rules: too long is dropped, never cut. Raises _FieldDropped."""
    texts = []
    length = 0
    last = len(pieces) - 1
    for index, piece in enumerate(pieces):
        if isinstance(piece, bytes):
            text = piece
            length += len(text)
            if length > (capacity - 1 if index == last else capacity):
                raise _FieldDropped
        else:
            text = piece(subject, spans).partition(b"\0")[0]
            if cpe:
                text = text.lower() if text.translate(None, _CPE_PLAIN) == b"" else _cpe_text(text)
            length += len(text)
            if length > capacity - 2:
                raise _FieldDropped
        texts.append(text)
    return b"".join(texts).rstrip(_TRAILING).translate(_TO_DOTS).decode("ascii")


def _lone_group(number: int, limit: int) -> Callable[[bytes, Spans], str]:
    """The commonest template, one group and nothing else, in as few steps as can be."""

    def expand(subject: bytes, spans: Spans) -> str:
        start, end = spans[number]
        if start < 0:
            return ""
        text = subject[start:end]
        if 0 in text:
            text = text.partition(b"\0")[0]
        if len(text) > limit:
            return ""
        return text.rstrip(_TRAILING).translate(_TO_DOTS).decode("ascii")

    return expand


class _Field:
    """One template of a line. name: the VersionInfo field it fills; expand() gives its text, "" when dropped."""

    __slots__ = ("capacity", "cpe", "name", "pieces", "template")

    def __init__(self, name: str, template: bytes) -> None:
        self.name = name
        self.template = template
        self.cpe = name.startswith("cpe_")
        self.capacity = CAPACITY["cpe" if self.cpe else name]
        try:
            self.pieces: tuple[_Piece, ...] | None = _pieces(template)
        except _FieldDropped:
            self.pieces = None

    @property
    def constant(self) -> bool:
        return self.pieces is None or all(isinstance(piece, bytes) for piece in self.pieces)

    def expander(self) -> Callable[[bytes, Spans], str]:
        """`expand`, or something faster that does the same."""
        if not self.cpe and (found := re.fullmatch(rb"\$([1-9])", self.template)):
            return _lone_group(int(found[1]), self.capacity - 2)
        return self.expand

    def expand(self, subject: bytes, spans: Spans) -> str:
        if self.pieces is None:
            return ""
        try:
            return _assemble(self.pieces, self.capacity, self.cpe, subject, spans)
        except _FieldDropped:
            return ""


def template_fields(templates: Templates) -> list[tuple[str, bytes]]:
    """(VersionInfo field, template) of what is given; of several CPEs for one part the last counts."""
    fields = [
        (name, text)
        for name in ("product", "version", "extrainfo", "hostname", "ostype", "devicetype")
        if (text := getattr(templates, name))
    ]
    parts = {_CPE_PARTS[text[5]]: text for text in templates.cpe if len(text) > 5 and text[5] in _CPE_PARTS}
    return fields + list(parts.items())


def compile_templates(templates: Templates) -> Expander:
    """A function of (subject, spans) -> VersionInfo. Lines without placeholders always give the same object."""
    fields = [_Field(name, text) for name, text in template_fields(templates)]
    constant = VersionInfo(**{field.name: field.expand(b"", ()) for field in fields if field.constant})
    varying = [(_PLACE[field.name], field.expander()) for field in fields if not field.constant]
    if not varying:
        return lambda subject, spans: constant
    fixed = astuple(constant)

    def expand(subject: bytes, spans: Spans) -> VersionInfo:
        texts = [*fixed]
        for place, make in varying:
            texts[place] = make(subject, spans)
        return VersionInfo(*texts)

    return expand


def uses_groups(templates: Templates) -> bool:
    """Whether any field needs the groups of the match."""
    return any(not _Field(name, text).constant for name, text in template_fields(templates))


def unusable_fields(templates: Templates, groups: int) -> list[tuple[str, str]]:
    """(field, reason) of templates that can never give a text; groups: how many the pattern has. For lint."""
    faults = []
    for name, text in template_fields(templates):
        field = _Field(name, text)
        if field.pieces is None:
            faults.append((name, "not a valid template: a lone $, $0, an unknown helper or bad arguments"))
        elif field.constant and not field.expand(b"", ()):
            faults.append((name, f"longer than {field.capacity - 1} bytes, or blank"))
        elif missing := [found[0] for found in _used_groups(text) if found[1] > groups]:
            faults.append((name, f"{missing[0]} but the pattern has {groups} group{'s' * (groups != 1)}"))
    return faults


def _used_groups(template: bytes) -> list[tuple[str, int]]:
    found = re.finditer(rb"\$(?:(\d)|(?:P|SUBST|I)\(\s*(\w+))", template)
    return [(hit[0].decode("latin-1"), _c_integer(hit[1] or hit[2])) for hit in found if (hit[1] or hit[2]).isalnum()]
