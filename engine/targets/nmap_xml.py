"""Nmap's XML (`-oX`), and masscan's, read as it grows: open ports with address, state and the name the user gave.

A name of type `user` is what the user asked for and goes into the target; a PTR name is not. Ports are taken where the
state is `open` or `open|filtered` and the protocol TCP or UDP. The ports of a host come out one by one, so a report of
an unfinished run gives what it has. XML that is not well-formed is one error, after which the rest cannot be read.
"""

from typing import cast
from xml.parsers import expat

from engine.model import State
from engine.targets.base import Item, TargetReader
from engine.targets.base_ports import PortSpec, Proto, Unreadable, parse_port

TOKEN_LIMIT = 16 << 20  # bytes of one tag, which expat holds until its end; the output of a script is an attribute


class NmapXmlReader(TargetReader):
    """Nmap's XML."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._items: list[Item] = []
        self._fed = 0
        self._broken = False
        self._address = self._name = ""
        self._port = self._proto = ""
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EntityDeclHandler = self._entity

    def feed(self, chunk: bytes) -> list[Item]:
        return self._parse(chunk, last=False)

    def close(self) -> list[Item]:
        return self._parse(b"", last=True)

    def _parse(self, chunk: bytes, *, last: bool) -> list[Item]:
        if not self._broken:
            self._fed += len(chunk)
            try:
                self._parser.Parse(chunk, last)
                if self._fed - max(self._parser.CurrentByteIndex, 0) > TOKEN_LIMIT + len(chunk):
                    raise Unreadable(f"a tag is longer than {TOKEN_LIMIT >> 20} MiB")
            except (expat.ExpatError, Unreadable) as error:
                self._broken = True
                self.line = self._parser.CurrentLineNumber
                reason = expat.ErrorString(error.code) if isinstance(error, expat.ExpatError) else str(error)
                self._items.append(self.error(f"not well-formed XML: {reason}; nothing more is read from here"))
        items, self._items = self._items, []
        return items

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        match tag:
            case "host":
                self._address = self._name = ""
            case "address" if attributes.get("addrtype") != "mac":
                self._address = attributes.get("addr", "")
            case "hostname" if attributes.get("type") == "user":
                self._name = attributes.get("name", "")
            case "port":
                self._port, self._proto = attributes.get("portid", ""), attributes.get("protocol", "")
            case "state":
                self._state(attributes.get("state", ""))

    def _state(self, state: str) -> None:
        if state not in ("open", "open|filtered") or self._proto not in ("tcp", "udp"):
            return
        self.line = self._parser.CurrentLineNumber
        try:
            port = parse_port(self._port)
            item = self.item(self._address, port, cast(Proto, self._proto), self._name, cast(State, state))
        except Unreadable as reason:
            self._items.append(self.error(str(reason)))
        else:
            self._items.append(item)

    def _entity(self, *_: object) -> None:
        raise Unreadable("it declares entities, which a report never does")  # and which can grow without bound
