"""Plain target lines, also the command line's arguments.

    192.0.2.7:22           host:port            [2001:db8::7]:443      IPv6 in brackets
    192.0.2.7:53/udp       host:port/proto      www.example.org:443    a name, resolved later
    192.0.2.7              the ports of -p      192.0.2.0/24           a network with the ports of -p
    192.0.2.0/24:22        a network with a port of its own            # a comment, also after a target
    10.0.0-3.1,5   10.0.0.*:22   10.0.0.1-20   10.0.0.1-10.0.0.20      ranges, as in base_hosts
    192.0.2.7:22,80,8000-8010   192.0.2.7 22 80   192.0.2.7,22         several ports, and other ways to give one
    192.0.2.7:22 [ssh]     what naabu adds in brackets is passed over

Several targets may stand in one line, as in a list for Nmap; such a line is read as a whole or not at all, so that a
sentence that got into a list is one error. Quotes around a target, blank lines, blanks around a target and Windows line
ends are fine. `10.0.0.1,5` alone is a host and its port; with -p it is refused, because for Nmap it is two hosts.
"""

import re
from collections.abc import Iterator
from socket import AF_INET, inet_pton

from engine.model import Target
from engine.targets.base import Item, LineReader
from engine.targets.base_hosts import canonical_address, is_octet_range
from engine.targets.base_ports import MAX_PORT, Unreadable, parse_own_ports, quoted
from engine.targets.base_text import is_status
from engine.targets.base_urls import instead_of, is_url

_PORT_WORD = re.compile(r"\d+(?:[,-]\d+)*,?(?:/(?:tcp|udp))?|tcp|udp", re.IGNORECASE)
_IPV6_AND_PORT = re.compile(r"\[([0-9A-Fa-f]*:[0-9A-Fa-f:]+)\]:([0-9]{1,5})")  # common, and found at once
_IN_BRACKETS = re.compile(r"\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[^\]]*)?(?:/[0-9]+)?\].*")
_QUOTES = "\"'"


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

    def read(self, line: str) -> list[Item]:
        if line[:1] == "[" and (found := _IPV6_AND_PORT.fullmatch(line)):
            return [self.item(found[1], found[2])]
        words = line.partition("#")[0].split()
        if len(words) == 1:
            return [self._target(words[0], [])]
        if not words or is_status(line):
            return []
        ordinal = self.ordinal
        try:
            return list(self._targets(words))
        except Unreadable as reason:
            self.ordinal = ordinal
            raise Unreadable(f"more than one word, and not all are targets: {reason}") from None

    def _targets(self, words: list[str]) -> Iterator[Item]:
        """One item for each word that is no port of the word before."""
        at = 0
        while at < len(words):
            word, at = words[at], at + 1
            if at > 1 and word[0] == "[" and words[-1][-1] == "]" and not _IN_BRACKETS.fullmatch(word):
                return  # naabu's note, to the end of the line
            first = at
            while at < len(words) and _PORT_WORD.fullmatch(words[at]):
                at += 1
            yield self._target(word, words[first:at])

    def _target(self, word: str, ports: list[str]) -> Item:
        """word: a host, perhaps with its ports; ports: those that stand behind it, the protocol perhaps the last."""
        if word[-1] == ",":
            word = word.rstrip(",") or word
        if word[0] in _QUOTES and word[-1] == word[0] and len(word) > 2:
            word = word[1:-1]
        if "//" in word and is_url(word):
            raise Unreadable(instead_of(word))
        host, own = split_target(word)
        if own is None and "," in host:
            host, own = self._split_at_comma(host)
        if ports:
            if own is not None:
                raise Unreadable(f"{quoted(ports[0])} after a target that has a port")
            *numbers, last = (port.rstrip(",") for port in ports)
            suffix = f"/{last}" if last.isalpha() and numbers else ""
            own = ",".join(numbers if suffix else [*numbers, last]) + suffix
        return self.item(host, None) if own is None else self.item(host, *parse_own_ports(own))

    def _split_at_comma(self, text: str) -> tuple[str, str | None]:
        """`host,port` or `host,port,udp` -> host and `port/udp`; a list of octets stays what it is."""
        host, _, rest = text.partition(",")
        if is_octet_range(text):
            if not canonical_address(host):
                return text, None
            if self.ports is not None and all(int(number[:6]) <= 255 for number in re.findall(r"\d+", rest)):
                raise Unreadable(
                    f"{quoted(text)} may be hosts, or a host with ports: write {host}:{rest[:20]}, or each host"
                )
        numbers, comma, last = rest.rpartition(",")
        return host, f"{numbers}/{last}" if comma and last.isalpha() else rest


def split_target(text: str) -> tuple[str, str | None]:
    """Host of one target's text, and the text of its ports (None: not given). Raises Unreadable."""
    if text[0] == "[":
        host, bracket, after = text[1:].partition("]")
        if not bracket or ":" not in host or after[:1] not in ("", ":"):
            raise Unreadable(f"{quoted(text)} is not [IPv6]:port")
    elif text.count(":") > 1:  # an IPv6 address or network without brackets has no port
        return text, None
    else:
        host, colon, port = text.partition(":")
        after = colon + port
    if not after:
        return host, None
    if after[1:2] in ("", "/"):
        raise Unreadable("no port after the ':'")
    return host, after[1:]
