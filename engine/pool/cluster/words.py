"""What a driver and its actors say to each other. All of it can be pickled; rows are never among it."""

from msgspec import Struct

from engine.model import DatabaseRef, Reason, ScanConfig
from engine.services import Row
from engine.state.attempt import Staging
from engine.state.records import Manifest
from engine.targets.prefixes import AddressFilter

LEASE_S = 10.0  # for an actor that hears nothing from its driver; then it drops everything
SILENT_S = 2 * LEASE_S + 5.0  # for a driver that hears nothing from an actor: by then the actor has dropped everything


Logs = tuple[tuple[int, str], ...]
"""Level, text."""


class Supplies(Struct, frozen=True):
    """Everything that the driver read from files, the same for all actors, and sent to each node once.

    database: msgpack of it. services: the table of port names, and where it is from. recog: fingerprints by file name.
    permitted: who may be contacted, by the lists; None for everybody.
    """

    database: bytes
    services: tuple[list[Row], str]
    recog: dict[str, bytes]
    permitted: AddressFilter | None


class Setup(Struct, frozen=True):
    """What an actor is made with. number: the actor's; neighbours: actors on its node, itself included."""

    number: int
    config: ScanConfig
    staging: Staging
    neighbours: int


class Lease(Struct, frozen=True):
    """What an actor may use until it hears the next one, LEASE_S at most. rate: 0 where there is no limit.

    inflight: conversations at once; 0 for what its node allows.
    """

    rate: float = 0.0
    inflight: int = 0


class Facts(Struct, frozen=True):
    """An actor that is ready, and its process. inflight: conversations that its descriptors allow."""

    pid: int
    version: str
    python: str
    database: DatabaseRef
    descriptors: int
    inflight: int
    sources: tuple[str, ...] = ()


class Pulse(Struct, frozen=True):
    """An actor's sign of life. done: targets since its start, also of shards that are not whole yet.

    inflight: conversations now; in use of its lease. trouble: why a segment cannot be put, or nothing.
    logs: what it had to say since it was last asked.
    """

    done: int
    inflight: int
    trouble: str = ""
    logs: Logs = ()


class Outcome(Struct, frozen=True):
    """A shard that is done. tally: counters, as those of a Batch (cli/metrics.py). ended: early, for that reason."""

    manifest: Manifest
    tally: dict[str, int]
    ended: Reason | None = None
    logs: Logs = ()


class NodeStatus(Struct, frozen=True):
    """What goes on at one machine of a cluster, also at one that is gone: it has no actors then.

    given: targets that are not done; done: by its actors since the run began. silent_s: since the last sign of life of
    the actor that is worst. descriptors: what an actor there may open. lost: actors that ended before the run did.
    """

    node: str
    zones: str
    actors: int
    given: int
    inflight: int
    done: int
    silent_s: float
    descriptors: int
    lost: int = 0
