"""Which broker speaks AMQP 0-9: product, version and platform from its Connection.Start. One connection.

Source: AMQP 0-9-1 specification, sections 2.2.4 (opening), 2.3.5 (frames), 4.2.5 (field tables), 1.4.2.1 (start).
"""

import struct

from engine.model import Json, ServiceResult
from engine.post.base import identified, noted, text
from engine.transports.dial import DialError, Dialler

OPENING = b"AMQP\0\0\x09\x01"
METHOD = 1
START = (10, 10)
FRAME = 1 << 17  # bytes
KEPT = ("product", "version", "platform", "cluster_name", "copyright")
ENTRIES = 64  # of a table that are looked at

_FIXED = {  # field type: bytes of its value
    b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"U": 2, b"I": 4, b"i": 4, b"f": 4,
    b"l": 8, b"L": 8, b"d": 8, b"T": 8, b"D": 5, b"V": 0,
}  # fmt: skip


class Amqp:
    """An Asker."""

    name = "amqp"
    services = frozenset(("amqp",))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp" and not result.version

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("tcp", result.tunnel) as stream:
            await stream.send(OPENING)
            kind, _, size = struct.unpack(">BHI", await stream.exactly(7))
            if kind != METHOD or size > FRAME:
                raise DialError("no AMQP method frame")
            frame = await stream.exactly(size)
        *method, major, minor, length = struct.unpack_from(">HHBBI", frame)
        if tuple(method) != START:
            raise DialError("not the method start")
        properties = strings(frame[10 : 10 + length])
        mechanisms, _ = _long(frame, 10 + length)
        facts: dict[str, Json] = {key: text(properties[key]) for key in KEPT if key in properties}
        facts["mechanisms"] = text(mechanisms).split()
        if "product" not in facts:
            return noted(result, self.name, facts)
        return identified(
            noted(result, self.name, facts),
            product=facts["product"],
            version=facts.get("version", ""),
            extrainfo=f"{major}-{minor}",
        )


def strings(table: bytes) -> dict[str, bytes]:
    """The string values among a field table's first entries. Raises struct.error, ValueError for what is no table."""
    found: dict[str, bytes] = {}
    at = 0
    for _ in range(ENTRIES):
        if at >= len(table):
            break
        end = at + 1 + table[at]
        key = text(table[at + 1 : end])
        kind, at = table[end : end + 1], end + 1
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in (b"S", b"F", b"A", b"x"):
            value, at = _long(table, at)
            if kind == b"S":
                found.setdefault(key, value)
        else:
            raise ValueError(f"field type {kind!r}")
    return found


def _long(data: bytes, at: int) -> tuple[bytes, int]:
    """A value behind its length of four bytes, and where it ends."""
    (length,) = struct.unpack_from(">I", data, at)
    at += 4
    return data[at : at + length], at + length
