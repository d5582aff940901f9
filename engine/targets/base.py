"""The contract of every input format: bytes in as they come, targets, specs and errors out. No I/O, never raises.

A reader is pushed: `feed(chunk)` takes any piece of the input and gives what the complete lines in it say; `close()`
ends the input. Where the bytes were cut makes no difference. Memory is bounded by a chunk and one line or record.

An item is one of
    Target        a literal address and one port: ready to scan (the common case, one object per line)
    TargetSpec    a host name to resolve, or many ports, or a network: expands lazily, knows its size
    InputError    `source:line: reason`, to be reported and counted; the lines after it are read on

What is passed over and could have been a target is an InputError. What by its nature is none is passed over silently:
comments, a scanner's messages to its user, closed ports, what answered to ICMP or ARP, the end mark of a list.

Ordinals are given here: each item takes as many as it has targets, so an ordinal depends on the input alone, and on
neither time nor what a name resolves to. `reader.ordinal` is the next one, and after `close()` the total.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal

from engine.errors import InputError
from engine.model import State, Target
from engine.targets.base_hosts import Host, canonical_address, parse_host, parse_name
from engine.targets.base_ports import PortSpec, Proto, Unreadable, parse_port
from engine.targets.base_spec import TargetSpec
from engine.targets.base_text import Decoder, is_status, reason_for, without_escapes

LINE_LIMIT = 64 * 1024  # characters; longer is no target in any sense
FAULTS_LIMIT = 1000  # errors told of one line or record, whose entries may all be wrong

_SEGMENT = re.compile(r"([^\r\n]*)([\r\n]|\Z)")

Item = Target | TargetSpec | InputError


Place = tuple[str, int | str | None, Proto, str, State | Literal[""]]
"""One port of one host text as an input names it: host; number, digits, or None for those of -p; proto; name; state."""


class TargetReader(ABC):
    """One input. source: its name in errors; ports: of hosts without a port (`-p`); ordinal: the first to give."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        self.source = source
        self.ports = ports
        self.ordinal = ordinal
        self.line = 0  # the number of the line being read, from 1
        self._decoder = Decoder()

    def feed(self, chunk: bytes) -> list[Item]:
        """What the next bytes of the input say, in order."""
        return self.read_text(self._decoder.decode(chunk))

    def close(self) -> list[Item]:
        """What was left over when the input ended."""
        return self.read_text(self._decoder.decode(b"", final=True)) + self.end()

    def break_off(self) -> list[Item]:
        """Instead of `close`, where an input cannot be read to its end: what had begun may say another thing whole."""
        return []

    @abstractmethod
    def read_text(self, text: str) -> list[Item]:
        """What the next characters of the input say, in order."""

    @abstractmethod
    def end(self) -> list[Item]:
        """What was left over when the text ended."""

    def error(self, reason: str) -> InputError:
        return InputError(self.source, self.line, reason)

    def item(
        self,
        host: str,
        port: int | str | PortSpec | None,
        proto: Proto = "tcp",
        name: str = "",
        state: State | Literal[""] = "",
    ) -> Target | TargetSpec:
        """Number what one host text names. Raises Unreadable.

        port: None stands for those of -p. proto: of a single port; a PortSpec says it itself.
        """
        if isinstance(port, str):
            port = parse_port(port)
        if type(port) is int and (address := canonical_address(host)):  # the common case
            target = Target(self.ordinal, address, port, proto, parse_name(name) if name else "", state)
            self.ordinal += 1
            return target
        where = parse_host(host)
        if isinstance(port, int):
            port = PortSpec(**{proto: (port,)})
        ports = self.ports if port is None else port
        if ports is None:
            raise Unreadable(_no_port(where))
        if name:
            name = parse_name(name)
        elif where.is_name:
            name = where.text
        spec = TargetSpec(self.ordinal, where.text, ports, where.is_name, where.network, name, state)
        self.ordinal += spec.count
        return spec if spec.count > 1 or spec.is_name else spec.at(0)

    def items_of(self, places: Iterable[Place | Unreadable]) -> list[Item]:
        """Number what one line or record names. What is wrong with one of its places is an error beside the others."""
        items: list[Item] = []
        faults = 0
        for place in places:
            try:
                if isinstance(place, Unreadable):
                    raise place
                items.append(self.item(*place))
            except Unreadable as reason:
                items.append(self.error(str(reason)))
                faults += 1
                if faults == FAULTS_LIMIT:
                    items.append(self.error(f"{faults} errors in one line; the rest of it is not read"))
                    break
        return items


class StreamReader(TargetReader):
    """A format that is not of lines. `line` is the number of lines that have ended; errors name the one after."""

    def error(self, reason: str) -> InputError:
        return InputError(self.source, self.line + 1, reason)


class LineReader(TargetReader):
    """A format of lines. A child gives `read(line)`; the line has no line end but may have blanks around it.

    A lone carriage return, with which scanners overwrite their last message, ends a line too but does not count as one.
    """

    line_limit: ClassVar[int] = LINE_LIMIT

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._begun: list[str] = []  # the pieces of a line whose end has not come
        self._length = 0  # of these pieces
        self._return = ""  # a carriage return of which it is not known whether a line feed follows
        self._skipping = False  # inside a line that has already been refused for its length

    @abstractmethod
    def read(self, line: str) -> list[Item]:
        """The targets of one line, none for a comment. Raises Unreadable."""

    def read_text(self, text: str) -> list[Item]:
        if self._return:
            text, self._return = self._return + text, ""
        if "\r" in text:
            if text[-1] == "\r":
                text, self._return = text[:-1], "\r"
            text = text.replace("\r\n", "\n")
            if "\r" in text:
                return self._read_segments(text)
        head, newline, rest = text.rpartition("\n")
        if not newline:
            return self._keep(rest)
        if self._skipping:
            return self._read_segments(text)
        if self._begun:
            head = "".join((*self._begun, head))
            self._begun.clear()
            self._length = 0
        items = self.read_lines(head.split("\n"))
        return items + self._keep(rest) if rest else items

    def end(self) -> list[Item]:
        return self.read_text("\n") if self._begun or self._skipping else []

    def read_lines(self, lines: list[str]) -> list[Item]:
        """Read complete lines; a child may override this with a faster way for its common line."""
        items: list[Item] = []
        for line in lines:
            self.line += 1
            items += self.read_line(line)
        return items

    def read_line(self, line: str) -> list[Item]:
        """One line, whose number `self.line` is, with its error where it has one."""
        if len(line) > self.line_limit:
            return [self._length_error()]
        if "\x1b" in line:
            line = without_escapes(line)
        try:
            return self.read(line)
        except Unreadable as reason:
            return [] if is_status(line) else [self.error(reason_for(line, str(reason)))]

    def _read_segments(self, text: str) -> list[Item]:
        """As `read_text`, line by line, for what has lone carriage returns or begins in the middle of a long line."""
        items: list[Item] = []
        for body, end in _SEGMENT.findall(text):
            items += self._keep(body)
            if end:
                line = "".join(self._begun)
                self._begun.clear()
                self._length = 0
                self.line += 1
                if not self._skipping:
                    items += self.read_line(line)
                self._skipping = False
                if end == "\r":
                    self.line -= 1
        return items

    def _keep(self, piece: str) -> list[Item]:
        if self._skipping or not piece:
            return []
        self._begun.append(piece)
        self._length += len(piece)
        if self._length <= self.line_limit:
            return []
        self._begun.clear()
        self._length = 0
        self._skipping = True
        self.line += 1
        error = self._length_error()
        self.line -= 1
        return [error]

    def _length_error(self) -> InputError:
        return self.error(f"line is longer than {self.line_limit // 1024} KiB")


def _no_port(where: Host) -> str:
    text = f"[{where.text}]" if ":" in where.text else where.text
    return f"no port: write {text}:PORT, or give the ports with -p"
