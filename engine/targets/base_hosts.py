"""What stands before the port: text -> the literal address, host name, network or range that it names.

    192.0.2.7   2001:db8::7   fe80::1%eth0.100    addresses, a zone after the `%`
    192.0.2.0/24   2001:db8::/120                 networks
    192.0.2.1-192.0.2.20                          from one address to another
    10.0.0-3.1,5   10.0.0.*   10.0.0.1-20         octet by octet, as Nmap reads them
    www.example.org                               names

Addresses come out in their canonical form (`2001:db8::1`), an IPv4-mapped one as plain IPv4, so that limits and lists
see one spelling of each host; hexadecimal, octal and shortened spellings of IPv4 are refused, because programs differ
in what they mean. Names come out in ASCII (IDNA 2008 after the mapping of UTS 46), lower case, without the root's dot.
"""

import re
from enum import Enum
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Literal

from msgspec import Struct

from engine.targets.base_ports import Unreadable, quoted

MAX_HOST_BITS = 32  # the whole of IPv4; a larger network would never end, and its ordinals outgrow 64 bits
_LINK_LOCAL = b"\xfe\x80", b"\xfe\xbf"  # fe80::/10
_MAPPED = bytes(10) + b"\xff\xff"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9.,*-]+|(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # what C libraries may take for an IPv4 address
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,62}")
_OCTETS = re.compile(r"[0-9*,-]+(?:\.[0-9*,-]+){3}")
_NAME_LENGTH = 253


Family = Literal[0, 4, 6]  # IPv4, IPv6; 0: either


class Names(Enum):
    """Who looks up the names of targets. NOWHERE: the proxy takes none. UNSEEN: it would, and lists could not judge."""

    HERE = ""
    FAR = "far"
    NOWHERE = "its address would be looked up past the proxy; write socks5h://, socks4a:// or http://, which take names"
    UNSEEN = "the proxy would look it up, so that -4, -6 and lists of addresses cannot judge it; name its address"


def family_of(address: str) -> Family:
    """Of a literal address, network or range."""
    return 6 if ":" in address else 4


class Network(Struct, frozen=True):
    """Consecutive addresses. first: the lowest as a number; size: how many."""

    first: int
    size: int
    v6: bool

    def address(self, index: int) -> str:
        """The literal address at 0-based `index`."""
        number = self.first + index
        if self.v6:
            return inet_ntop(AF_INET6, number.to_bytes(16, "big"))
        return inet_ntop(AF_INET, number.to_bytes(4, "big"))


class OctetRange(Struct, frozen=True):
    """The IPv4 addresses that have each octet from its own set. octets: four sets, ascending."""

    octets: tuple[bytes, bytes, bytes, bytes]

    @property
    def size(self) -> int:
        first, second, third, fourth = map(len, self.octets)
        return first * second * third * fourth

    def address(self, index: int) -> str:
        """The literal address at 0-based `index`, in ascending order."""
        packed = bytearray(4)
        for place in (3, 2, 1, 0):
            choices = self.octets[place]
            index, choice = divmod(index, len(choices))
            packed[place] = choices[choice]
        return inet_ntop(AF_INET, packed)


Addresses = Network | OctetRange


class Host(Struct, frozen=True):
    """text: the address, the name, or the network or range as it is written."""

    text: str
    is_name: bool = False
    network: Addresses | None = None


def parse_host(text: str) -> Host:
    """An address, a network, a range or a host name. Raises Unreadable with the reason."""
    if "/" in text:
        return _network(text)
    address = canonical_address(text)
    if address:
        return Host(address)
    if is_octet_range(text):
        return _octet_range(text)
    if "-" in text and (span := _span(text)) is not None:
        return span
    if ":" in text:
        raise Unreadable(f"{quoted(text)} is not an IPv6 address")
    return Host(parse_name(text), is_name=True)


def is_octet_range(text: str) -> bool:
    """Whether `text` is meant as IPv4 octet by octet, with a list, a range or a `*` in it."""
    return not text.replace(".", "").isdigit() and _OCTETS.fullmatch(text) is not None


def canonical_address(text: str) -> str:
    """The address in canonical form, or the empty string if `text` is none.

    `fe80::1%eth0` keeps its zone; `::1%lo` does not, because outside link-local addresses a zone says nothing, and one
    host has one spelling.
    """
    packed = _packed(text)
    if packed is not None:
        return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
    literal, percent, zone = text.partition("%")
    if percent and _ZONE.fullmatch(zone):
        packed = _packed(literal)
        if packed is not None and len(packed) == 16 and _LINK_LOCAL[0] <= packed[:2] <= _LINK_LOCAL[1]:
            return f"{inet_ntop(AF_INET6, packed)}%{zone}"
        if packed is not None and ":" in literal:
            return canonical_address(literal)
    return ""


def parse_name(text: str) -> str:
    """A host name in ASCII. Raises Unreadable for what no resolver could know."""
    name = text if text.isascii() else _ascii_name(text)
    name = name.removesuffix(".").lower()
    if not name:
        raise Unreadable("no host before the port")
    if _NUMERIC.fullmatch(name):
        raise Unreadable(f"{quoted(text)} is neither an IPv4 address nor a name; write IPv4 as four decimal numbers")
    if len(name) > _NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise Unreadable(f"{quoted(text)} is not a host name")
    return name


def _ascii_name(text: str) -> str:
    import idna  # with its tables of all characters; most inputs have ASCII names only

    try:
        if len(text) > _NAME_LENGTH:
            raise idna.IDNAError("it is too long")
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split("."))
    except UnicodeError as error:  # IDNAError is one
        raise Unreadable(f"{quoted(text)} is not a host name: {str(error)[:80]}") from None


def _packed(text: str) -> bytes | None:
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a NUL inside, or no text at all
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _network(text: str) -> Host:
    literal, _, length = text.partition("/")
    packed = _packed(literal)
    if packed is None:
        raise Unreadable(f"{quoted(text)} is not a network: no IP address before the '/'")
    bits = len(packed) * 8
    mapped = 96 if bits == 32 and ":" in literal else 0  # ::ffff:192.0.2.0/120 is 192.0.2.0/24
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and mapped <= int(length) <= bits + mapped):
        raise Unreadable(f"bad prefix length {quoted(length)}; expected a number from {mapped} to {bits + mapped}")
    prefix = int(length) - mapped
    if bits - prefix > MAX_HOST_BITS:
        raise Unreadable(f"a /{prefix} is too large to scan; the largest IPv6 network is a /{bits - MAX_HOST_BITS}")
    size = 1 << (bits - prefix)
    network = Network(first=int.from_bytes(packed, "big") & -size, size=size, v6=bits == 128)
    lowest = network.address(0)
    return Host(lowest) if size == 1 else Host(f"{lowest}/{prefix}", network=network)


def _span(text: str) -> Host | None:
    """`192.0.2.1-192.0.2.20`; None where there are no two addresses."""
    low, _, high = text.partition("-")
    lowest, highest = _packed(low), _packed(high)
    if lowest is None or highest is None or len(lowest) != len(highest):
        return None
    size = int.from_bytes(highest, "big") - int.from_bytes(lowest, "big") + 1
    if not 0 < size <= 1 << MAX_HOST_BITS:
        raise Unreadable(f"{quoted(text)} runs backwards, or over more than 2^{MAX_HOST_BITS} addresses")
    network = Network(first=int.from_bytes(lowest, "big"), size=size, v6=len(lowest) == 16)
    text = f"{network.address(0)}-{network.address(size - 1)}"
    return Host(network.address(0)) if size == 1 else Host(text, network=network)


def _octet_range(text: str) -> Host:
    first, second, third, fourth = (_octet(part, text) for part in text.split("."))
    addresses = OctetRange((first, second, third, fourth))
    return Host(addresses.address(0)) if addresses.size == 1 else Host(text, network=addresses)


def _octet(part: str, whole: str) -> bytes:
    """`1,5`, `0-3`, `-9`, `250-`, `-` or `*` -> the octets it stands for."""
    found: set[int] = set()
    for piece in part.split(","):
        low, dash, high = ("", "-", "") if piece == "*" else piece.partition("-")
        ends = (low or "0", high or "255") if dash else (low, low)
        if not all(end.isdigit() and (end == "0" or end[0] != "0") and len(end) <= 3 for end in ends):
            raise Unreadable(f"{quoted(whole)} is no range of addresses; an octet is 0 to 255, as 1, 1-20, 1,5 or *")
        first, last = map(int, ends)
        if not first <= last <= 255:
            raise Unreadable(f"{piece!r} in {quoted(whole)} runs backwards or beyond 255")
        found.update(range(first, last + 1))
    return bytes(sorted(found))
