"""The contract of every input format: bytes in as they come, targets, specs and errors out. No I/O, never raises.

A reader is pushed: `feed(chunk)` takes any piece of the input and gives what the complete lines in it say; `close()`
ends the input. Where the bytes were cut makes no difference. Memory is bounded by a chunk and one line.

An item is one of
    Target        a literal address and one port: ready to scan (the common case, one object per line)
    TargetSpec    a host name to resolve, or many ports, or a network: expands lazily, knows its size
    InputError    `source:line: reason`, to be reported and counted; the lines after it are read on

Ordinals are given here: each item takes as many as it has targets, so an ordinal depends on the input alone, and on
neither time nor what a name resolves to. `reader.ordinal` is the next one, and after `close()` the total.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import InputError
from engine.model import State, Target
from engine.targets.base_hosts import Host, Network, canonical_address, parse_host, parse_name
from engine.targets.base_ports import PortSpec, Proto, Unreadable

LINE_LIMIT = 64 * 1024  # bytes; longer is no target in any sense
BLOCK = 1 << 16  # hosts of a network that are visited port by port before the next ones; bounds what a scan remembers
STRIDE = 40503  # odd, so a permutation of any power of two; near 2^16 / golden ratio, so a /24 is left at every step


class TargetSpec(Struct, frozen=True):
    """Several targets, or one whose address is not known yet.

    ordinal: of its first target; it has `count`. host: literal address, host name (`is_name`), or network as CIDR.
    name: the host name to report and to send as SNI. A spec with a name expands after `resolved(address)`.
    """

    ordinal: int
    host: str
    ports: PortSpec
    is_name: bool = False
    network: Network | None = None
    name: str = ""
    state: State | Literal[""] = ""

    @property
    def hosts(self) -> int:
        return self.network.size if self.network else 1

    @property
    def count(self) -> int:
        return self.hosts * len(self.ports)

    def resolved(self, address: str) -> "TargetSpec":
        """The same targets at the literal address that the name turned out to have."""
        return replace(self, host=address, is_name=False)

    def at(self, index: int) -> Target:
        """The target at 0-based `index`; its ordinal is `self.ordinal + index`. Any order of visits will do.

        A network goes through 65,536 hosts with the first port, the same hosts with the second, and so on, in an
        order in which neighbours are far apart; then through the next 65,536.
        """
        if self.is_name:
            raise ValueError(f"{self.host} is a name and has to be resolved first")
        host, place, network, ports = self.host, index, self.network, len(self.ports)
        if not 0 <= index < (network.size * ports if network else ports):
            raise IndexError(f"{index} is outside the {self.count} targets of {host}")
        if network is not None:
            width = min(network.size, BLOCK)
            block, rest = divmod(index, width * ports)
            place, step = divmod(rest, width)
            host = network.address(block * width + step * STRIDE % width)
        port, proto = self.ports.at(place)
        return Target(self.ordinal + index, host, port, proto, self.name, self.state)

    def targets(self, indices: Iterable[int] | None = None) -> Iterator[Target]:
        """Every target, or those at `indices` (a shard, a permutation, what a resumed run still lacks), lazily."""
        return map(self.at, range(self.count) if indices is None else indices)


Item = Target | TargetSpec | InputError


class TargetReader(ABC):
    """One input. source: its name in errors; ports: of hosts without a port (`-p`); ordinal: the first to give."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        self.source = source
        self.ports = ports
        self.ordinal = ordinal
        self.line = 0  # 1-based number of the line being read

    @abstractmethod
    def feed(self, chunk: bytes) -> list[Item]:
        """What the next bytes of the input say, in order."""

    @abstractmethod
    def close(self) -> list[Item]:
        """What was left over when the input ended."""

    def error(self, reason: str) -> InputError:
        return InputError(self.source, self.line, reason)

    def item(
        self,
        host: str,
        port: int | None,
        proto: Proto = "tcp",
        name: str = "",
        state: State | Literal[""] = "",
    ) -> Target | TargetSpec:
        """Number what one host text names; `port` None stands for the default ports. Raises Unreadable."""
        if port is not None and (address := canonical_address(host)):  # the common case
            target = Target(self.ordinal, address, port, proto, parse_name(name) if name else "", state)
            self.ordinal += 1
            return target
        where = parse_host(host)
        if port is not None:
            ports = PortSpec(**{proto: (port,)})
        elif self.ports is not None:
            ports = self.ports
        else:
            raise Unreadable(_no_port(where))
        if name:
            name = parse_name(name)
        elif where.is_name:
            name = where.text
        spec = TargetSpec(self.ordinal, where.text, ports, where.is_name, where.network, name, state)
        self.ordinal += spec.count
        return spec if spec.count > 1 or spec.is_name else spec.at(0)


class LineReader(TargetReader):
    """A format of lines. A child gives `read(line)`; the line has no line end but may have blanks around it."""

    line_limit: ClassVar[int] = LINE_LIMIT

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._rest = bytearray()  # the beginning of a line whose end has not come
        self._skipping = False  # inside a line that has already been refused for its length

    @abstractmethod
    def read(self, line: str) -> Iterable[Item]:
        """The targets of one line, none for a comment. Raises Unreadable."""

    def feed(self, chunk: bytes) -> list[Item]:
        end = chunk.rfind(b"\n")
        if end < 0:
            return self._keep(chunk)
        if self._skipping:
            self._skipping = False
            self.line += 1
            start = chunk.index(b"\n") + 1
            return self.feed(chunk[start:])
        self._rest += chunk[:end]
        text = self._rest.decode("utf-8", "surrogateescape")
        self._rest.clear()
        if not self.line:
            text = text.removeprefix("\ufeff")
        if "\r" in text:
            text = (text + "\n").replace("\r\n", "\n")[:-1]
        return self.read_lines(text.split("\n")) + self._keep(chunk[end + 1 :])

    def close(self) -> list[Item]:
        return self.feed(b"\n") if self._rest or self._skipping else []

    def read_lines(self, lines: list[str]) -> list[Item]:
        """Read complete lines; a child may override this with a faster way for its common line."""
        items: list[Item] = []
        for line in lines:
            self.line += 1
            items += self.read_line(line)
        return items

    def read_line(self, line: str) -> list[Item]:
        """One line, whose number `self.line` is, with its error where it has one."""
        items: list[Item] = []
        if self._too_long(line):
            return [self._length_error()]
        try:
            items.extend(self.read(line))  # what precedes an error in the line is kept
        except Unreadable as reason:
            items.append(self.error(str(reason)))
        return items

    def _keep(self, piece: bytes) -> list[Item]:
        if self._skipping:
            return []
        self._rest += piece
        if len(self._rest) <= self.line_limit + 1:  # a carriage return does not count
            return []
        self._rest.clear()
        self._skipping = True
        self.line += 1
        error = self._length_error()
        self.line -= 1
        return [error]

    def _too_long(self, line: str) -> bool:
        limit = self.line_limit
        return len(line) * 4 > limit and len(line.encode("utf-8", "surrogateescape")) > limit

    def _length_error(self) -> InputError:
        return self.error(f"line is longer than {self.line_limit // 1024} KiB")


def _no_port(where: Host) -> str:
    text = f"[{where.text}]" if ":" in where.text else where.text
    return f"no port: write {text}:PORT, or give the ports with -p"
