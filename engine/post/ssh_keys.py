"""The host keys of an SSH server, one of each kind it offers: fingerprints, sizes, and whether it has them. One
connection for each: three for most, six at worst.

A server shows one key in an exchange, so there is one exchange for each; it signs what was said with that key, and
`proved` tells whether the signature is right: keys are public, and anybody can show another's. Nobody logs in.

Source: RFC 4253 sections 7 and 8 (exchange), 6.6 (keys), RFC 8332 (RSA with SHA-2); fingerprints as ssh-keygen writes
them. base_ssh_exchange.py has the arithmetic.
"""

import base64
import hashlib
import struct

from engine.model import Json, ServiceResult
from engine.post.base import noted, text
from engine.post.base_ssh import IDENTIFICATION, greet, offered, packed, packet, string, strings, wanted
from engine.post.base_ssh_exchange import EXCHANGES, IN_GROUP, SIZES, in_group, proves
from engine.transports.dial import DialError, Dialler, Stream

INIT, REPLY = 30, 31  # of Diffie-Hellman in a known group, and on curves
REQUEST, GROUP, GROUP_INIT, GROUP_REPLY = 34, 31, 32, 33  # in a group of the server's choice
PASSING = (2, 3, 4)  # messages to ignore, of what is not implemented, for debugging
PACKETS = 8  # that may come before the reply
KINDS: dict[str, tuple[bytes, ...]] = {  # of keys, and the algorithms that show one, the best first
    "ssh-ed25519": (b"ssh-ed25519",),
    "ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    "ssh-rsa": (b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa"),
    "ssh-dss": (b"ssh-dss",),
}
BITS = {b"ssh-ed25519": 256, b"ecdsa-sha2-nistp256": 256, b"ecdsa-sha2-nistp384": 384, b"ecdsa-sha2-nistp521": 521}
NUMBER = {b"ssh-rsa": 2, b"ssh-dss": 1}  # where in the key the number stands whose size is the key's


class SshKeys:
    """An Asker."""

    name = "ssh-keys"
    services = frozenset(("ssh",))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        keys: list[Json] = []
        left = list(KINDS)
        while left:
            try:
                with await dial.open("tcp", result.tunnel) as stream:
                    keys.append(await _shown(stream, left))
            except (DialError, struct.error, ValueError):
                if not keys:
                    raise
                break  # some servers have enough of us by now
        return noted(result, "ssh", {"keys": keys})


async def _shown(stream: Stream, left: list[str]) -> Json:
    """The key of the first of the kinds left that the server has; takes it out, and those that the server has not.

    Raises DialError, struct.error, ValueError where there is none, or no exchange that we know.
    """
    theirs_said = await greet(stream)
    theirs = await packet(stream)
    lists = offered(theirs)
    algorithms = lists["host_key"].split(b",")
    left[:] = [kind for kind in left if any(name in algorithms for name in KINDS[kind])]
    methods = lists["kex"].split(b",")
    method = next((name for name in (*EXCHANGES, *IN_GROUP) if name.encode() in methods), None)
    if not left or method is None:
        raise DialError("no key or no exchange that is known here")
    algorithm = next(name for name in KINDS[left.pop(0)] if name in algorithms)
    ours = wanted(lists | {"kex": method.encode(), "host_key": algorithm})
    await stream.send(packed(ours))
    if method in EXCHANGES:
        exchange = EXCHANGES[method]()
        answer = await _answered(stream, INIT, string(exchange.public), REPLY)
    else:
        prime, generator = strings(await _answered(stream, REQUEST, SIZES, GROUP), 2)
        exchange = in_group(prime, generator, IN_GROUP[method])
        answer = await _answered(stream, GROUP_INIT, string(exchange.public), GROUP_REPLY)
    key, half, signature = strings(answer, 3)
    said = (IDENTIFICATION, theirs_said, ours, theirs)
    return key_facts(key) | {"proved": proves(said, exchange, key, half, signature)}


async def _answered(stream: Stream, number: int, body: bytes, expected: int) -> bytes:
    """Send a message, and give the body of the one that answers it. Raises DialError for another."""
    await stream.send(packed(bytes((number,)) + body))
    for _ in range(PACKETS):
        answer = await packet(stream)
        if answer[0] == expected:
            return answer[1:]
        if answer[0] not in PASSING:
            break
    raise DialError("no reply to the exchange")


def key_facts(key: bytes) -> dict[str, Json]:
    """Of a key as it goes on the wire. Raises DialError, struct.error for what is none."""
    kind = strings(key, 1)[0]
    facts: dict[str, Json] = {"type": text(kind)}
    bits = BITS.get(kind)
    if kind in NUMBER:
        bits = int.from_bytes(strings(key, NUMBER[kind] + 1)[-1], "big").bit_length()
    if bits is not None:
        facts["bits"] = bits
    facts["sha256"] = "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    facts["md5"] = hashlib.md5(key, usedforsecurity=False).digest().hex(":")
    return facts
