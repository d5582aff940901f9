"""Nodes of a cluster that come, go, are busy, fail to start, or are never there."""

import asyncio
import logging
from pathlib import Path

import pytest
from loopback import config, database_file
from members import FOR_EVER_S, PATIENCE_S, Cluster, Ledger, Worker, facts, given, node, ran, source, targets, until

from engine import __version__
from engine.errors import EngineError
from engine.model import ScanConfig, Target
from engine.pool.cluster import crew
from engine.pool.cluster.engine import Gone, Node, Silent
from engine.pool.cluster.settings import ClusterSettings, Zone
from engine.pool.cluster.words import Facts
from engine.pool.runners import cluster as runner_module
from engine.pool.runners.cluster import ClusterRunner

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def _own_times(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "START_S", 0.3)
    monkeypatch.setattr(crew, "REST_S", 0.6)


# -- actors that are not ready


def test_a_begin_that_never_ends_holds_nothing_up(settings: ScanConfig, ledger: Ledger) -> None:
    class Busy(Worker):
        async def begin(self) -> Facts:
            if self.node.id == "a":
                await asyncio.sleep(FOR_EVER_S)
            return await super().begin()

    cluster = Cluster(Busy, node("a", 2), node("b"))
    asyncio.run(ran(cluster, settings, ledger, targets(60)))
    assert len(cluster.on("a")) == 2
    assert not given(cluster.on("a"))


@pytest.mark.parametrize(
    ("error", "starts"), [(EngineError("no"), 1), (Gone("exit 1"), 3), (Silent("away"), 3), (TimeoutError(), 1)]
)
def test_a_node_that_fails_to_start(
    settings: ScanConfig, ledger: Ledger, caplog: pytest.LogCaptureFixture, error: Exception, starts: int
) -> None:
    """It is left alone for a while, which is told in one line, and tried again then; others go on."""
    said: list[int] = []

    class Failing(Worker):
        async def begin(self) -> Facts:
            if self.node.id == "b":
                return await super().begin()
            if isinstance(error, TimeoutError):
                await asyncio.sleep(FOR_EVER_S)
            raise error

        async def work(self, shard: list[Target]) -> None:
            await until(lambda: len(self.cluster.on("a")) >= starts and "no scan there" in caplog.text)
            await asyncio.sleep(0.2)
            said.append(len(self.cluster.on("a")))
            if len(self.given) > 1:
                await until(lambda: len(self.cluster.on("a")) > starts)

    cluster = Cluster(Failing, node("a"), node("b"))
    with caplog.at_level(logging.WARNING, "probemill.cluster"):
        asyncio.run(ran(cluster, settings, ledger, targets(5), targets(5, 5)))
    assert said[0] == starts
    assert caplog.text.count("actor 1 (node address-of-a)") <= 1


@pytest.mark.parametrize("other", ["version", "python"])
def test_another_version_is_refused(
    settings: ScanConfig, ledger: Ledger, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    """One line names both, and nothing is given there."""

    class Other(Worker):
        async def begin(self) -> Facts:
            ours = facts()
            if self.node.id == "b":
                return ours
            if other == "version":
                return facts("0.0.1")
            return Facts(ours.pid, ours.version, "3.2.1", ours.database, ours.descriptors, ours.inflight)

        async def work(self, shard: list[Target]) -> None:
            await until(lambda: "no scan there" in caplog.text)

    cluster = Cluster(Other, node("a"), node("b"))
    with caplog.at_level(logging.WARNING, "probemill.cluster"):
        asyncio.run(ran(cluster, settings, ledger, targets(20)))
    (line,) = [record.getMessage() for record in caplog.records]
    assert ("0.0.1" if other == "version" else "3.2.1") in line
    assert __version__ in line
    assert "address-of-a" in line
    assert "\n" not in line
    assert not given(cluster.on("a"))


# -- nodes


def test_a_node_comes(settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes part, although everything had been given to others before."""

    class Slow(Worker):
        async def work(self, shard: list[Target]) -> None:
            await asyncio.sleep(0.02)
            if len(self.cluster.alive) == 1:
                self.cluster.alive.append(node("b"))
            if self.node.id == "a" and len(self.given) > 2:
                await until(lambda: self.cluster.on("b") and self.cluster.on("b")[0].given)

    monkeypatch.setattr(runner_module, "WINDOW", 10)
    cluster = Cluster(Slow, node("a"))
    asyncio.run(ran(cluster, settings, ledger, targets(400)))
    assert given(cluster.on("b"))


@pytest.mark.parametrize("answers", [True, False])
def test_a_cluster_that_no_longer_answers(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """The run ends with one line that says how to go on."""
    monkeypatch.setattr(crew, "HEAD_S", 0.2)

    class Headless(Cluster):
        async def nodes(self) -> list[Node]:
            if not self.members or not self.members[0].given:
                return await super().nodes()
            if not answers:
                await asyncio.sleep(FOR_EVER_S)
            raise EngineError("nobody there")

    class Stuck(Worker):
        async def work(self, shard: list[Target]) -> None:
            if len(self.given) > 1:
                await asyncio.sleep(FOR_EVER_S)

    cluster = Headless(Stuck, node("a"))
    with pytest.raises(EngineError, match=r"the cluster at a test no longer answers.*--resume") as raised:
        asyncio.run(ran(cluster, settings, ledger, targets(40)))
    assert "\n" not in str(raised.value)
    assert cluster.closed
    assert cluster.members[0].ended


def test_patience(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Targets of a zone without a node: those of others are done, people are told, and then the run ends."""
    monkeypatch.setattr(runner_module, "EXPLAIN_S", 0.2)
    zones = {"dmz": Zone(("198.51.0.0/29",))}
    cluster = Cluster(Worker, node("a"))
    runner = ClusterRunner(
        config(database_file(tmp_path)), ClusterSettings(patience=0.7, zones=zones), cluster, ledger.staging
    )

    async def test() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await runner.run(source(targets(20)), ledger.deliver)

    with caplog.at_level(logging.WARNING, "probemill.cluster"), pytest.raises(EngineError) as raised:
        asyncio.run(test())
    assert "no node could take 8 targets of zone dmz" in str(raised.value)
    assert "no actor is ready for 8 targets of zone dmz yet (nodes: 1, CPUs: 1" in caplog.text
    assert ledger.ordinals() == list(range(8, 20))


def test_patience_ends_when_a_node_comes(settings: ScanConfig, ledger: Ledger) -> None:
    cluster = Cluster(Worker)

    async def test() -> None:
        asyncio.get_running_loop().call_later(0.5, cluster.alive.append, node("a"))
        await ran(cluster, settings, ledger, targets(20), patience=5.0)

    asyncio.run(test())
