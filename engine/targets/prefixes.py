"""Sets of address ranges: blocklists, allowlists, the reserved networks. Millions of prefixes, next to nothing a look.

A list is text, one entry a line, `#` begins a comment:

    192.0.2.0/24        2001:db8::/32        198.51.100.7        203.0.113.5-203.0.113.9

A set is its ranges merged and sorted in flat arrays, 8 bytes a range of IPv4 and 32 of IPv6, searched by bisection.
An IPv4-mapped IPv6 address is the IPv4 host that it reaches.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton

from engine.errors import ConfigError, InputError

_LOW = (1 << 64) - 1
_LOW4 = (1 << 32) - 1
_LOOPBACK4 = 0x7F000001
_MAPPED = 0xFFFF  # ::ffff:0:0/96, the upper 96 bits
_PAGES = 12  # upper bits of an IPv4 address that an index of its own answers, so that bisection has few steps left


class PrefixSet:
    """A set of addresses. `"192.0.2.7" in prefixes`; what is no address is in no set. `len()`: merged ranges.

    v4, v6: ranges, each packed into one number, `first << 32 | last` and `first << 128 | last`; both ends are inside.
    """

    def __init__(self, v4: Iterable[int] = (), v6: Iterable[int] = ()) -> None:
        self._first4, self._last4 = array("I"), array("I")
        for first, last in _merged(v4, 32):
            self._first4.append(first)
            self._last4.append(last)
        shift = 32 - _PAGES
        self._page4 = array("I", (bisect_left(self._first4, page << shift) for page in range(1 << _PAGES)))
        self._page4.append(len(self._first4))
        # An IPv6 address is two halves of 64 bits: upper, lower.
        self._first6, self._last6 = (array("Q"), array("Q")), (array("Q"), array("Q"))
        for first, last in _merged(v6, 128):
            for halves, number in ((self._first6, first), (self._last6, last)):
                halves[0].append(number >> 64)
                halves[1].append(number & _LOW)

    def __len__(self) -> int:
        return len(self._first4) + len(self._first6[0])

    def __contains__(self, host: str) -> bool:
        try:
            if ":" not in host:
                return self._has4(int.from_bytes(inet_pton(AF_INET, host), "big"))
            number = int.from_bytes(inet_pton(AF_INET6, host.partition("%")[0]), "big")
        except (OSError, ValueError):
            return False
        return self._has4(number & 0xFFFFFFFF) if number >> 32 == _MAPPED else self._has6(number)

    def reaches(self, host: str) -> bool:
        """Whether what is sent to `host` may arrive at an address of the set.

        Beyond the set itself: `0.0.0.0` and `::` are this machine, as 127.0.0.1 and ::1 are, and IPv6 addresses that
        carry an IPv4 address for a translator or a tunnel are that host, too.
        """
        if host in self:
            return True
        if ":" not in host:
            return host == "0.0.0.0" and self._has4(_LOOPBACK4)
        try:
            number = int.from_bytes(inet_pton(AF_INET6, host.partition("%")[0]), "big")
        except (OSError, ValueError):
            return False
        if not number:
            return self._has6(1)
        if number == _MAPPED << 32:
            return self._has4(_LOOPBACK4)
        return any(map(self._has4, embedded(number)))

    def overlap(self, first: int, last: int, *, v6: bool) -> int:
        """How many addresses from `first` to `last`, both as numbers, are in the set."""
        bits = 128 if v6 else 32
        ones = (1 << bits) - 1
        packed = self._packed6() if v6 else self._packed4()
        return sum(max(0, min(last, both & ones) - max(first, both >> bits) + 1) for both in packed)

    def __or__(self, other: "PrefixSet") -> "PrefixSet":
        """The addresses of both."""
        return PrefixSet(chain(self._packed4(), other._packed4()), chain(self._packed6(), other._packed6()))

    def _has4(self, number: int) -> bool:
        page = number >> 32 - _PAGES
        index = bisect_right(self._first4, number, self._page4[page], self._page4[page + 1]) - 1
        return index >= 0 and number <= self._last4[index]

    def _has6(self, number: int) -> bool:
        upper, lower = number >> 64, number & _LOW
        uppers, lowers = self._first6
        end = bisect_right(uppers, upper)
        index = bisect_right(lowers, lower, bisect_left(uppers, upper, 0, end), end) - 1
        return index >= 0 and (upper, lower) <= (self._last6[0][index], self._last6[1][index])

    def _packed4(self) -> Iterator[int]:
        return (first << 32 | last for first, last in zip(self._first4, self._last4, strict=True))

    def _packed6(self) -> Iterator[int]:
        return (
            upper << 192 | lower << 128 | last_upper << 64 | last_lower
            for upper, lower, last_upper, last_lower in zip(*self._first6, *self._last6, strict=True)
        )


def embedded(number: int) -> Iterator[int]:
    """The IPv4 addresses that an IPv6 address stands for, both as numbers.

    Source: RFC 4291 2.5.5 (compatible), RFC 2765 2.1 (translated), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380
    (Teredo: its server, and its client in ones' complement), RFC 5214 6.1 (ISATAP).
    """
    upper, lower, last = number >> 64, number & _LOW, number & _LOW4
    if number >> 32 in (0, 0xFFFF0000, 0x64FF9B << 64) and number > 1:
        yield last
    if number >> 80 == 0x64FF9B0001:
        yield last
        yield (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF  # around the octet that RFC 6052 leaves empty
    if upper >> 48 == 0x2002:
        yield upper >> 16 & _LOW4
    if upper >> 32 == 0x20010000:
        yield upper & _LOW4
        yield last ^ _LOW4
    if lower >> 32 & ~0x02000000 == 0x00005EFE:
        yield last


class AddressFilter:
    """Which hosts may be contacted at all: nothing that reaches `block`, and of `allow` only, where there is one."""

    def __init__(self, block: PrefixSet | None = None, allow: PrefixSet | None = None) -> None:
        self._block = block
        self._allow = allow

    def permits(self, host: str) -> bool:
        """host: a literal address. What is no address is permitted by no allowlist."""
        if self._allow is not None and host not in self._allow:
            return False
        return self._block is None or not self._block.reaches(host)


def load_prefixes(path: Path) -> PrefixSet:
    """Read a list. Raises ConfigError for a file that cannot be read, InputError for the first line that is wrong."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return parse_prefixes(lines, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def parse_prefixes(lines: Iterable[str], source: str) -> PrefixSet:
    """The set of a list's lines. Raises InputError `source:line: reason`."""
    v4, v6 = array("Q"), list[int]()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            first, last, bits = _parse_entry(text)
        except ValueError as reason:
            raise InputError(source, number, str(reason)) from None
        (v4 if bits == 32 else v6).append(first << bits | last)
    return PrefixSet(v4, v6)


def reserved_networks() -> PrefixSet:
    """What is nobody's public address, loopback included: for `--exclude-reserved`."""
    return parse_prefixes(RESERVED, "reserved")


# The IANA registries of special-purpose addresses (RFC 6890 and its successors), multicast, and what was once assigned
# to a purpose and then withdrawn. The whole of 2001::/23, although some of its parts are reachable.
RESERVED = (
    "0.0.0.0/8       # this network; Linux connects to itself",
    "10.0.0.0/8      # private use",
    "100.64.0.0/10   # shared space behind carriers' NAT",
    "127.0.0.0/8     # loopback",
    "169.254.0.0/16  # link local; clouds answer instances there with credentials",
    "172.16.0.0/12   # private use",
    "192.0.0.0/24    # protocol assignments",
    "192.0.2.0/24    # documentation",
    "192.31.196.0/24 # AS112",
    "192.52.193.0/24 # automatic multicast tunnels",
    "192.88.99.0/24  # 6to4 relays, withdrawn",
    "192.168.0.0/16  # private use",
    "192.175.48.0/24 # AS112",
    "198.18.0.0/15   # benchmarking",
    "198.51.100.0/24 # documentation",
    "203.0.113.0/24  # documentation",
    "224.0.0.0/4     # multicast",
    "240.0.0.0/4     # future use, and the broadcast address",
    "::/96           # unspecified, loopback, and IPv4-compatible addresses",
    "::ffff:0:0:0/96 # IPv4-translated addresses",
    "64:ff9b::/96    # translation to IPv4, any IPv4",
    "64:ff9b:1::/48  # the same, local use",
    "100::/64        # discard",
    "100:0:0:1::/64  # dummy prefix",
    "2001::/23       # protocol assignments",
    "2001:db8::/32   # documentation",
    "2002::/16       # 6to4, any IPv4",
    "2620:4f:8000::/48 # AS112",
    "3fff::/20       # documentation",
    "5f00::/16       # segment routing",
    "fc00::/7        # unique local",
    "fe80::/10       # link local",
    "fec0::/10       # site local, withdrawn",
    "ff00::/8        # multicast",
)


def _parse_entry(text: str) -> tuple[int, int, int]:
    """First and last address as numbers, and how many bits they have. Raises ValueError with the reason."""
    if "-" in text:
        low, _, high = text.partition("-")
        first, bits = _address(low.strip())
        last, last_bits = _address(high.strip())
        if bits != last_bits or first > last:
            raise ValueError(f"{text[:80]!r} is no range from a lower to a higher address")
        return first, last, bits
    literal, slash, length = text.partition("/")
    first, bits = _address(literal)
    size = 1
    if slash:
        if bits == 32 and ":" in literal:
            raise ValueError(f"{text[:80]!r}: write a network of IPv4 addresses as IPv4")
        if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
            raise ValueError(f"bad prefix length {length[:20]!r}; expected a number from 0 to {bits}")
        size = 1 << (bits - int(length))
    first &= -size
    return first, first + size - 1, bits


def _address(text: str) -> tuple[int, int]:
    """An address as a number, and how many bits it has."""
    try:
        if ":" not in text:
            return int.from_bytes(inet_pton(AF_INET, text), "big"), 32
        number = int.from_bytes(inet_pton(AF_INET6, text), "big")
    except (OSError, ValueError):
        raise ValueError(f"{text[:80]!r} is not an IP address; expected one, a CIDR network or a range") from None
    return (number & 0xFFFFFFFF, 32) if number >> 32 == _MAPPED else (number, 128)


def _merged(packed: Iterable[int], bits: int) -> Iterator[tuple[int, int]]:
    """Ranges in order, those that overlap or touch made one."""
    ones = (1 << bits) - 1
    start, end = 0, -2  # no range yet; -2 touches none
    for number in sorted(packed):
        first, last = number >> bits, number & ones
        if first > end + 1:
            if end >= start:
                yield start, end
            start, end = first, last
        elif last > end:
            end = last
    if end >= start:
        yield start, end
