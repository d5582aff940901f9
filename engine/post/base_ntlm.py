"""NTLM's first two messages: what makes a server say who it is, and what its answer says. No credentials, no sockets.

A server answers a NEGOTIATE with a CHALLENGE before it knows anything of its client; in it stand its names, those of
its domain, its clock and the build of its system. `NEGOTIATE` is the question, `challenge_facts` reads the answer.

Source: [MS-NLMP] 2.2.1.1, 2.2.1.2 (messages), 2.2.2.1 (AV_PAIR), 2.2.2.5 (flags), 2.2.2.10 (VERSION).
"""

import struct
from datetime import UTC, datetime

from engine.model import Json
from engine.post.base import text

SIGNATURE = b"NTLMSSP\0"
CHALLENGE = SIGNATURE + struct.pack("<I", 2)
FIELDS = struct.Struct("<HHI")  # length, space, offset from the start of the message
TARGET_AT, FLAGS_AT, PAIRS_AT, VERSION_AT, HEADER = 12, 20, 40, 48, 56
VERSION = struct.Struct("<BBH")
PAIR = struct.Struct("<HH")  # kind, length of the value
PAIRS = 32  # that are looked at; a server sends seven
LONGEST = 512  # bytes of a name
NAMES = {
    1: "netbios_computer",
    2: "netbios_domain",
    3: "dns_computer",
    4: "dns_domain",
    5: "dns_tree",
}
END, CLOCK = 0, 7
EPOCH = 116_444_736_000_000_000  # 1970 in units of 100 ns since 1601

UNICODE, REQUEST_TARGET, NTLM, ALWAYS_SIGN, EXTENDED, HAS_VERSION = 1, 1 << 2, 1 << 9, 1 << 15, 1 << 19, 1 << 25
KEYS = 1 << 29 | 1 << 31  # of 128 and 56 bits
_ASKED = UNICODE | REQUEST_TARGET | NTLM | ALWAYS_SIGN | EXTENDED | HAS_VERSION | KEYS
_OURS = struct.pack("<BBHxxxB", 10, 0, 19041, 15)  # a client of 2020; revision 15 is the only one
NEGOTIATE = SIGNATURE + struct.pack("<II", 1, _ASKED) + 2 * FIELDS.pack(0, 0, 40) + _OURS


def challenge_facts(data: bytes) -> dict[str, Json] | None:
    """What the CHALLENGE in these bytes tells, be it bare or wrapped; None where there is none.

    target: what the server takes itself for, its domain's name or its own. netbios_*, dns_*: its names. os_build: as
    "10.0.17763". time: its clock, RFC 3339. Raises struct.error where the message is cut within its header.
    """
    at = data.find(CHALLENGE)
    if at < 0:
        return None
    message = data[at:]
    facts: dict[str, Json] = {}
    (flags,) = struct.unpack_from("<I", message, FLAGS_AT)
    encoding = "utf-16-le" if flags & UNICODE else "latin-1"
    if target := _name(_field(message, TARGET_AT), encoding):
        facts["target"] = target
    facts |= _pairs(_field(message, PAIRS_AT)) if len(message) >= VERSION_AT else {}
    if flags & HAS_VERSION and len(message) >= HEADER:
        facts["os_build"] = ".".join(map(str, VERSION.unpack_from(message, VERSION_AT)))
    return facts


def _field(message: bytes, at: int) -> bytes:
    length, _, offset = FIELDS.unpack_from(message, at)
    return message[offset : offset + length]


def _name(value: bytes, encoding: str = "utf-16-le") -> str:
    return text(value[:LONGEST].decode(encoding, "ignore").encode())


def _pairs(data: bytes) -> dict[str, Json]:
    """As many as are whole."""
    facts: dict[str, Json] = {}
    at = 0
    for _ in range(PAIRS):
        if at + PAIR.size > len(data):
            break
        kind, length = PAIR.unpack_from(data, at)
        at += PAIR.size
        value = data[at : at + length]
        at += length
        if kind == END or len(value) < length:
            break
        if kind in NAMES and (name := _name(value)):
            facts[NAMES[kind]] = name
        elif kind == CLOCK and length == 8:
            seconds = (int.from_bytes(value, "little") - EPOCH) // 10_000_000
            if 0 < seconds < 1 << 33:
                facts["time"] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return facts
