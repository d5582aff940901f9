"""rustscan's output: greppable (`-g`), and the lines it prints while it scans.

    192.0.2.7 -> [22,80]        all ports of a host, at its end
    Open 192.0.2.7:22           a port at once; where such lines come, the others repeat them and are passed over

Its ornaments and the output of the Nmap that it starts are passed over; a line that could be a target of another form
is an error.
"""

import re

from engine.targets.base import Item, LineReader
from engine.targets.base_ports import PortSpec, Unreadable, parse_own_ports, quoted
from engine.targets.base_text import may_be_row

_SUMMARY = re.compile(r"\s*(\S+)\s+->\s+\[([\d,\s]*)\]\s*$")
_OPEN = re.compile(r"\s*Open\s+\[?(\S+?)\]?:(\d+)\s*$")


class RustscanReader(LineReader):
    """rustscan's output."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._tells_at_once = False

    def read(self, line: str) -> list[Item]:
        if found := _OPEN.match(line):
            self._tells_at_once = True
            return [self.item(found[1], found[2], state="open")]
        if found := _SUMMARY.match(line):
            numbers = "".join(found[2].split())
            return [] if self._tells_at_once or not numbers else [self.item(found[1], *parse_own_ports(numbers))]
        if may_be_row(line):
            raise Unreadable(f"expected 'ADDRESS -> [PORTS]', not {quoted(line)}")
        return []
