"""The port grammar of `-p` and of a target's own port: text -> PortSpec.

    22,80,1000-2000     numbers and ranges          -100      1 to 100
    U:53,T:80,443       the protocol holds on       60000-    60000 to 65535
    -                   every port                            a trailing comma is fine

Without a switch a port is TCP. Port 0 may begin a range, where it is passed over, but is no port to connect to.
Source: the documented `-p` option of Nmap, without its service names and masks.
"""

from array import array
from collections.abc import Iterable
from typing import Literal

Proto = Literal["tcp", "udp"]  # the same type as a Target's

MAX_PORT = 65535
_SWITCHES: dict[str, Proto] = {"T": "tcp", "U": "udp"}


class Unreadable(ValueError):  # noqa: N818 - it says what the text is
    """Text that is no target or no part of one; its message is the reason, without source and line."""


def quoted(text: str) -> str:
    """A text of the input in a message: in quotes, printable, and short enough for one line."""
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    return shown if len(shown) <= 80 else f"{shown[:76]}...'"


class PortSpec:
    """A set of ports that knows its size and can be indexed: TCP first, ascending, none twice. Two bytes a port."""

    __slots__ = ("_numbers", "_tcp")

    def __init__(self, tcp: Iterable[int] = (), udp: Iterable[int] = ()) -> None:
        self._numbers = array("H", sorted(set(tcp)))
        self._tcp = len(self._numbers)
        self._numbers.extend(sorted(set(udp)))

    def __len__(self) -> int:
        return len(self._numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PortSpec) and (self._numbers, self._tcp) == (other._numbers, other._tcp)

    def __hash__(self) -> int:
        return hash((self._tcp, self._numbers.tobytes()))

    def at(self, index: int) -> tuple[int, Proto]:
        """The port at 0-based `index`, and its protocol."""
        return self._numbers[index], "tcp" if index < self._tcp else "udp"


def parse_ports(text: str) -> PortSpec:
    """Read a port list. Raises Unreadable with the reason."""
    found: dict[Proto, set[int]] = {"tcp": set(), "udp": set()}
    proto: Proto = "tcp"
    for part in text.replace(" ", "").rstrip(",").split(","):
        switch, colon, rest = part.rpartition(":")
        if colon:
            if switch.upper() not in _SWITCHES:
                raise Unreadable(f"unknown protocol {switch + ':'!r} in ports {quoted(text)}; expected 'T:' or 'U:'")
            proto = _SWITCHES[switch.upper()]
        found[proto].update(_span(rest, text))
    if not (found["tcp"] or found["udp"]):
        raise Unreadable("port 0 cannot be scanned")
    return PortSpec(found["tcp"], found["udp"])


def parse_port(text: str) -> int:
    """One port, 1 to 65535. Raises Unreadable."""
    if len(text) <= 5 and text.isdigit() and text.isascii() and 0 < (port := int(text)) <= MAX_PORT:
        return port
    port = _number(text)
    if port == 0:
        raise Unreadable("port 0 cannot be scanned")
    return port


def parse_own_ports(text: str) -> tuple[int | PortSpec, Proto]:
    """The ports behind one host: `22`, `53/udp`, `22,80`, `1-3`, `53,123/udp`. Raises Unreadable."""
    numbers, slash, suffix = text.partition("/")
    if numbers.isdigit():
        return parse_port(numbers), parse_proto(suffix) if slash else "tcp"
    proto = parse_proto(suffix) if slash else "tcp"
    found: set[int] = set()
    for part in numbers.removesuffix(",").split(","):
        low, dash, high = part.partition("-")
        if dash and low and high:
            found.update(_span(part, numbers))
        else:
            found.add(parse_port(part))
    if not found:
        raise Unreadable("port 0 cannot be scanned")
    return PortSpec(**{proto: found}), proto


def parse_proto(text: str) -> Proto:
    """`tcp` or `udp` in any case. Raises Unreadable: other protocols have no version scan."""
    match text.lower():
        case "tcp":
            return "tcp"
        case "udp":
            return "udp"
    raise Unreadable(f"protocol {quoted(text)} is not scanned; expected 'tcp' or 'udp'")


def _span(part: str, whole: str) -> range:
    low, dash, high = part.partition("-")
    if not (low or dash):
        raise Unreadable(f"empty entry in ports {quoted(whole)}")
    first = _number(low) if low else 1
    last = (_number(high) if high else MAX_PORT) if dash else first
    if first > last:
        raise Unreadable(f"port range {quoted(part)} runs backwards")
    return range(max(first, 1), last + 1)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Unreadable(f"bad port {quoted(text)}; expected a number from 1 to 65535")
    if len(text) > 6 or int(text) > MAX_PORT:
        raise Unreadable(f"port {text[:12]} is out of range; the highest is 65535")
    return int(text)
