"""Plain target lines, also the command line's arguments: one target per line.

    192.0.2.7:22           host:port            [2001:db8::7]:443      IPv6 in brackets
    192.0.2.7:53/udp       host:port/proto      www.example.org:443    a name, resolved later
    192.0.2.7              the ports of -p      192.0.2.0/24           a network with the ports of -p
    192.0.2.0/24:22        a network with a port of its own            # a comment, also after a target

Blank lines, blanks around a target and Windows line ends are fine.
"""

from collections.abc import Iterator
from socket import AF_INET, inet_pton

from engine.model import Target
from engine.targets.base import Item, LineReader
from engine.targets.base_ports import MAX_PORT, Proto, Unreadable, parse_port, parse_proto


class PlainReader(LineReader):
    """Plain target lines."""

    def read_lines(self, lines: list[str]) -> list[Item]:
        # IPv4:port is decided here, without a call of our own per line; every other line takes the road of all formats.
        items: list[Item] = []
        ordinal, number = self.ordinal, self.line
        for line in lines:
            number += 1
            host, _, digits = line.rpartition(":")
            if len(digits) <= 5 and digits.isdigit() and line.isascii() and 0 < (port := int(digits)) <= MAX_PORT:
                try:
                    inet_pton(AF_INET, host)
                except (OSError, ValueError):
                    pass
                else:
                    items.append(Target(ordinal, host, port))
                    ordinal += 1
                    continue
            self.ordinal, self.line = ordinal, number
            items += self.read_line(line)
            ordinal = self.ordinal
        self.ordinal, self.line = ordinal, number
        return items

    def read(self, line: str) -> Iterator[Item]:
        text = line.partition("#")[0].strip()
        if text:
            host, port, proto = split_target(text)
            yield self.item(host, port, proto)


def split_target(text: str) -> tuple[str, int | None, Proto]:
    """Host, port (None: not given) and protocol of one target's text. Raises Unreadable."""
    scheme, is_url, rest = text.partition("://")
    if is_url:
        raise Unreadable(f"a URL is no target: write {_from_url(scheme, rest)}")
    if len(text.split()) > 1:
        raise Unreadable("more than one word; a line holds one target")
    if text[0] == "[":
        host, bracket, after = text[1:].partition("]")
        if not bracket or ":" not in host or after[:1] not in ("", ":"):
            raise Unreadable(f"{text[:60]!r} is not [IPv6]:port")
    elif text.count(":") > 1:  # an IPv6 address or network without brackets has no port
        return text, None, "tcp"
    else:
        host, colon, port = text.partition(":")
        after = colon + port
    if not after:
        return host, None, "tcp"
    digits, slash, proto = after[1:].partition("/")
    if not digits:
        raise Unreadable("no port after the ':'")
    return host, parse_port(digits), parse_proto(proto) if slash else "tcp"


def _from_url(scheme: str, rest: str) -> str:
    """The host:port that somebody who typed a URL most likely means."""
    place = rest.partition("/")[0].rpartition("@")[2][:60]
    if place.rpartition(":")[2].isdigit() and not place.endswith("]"):
        return place
    return f"{place}:{ {'http': 80, 'https': 443, 'ftp': 21, 'ssh': 22}.get(scheme.lower(), 'PORT') }"
