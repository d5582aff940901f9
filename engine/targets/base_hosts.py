"""What stands before the port: text -> the literal address, host name or network that it names.

Addresses come out in their canonical form (`2001:db8::1`), an IPv4-mapped one as plain IPv4, so that limits and lists
see one spelling of each host. Names come out in ASCII (IDNA), lower case, without the root's dot.
"""

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from msgspec import Struct

from engine.targets.base_ports import Unreadable

MAX_HOST_BITS = 32  # the whole of IPv4; a larger network would never end, and its ordinals outgrow 64 bits
_MAPPED = bytes(10) + b"\xff\xff"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9.-]+")


class Network(Struct, frozen=True):
    """Consecutive addresses. first: the lowest as a number; size: how many, a power of two."""

    first: int
    size: int
    v6: bool

    def address(self, index: int) -> str:
        """The literal address at 0-based `index`."""
        number = self.first + index
        if self.v6:
            return inet_ntop(AF_INET6, number.to_bytes(16, "big"))
        return inet_ntop(AF_INET, number.to_bytes(4, "big"))


class Host(Struct, frozen=True):
    """text: the address, the name, or the network in CIDR form."""

    text: str
    is_name: bool = False
    network: Network | None = None


def parse_host(text: str) -> Host:
    """An IPv4 or IPv6 literal, a CIDR network, or a host name. Raises Unreadable with the reason."""
    if "/" in text:
        return _network(text)
    address = canonical_address(text)
    if address:
        return Host(address)
    if ":" in text:
        raise Unreadable(f"{text[:60]!r} is not an IPv6 address")
    return Host(parse_name(text), is_name=True)


def canonical_address(text: str) -> str:
    """The address in canonical form, or the empty string if `text` is none. `fe80::1%eth0` keeps its zone."""
    packed = _packed(text)
    if packed is not None:
        return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
    literal, percent, zone = text.partition("%")
    if percent and zone.isalnum() and zone.isascii():
        packed = _packed(literal)
        if packed is not None and len(packed) == 16:
            return f"{inet_ntop(AF_INET6, packed)}%{zone}"
    return ""


def parse_name(text: str) -> str:
    """A host name in ASCII. Raises Unreadable for what no resolver could know."""
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise Unreadable(f"{text[:60]!r} is not a host name: {error}") from None
    name = name.lower()
    if not name:
        raise Unreadable("no host before the port")
    if _NUMERIC.fullmatch(name):
        raise Unreadable(f"{text[:60]!r} is neither an IPv4 address nor a name; a range of hosts is written as CIDR")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise Unreadable(f"{text[:60]!r} is not a host name")
    return name


def _packed(text: str) -> bytes | None:
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a NUL inside
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _network(text: str) -> Host:
    literal, _, length = text.partition("/")
    packed = _packed(literal)
    if packed is None:
        raise Unreadable(f"{text[:60]!r} is not a network: no IP address before the '/'")
    bits = len(packed) * 8
    mapped = 96 if bits == 32 and ":" in literal else 0  # ::ffff:192.0.2.0/120 is 192.0.2.0/24
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and mapped <= int(length) <= bits + mapped):
        raise Unreadable(f"bad prefix length {length[:20]!r}; expected a number from {mapped} to {bits + mapped}")
    prefix = int(length) - mapped
    if bits - prefix > MAX_HOST_BITS:
        raise Unreadable(f"a /{prefix} is too large to scan; the largest IPv6 network is a /{bits - MAX_HOST_BITS}")
    size = 1 << (bits - prefix)
    network = Network(first=int.from_bytes(packed, "big") & -size, size=size, v6=bits == 128)
    lowest = network.address(0)
    return Host(lowest) if size == 1 else Host(f"{lowest}/{prefix}", network=network)
