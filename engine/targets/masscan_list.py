"""masscan's list form (`-oL`): `open tcp 80 192.0.2.7 1700000000`, comments with `#`.

Lines of other states, and of banners (which repeat a port already reported), are passed over.
"""

from collections.abc import Iterator

from engine.targets.base import Item, LineReader
from engine.targets.base_ports import Unreadable, parse_port, parse_proto

_PASSED_OVER = frozenset({"banner", "closed", "filtered", "up", "down"})


class MasscanListReader(LineReader):
    """masscan's list form."""

    def read(self, line: str) -> Iterator[Item]:
        words = line.split(maxsplit=4)
        if not words or words[0].startswith("#") or words[0] in _PASSED_OVER:
            return
        if words[0] != "open" or len(words) < 4:
            raise Unreadable(f"expected 'open PROTOCOL PORT IP TIME', not {line[:60]!r}")
        _, proto, port, host = words[:4]
        yield self.item(host, parse_port(port), parse_proto(proto), state="open")
