"""Numbers and ports as a probe database writes them: `ports` and `sslports`, and the argument of `Exclude`.

Contract: what cannot be read is a PortFault with its place in the line, whatever the bytes are, and the work is bounded
by the length of the line and the size of the services table.
Source: the grammar of nmap-service-probes; that of Exclude is the grammar of Nmap's -p.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property

from matcher.model import PortSet

ServiceRow = tuple[str, int, str]
"""(service name, port, protocol), as in a services table; needed only where `Exclude` uses names."""

Range = tuple[int, int]

HUGE = 10**9  # what a number of ten digits and more counts as; nothing in a database may be so large
MAX_WILDCARDS = 64  # names with * or ? in an Exclude line; each is compared with every name of the services table

_ITEM = re.compile(rb"\s*(\d+)(?:\s*-(\d+))?\s*")
_EXCLUDED = re.compile(rb"(\d*)(-?)(\d*)")
_NAME = re.compile(r"[a-z*?][\w*?.+-]*")
_PROTOCOL_SWITCHES = {b"T": ("tcp",), b"U": ("udp",), b"S": ("",), b"P": ("",)}  # SCTP and IP protocols: read, unused


class PortFault(Exception):  # noqa: N818 - told to the parser, which makes a DatabaseError of it
    """args: the reason, and the 0-based place in the line."""


def number(digits: bytes) -> int:
    """What decimal digits say, however many they are."""
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) < 10 else HUGE


def port_list(line: bytes, at: int) -> list[Range]:
    """The numbers and ranges from `at` to the end of the line."""
    ranges = []
    while True:
        found = _ITEM.match(line, at)
        if found is None:
            raise PortFault("expected a port number or a range like 80-90", at)
        low = number(found[1])
        high = number(found[2] or found[1])
        if high > 65535 or low > high:
            raise PortFault(f"port range {low}-{high}; expected 0 to 65535, low end first", found.start(1))
        ranges.append((low, high))
        at = found.end()
        if at == len(line):
            return ranges
        if line[at : at + 1] != b",":
            raise PortFault("expected a comma between ports", at)
        at += 1


def excluded(line: bytes, at: int, services: Iterable[ServiceRow]) -> tuple[PortSet, PortSet]:
    """What `Exclude` names from `at` to the end of the line: (tcp, udp)."""
    start = at
    table = _Table(services)
    ranges: dict[str, dict[Range, None]] = {"tcp": {}, "udp": {}, "": {}}
    protocols: tuple[str, ...] = ("tcp", "udp")
    read: set[tuple[bytes, str]] = set()
    for item in line[at:].rstrip().split(b","):
        body = item.strip()
        while body[1:2] == b":":
            if body[:1] not in _PROTOCOL_SWITCHES:
                raise PortFault(f"unknown protocol switch {_text(body[:2])!r}; expected T: U: S: or P:", at)
            protocols = _PROTOCOL_SWITCHES[body[:1]]
            body = body[2:].strip()
        for proto in protocols if body else ():
            if (body, proto) not in read:
                read.add((body, proto))
                ranges[proto].update(dict.fromkeys(_excluded_item(body, proto, at, table)))
        at += len(item) + 1
    if not ranges["tcp"] and not ranges["udp"]:
        raise PortFault("no TCP or UDP port is named", start)
    return PortSet(tuple(ranges["tcp"])), PortSet(tuple(ranges["udp"]))


def _excluded_item(body: bytes, proto: str, at: int, table: "_Table") -> Iterable[Range]:
    known_only = body.startswith(b"[") and body.endswith(b"]")
    if found := _EXCLUDED.fullmatch(body.strip(b"[]") if known_only else body):
        first, dash, last = found.groups()
        low = number(first or b"1")
        high = number(last or b"65535") if dash else low
        if high > 65535 or low > high:
            raise PortFault(f"port range {_text(body)!r}; expected 0 to 65535, low end first", at)
        return table.between(proto, low, high) if known_only else [(low, high)]
    name = body.decode("latin-1")
    if _NAME.fullmatch(name) is None:
        raise PortFault(f"port specification {_text(body)!r}; expected a number, a range or a service name", at)
    ports = table.named(proto, name, at)
    if ports is None:
        raise PortFault(f"no service is named {_text(body)!r} in the services table", at)
    return ports


def _text(body: bytes) -> str:
    """As much of what was written as an error may show."""
    return body[:40].decode("latin-1")


class _Table:
    """The services table by name and by port, read when it is asked for the first time."""

    def __init__(self, rows: Iterable[ServiceRow]) -> None:
        self._rows = rows
        self._alike: dict[str, list[str]] = {}

    @cached_property
    def _names(self) -> dict[str, list[tuple[str, int]]]:
        names: dict[str, list[tuple[str, int]]] = {}
        for name, port, proto in self._rows:
            names.setdefault(name, []).append((proto, port))
        return names

    @cached_property
    def _ports(self) -> dict[str, list[int]]:
        known = {place for places in self._names.values() for place in places}
        return {proto: sorted(port for kind, port in known if kind == proto) for proto in ("tcp", "udp", "")}

    def between(self, proto: str, low: int, high: int) -> list[Range]:
        """The ports of the table in a range."""
        ports = self._ports[proto]
        return [(port, port) for port in ports[bisect_left(ports, low) : bisect_right(ports, high)]]

    def named(self, proto: str, name: str, at: int) -> list[Range] | None:
        """The ports of a service, in which * and ? are wildcards; None where no service has the name at all."""
        alike = self._matching(name, at)
        ports = {port for one in alike for kind, port in self._names[one] if kind == proto}
        return [(port, port) for port in sorted(ports)] if alike else None

    def _matching(self, name: str, at: int) -> list[str]:
        if "*" not in name and "?" not in name:
            return [name] if name in self._names else []
        if name not in self._alike:
            if len(self._alike) == MAX_WILDCARDS:
                raise PortFault(f"more than {MAX_WILDCARDS} names with wildcards", at)
            self._alike[name] = [one for one in self._names if fnmatchcase(one, name)]
        return self._alike[name]
