"""A run on a cluster that is asked to end: what is done is delivered, and nobody is waited for without end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from members import FOR_EVER_S, PATIENCE_S, Cluster, Ledger, Worker, node, targets, until

from engine.model import Reason, ScanConfig, Target
from engine.pool.cluster.engine import Gone
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.words import Facts, Outcome, Supplies
from engine.pool.runners import cluster as runner_module
from engine.pool.runners.cluster import ClusterRunner

ENDING_S = 3.0


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def _own_times(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "ENDING_S", ENDING_S)


class Cut(Worker):
    """Has done the first two targets of each shard, and no more until it is cancelled."""

    async def work(self, shard: list[Target]) -> None:
        await until(lambda: self.cancelled is not None)

    def outcome(self, shard: list[Target], ended: Reason | None = None) -> Outcome:
        return super().outcome(shard[:2], self.cancelled)


class Deaf(Cut):
    """Some of them never answer, whatever they are asked."""

    async def work(self, shard: list[Target]) -> None:
        if self.node.id == "deaf":
            await asyncio.sleep(FOR_EVER_S)
        await super().work(shard)

    async def cancel(self, reason: Reason) -> None:
        if self.node.id == "deaf":
            await asyncio.sleep(FOR_EVER_S)
        await super().cancel(reason)


async def cancelled(
    cluster: Cluster, settings: ScanConfig, ledger: Ledger, reason: Reason = Reason.CANCELLED
) -> tuple[float, int]:
    """A run that is cancelled when everybody has something to do. -> seconds until its end, targets read"""
    runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)
    read = 0

    async def endless() -> AsyncIterator[list[Target]]:
        nonlocal read
        await until(lambda: len(runner.outstanding()) == len(cluster.alive))
        while True:
            yield targets(10, read)
            read += 10
            await asyncio.sleep(0.005)

    running = asyncio.create_task(runner.run(endless(), ledger.deliver))
    await until(lambda: cluster.members and all(member.given for member in cluster.members))
    began = time.monotonic()
    runner.cancel(reason)
    at_once = read
    async with asyncio.timeout(PATIENCE_S):
        await running
    assert read == at_once
    assert cluster.closed
    assert all(member.ended for member in cluster.members)
    return time.monotonic() - began, read


def parts(cluster: Cluster, name: str) -> list[int]:
    """What members of a node have done."""
    return sorted(target.ordinal for member in cluster.on(name) for shard in member.given for target in shard[:2])


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.BUDGET])
def test_cancelled(settings: ScanConfig, ledger: Ledger, reason: Reason) -> None:
    """Everybody is told why, what they have done is delivered, nothing more is read or given."""
    cluster = Cluster(Cut, node("a"), node("b"))
    asyncio.run(cancelled(cluster, settings, ledger, reason))
    assert {member.cancelled for member in cluster.members} == {reason}
    assert ledger.ordinals() == sorted(parts(cluster, "a") + parts(cluster, "b"))
    assert {outcome.ended for outcome in ledger.outcomes} == {reason}


def test_cancelled_and_nothing_is_waited_for(settings: ScanConfig, ledger: Ledger) -> None:
    """The run ends with the last outcome."""
    cluster = Cluster(Cut, node("a"), node("b"))
    took_s, _ = asyncio.run(cancelled(cluster, settings, ledger))
    assert took_s < ENDING_S * 0.8


def test_cancelled_where_somebody_never_answers(settings: ScanConfig, ledger: Ledger) -> None:
    """What others have done is delivered, and ENDING_S is enough."""
    cluster = Cluster(Deaf, node("a"), node("deaf"))
    took_s, _ = asyncio.run(cancelled(cluster, settings, ledger))
    assert ledger.ordinals() == parts(cluster, "a")
    assert took_s < ENDING_S + 2


def test_cancelled_and_an_actor_dies_of_it(settings: ScanConfig, ledger: Ledger) -> None:
    """Nobody is given what it had, and the run ends."""

    class Weak(Cut):
        async def work(self, shard: list[Target]) -> None:
            await super().work(shard)
            if self.node.id == "weak":
                raise Gone("out of memory")

    cluster = Cluster(Weak, node("a"), node("weak"))
    asyncio.run(cancelled(cluster, settings, ledger))
    assert ledger.ordinals() == parts(cluster, "a")


@pytest.mark.parametrize("ready", [True, False])
def test_cancelled_where_nobody_has_anything(settings: ScanConfig, ledger: Ledger, ready: bool) -> None:
    """At once: there is nothing to wait for, whether or not anybody is ready."""

    class Late(Worker):
        async def begin(self) -> Facts:
            if not ready:
                await asyncio.sleep(FOR_EVER_S)
            return await super().begin()

    async def nothing() -> AsyncIterator[list[Target]]:
        await asyncio.sleep(FOR_EVER_S)
        yield []

    async def test() -> None:
        cluster = Cluster(Late, node("a"))
        runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)
        running = asyncio.create_task(runner.run(nothing(), ledger.deliver))
        await until(lambda: cluster.members and (runner.outstanding() or not ready))
        runner.cancel()
        async with asyncio.timeout(ENDING_S * 0.8):
            await running
        assert cluster.closed

    asyncio.run(test())


def test_cancelled_before_it_began(settings: ScanConfig, ledger: Ledger) -> None:
    """Nothing is read and nobody is started."""
    read = 0

    async def counted() -> AsyncIterator[list[Target]]:
        nonlocal read
        read += 1
        yield targets(10)

    async def test() -> None:
        cluster = Cluster(Worker, node("a"))
        runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)
        runner.cancel()
        async with asyncio.timeout(ENDING_S):
            await runner.run(counted(), ledger.deliver)
        assert (read, cluster.members, cluster.closed) == (0, [], True)

    asyncio.run(test())


def test_cancelled_while_the_cluster_takes_us_in(settings: ScanConfig, ledger: Ledger) -> None:
    """Which may take a minute where nobody is there."""

    class Nowhere(Cluster):
        async def open(self, supplies: Supplies) -> None:
            await asyncio.sleep(FOR_EVER_S)

    async def nothing() -> AsyncIterator[list[Target]]:
        yield []

    async def test() -> None:
        cluster = Nowhere(Worker)
        runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)
        asyncio.get_running_loop().call_later(0.1, runner.cancel)
        async with asyncio.timeout(ENDING_S + 2):
            await runner.run(nothing(), ledger.deliver)

    asyncio.run(test())
