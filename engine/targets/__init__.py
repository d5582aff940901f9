"""Target lines in any known form -> Target. `target_reader()` picks the form by name or by the input's first lines.

The first line that is recognisable decides. Blank lines, comments, a scanner's messages and lines that could be
anything are passed by until then, at most LINE_LIMIT characters of them; an input that shows nothing is plain. The
lines passed by are then given to the reader that was found: nothing is reread, so this works on a pipe.
"""

import re
from collections.abc import Callable, Collection
from functools import partial

from engine.errors import ConfigError
from engine.targets.base import LINE_LIMIT, Item, TargetReader
from engine.targets.base_hosts import canonical_address, parse_name
from engine.targets.base_ports import PortSpec, Unreadable, parse_ports
from engine.targets.base_spec import TargetSpec
from engine.targets.base_text import is_status, without_escapes
from engine.targets.csv_rows import CsvReader, header
from engine.targets.json_records import JsonReader
from engine.targets.masscan_list import MasscanListReader
from engine.targets.nmap_grepable import NmapGrepableReader
from engine.targets.nmap_normal import NmapNormalReader
from engine.targets.nmap_xml import NmapXmlReader
from engine.targets.plain import PlainReader
from engine.targets.rustscan import RustscanReader

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

FORMS: dict[str, Callable[[str, PortSpec | None, int], TargetReader]] = {
    "plain": PlainReader,
    "ndjson": JsonReader,
    "csv": CsvReader,
    "masscan-list": MasscanListReader,
    "rustscan": RustscanReader,
    "nmap-xml": NmapXmlReader,
    "nmap-grepable": NmapGrepableReader,
    "nmap-normal": NmapNormalReader,
}

_OPENINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<"), "nmap-xml"),
    (re.compile(r"\{|\[\s*(?:\{|\]|$)"), "ndjson"),  # but `[2001:db8::7]:443` is plain
    (
        re.compile(
            r"#masscan\b|(?:open|closed|banner) (?:tcp|udp|sctp|icmp|arp) \d"
            r"|Discovered \S+ port \d+/|Banner on port \d+/"
        ),
        "masscan-list",
    ),
    (re.compile(r"(?:Timestamp: \d+\s+)?Host: \S+ \("), "nmap-grepable"),
    (re.compile(r"Starting Nmap |Nmap scan report for |Interesting ports on "), "nmap-normal"),
    (re.compile(r"\S+\s+->\s+\[[\d,\s]*\]$|Open \S+:\d+$"), "rustscan"),
)
# A plain target: one word, or several of which the first has a port or is an address.
_PLAIN = re.compile(
    r"""["']?(?:[\w.-]+:\d | \d+\.[\d.*,/-]+(?:\s|$) | \[?[\da-f]*:[\da-f.]*:) | (?=\S*[a-z.])[\w.-]+$""",
    re.VERBOSE | re.IGNORECASE,
)
_AT_ONCE = re.compile(r"\s*(?:[<{]|\[\s*\{)")  # these tell before their line has ended, and their line may be long


def detect(opening: str, *, complete: bool = False, forms: Collection[str] = FORMS) -> str:
    """The form of an input that begins with `opening`, or the empty string while that cannot be said.

    complete: no more will come. forms: those that it may be; the first is assumed where nothing tells.
    """
    complete = complete or len(opening) > LINE_LIMIT
    *lines, rest = opening[:LINE_LIMIT].split("\n")
    at_once = _AT_ONCE.match(rest)
    if complete:
        lines.append(rest)
    elif at_once:
        lines.append(at_once[0])
    for line in lines:
        for segment in line.split("\r"):
            form = _form(without_escapes(segment).strip())
            if form in forms:
                return form
    return next(iter(forms)) if complete else ""


def _form(line: str) -> str:
    """What a line tells, empty if nothing."""
    for pattern, form in _OPENINGS:
        if pattern.match(line):
            return form
    if line.startswith("#") or is_status(line):
        return ""
    if header(line):
        return "csv"
    return "plain" if _PLAIN.match(line) else ""


class AutoReader(TargetReader):
    """Keeps the first lines until they tell the form, then hands everything on."""

    def __init__(
        self, source: str, ports: PortSpec | None = None, ordinal: int = 0, *, forms: Collection[str] = FORMS
    ) -> None:
        super().__init__(source, ports, ordinal)
        self._forms = forms
        self._opening = ""
        self._reader: TargetReader | None = None

    def read_text(self, text: str) -> list[Item]:
        if self._reader is None:
            self._opening += text
            return self._begin(detect(self._opening, forms=self._forms))
        return self._passed_on(self._reader, self._reader.read_text(text))

    def end(self) -> list[Item]:
        items = self.break_off()
        return items + (self._passed_on(self._reader, self._reader.end()) if self._reader is not None else [])

    def break_off(self) -> list[Item]:
        return self._begin(detect(self._opening, complete=True, forms=self._forms)) if self._reader is None else []

    def _begin(self, form: str) -> list[Item]:
        if not form:
            return []
        self._reader = FORMS[form](self.source, self.ports, self.ordinal)
        opening, self._opening = self._opening, ""
        return self._passed_on(self._reader, self._reader.read_text(opening))

    def _passed_on(self, reader: TargetReader, items: list[Item]) -> list[Item]:
        self.ordinal, self.line = reader.ordinal, reader.line
        return items


# Programs that write in several forms, the one that is assumed where nothing tells first.
_PROGRAMS = {
    "masscan": ("ndjson", "masscan-list", "nmap-grepable", "nmap-xml"),
    "zmap": ("csv", "ndjson"),
    "naabu": ("plain", "ndjson", "csv"),
}
FORMATS: dict[str, Callable[[str, PortSpec | None, int], TargetReader]] = {
    **FORMS,
    **{program: partial(AutoReader, forms=forms) for program, forms in _PROGRAMS.items()},
}


def target_reader(source: str, form: str = "auto", ports: PortSpec | None = None, ordinal: int = 0) -> TargetReader:
    """A reader of one input. form: a key of FORMATS, or `auto`; the other arguments as in TargetReader."""
    if form == "auto":
        return AutoReader(source, ports, ordinal)
    if form not in FORMATS:
        raise ConfigError(f"unknown input format {form!r}; expected auto, {', '.join(FORMATS)}")
    return FORMATS[form](source, ports, ordinal)
