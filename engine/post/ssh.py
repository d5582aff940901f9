"""The algorithms an SSH server offers: key exchange, host keys, ciphers, MACs, compression. One connection.

The lists come in the clear with the first packet, SSH_MSG_KEXINIT. `hassh` is the usual digest over four of them, by
which servers are told apart. Source: RFC 4253 sections 4.2, 6 and 7.1; HASSH as published by Salesforce.
"""

import hashlib
import struct

from engine.model import Json, ServiceResult
from engine.post.base import noted, text
from engine.transports.dial import DialError, Dialler

IDENTIFICATION = b"SSH-2.0-probemill\r\n"
KEXINIT = 20
LARGEST = 35_000  # bytes of a packet; RFC 4253 section 6.1
LINES = 20  # that may come before the identification
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


class Ssh:
    """An Asker."""

    name = "ssh"
    services = frozenset(("ssh",))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("tcp", result.tunnel) as stream:
            await stream.send(IDENTIFICATION)
            for _ in range(LINES):
                if (await stream.until(b"\n", 1024)).startswith(b"SSH-"):
                    break
            else:
                raise DialError("no SSH identification")
            size, padding = struct.unpack(">IB", await stream.exactly(5))
            if not padding + 2 <= size <= LARGEST:
                raise DialError("no SSH packet")
            packet = await stream.exactly(size - 1)
        return noted(result, self.name, offer(packet[: size - 1 - padding]))


def offer(payload: bytes) -> dict[str, Json]:
    """The lists of a KEXINIT. Those of the way in are given only where they differ. Raises DialError, struct.error."""
    if payload[:1] != bytes((KEXINIT,)):
        raise DialError("not KEXINIT")
    at = 1 + COOKIE
    raw: dict[str, str] = {}
    for name in LISTS:
        (size,) = struct.unpack_from(">I", payload, at)
        raw[name] = text(payload[at + 4 : at + 4 + size], LARGEST)
        at += 4 + size
    facts: dict[str, Json] = {name: value.split(",") if value else [] for name, value in raw.items()}
    for name in ("ciphers", "macs", "compression"):
        if facts[name] == facts[name + "_in"]:
            del facts[name + "_in"]
    digest = ";".join(raw[name] for name in ("kex", "ciphers", "macs", "compression"))
    facts["hassh"] = hashlib.md5(digest.encode(), usedforsecurity=False).hexdigest()
    return facts
