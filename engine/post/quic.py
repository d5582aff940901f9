"""QUIC over UDP: the versions a server offers, the application protocol it agrees to, its certificate, its parameters.

Looks at UDP ports recognised as QUIC, at open ones that nothing recognised, and at those that never answered: a QUIC
server says nothing to any other protocol. One datagram asks for the versions; only where it is answered, or the port is
one of QUIC's, a handshake follows.

Source: RFC 9000 (QUIC), RFC 9114 (h3), RFC 9250 (doq).
"""

import os

from msgspec.structs import replace

from engine.model import Json, ServiceResult
from engine.post.base import identified, noted, text
from engine.transports.dial import DialError, Dialler, DialTimeoutError
from engine.transports.quic_packets import offered_versions, version_name, version_query

USUAL = frozenset((443, 784, 853, 8443, 8853))  # where a server that does not tell its versions is shaken hands with
DNS = frozenset((784, 853, 8853))
OFFERED = ("h3", "h3-29", "hq-interop", "doq", "smb")
ATTEMPTS = 2  # datagrams may get lost
PATIENCE_S = 0.8  # for each
STRAYS = 4  # other datagrams that may come in between
ID = 8  # bytes of a connection's


class Quic:
    """An Asker."""

    name = "quic"
    services = frozenset(("quic",))
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "udp"

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        from engine.transports.quic import SUPPORTED, Conversation

        versions = await _versions(dial)
        if versions is None and result.port not in USUAL:
            return result
        facts: dict[str, Json] = {}
        if versions is not None:
            facts["versions"] = [version_name(version) for version in versions]
            result = _named(noted(result, self.name, facts))
        common = [version for version in SUPPORTED if versions is None or version in versions]
        if not common:
            return result
        names = (*OFFERED[-2:-1], *OFFERED) if result.port in DNS else OFFERED
        with await dial.open("udp") as stream:
            talk = Conversation(stream, dial, common[:1], tuple(dict.fromkeys(names)), result.host)
            try:
                shaken = await talk.shake()
            except DialError as error:
                if versions is None:
                    raise
                return noted(result, self.name, {"error": text(str(error).encode())})
            finally:
                await talk.close()
        facts = {"version": version_name(shaken.version)}
        if shaken.alpn:
            facts["alpn"] = text(shaken.alpn.encode())
        if shaken.parameters:
            facts["parameters"] = shaken.parameters
        if shaken.retried:
            facts["retry"] = True
        if shaken.error is not None:
            facts["error"] = text(f"{shaken.error[0]:#x} {shaken.error[1]}".strip().encode())
        result = noted(result, self.name, facts)
        if shaken.tls is not None:
            result = replace(result, tls=shaken.tls)
        return _named(result, shaken.alpn)


async def _versions(dial: Dialler) -> tuple[int, ...] | None:
    """What the server offers; None where it does not say."""
    destination, source = os.urandom(ID), os.urandom(ID)
    with await dial.open("udp") as stream:
        for _ in range(ATTEMPTS):
            await stream.send(version_query(destination, source))
            for _ in range(STRAYS):
                try:
                    datagram = await stream.recv(timeout_s=PATIENCE_S)
                except DialTimeoutError:
                    break
                if (versions := offered_versions(datagram, destination, source)) is not None:
                    return versions
    return None


def _named(result: ServiceResult, alpn: str = "") -> ServiceResult:
    extrainfo = result.extrainfo or alpn
    return replace(identified(result, name="quic", extrainfo=extrainfo, fingerprint=""), state="open")
