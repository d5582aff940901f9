"""QUIC as it is on the wire, as far as no key is needed: asking for the versions of a server, reading what it answers,
and the transport parameters of a handshake. Pure, and without aioquic.

A packet in a version that nobody has is answered with the list of those that the server has: one datagram each way, and
no state is left behind at the server. It has the size of a first packet, 1200 bytes: smaller ones get no answer.

Source: RFC 8999 (what all versions share), RFC 9000 sections 6, 14.1, 15, 17.2.1 and 18 (negotiation, sizes, reserved
versions, parameters), RFC 9369 (version 2); IANA's "QUIC" registers for the names.
"""

from engine.model import Json

RESERVED = 0x1A2A3A4A  # of the form 0x?a?a?a?a, which no version will ever have
DATAGRAM = 1200  # bytes of a first datagram
VERSIONS = 32  # of an answer that are looked at
PARAMETERS = 64  # likewise
TEXT = 64  # bytes of a parameter's value that are kept

VERSION_1, VERSION_2 = 0x00000001, 0x6B3343CF
_VERSIONS = {VERSION_1: "1", VERSION_2: "2"}

_NAMES = {
    0x01: "max_idle_timeout",
    0x03: "max_udp_payload_size",
    0x04: "initial_max_data",
    0x05: "initial_max_stream_data_bidi_local",
    0x06: "initial_max_stream_data_bidi_remote",
    0x07: "initial_max_stream_data_uni",
    0x08: "initial_max_streams_bidi",
    0x09: "initial_max_streams_uni",
    0x0A: "ack_delay_exponent",
    0x0B: "max_ack_delay",
    0x0C: "disable_active_migration",
    0x0D: "preferred_address",
    0x0E: "active_connection_id_limit",
    0x11: "version_information",
    0x20: "max_datagram_frame_size",
    0x2AB2: "grease_quic_bit",
}
_FLAGS = {0x0C, 0x2AB2}
_OPAQUE = {0x0D, 0x11}
_RANDOM = {0x00, 0x02, 0x0F, 0x10}  # connection ids and tokens: others every time


def version_query(destination: bytes, source: bytes) -> bytes:
    """A first packet in the reserved version. Both connection ids: 8 to 20 bytes."""
    head = b"\xc0" + RESERVED.to_bytes(4, "big")
    head += bytes((len(destination),)) + destination + bytes((len(source),)) + source
    left = DATAGRAM - len(head) - 3
    return head + b"\0" + (0x4000 | left).to_bytes(2, "big") + bytes(left)


def offered_versions(datagram: bytes, destination: bytes, source: bytes) -> tuple[int, ...] | None:
    """The versions in a server's answer to the query with these ids; None where it is no such answer."""
    head = bytes(4) + bytes((len(source),)) + source + bytes((len(destination),)) + destination
    versions = datagram[1 + len(head) :]
    if not datagram or not datagram[0] & 0x80 or datagram[1 : 1 + len(head)] != head or len(versions) % 4:
        return None
    numbers = [int.from_bytes(versions[at : at + 4], "big") for at in range(0, min(len(versions), 4 * VERSIONS), 4)]
    return tuple(number for number in numbers if number & 0x0F0F0F0F != 0x0A0A0A0A)


def version_name(version: int) -> str:
    """`1`, `2`, `draft-29`; Google's as `Q050`; others as `0x...`."""
    if version in _VERSIONS:
        return _VERSIONS[version]
    if version >> 8 == 0xFF0000:
        return f"draft-{version & 0xFF}"
    name = version.to_bytes(4, "big")
    if name[:1] in b"QT" and name[1:].isdigit():
        return name.decode("ascii")
    return f"0x{version:08x}"


def parameters(extension: bytes) -> dict[str, Json]:
    """The transport parameters of a handshake, in wire order, without those that are random. Raises ValueError."""
    found: dict[str, Json] = {}
    at = 0
    while at < len(extension) and len(found) < PARAMETERS:
        number, at = _integer(extension, at)
        size, at = _integer(extension, at)
        value, at = extension[at : at + size], at + size
        if at > len(extension):
            raise ValueError("a parameter that is cut short")
        if number in _RANDOM or number % 31 == 27:  # the latter stand there so that nobody chokes on them
            continue
        name = _NAMES.get(number, f"0x{number:x}")
        if number in _FLAGS:
            found[name] = True
        elif number in _NAMES and number not in _OPAQUE:
            found[name], _ = _integer(value, 0)
        else:
            found[name] = value[:TEXT].hex()
    return found


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where the next one begins. Raises ValueError."""
    if at >= len(data) or at + (size := 1 << (data[at] >> 6)) > len(data):
        raise ValueError("a number that is cut short")
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size
