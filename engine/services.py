"""What a port is called when nobody has asked it: the services table.

Nmap's `nmap-services` is used alone where it is found, beside the chosen probe database first, so that names are
Nmap's; otherwise the system's /etc/services. In either file the first entry of a port and protocol wins, and the name
`unknown` is no name. After loading, look-ups touch no file. Without any table every port is nameless. A name goes into
rows and onto terminals, so an entry whose name holds a control character is no entry.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from engine.errors import ConfigError
from matcher import Proto, nmap_file, read_file, shown

Row = tuple[str, int, str]
"""(service name, port, protocol)"""

FILE_NAME = "nmap-services"
SYSTEM_FILE = Path("/etc/services")
MAX_SIZE = 16 << 20  # bytes of a table; Nmap's has one million
_ROW = re.compile(r"^([^\s#\x00-\x1f\x7f-\x9f\xad]+)[^\S\n]+(\d{1,5})/(tcp|udp)\b", re.MULTILINE)


class ServiceTable:
    """Names of ports. source: the file they are from, empty for none.

    rows: looked through when the first name is asked for, because a scan can begin before.
    """

    def __init__(self, rows: Iterable[Row] = (), source: str = "") -> None:
        self.source = source
        self._rows = rows

    @cached_property
    def _names(self) -> dict[str, dict[int, str]]:
        names: dict[str, dict[int, str]] = {"tcp": {}, "udp": {}}
        for name, port, proto in self._rows:
            if name != "unknown":
                names[proto].setdefault(port, name)
        self._rows = ()
        return names

    @classmethod
    def load(cls, beside: Path | None = None) -> "ServiceTable":
        """Read the table that is found first. beside: a file or folder to look next to, the chosen probe database.

        Raises ConfigError for a table that is there but cannot be read.
        """
        near = None if beside is None else (beside if beside.is_dir() else beside.parent) / FILE_NAME
        for path in (near, nmap_file(FILE_NAME), SYSTEM_FILE):
            if path is not None and path.is_file():
                return cls.read(path)
        return cls()

    @classmethod
    def read(cls, path: Path) -> "ServiceTable":
        """Read one table. Lines that are no entry are passed over, as every reader of these files does."""
        try:
            text = read_file(path, MAX_SIZE).decode("latin-1")
        except OSError as error:
            raise ConfigError(f"{shown(str(path))}: cannot be read: {error.strerror}") from error
        return cls(parse_services(text), str(path))

    def name(self, port: int, proto: Proto) -> str:
        """The service usually found on a port; empty when the table has none."""
        return self._names[proto].get(port, "")

    def rows(self) -> Iterator[Row]:
        """Every row, TCP first."""
        return ((name, port, proto) for proto, names in self._names.items() for port, name in names.items())


def parse_services(text: str) -> Iterator[Row]:
    """The rows of /etc/services or nmap-services: `name port/protocol`, then aliases or frequency, and `#` comments."""
    for name, number, proto in _ROW.findall(text):
        if (port := int(number)) <= 65535:
            yield name, port, proto
