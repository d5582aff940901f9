"""The start of SSH in the clear: identification, packets without encryption, and the lists of KEXINIT.

Source: RFC 4253 sections 4.2 (identification), 6 (packets) and 7.1 (KEXINIT), RFC 4251 section 5 (strings).
"""

import os
import struct

from engine.transports.dial import DialError, Stream

IDENTIFICATION = b"SSH-2.0-probemill"
KEXINIT = 20
LARGEST = 35_000  # bytes of a packet; RFC 4253 section 6.1
LINES = 20  # that may come before the identification
LINE = 1024
BLOCK = 8
COOKIE = 16
LISTS = (
    "kex",
    "host_key",
    "ciphers_in",
    "ciphers",
    "macs_in",
    "macs",
    "compression_in",
    "compression",
)  # server to client where it says nothing else
LANGUAGES = 2  # lists of languages, which nobody uses


async def greet(stream: Stream) -> bytes:
    """Exchange identifications. -> the server's, without its line's end. Raises DialError."""
    await stream.send(IDENTIFICATION + b"\r\n")
    for _ in range(LINES):
        line = await stream.until(b"\n", LINE)
        if line.startswith(b"SSH-"):
            return line.rstrip(b"\r\n")
    raise DialError("no SSH identification")


async def packet(stream: Stream) -> bytes:
    """The payload of the next one, which has a byte at least. Raises DialError."""
    size, padding = struct.unpack(">IB", await stream.exactly(5))
    if not padding + 2 <= size <= LARGEST:
        raise DialError("no SSH packet")
    rest: bytes = await stream.exactly(size - 1)
    return rest[: size - 1 - padding]


def packed(payload: bytes) -> bytes:
    """A packet with this payload."""
    padding = BLOCK - (5 + len(payload)) % BLOCK
    padding += BLOCK if padding < 4 else 0
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def strings(data: bytes, count: int, at: int = 0) -> list[bytes]:
    """So many strings that follow each other. Raises DialError, struct.error where one is cut."""
    found = []
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data, at)
        at += 4
        if at + size > len(data):
            raise DialError("cut short")
        found.append(data[at : at + size])
        at += size
    return found


def offered(payload: bytes) -> dict[str, bytes]:
    """The lists of a KEXINIT, as they came. Raises DialError, struct.error for what is none."""
    if payload[:1] != bytes((KEXINIT,)):
        raise DialError("not KEXINIT")
    return dict(zip(LISTS, strings(payload, len(LISTS), 1 + COOKIE), strict=True))


def wanted(lists: dict[str, bytes]) -> bytes:
    """A KEXINIT with these lists."""
    body = b"".join(string(lists[name]) for name in LISTS) + LANGUAGES * string(b"")
    return bytes((KEXINIT,)) + os.urandom(COOKIE) + body + bytes(5)
