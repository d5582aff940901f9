"""Nmap's XML (`-oX`), and masscan's, read as it grows: open ports with address, state and the name the user gave.

A name of type `user` is what the user asked for and goes into the target; a PTR name is not. Ports are taken where the
state is `open` or `open|filtered` and the protocol TCP or UDP; ports with a banner are masscan's second report of one.
The ports of a host come out one by one, so a report of an unfinished run gives what it has. Reports may follow one
another.

Reports in the wild are cut short, joined, and damaged in the middle, which a parser of XML must refuse as a whole. So
tags are read one after another, and only what lies between two `<` is held: nesting costs nothing, entities are never
expanded. A tag that is not well-formed, or stands where none may, is one error; what precedes it is kept, and reading
goes on with the next host.
"""

import re
from typing import cast

from engine.model import State
from engine.targets.base import Item, StreamReader
from engine.targets.base_ports import PortSpec, Proto, Unreadable, quoted
from engine.targets.base_text import is_status

TOKEN_LIMIT = 16 << 20  # characters of one tag; the output of a script is an attribute
_TAG = re.compile(r"""(/?[A-Za-z_][\w:.-]*+)([^<>"']*+(?:(?:"[^"]*+"|'[^']*+')[^<>"']*+)*+)>""")
_ATTRIBUTES = {
    name: re.compile(rf"""\s{name}\s*=\s*(?:"([^"]*)"|'([^']*)')""")
    for name in ("addr", "addrtype", "banner", "name", "portid", "protocol", "state", "type")
}
_MEANT = {"host", "/host", "address", "hostname", "port", "/port", "state", "service", "nmaprun", "/nmaprun"}
_REFERENCE = re.compile(r"&(?:#(\d{1,7})|#x([\da-fA-F]{1,6})|(amp|lt|gt|quot|apos));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_SECTIONS = {"!--": "-->", "![CDATA[": "]]>", "?": "?>"}  # in which a `<` is nothing special


class NmapXmlReader(StreamReader):
    """Nmap's XML."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._items: list[Item] = []
        self._held: list[str] = []  # the pieces of what follows the last `<`
        self._length = 0  # of these pieces
        self._begun = False  # whether a `<` has come
        self._until = ""  # the end of the section that is being read
        self._in_report = False
        self._lost = False  # after an error, before the next host
        self._address = self._name = ""
        self._port = self._proto = ""
        self._in_port = False
        self._open: State | None = None  # what is known of the port, until it ends

    def read_text(self, text: str) -> list[Item]:
        first, *others = text.split("<")
        self._keep(first)
        if others:
            *whole, last = others
            self._end_held()
            usual = self._in_usual_place
            for piece in whole:  # the common case is decided here, without a call per tag
                tag = _TAG.match(piece) if usual and len(piece) <= TOKEN_LIMIT else None
                if tag is None:
                    self._piece(piece)
                    usual = self._in_usual_place
                else:
                    name = tag[1]
                    if name in _MEANT:
                        self._tag(name, tag[2])
                        usual = self._in_usual_place
                        if not usual:
                            self._text(piece[tag.end() :])
                    self.line += piece.count("\n")
            self._keep(last)
        return self._given()

    def end(self) -> list[Item]:
        self._end_held()
        self._end_port()
        if self._until or self._in_report:
            self._fault("it ends in the middle of a report")
        self._until, self._in_report = "", False
        return self._given()

    @property
    def _in_usual_place(self) -> bool:
        """Inside a report, where the next piece is a tag like any other."""
        return self._in_report and not self._lost and not self._until

    def _given(self) -> list[Item]:
        items, self._items = self._items, []
        return items

    def _keep(self, piece: str) -> None:
        if self._length <= TOKEN_LIMIT:
            self._held.append(piece)
            self._length += len(piece)
            if self._length > TOKEN_LIMIT:
                self._piece("".join(self._held))
                self._held.clear()
        else:  # it has been refused
            self.line += piece.count("\n")

    def _end_held(self) -> None:
        if self._length <= TOKEN_LIMIT:
            held = "".join(self._held)
            self._held.clear()
            if self._begun:
                self._piece(held)
            else:
                self._text(held)
                self.line += held.count("\n")
        self._begun = True
        self._length = 0

    def _piece(self, piece: str) -> None:
        """What stands between two `<`: a tag and the text behind it, or a part of a section."""
        if len(piece) > TOKEN_LIMIT:
            self._until = ""
            self._fault(f"a tag is longer than {TOKEN_LIMIT >> 20} MiB")
        elif self._until:
            _, end, text = piece.partition(self._until)
            if end:
                self._until = ""
                self._text(text)
        elif tag := _TAG.match(piece):
            self._tag(tag[1], tag[2])
            if not self._in_report:
                self._text(piece[tag.end() :])
        else:
            self._section(piece)
        self.line += piece.count("\n")

    def _section(self, piece: str) -> None:
        for start, until in _SECTIONS.items():
            if piece.startswith(start):
                if piece.startswith("?xml ") and self._in_report:
                    self._fault("a report breaks off and another begins")
                    self._in_report = False
                _, end, text = piece[len(start) :].partition(until)
                if end:
                    self._text(text)
                else:
                    self._until = until
                return
        declaration, end, text = piece.partition(">")
        if piece.startswith("!DOCTYPE") and end and "[" not in declaration:
            self._text(text)
        elif piece.startswith("!"):
            self._fault("it declares entities, which a report never does")  # and which can grow without bound
        else:
            self._fault(f"a tag is broken: {quoted('<' + piece)}")

    def _text(self, text: str) -> None:
        """Text outside of a report is no part of one; inside it has no meaning here."""
        if not self._in_report and not self._lost:
            for line in re.split(r"[\r\n]+", text):
                if line.strip() and not is_status(line):
                    self._fault(f"text outside of a report: {quoted(line.strip())}")
                    return

    def _tag(self, name: str, attributes: str) -> None:
        if name in ("nmaprun", "/nmaprun"):
            self._end_port()
            if self._in_report and name == "nmaprun":
                self._fault("a report breaks off and another begins")
            self._in_report, self._lost = name == "nmaprun", False
            return
        if name == "host":
            if not self._in_report:
                self._fault("a report begins in its middle")
            self._in_report, self._lost = True, False
        elif self._lost:
            return
        elif not self._in_report:
            self._fault(f"<{name[:40]}> outside of a report")
            return
        match name:
            case "host" | "/host" | "port" | "/port":
                self._end_port()
                self._in_port = name == "port"
                if name == "port":
                    self._port, self._proto = _get("portid", attributes), _get("protocol", attributes)
                elif name == "host":
                    self._address = self._name = ""
            case "address":
                if _get("addrtype", attributes) != "mac":
                    self._address = _get("addr", attributes)
            case "hostname":
                if _get("type", attributes) == "user":
                    self._name = _get("name", attributes)
            case "state":
                state = _get("state", attributes)
                if self._in_port and state in ("open", "open|filtered") and self._proto in ("tcp", "udp"):
                    self._open = cast(State, state)
            case "service":
                if _ATTRIBUTES["banner"].search(attributes):
                    self._open = None

    def _end_port(self) -> None:
        """Give the port that is known to be open."""
        if self._open is None:
            return
        try:
            self._items.append(self.item(self._address, self._port, cast(Proto, self._proto), self._name, self._open))
        except Unreadable as reason:
            self._items.append(self.error(str(reason)))
        self._open = None

    def _fault(self, reason: str) -> None:
        """Tell of the first of what belongs to one damage; the rest of the host is not read."""
        self._end_port()
        self._in_port = False
        if not self._lost:
            self._items.append(self.error(f"not well-formed XML: {reason}"))
        self._lost = True


def _get(name: str, attributes: str) -> str:
    """The value of an attribute, empty if it is not there."""
    found = _ATTRIBUTES[name].search(attributes)
    if found is None:
        return ""
    value: str = found[1] or found[2] or ""
    return _REFERENCE.sub(_referred, value) if "&" in value else value


def _referred(found: re.Match[str]) -> str:
    if found[3]:
        return _NAMED[found[3]]
    code = int(found[1]) if found[1] else int(found[2], 16)
    return chr(code) if code <= 0x10FFFF else found[0]
