"""A cluster inside the test's process: nodes and members by hand, and a committer that is the real one.

    engine = Cluster(Worker, node("a"), node("b", cpus=2))
    ledger = Ledger(tmp_path / "run")
    runner = ClusterRunner(settings, ClusterSettings(), engine, ledger.staging)
    await runner.run(source(targets(100)), ledger.deliver)
    ledger.ordinals()

A `Worker` answers at once, with rows that nobody was contacted for; tests say in a subclass what else becomes of it.
"""

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine import __version__
from engine.errors import EngineError, OutputError
from engine.model import Batch, DatabaseRef, Reason, ScanConfig, ServiceResult, Target, Verdict
from engine.pool.cluster.actor import ShardActor
from engine.pool.cluster.engine import Member, Node
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.words import Facts, Lease, Outcome, Pulse, Setup, Supplies
from engine.pool.runners.cluster import ClusterRunner
from engine.results.sinks.base import decode_rows
from engine.state.attempt import Attempt, Staging
from engine.state.journal import Journal
from engine.state.ordinals import OrdinalSet
from engine.state.segments import SegmentSink

PATIENCE_S = 20.0
FOR_EVER_S = 1000.0
_decode = msgspec.msgpack.Decoder(list[Target]).decode


QUICK = {  # the runner's times, in small; those that are to be long enough for nothing to happen stay as they are
    "engine.pool.cluster.crew.BEAT_S": 0.02,
    "engine.pool.cluster.crew.LOOK_S": 0.02,
    "engine.pool.runners.cluster.TURN_S": 0.02,
    "engine.pool.cluster.crew.NODES_S": 0.02,
    "engine.pool.cluster.shards.WAIT_S": 0.05,
    "engine.pool.cluster.shards.LEAST": 5,
    "engine.pool.cluster.shards.MOST": 5,
}


def node(name: str, cpus: float = 1.0, *zones: str) -> Node:
    return Node(name, f"address-of-{name}", cpus, {"CPU": cpus, **{f"zone:{zone}": 1.0 for zone in zones}})


def targets(count: int, first: int = 0) -> list[Target]:
    """Each on a host of its own."""
    return [Target(n, f"198.51.{n // 250}.{n % 250}", 80) for n in range(first, first + count)]


async def source(*lists: Sequence[Target], raising: EngineError | None = None) -> AsyncIterator[Sequence[Target]]:
    for each in lists:
        yield each
    if raising is not None:
        raise raising


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not reached():
            await asyncio.sleep(0.005)


class Worker:
    """A member by hand. given: its shards; leases: what it was told; told_at: when it was last told something."""

    def __init__(self, cluster: "Cluster", node: Node, setup: Setup) -> None:
        self.cluster = cluster
        self.node = node
        self.setup = setup
        self.given: list[list[Target]] = []
        self.leases: list[Lease] = []
        self.told_at = self.begun_at = time.monotonic()
        self.done = 0
        self.cancelled: Reason | None = None
        self.ended = False

    async def begin(self) -> Facts:
        self.begun_at = time.monotonic()
        return facts()

    async def beat(self, lease: Lease | None) -> Pulse:
        if lease is not None:
            self.leases.append(lease)
        self.told_at = time.monotonic()
        return Pulse(self.done, 0)

    async def scan(self, body: bytes) -> Outcome:
        shard = _decode(body)
        self.given.append(shard)
        await self.work(shard)
        return self.outcome(shard)

    async def work(self, shard: list[Target]) -> None:
        """Whatever happens before a shard is done."""

    def outcome(self, shard: list[Target], ended: Reason | None = None) -> Outcome:
        attempt = Attempt()
        rows = b"".join(row(target).to_json().encode() + b"\n" for target in shard)
        attempt.write(rows, len(shard), [target.ordinal for target in shard])
        self.done += len(shard)
        return Outcome(attempt.put(self.setup.staging), {"verdict:nomatch": len(shard)}, ended)

    async def cancel(self, reason: Reason) -> None:
        self.cancelled = reason

    def end(self) -> None:
        self.ended = True


class Actual(Worker):
    """A member with a real actor."""

    actor: ShardActor

    async def begin(self) -> Facts:
        assert self.cluster.supplies is not None
        self.actor = ShardActor(self.setup, self.cluster.supplies)
        return self.actor.facts

    async def beat(self, lease: Lease | None) -> Pulse:
        return self.actor.beat(lease)

    async def scan(self, body: bytes) -> Outcome:
        self.given.append(_decode(body))
        return await self.actor.scan(body)

    async def cancel(self, reason: Reason) -> None:
        await self.actor.cancel(reason)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.actor.close()


class Cluster:
    """make: members, as they are started. members: all of them."""

    name = "a test"

    def __init__(self, make: Callable[["Cluster", Node, Setup], Worker], *nodes: Node) -> None:
        self.alive = list(nodes)
        self.members: list[Worker] = []
        self.supplies: Supplies | None = None
        self.wanted: list[float] = []
        self.closed = False
        self._make = make

    def on(self, name: str) -> list[Worker]:
        """The members of a node."""
        return [member for member in self.members if member.node.id == name]

    def remove(self, name: str) -> None:
        self.alive = [node for node in self.alive if node.id != name]

    async def open(self, supplies: Supplies) -> None:
        self.supplies = supplies

    async def nodes(self) -> list[Node]:
        return list(self.alive)

    def start(self, node: Node, setup: Setup) -> Member:
        member = self._make(self, node, setup)
        self.members.append(member)
        return member

    async def ask(self, node: Node, question: Callable[[Supplies], Any]) -> Any:
        raise NotImplementedError

    def want(self, cpus: float) -> None:
        self.wanted.append(cpus)

    async def close(self) -> None:
        self.closed = True


class Ledger:
    """Takes what a runner delivers into a state folder. refused: outcomes that were not first."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal.open(folder, {})
        self._sink = SegmentSink(self._journal, seconds=0.0)
        self.staging: Staging = self._journal.staging
        self.outcomes: list[Outcome] = []
        self.refused: list[Outcome] = []
        self.tally: Counter[str] = Counter()
        self.failing: OutputError | None = None

    async def deliver(self, part: Batch | Outcome) -> None:
        if self.failing is not None:
            raise self.failing
        if isinstance(part, Batch):
            self._sink.take(part)
        elif self._sink.take_segment(part.manifest) is None:
            self.refused.append(part)
            return
        else:
            self.outcomes.append(part)
        self.tally.update(part.tally)

    def ordinals(self) -> list[int]:
        """Of all that is done; each has one row."""
        assert len(self.rows()) == len(self._journal.committed)
        return [ordinal for each in self._journal.committed.ranges() for ordinal in range(*each)]

    def rows(self) -> list[ServiceResult]:
        journal = self._journal
        return [found for record in journal.records for some in journal.rows_of(record) for found in decode_rows(some)]

    def close(self) -> None:
        self._journal.close()


def done(outcome: Outcome) -> list[int]:
    return [ordinal for each in OrdinalSet.decode(outcome.manifest.done).ranges() for ordinal in range(*each)]


def row(target: Target) -> ServiceResult:
    return ServiceResult(
        ip=target.host,
        port=target.port,
        proto=target.proto,
        verdict=Verdict.NOMATCH,
        database=DatabaseRef("", ""),
        started="2026-11-21T06:38:13.402Z",
    )


def facts(version: str = __version__, inflight: int = 100) -> Facts:
    return Facts(os.getpid(), version, platform.python_version(), DatabaseRef("", ""), 1000, inflight)


async def ran(
    cluster: Cluster, settings: ScanConfig, ledger: Ledger, *lists: list[Target], patience: float = 600.0
) -> ClusterRunner:
    """A whole run. Each target of the lists has its row, once."""
    runner = ClusterRunner(settings, ClusterSettings(patience=patience), cluster, ledger.staging)
    async with asyncio.timeout(PATIENCE_S):
        await runner.run(source(*lists), ledger.deliver)
    assert ledger.ordinals() == sorted(target.ordinal for each in lists for target in each)
    assert all(member.ended for member in cluster.members)
    assert cluster.closed
    return runner


def given(members: list[Worker]) -> set[int]:
    return {target.ordinal for member in members for shard in member.given for target in shard}
