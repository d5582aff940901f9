"""Messages between the collector and its workers over a Unix stream socket: a length, a kind, a body, mostly msgpack.

Collector to worker: SETUP (once), TARGETS (many), DRAIN (no more targets will come), CANCEL (finish what is in flight
now, as incomplete for the reason in the body). Worker to collector: READY (with the DatabaseRef), BATCH (many), ALIVE
(a few times a second, with the number of its open conversations), BYE (after DRAIN, when all is done), FAULT (its
family and one line, then the end). A message that is cut off by a worker's death is never half read.
"""

import asyncio
import json
import struct
from enum import IntEnum

import msgspec

from engine.model import ScanConfig

HEADER = struct.Struct("<IB")  # bytes of body, kind
OPEN = struct.Struct("<I")  # the body of ALIVE: conversations
MAX_BODY = 1 << 28  # bytes; longer means that the stream is out of step


class Kind(IntEnum):
    """What a message is; the module's docstring says who sends which."""

    SETUP = 1
    TARGETS = 2
    DRAIN = 3
    CANCEL = 4
    READY = 5
    BATCH = 6
    BYE = 7
    FAULT = 8
    ALIVE = 9


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """A message as it goes over the socket."""
    return HEADER.pack(len(body), kind) + body


def setup_body(config: ScanConfig) -> bytes:
    """What SETUP says: JSON in ASCII, because a path may hold bytes that are no UTF-8, which msgpack does not take."""
    return json.dumps(msgspec.to_builtins(config)).encode("ascii")


def setup(body: bytes) -> ScanConfig:
    """The config of a SETUP message."""
    return msgspec.convert(json.loads(body), ScanConfig)


async def receive(reader: asyncio.StreamReader) -> tuple[Kind, bytes] | None:
    """The next whole message, or None when the other side is gone."""
    try:
        size, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
        if size > MAX_BODY:
            raise ValueError(f"message of {size} bytes")
        return Kind(kind), await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
