"""What the forms of stored responses share: what comes out of a record, its members byte for byte, text as bytes."""

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

import msgspec
import orjson
from msgspec import Raw, Struct

from engine.targets import Unreadable

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Row(Struct):
    """One response.

    probes: names, of which the first known one counts. head: the JSON object to write, without its closing brace; where
    it is what the input says, a slice of that. foreign: another program asked, so that its own number may stand where
    ours would.
    """

    proto: str
    probes: tuple[str, ...]
    data: bytes
    head: bytes | memoryview
    foreign: bool = True


class Nothing(Enum):
    """A record, or a part of one, that is whole and holds no response."""

    SILENT = "nobody answered"
    DERIVED = "only what a tool made of the response was kept"


Item: TypeAlias = Row | Nothing | Unreadable  # an Unreadable beside rows is what could not be read of their record


class Record:
    """The text of a record. line: a JSON object; answered: an earlier run wrote its `match` into it."""

    def __init__(self, line: bytes | Raw, answered: bool) -> None:
        self._line = bytes(line)
        self._answered = answered
        self._members: dict[str, Raw] | None = None

    def head(self, changes: Mapping[str, bytes | None] | None = None) -> bytes:
        """The object to write, without its closing brace: every member byte for byte, but for the changes.

        changes: the JSON text of members that are set, None for those that are left out. What an earlier run wrote, its
        `match` and an `error` behind that, is left out, too. Raises Unreadable.
        """
        if not changes and not self._answered:
            return self._line[:-1]
        if self._members is None:
            self._members = _unanswered(_members(self._line))
        texts: dict[str, bytes | Raw | None] = {**self._members, **(changes or {})}
        return b"{" + b",".join([member(name, text) for name, text in texts.items() if text is not None])


def member(name: str, text: bytes | Raw) -> bytes:
    """A member of a JSON object as JSON text."""
    return orjson.dumps(name) + b":" + bytes(text)


def _members(text: bytes) -> dict[str, Raw]:
    try:
        return _decode_members(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not a JSON object: {error}") from None


def _unanswered(members: dict[str, Raw]) -> dict[str, Raw]:
    names = list(members)
    if "match" in members:
        for name in ("error", "also"):
            if name in names[names.index("match") :]:
                del members[name]
        del members["match"]
    return members


def value(text: bytes | Raw) -> Any:
    """A JSON value as Python objects. Raises Unreadable, also for numbers and depths that Python does not hold."""
    try:
        return orjson.loads(bytes(text))
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"JSON that cannot be held: {error}") from None


def latin1_bytes(text: str) -> bytes:
    """One byte per character; text with characters above U+00FF as UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def from_base64(text: object) -> bytes | None:
    """The bytes that a text stands for; None where it is no base64."""
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else None
    except (NotBase64, ValueError):
        return None


def from_hex(text: object) -> bytes | None:
    """The bytes that a text stands for; None where it is not hexadecimal."""
    try:
        return bytes.fromhex(text) if isinstance(text, str) and text.isalnum() else None
    except ValueError:
        return None
