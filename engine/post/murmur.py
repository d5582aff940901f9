"""Mumble's server (Murmur), by its ping: version, users, bandwidth. One datagram, to the TCP port's UDP twin too.

Source: Mumble's protocol documentation, "Server ping": four zero bytes and an identifier of eight are answered with
version, the identifier, users, the most users allowed and the bandwidth allowed in bits per second.
"""

import struct

from engine.model import ServiceResult, Tunnel
from engine.post.base import identified
from engine.transports.dial import Dialler

PORT = 64738
IDENTIFIER = b"probemil"
PING = bytes(4) + IDENTIFIER
PONG = struct.Struct(">4B8s3I")


class Murmur:
    """An Asker: of ports recognised as Murmur's, and of its registered port where nothing was."""

    name = "murmur"
    services = frozenset(("murmur",))
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        in_dtls = result.proto == "udp" and result.tunnel is not Tunnel.NONE
        return not in_dtls and (result.name == self.name or result.port == PORT)

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("udp") as stream:
            _, major, minor, patch, identifier, users, most, bandwidth = PONG.unpack(await stream.exchange(PING))
        if identifier != IDENTIFIER:
            return result
        return identified(
            result,
            name=self.name,
            product="Murmur",
            version=f"{major}.{minor}.{patch}",
            extrainfo=f"{'control' if result.proto == 'tcp' else 'voice'} port; users: {users}; max. users: {most}; "
            f"bandwidth: {bandwidth} b/s",
            fingerprint="",
        )
