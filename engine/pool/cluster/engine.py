"""The seam between the loop that drives actors and whatever starts them on other machines."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from msgspec import Struct

from engine.errors import EngineError
from engine.model import Reason
from engine.pool.cluster.words import Facts, Lease, Outcome, Pulse, Setup, Supplies

Answer = TypeVar("Answer")


class Node(Struct, frozen=True):
    """A machine of the cluster. id: the engine's; address: how people know it; resources: what it says it has."""

    id: str
    address: str
    cpus: float
    resources: dict[str, float]


class Gone(EngineError):  # noqa: N818 - nodes come and go
    """An actor has ended, for certain. node: with its whole node."""

    def __init__(self, text: str, *, node: bool = False) -> None:
        super().__init__(text)
        self.node = node


class Silent(EngineError):  # noqa: N818
    """An actor cannot be reached, and may go on for a while."""


class Dropped(EngineError):  # noqa: N818
    """An actor has heard nothing from its driver for too long, and contacts nobody any more."""


class Member(Protocol):
    """An actor, seen from its driver. What is awaited raises Gone, Silent, and what the actor itself raises of ours."""

    async def begin(self) -> Facts:
        """Once. It may take as long as the engine likes: a node may be busy."""

    async def beat(self, lease: Lease | None) -> Pulse: ...

    async def scan(self, body: bytes) -> Outcome:
        """A shard's body."""

    async def cancel(self, reason: Reason) -> None: ...

    def end(self) -> None:
        """Make it end, whatever it does. Not waited for; never raises."""


class Engine(Protocol):
    """name: of the cluster, for people."""

    name: str

    async def open(self, supplies: Supplies) -> None:
        """Raises EngineError."""

    async def nodes(self) -> list[Node]:
        """Those that are alive. Raises EngineError where nobody can say."""

    def start(self, node: Node, setup: Setup) -> Member: ...

    async def ask(self, node: Node, question: Callable[[Supplies], Answer]) -> Answer:
        """What a function of a module of ours says on a node, which need not have a CPU to spare.

        It is given the supplies. Raises EngineError, and what it raises of ours.
        """

    def want(self, cpus: float) -> None:
        """Ask for so many CPUs, if the cluster can grow. 0: none are needed any more."""

    async def close(self) -> None:
        """Let go of everything. Never raises."""
