"""Grepable output (`-oG`) of Nmap and masscan: the open ports of its `Host:` lines.

The name in brackets after the address is what the address resolves to, not what anybody asked for; it is not used.
Ports are taken where their state is `open` or `open|filtered` and their protocol TCP or UDP. masscan's lines begin with
`Timestamp:` since 2019; those with `Port:` and `Banner:` repeat a port and are passed over.
"""

import re
from typing import cast

from engine.model import State
from engine.targets.base import Item, LineReader
from engine.targets.base_ports import Proto, Unreadable, quoted

_HOST = re.compile(r"\s*(?:Timestamp: \d+\s+)?Host: (\S+) \([^)\t]*\)(?:.*?\sPorts: ([^\t]*))?")
# One entry: port/state/protocol/owner/service/rpc info/version/. Its texts have no slashes: Nmap writes bars for them.
_PORT = re.compile(r"(?<!\d)(\d+)/(open|open\|filtered)/(tcp|udp)/")


class NmapGrepableReader(LineReader):
    """Grepable output."""

    line_limit = 8 << 20  # all ports of one host stand in one line, each with its version text

    def read(self, line: str) -> list[Item]:
        if not line.strip() or line.startswith("#"):
            return []
        host = _HOST.match(line)
        if host is None:
            raise Unreadable(f"expected grepable output, 'Host: ADDRESS (NAME)', not {quoted(line)}")
        ports = _PORT.findall(host[2] or "")
        return self.items_of(
            [(host[1], port, cast(Proto, proto), "", cast(State, state)) for port, state, proto in ports]
        )
