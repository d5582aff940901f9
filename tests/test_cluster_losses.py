"""Actors that are gone, fall silent, or die of their work: each target has one row."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from members import FOR_EVER_S, PATIENCE_S, Cluster, Ledger, Worker, done, given, node, ran, source, targets, until
from msgspec.structs import replace

from engine.model import Batch, Reason, ScanConfig, Target, Verdict
from engine.pool.cluster import crew
from engine.pool.cluster.engine import Gone, Silent
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.shards import ALONE, LONE_DEATHS
from engine.pool.cluster.words import Lease, Outcome, Pulse
from engine.pool.runners.cluster import ClusterRunner

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def _own_times(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "START_S", 0.3)
    monkeypatch.setattr(crew, "REST_S", 0.6)


# -- actors that are gone


class Mortal(Worker):
    """The first one of node `a` dies with its third shard, and with whatever else it has."""

    async def work(self, shard: list[Target]) -> None:
        if self is self.cluster.members[0]:
            await until(lambda: len(self.given) >= 3)
            raise Gone("it was killed")
        await asyncio.sleep(0.05)


def test_an_actor_is_gone(settings: ScanConfig, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """Others have its work at once, another one takes its place, and the log says what happened."""
    cluster = Cluster(Mortal, node("a"), node("b"))
    with caplog.at_level(logging.WARNING, "probemill.cluster"):
        runner = asyncio.run(ran(cluster, settings, ledger, targets(60)))
    assert runner.restarts == 1
    assert [len(cluster.on(name)) for name in "ab"] == [2, 1]
    assert "actor 1 (node address-of-a, pid" in caplog.text
    assert "has ended (it was killed)" in caplog.text
    assert "unfinished targets are given to others" in caplog.text


class Mute(Worker):
    """The first one answers nobody from its first shard on. answers: its calls fail, or last for ever."""

    answers = True
    answered_at = 0.0

    @property
    def silent(self) -> bool:
        return self is self.cluster.members[0] and bool(self.given)

    async def beat(self, lease: Lease | None) -> Pulse:
        if self.silent:
            if self.answers:
                raise Silent("unreachable")
            await asyncio.sleep(FOR_EVER_S)
        self.answered_at = time.monotonic()
        return await super().beat(lease)

    async def work(self, shard: list[Target]) -> None:
        if self.silent:
            await asyncio.sleep(FOR_EVER_S)


class MuteForEver(Mute):
    answers = False


@pytest.mark.parametrize("kind", [Mute, MuteForEver])
def test_an_actor_is_silent(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, kind: type[Mute]
) -> None:
    """Others have its work when it must have dropped it, not before: SILENT_S after the last beat that it answered."""
    monkeypatch.setattr(crew, "SILENT_S", 0.6)
    again: list[float] = []

    class Others(kind):  # type: ignore[valid-type, misc]
        async def work(self, shard: list[Target]) -> None:
            if not self.silent and {target.ordinal for target in shard} & given(self.cluster.members[:1]):
                again.append(time.monotonic())
            await super().work(shard)

    cluster = Cluster(Others, node("a"), node("b"))
    runner = asyncio.run(ran(cluster, settings, ledger, targets(60)))
    lost = cluster.members[0]
    assert isinstance(lost, Mute)
    assert again and min(again) >= lost.answered_at + 0.6 - 0.01
    assert runner.restarts == 1


def test_an_actor_that_answers_and_does_nothing(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heart that beats is not enough: who gets nowhere for longer than any conversation takes is replaced."""
    monkeypatch.setattr(crew, "SILENT_S", 0.2)
    monkeypatch.setattr(crew, "STALLED_S", 0.3)

    class Stuck(Worker):
        async def work(self, shard: list[Target]) -> None:
            if self is self.cluster.members[0]:
                await asyncio.sleep(FOR_EVER_S)
            self.done += len(shard)

    cluster = Cluster(Stuck, node("a"), node("b"))
    runner = asyncio.run(ran(cluster, replace(settings, service_timeout_s=0.2), ledger, targets(60)))
    assert runner.restarts == 1
    assert given(cluster.members[:1]) and cluster.members[0].ended


def test_the_node_of_a_silent_actor_is_gone(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody waits for it."""
    monkeypatch.setattr(crew, "SILENT_S", FOR_EVER_S)

    class Unplugged(Mute):
        async def beat(self, lease: Lease | None) -> Pulse:
            if self.silent:
                asyncio.get_running_loop().call_later(0.2, self.cluster.remove, "a")
            return await super().beat(lease)

    cluster = Cluster(Unplugged, node("a"), node("b"))
    asyncio.run(ran(cluster, settings, ledger, targets(60)))
    assert given(cluster.members[:1])


def test_who_is_out_of_sight_is_given_nothing(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes while it is waited for goes to others."""
    monkeypatch.setattr(crew, "SILENT_S", 0.6)
    late: list[Target] = []

    class Waited(Mute):
        async def work(self, shard: list[Target]) -> None:
            if self.ended:
                late.extend(shard)
            await super().work(shard)

    async def test() -> None:
        cluster = Cluster(Waited, node("a"), node("b"))
        runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)

        async def slowly() -> AsyncIterator[list[Target]]:
            yield targets(10)
            await until(lambda: cluster.members and cluster.members[0].ended)
            for start in range(10, 60, 10):
                yield targets(10, start)
                await asyncio.sleep(0.02)

        async with asyncio.timeout(PATIENCE_S):
            await runner.run(slowly(), ledger.deliver)
        assert ledger.ordinals() == list(range(60))

    asyncio.run(test())
    assert not late


@pytest.mark.parametrize("first", [True, False])
def test_a_late_outcome(settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    """Of an actor that was taken for lost: it counts where it is the first one, and is ignored otherwise."""
    monkeypatch.setattr(crew, "SILENT_S", 0.4)
    late = asyncio.Event()

    class Late(Mute):
        async def work(self, shard: list[Target]) -> None:
            if self.silent:
                await late.wait()
            elif first and {target.ordinal for target in shard} & given(self.cluster.members[:1]):
                late.set()
                await until(lambda: given(self.cluster.members[:1]) <= set(committed()))

    def committed() -> list[int]:
        return [ordinal for outcome in ledger.outcomes for ordinal in done(outcome)]

    async def test() -> None:
        cluster = Cluster(Late, node("a"), node("b"))

        async def coming() -> AsyncIterator[list[Target]]:
            yield targets(60)
            await until(lambda: set(committed()) == set(range(60)))
            late.set()
            await until(lambda: ledger.refused)

        runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)
        async with asyncio.timeout(PATIENCE_S):
            await runner.run(coming(), ledger.deliver)
        assert ledger.ordinals() == list(range(60))
        lost = given(cluster.members[:1])
        assert lost
        refused = {ordinal for outcome in ledger.refused for ordinal in done(outcome)}
        assert refused <= lost

    asyncio.run(test())


# -- targets that kill


@pytest.mark.parametrize(
    ("count", "prompt"),
    [
        (1, True),
        (20, True),
        (20, False),
        (1, False),
    ],
)
def test_a_target_that_kills_actors(
    settings: ScanConfig, ledger: Ledger, caplog: pytest.LogCaptureFixture, count: int, prompt: bool
) -> None:
    """It is given up, with a row that says so, however long the outputs take; everything else is done as usual."""

    class Victim(Worker):
        async def work(self, shard: list[Target]) -> None:
            if any(target.ordinal == count // 2 for target in shard):
                raise Gone("signal 11")

    async def deliver(part: Batch | Outcome) -> None:
        if not prompt:
            await asyncio.sleep(0.1)
        await ledger.deliver(part)

    async def test() -> None:
        cluster = Cluster(Victim, node("a"), node("b"))
        runner = ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)
        async with asyncio.timeout(PATIENCE_S):
            await runner.run(source(targets(count)), deliver)
        assert runner.restarts <= ALONE + 1 + 5 + LONE_DEATHS

    with caplog.at_level(logging.WARNING, "probemill.cluster"):
        asyncio.run(test())
    assert ledger.ordinals() == list(range(count))
    (crashed,) = [row for row in ledger.rows() if row.reason is Reason.CRASHED]
    assert (crashed.ip, crashed.verdict) == (targets(count)[count // 2].host, Verdict.INCOMPLETE)
    assert ledger.tally["reason:crashed"] == 1
    assert Counter(row.ip for row in ledger.rows()).most_common(1)[0][1] == 1
    assert "kills our actors; given up" in caplog.text
