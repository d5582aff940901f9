"""How RDP agrees on what protects it: X.224's connection request and confirm, and TLS where that was agreed.

Source: [MS-RDPBCGR] 2.2.1.1, 2.2.1.2 (messages); RFC 1006 and 2126 (TPKT), ITU-T X.224 13.3, 13.4.
"""

import struct
from typing import NamedTuple

from engine.transports.dial import DialError, Stream

RDP, TLS, NLA = 0, 1, 2  # the protocols: RDP's own encryption; TLS; CredSSP within TLS
TPKT = struct.Struct(">BxH")  # version 3, length of all
X224 = struct.Struct(">BBHHB")  # length of what follows, code, two references, class
REQUEST, CONFIRM = 0xE0, 0xD0
NEGOTIATION = struct.Struct("<BBHI")  # type, flags, length, protocols or reason
ASKED, AGREED, REFUSED = 1, 2, 3
LARGEST = 512  # bytes of a confirm
REASONS = {
    1: "TLS required",
    2: "TLS not allowed",
    3: "no certificate",
    4: "inconsistent flags",
    5: "NLA required",
    6: "TLS with authentication required",
}


class Agreement(NamedTuple):
    """protocol: which one the server chose. refused: why it chose none, or "". flags: what it says it can do."""

    protocol: int
    refused: str = ""
    flags: int = 0


async def negotiate(stream: Stream, protocol: int) -> Agreement:
    """Ask for one protocol. A server that knows no choice has RDP's own. Raises DialError for what is not RDP."""
    body = NEGOTIATION.pack(ASKED, 0, NEGOTIATION.size, protocol)
    head = X224.pack(X224.size - 1 + len(body), REQUEST, 0, 0, 0)
    await stream.send(TPKT.pack(3, TPKT.size + len(head) + len(body)) + head + body)
    version, size = TPKT.unpack(await stream.exactly(TPKT.size))
    if version != 3 or not TPKT.size + X224.size <= size <= LARGEST:
        raise DialError("no TPKT")
    return agreement(await stream.exactly(size - TPKT.size))


def agreement(confirm: bytes) -> Agreement:
    """Raises DialError, struct.error for what is no connection confirm."""
    _, code, *_ = X224.unpack_from(confirm)
    if code & 0xF0 != CONFIRM:
        raise DialError("no connection confirm")
    if len(confirm) < X224.size + NEGOTIATION.size:
        return Agreement(RDP)
    kind, flags, _, value = NEGOTIATION.unpack_from(confirm, X224.size)
    if kind == REFUSED:
        return Agreement(RDP, REASONS.get(value, f"reason {value}"))
    if kind != AGREED:
        raise DialError("neither agreed nor refused")
    return Agreement(value, "", flags)
