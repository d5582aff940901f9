"""masscan's list form (`-oL`) and what it prints without an output file.

    open tcp 80 192.0.2.7 1700000000             comments with `#`
    Discovered open port 80/tcp on 192.0.2.7

Lines of other states and protocols, and of banners (which repeat a port already reported), are passed over.
"""

import re

from engine.targets.base import Item, LineReader
from engine.targets.base_ports import Unreadable, parse_proto, quoted

_PASSED_OVER = frozenset({"banner", "closed", "filtered", "up", "down"})
_PORTLESS = frozenset({"icmp", "arp", "sctp", "oproto"})  # SCTP has ports, but no version scan speaks it
_DISCOVERED = re.compile(r"Discovered (\S+) port (\d+)/(\S+) on (\S+)\s*$")


class MasscanListReader(LineReader):
    """masscan's list form."""

    def read(self, line: str) -> list[Item]:
        words = line.split(maxsplit=4)
        if not words or words[0].startswith("#") or words[0] in _PASSED_OVER:
            return []
        if words[0] == "open" and len(words) >= 4:
            state, proto, port, host = words[:4]
        elif found := _DISCOVERED.match(line):
            state, port, proto, host = found.groups()
        else:
            raise Unreadable(f"expected 'open PROTOCOL PORT IP TIME', not {quoted(line)}")
        if state != "open" or proto in _PORTLESS:
            return []
        return [self.item(host, port, parse_proto(proto), state="open")]
