"""zmap's CSV output: addresses alone (the ports of -p), or columns with a header that has `saddr` in it.

    saddr           the host that answered          classification   `udp` marks UDP; rst and icmp rows are passed over
    sport           the port it answered from       success, repeat  rows of failures and of repeats are passed over

zmap writes no protocol; without a classification of `udp` a row is TCP.
"""

import csv
from collections.abc import Iterator

from engine.targets.base import Item, LineReader
from engine.targets.base_ports import PortSpec, Proto, Unreadable, parse_port


class ZmapReader(LineReader):
    """zmap's CSV. Without a header the first column is the address."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._columns: list[str] | None = None

    def read(self, line: str) -> Iterator[Item]:
        text = line.strip()
        if not text or text.startswith("#"):
            return
        cells = next(csv.reader([text])) if '"' in text else text.split(",")
        if self._columns is None:
            self._columns = cells if "saddr" in cells else ["saddr"]
            if self._columns is cells:
                return
        if len(cells) < len(self._columns):
            raise Unreadable(f"expected {len(self._columns)} columns, found {len(cells)}")
        row = dict(zip(self._columns, cells, strict=False))
        answer = row.get("classification", "synack")
        if row.get("success", "1") == "0" or row.get("repeat", "0") == "1" or answer.startswith(("rst", "icmp")):
            return
        proto: Proto = "udp" if answer == "udp" else "tcp"
        if "sport" in row:
            yield self.item(row["saddr"], parse_port(row["sport"]), proto, state="open")
        else:
            yield self.item(row["saddr"], None)
