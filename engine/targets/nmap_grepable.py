"""Nmap's grepable output (`-oG`): the open ports of its `Host:` lines.

The name in brackets after the address is what the address resolves to, not what anybody asked for; it is not used.
Ports are taken where their state is `open` or `open|filtered` and their protocol TCP or UDP.
"""

import re
from collections.abc import Iterator
from typing import cast

from engine.model import State
from engine.targets.base import Item, LineReader
from engine.targets.base_ports import Proto, Unreadable, parse_port

_HOST = re.compile(r"Host: (\S+) \([^)\t]*\)")
# One entry: port/state/protocol/owner/service/rpc info/version/. Its texts have no slashes: Nmap writes bars for them.
_PORT = re.compile(r"(\d{1,5})/(open|open\|filtered)/(tcp|udp)/")


class NmapGrepableReader(LineReader):
    """Nmap's grepable output."""

    line_limit = 8 << 20  # all ports of one host stand in one line, each with its version text

    def read(self, line: str) -> Iterator[Item]:
        if not line.strip() or line.startswith("#"):
            return
        host = _HOST.match(line)
        if host is None:
            raise Unreadable(f"expected grepable output, 'Host: ADDRESS (NAME)', not {line[:60]!r}")
        for field in line.split("\t")[1:]:
            if field.startswith("Ports: "):
                for port, state, proto in _PORT.findall(field.removeprefix("Ports: ")):
                    yield self.item(host[1], parse_port(port), cast(Proto, proto), state=cast(State, state))
