"""Target lines in any known form -> Target. `target_reader()` picks the form by name or by the input's first bytes."""

import re
from collections.abc import Callable

from engine.errors import ConfigError
from engine.targets.base import LINE_LIMIT, Item, TargetReader, TargetSpec
from engine.targets.base_hosts import canonical_address, parse_name
from engine.targets.base_ports import PortSpec, Unreadable, parse_ports
from engine.targets.json_records import JsonReader
from engine.targets.masscan_list import MasscanListReader
from engine.targets.nmap_grepable import NmapGrepableReader
from engine.targets.nmap_xml import NmapXmlReader
from engine.targets.plain import PlainReader
from engine.targets.zmap import ZmapReader

__all__ = [
    "FORMATS",
    "Item",
    "PlainReader",
    "PortSpec",
    "TargetReader",
    "TargetSpec",
    "Unreadable",
    "canonical_address",
    "detect",
    "parse_name",
    "parse_ports",
    "target_reader",
]

FORMATS: dict[str, Callable[[str, PortSpec | None, int], TargetReader]] = {
    "plain": PlainReader,
    "ndjson": JsonReader,
    "masscan": JsonReader,
    "masscan-list": MasscanListReader,
    "zmap": ZmapReader,
    "naabu": JsonReader,
    "nmap-xml": NmapXmlReader,
    "nmap-grepable": NmapGrepableReader,
}


def target_reader(source: str, form: str = "auto", ports: PortSpec | None = None, ordinal: int = 0) -> TargetReader:
    """A reader of one input. form: a key of FORMATS, or `auto`; the other arguments as in TargetReader."""
    if form == "auto":
        return _AutoReader(source, ports, ordinal)
    if form not in FORMATS:
        raise ConfigError(f"unknown input format {form!r}; expected auto, {', '.join(FORMATS)}")
    return FORMATS[form](source, ports, ordinal)


_OPENINGS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"<"), "nmap-xml"),
    (re.compile(rb"\{|\[\s*(?:\{|\]|$)"), "ndjson"),  # but `[2001:db8::7]:443` is plain
    (re.compile(rb"#masscan\b|(?:open|closed|banner) (?:tcp|udp|sctp|icmp) \d"), "masscan-list"),
    (re.compile(rb"# Nmap .* scan initiated|Host: \S+ \("), "nmap-grepable"),
    (re.compile(rb'(?:[\w"-]+,)*"?saddr"?\s*(?:,|$)'), "zmap"),
)


def detect(opening: bytes, *, complete: bool = False) -> str:
    """The form of an input that begins with `opening`, or the empty string while that cannot be said.

    The first line that is neither blank nor an ordinary comment decides. complete: no more will come.
    """
    *lines, rest = opening.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if complete or rest.lstrip()[:1] in (b"<", b"{"):
        lines.append(rest)
    for line in lines:
        line = line.strip()
        for pattern, form in _OPENINGS:
            if pattern.match(line):
                return form
        if line and not line.startswith(b"#"):
            return "plain"
    return "plain" if complete or len(opening) > LINE_LIMIT else ""


class _AutoReader(TargetReader):
    """Keeps the first bytes until they tell the form, then hands everything on. Works on a pipe: nothing is reread."""

    def __init__(self, source: str, ports: PortSpec | None, ordinal: int) -> None:
        super().__init__(source, ports, ordinal)
        self._opening = b""
        self._reader: TargetReader | None = None

    def feed(self, chunk: bytes) -> list[Item]:
        if self._reader is None:
            self._opening += chunk
            return self._begin(detect(self._opening))
        return self._passed_on(self._reader, self._reader.feed(chunk))

    def close(self) -> list[Item]:
        items = self._begin(detect(self._opening, complete=True)) if self._reader is None else []
        return items + (self._passed_on(self._reader, self._reader.close()) if self._reader is not None else [])

    def _begin(self, form: str) -> list[Item]:
        if not form:
            return []
        self._reader = FORMATS[form](self.source, self.ports, self.ordinal)
        opening, self._opening = self._opening, b""
        return self._passed_on(self._reader, self._reader.feed(opening))

    def _passed_on(self, reader: TargetReader, items: list[Item]) -> list[Item]:
        self.ordinal, self.line = reader.ordinal, reader.line
        return items
