"""The algorithms an SSH server offers: key exchange, host keys, ciphers, MACs, compression. One connection.

The lists come in the clear with the first packet, SSH_MSG_KEXINIT. `hassh` is the usual digest over four of them, by
which servers are told apart. Source: RFC 4253 section 7.1; HASSH (hasshServer) as published by Salesforce.
"""

import hashlib

from engine.model import Json, ServiceResult
from engine.post.base import noted, text
from engine.post.base_ssh import LARGEST, greet, offered, packet
from engine.transports.dial import Dialler


class Ssh:
    """An Asker."""

    name = "ssh"
    services = frozenset(("ssh",))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("tcp", result.tunnel) as stream:
            await greet(stream)
            return noted(result, self.name, offer(await packet(stream)))


def offer(payload: bytes) -> dict[str, Json]:
    """The lists of a KEXINIT. Those of the way in are given only where they differ. Raises DialError, struct.error."""
    raw = offered(payload)
    facts: dict[str, Json] = {
        name: text(value, LARGEST).split(",") if value else [] for name, value in raw.items()
    }  # fmt: skip
    for name in ("ciphers", "macs", "compression"):
        if facts[name] == facts[name + "_in"]:
            del facts[name + "_in"]
    digest = b";".join(raw[name] for name in ("kex", "ciphers", "macs", "compression"))
    facts["hassh"] = hashlib.md5(digest, usedforsecurity=False).hexdigest()
    return facts
