"""Sets of address ranges: blocklists, allowlists, the reserved networks. Millions of prefixes, next to nothing a look.

A list is text, one entry a line, `#` begins a comment:

    192.0.2.0/24        2001:db8::/32        198.51.100.7        203.0.113.5-203.0.113.9

A set is its ranges merged and sorted in flat arrays, 8 bytes a range of IPv4 and 32 of IPv6, searched by bisection.
An IPv4-mapped IPv6 address is the IPv4 host that it reaches.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton

from engine.errors import ConfigError, InputError

_LOW = (1 << 64) - 1
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96
Range = tuple[int, int]
"""First and last address as numbers, both inside."""


class PrefixSet:
    """A set of addresses. `"192.0.2.7" in prefixes`; what is no address is in no set. `len()`: merged ranges."""

    def __init__(self, v4: Iterable[Range] = (), v6: Iterable[Range] = ()) -> None:
        self._first4, self._last4 = array("I"), array("I")
        for first, last in _merged(v4):
            self._first4.append(first)
            self._last4.append(last)
        # An IPv6 address is two halves of 64 bits: upper, lower.
        self._first6, self._last6 = (array("Q"), array("Q")), (array("Q"), array("Q"))
        for first, last in _merged(v6):
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
        return self._has4(number & 0xFFFFFFFF) if number >> 32 == _MAPPED >> 32 else self._has6(number)

    def __or__(self, other: "PrefixSet") -> "PrefixSet":
        """The addresses of both."""
        return PrefixSet([*self._ranges4(), *other._ranges4()], [*self._ranges6(), *other._ranges6()])

    def _has4(self, number: int) -> bool:
        index = bisect_right(self._first4, number) - 1
        return index >= 0 and number <= self._last4[index]

    def _has6(self, number: int) -> bool:
        upper, lower = number >> 64, number & _LOW
        uppers, lowers = self._first6
        end = bisect_right(uppers, upper)
        index = bisect_right(lowers, lower, bisect_left(uppers, upper, 0, end), end) - 1
        return index >= 0 and (upper, lower) <= (self._last6[0][index], self._last6[1][index])

    def _ranges4(self) -> Iterator[Range]:
        return zip(self._first4, self._last4, strict=True)

    def _ranges6(self) -> Iterator[Range]:
        return (
            (upper << 64 | lower, last_upper << 64 | last_lower)
            for upper, lower, last_upper, last_lower in zip(*self._first6, *self._last6, strict=True)
        )


class AddressFilter:
    """Which hosts may be contacted at all: none of `block`, and of `allow` only, where there is one."""

    def __init__(self, block: PrefixSet | None = None, allow: PrefixSet | None = None) -> None:
        self._block = block
        self._allow = allow

    def permits(self, host: str) -> bool:
        """host: a literal address. What is no address is permitted by no allowlist."""
        if self._allow is not None and host not in self._allow:
            return False
        return self._block is None or host not in self._block


def load_prefixes(path: Path) -> PrefixSet:
    """Read a list. Raises ConfigError for a file that cannot be read, InputError for the first line that is wrong."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return parse_prefixes(lines, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def load_allowlist(path: Path) -> PrefixSet:
    """Read a list that says what may be scanned. Raises as `load_prefixes`, and ConfigError for an empty list."""
    prefixes = load_prefixes(path)
    if not len(prefixes):
        raise ConfigError(f"{path}: an allowlist without an entry allows nothing")
    return prefixes


def parse_prefixes(lines: Iterable[str], source: str) -> PrefixSet:
    """The set of a list's lines. Raises InputError `source:line: reason`."""
    v4: list[Range] = []
    v6: list[Range] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            first, last, is_v6 = _parse_entry(text)
        except ValueError as reason:
            raise InputError(source, number, str(reason)) from None
        (v6 if is_v6 else v4).append((first, last))
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
    "::/128          # unspecified",
    "::1/128         # loopback",
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


def _parse_entry(text: str) -> tuple[int, int, bool]:
    """First and last address, and whether they are IPv6. Raises ValueError with the reason."""
    low, dash, high = text.partition("-")
    if dash:
        first, bits = _address(low.strip())
        last, last_bits = _address(high.strip())
        if bits != last_bits or first > last:
            raise ValueError(f"{text[:80]!r} is no range from a lower to a higher address")
        return first, last, bits == 128
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
    return first, first + size - 1, bits == 128


def _address(text: str) -> tuple[int, int]:
    """An address as a number, and how many bits it has."""
    try:
        if ":" not in text:
            return int.from_bytes(inet_pton(AF_INET, text), "big"), 32
        number = int.from_bytes(inet_pton(AF_INET6, text), "big")
    except (OSError, ValueError):
        raise ValueError(f"{text[:80]!r} is not an IP address; expected one, a CIDR network or a range") from None
    return (number & 0xFFFFFFFF, 32) if number >> 32 == _MAPPED >> 32 else (number, 128)


def _merged(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges in order, those that overlap or touch made one."""
    ordered = iter(sorted(ranges))
    for first, last in ordered:
        for next_first, next_last in ordered:
            if next_first > last + 1:
                yield first, last
                first, last = next_first, next_last
            elif next_last > last:
                last = next_last
        yield first, last
