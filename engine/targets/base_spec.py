"""Many targets that one text names, or one whose address is not known yet: expands lazily, by arithmetic."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import gcd
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.model import State, Target
from engine.targets.base_hosts import Addresses
from engine.targets.base_ports import PortSpec

BLOCK = 1 << 16  # hosts of a network that are visited port by port before the next ones; bounds what a scan remembers
STRIDE = 40503  # odd, so a permutation of any power of two; near 2^16 / golden ratio, so a /24 is left at every step


class TargetSpec(Struct, frozen=True):
    """Several targets, or one whose address is not known yet.

    ordinal: of its first target; it has `count`. host: literal address, host name (`is_name`), or network or range as
    written. name: the host name to report and to send as SNI. A spec with a name expands after `resolved(address)`.
    """

    ordinal: int
    host: str
    ports: PortSpec
    is_name: bool = False
    network: Addresses | None = None
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
        order in which neighbours are far apart; then through the next 65,536, or as many as are left.
        """
        if self.is_name:
            raise ValueError(f"{self.host} is a name and has to be resolved first")
        host, place, network, ports = self.host, index, self.network, len(self.ports)
        size = network.size if network is not None else 1
        if not 0 <= index < size * ports:
            raise IndexError(f"{index} is outside the {self.count} targets of {host}")
        if network is not None:
            block, rest = divmod(index, BLOCK * ports)
            width = min(size - block * BLOCK, BLOCK)
            place, step = divmod(rest, width)
            host = network.address(block * BLOCK + step * _stride(width) % width)
        port, proto = self.ports.at(place)
        return Target(self.ordinal + index, host, port, proto, self.name, self.state)

    def targets(self, indices: Iterable[int] | None = None) -> Iterator[Target]:
        """Every target, or those at `indices` (a shard, a permutation, what a resumed run still lacks), lazily."""
        return map(self.at, range(self.count) if indices is None else indices)


@lru_cache(maxsize=64)
def _stride(width: int) -> int:
    """A step that visits each of `width` hosts once: STRIDE for powers of two, else what divides them alike."""
    if width & (width - 1) == 0:
        return STRIDE
    stride = width * STRIDE // BLOCK
    while gcd(stride, width) != 1:
        stride += 1
    return stride
