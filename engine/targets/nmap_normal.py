"""Nmap's normal output (`-oN`, or its screen): the port tables of its reports.

    Nmap scan report for www.example.org (192.0.2.7)
    PORT    STATE         SERVICE
    80/tcp  open          http
    53/udp  open|filtered domain

The name before the address is what the user asked for, or what the address resolves to: Nmap does not say which. It is
taken, because a server that answers by name needs it and others do not mind. Everything else in a report is text for
people and passed over; a line that could be a target of another form is an error.
"""

import re
from typing import cast

from engine.model import State
from engine.targets.base import Item, LineReader
from engine.targets.base_hosts import canonical_address, parse_name
from engine.targets.base_ports import PortSpec, Proto, Unreadable, quoted
from engine.targets.base_text import may_be_row

_REPORT = re.compile(r"(?:Nmap scan report for|Interesting ports on) (?:(\S+) \()?([^\s()]+?)\)?:?(?: \[.*)?\s*$")
_ANY_REPORT = re.compile(r"Nmap scan report for |Interesting ports on |# Nmap |Starting Nmap ")
_PORT = re.compile(r"(\d+)/(tcp|udp)\s+(open|open\|filtered)(?:\s|$)")


class NmapNormalReader(LineReader):
    """Nmap's normal output."""

    line_limit = 1 << 20  # the output of a script may be one line

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._host = self._name = ""

    def read(self, line: str) -> list[Item]:
        if port := _PORT.match(line):
            if not self._host:
                raise Unreadable(f"a port without 'Nmap scan report for' before it: {quoted(line)}")
            number, proto, state = port.groups()
            place = self._host, number, cast(Proto, proto), self._name, cast(State, state)
            return [self.item(*place)]
        if _ANY_REPORT.match(line):
            self._host = self._name = ""
            if report := _REPORT.match(line):
                self._host, self._name = report[2], _name(report[1] or "")
        elif may_be_row(line):
            raise Unreadable(f"not part of a report: {quoted(line)}")
        return []


def _name(text: str) -> str:
    try:
        return "" if not text or canonical_address(text) else parse_name(text)
    except Unreadable:  # what an address resolves to may be anything
        return ""
