"""The runner of a cluster where nobody is lost: the flow from the source to the journal, and leases.

The cluster is inside the test's process (members.py); its times are small.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from loopback import Farm, greeting_after
from members import FOR_EVER_S, PATIENCE_S, Actual, Cluster, Ledger, Worker, facts, node, source, targets, until
from msgspec.structs import replace

from engine.errors import InputError, OutputError
from engine.model import Reason, ScanConfig, Target, Verdict
from engine.pool.cluster import crew
from engine.pool.cluster.engine import Silent
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.words import Facts, Lease, Pulse
from engine.pool.runners import cluster as runner_module
from engine.pool.runners.cluster import ClusterRunner
from engine.pool.runners.inline import InlineRunner

pytestmark = pytest.mark.usefixtures("quick")


def runner_of(cluster: Cluster, settings: ScanConfig, ledger: Ledger) -> ClusterRunner:
    return ClusterRunner(settings, ClusterSettings(), cluster, ledger.staging)


async def bounded(runner: ClusterRunner, targets: AsyncIterator[list[Target]], ledger: Ledger) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await runner.run(targets, ledger.deliver)


# -- the flow


def test_undisturbed(settings: ScanConfig, ledger: Ledger) -> None:
    """Real actors on three nodes: each target is contacted and has a row, and everybody is let go in the end."""

    async def test() -> None:
        cluster = Cluster(Actual, node("a"), node("b", 2), node("c", 0))
        runner = runner_of(cluster, settings, ledger)
        looks: list[int] = []

        async def slowly() -> AsyncIterator[list[Target]]:
            await until(lambda: len(runner.outstanding()) == 3)
            for start in range(0, 300, 20):
                yield [Target(n, f"127.62.{n // 200}.{n % 200 + 1}", farm.port) for n in range(start, start + 20)]
                await asyncio.sleep(0.01)
                looks.append(sum(each.given for each in runner.nodes()))

        await bounded(runner, slowly(), ledger)
        assert ledger.ordinals() == list(range(300))
        assert {row.verdict for row in ledger.rows()} == {Verdict.HARDMATCHED}
        assert (ledger.tally["verdict:hardmatched"], ledger.refused, runner.restarts) == (300, [], 0)
        assert runner.outstanding() == [0, 0, 0]
        assert [(each.node, each.actors, each.given) for each in runner.nodes()] == [
            ("address-of-a", 1, 0),
            ("address-of-b", 2, 0),
            ("address-of-c", 0, 0),
        ]
        assert max(looks) > 0
        assert len(cluster.members) == 3
        assert all(member.ended for member in cluster.members)
        assert cluster.closed

    with Farm(greeting_after(0.0)) as farm:
        asyncio.run(test())
        assert set(farm.per_address.values()) == {1}


@pytest.mark.parametrize("lists", [[], [[]], [targets(1)]])
def test_next_to_nothing(settings: ScanConfig, ledger: Ledger, lists: list[list[Target]]) -> None:
    asyncio.run(bounded(runner_of(Cluster(Worker, node("a")), settings, ledger), source(*lists), ledger))
    assert ledger.ordinals() == list(range(sum(map(len, lists))))


def test_as_many_actors_as_were_asked_for(settings: ScanConfig, ledger: Ledger) -> None:
    """Spread over the nodes; the engine hears how many CPUs they take."""
    cluster = Cluster(Worker, node("a", 4), node("b", 4))
    asyncio.run(bounded(runner_of(cluster, replace(settings, workers=3), ledger), source(targets(20)), ledger))
    assert sorted((len(cluster.on("a")), len(cluster.on("b")))) == [1, 2]
    assert cluster.wanted == [3]


def test_unresolved_names_have_the_rows_of_other_runners(settings: ScanConfig, ledger: Ledger) -> None:
    """And nobody is asked for them."""
    every = [
        Target(n, "", port, proto, f"{n}.test", state)
        for n, (port, proto, state) in enumerate(
            [(80, "tcp", ""), (9100, "tcp", "open"), (53, "udp", "open|filtered"), (502, "tcp", "")]
        )
    ]
    asked = replace(settings, spare_fragile=True, post=("default",))
    local = Ledger(Path(settings.probes[0]).parent / "local")
    asyncio.run(InlineRunner(asked).run(source(every), local.deliver))
    cluster = Cluster(Worker)
    asyncio.run(bounded(runner_of(cluster, asked, ledger), source(every[:1], every[1:]), ledger))
    rows = [[replace(row, started="") for row in each.rows()] for each in (local, ledger)]
    assert rows[0] == rows[1]
    assert {row.reason for row in rows[0]} == {Reason.UNRESOLVED}
    tallies = [+each.tally for each in (local, ledger)]
    assert tallies[0] == tallies[1]
    assert ledger.ordinals() == local.ordinals() == [0, 1, 2, 3]
    local.close()


def test_little_is_read_ahead(settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """AHEAD and what actors may have beside each other bound what the source is asked for; then all of it is read."""
    monkeypatch.setattr(runner_module, "AHEAD", 60)
    monkeypatch.setattr(runner_module, "WINDOW", 10)
    asked = 0

    class Slow(Worker):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.go_on = asyncio.Event()

        async def begin(self) -> Facts:
            return facts(inflight=10)

        async def work(self, shard: list[Target]) -> None:
            await self.go_on.wait()

    async def counted() -> AsyncIterator[list[Target]]:
        nonlocal asked
        for start in range(0, 1000, 10):
            asked += 10
            yield targets(10, start)

    async def test() -> None:
        cluster = Cluster(Slow, node("a"), node("b"))
        running = asyncio.create_task(bounded(runner_of(cluster, settings, ledger), counted(), ledger))
        await until(lambda: len(cluster.members) == 2 and all(member.given for member in cluster.members))
        await asyncio.sleep(0.3)
        assert 60 <= asked <= 60 + 2 * (10 + 10 + 5) + 2 * 10  # a list at the door, and one being made
        for member in cluster.members:
            member.go_on.set()  # type: ignore[attr-defined]
        await running

    asyncio.run(test())
    assert asked == 1000
    assert ledger.ordinals() == list(range(1000))


def test_an_input_that_breaks_off(settings: ScanConfig, ledger: Ledger) -> None:
    """What had been read is done before it is told."""
    broken = InputError("list", 7, "not a target")

    class Slow(Worker):
        async def work(self, shard: list[Target]) -> None:
            await asyncio.sleep(0.2)

    with pytest.raises(InputError, match="list:7"):
        asyncio.run(
            bounded(runner_of(Cluster(Slow, node("a")), settings, ledger), source(targets(40), raising=broken), ledger)
        )
    assert ledger.ordinals() == list(range(40))


@pytest.mark.parametrize("unresolved", [False, True])
def test_an_output_that_fails(settings: ScanConfig, ledger: Ledger, unresolved: bool) -> None:
    """The run ends with its error, whatever else is under way."""
    ledger.failing = OutputError("disk full")

    class Stuck(Worker):
        async def work(self, shard: list[Target]) -> None:
            if unresolved or shard[0].ordinal:
                await asyncio.sleep(FOR_EVER_S)

    async def endless() -> AsyncIterator[list[Target]]:
        yield targets(100)
        yield [Target(100, "", 80, "tcp", "a.test")] if unresolved else []
        await asyncio.sleep(FOR_EVER_S)

    async def test() -> None:
        cluster = Cluster(Stuck, node("a"), node("b"))
        with pytest.raises(OutputError, match="disk full"):
            async with asyncio.timeout(3):
                await runner_of(cluster, settings, ledger).run(endless(), ledger.deliver)
        assert cluster.closed
        assert all(member.ended for member in cluster.members)

    asyncio.run(test())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio.wait_for is mended there")
def test_a_run_ends_whatever_comes_at_that_moment(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of the engine in the very turn in which the run is over, for one."""
    monkeypatch.undo()
    monkeypatch.setattr(crew, "NODES_S", 0.0)
    monkeypatch.setattr(crew, "BEAT_S", 0.0)

    async def test() -> None:
        for _ in range(10):
            runner = runner_of(Cluster(Worker, node("a")), settings, ledger)
            running = asyncio.create_task(runner.run(source(), ledger.deliver))
            await asyncio.wait({running}, timeout=1)
            ended = running.done()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:  # once is not enough for those
                for task in others:
                    task.cancel()
                await asyncio.sleep(0.001)
            assert ended

    asyncio.run(test())


# -- leases


class Frugal(Worker):
    """Uses what it was told last, and until then what its lease before said; notes the most that all use together."""

    most: Counter[str]
    rate = inflight = 0.0
    gone = False

    async def beat(self, lease: Lease | None) -> Pulse:
        await asyncio.sleep(0.001 * (self.setup.number % 5))  # on its way
        if lease is not None:
            self.rate, self.inflight = lease.rate, lease.inflight
        everybody = [member for member in self.cluster.members if isinstance(member, Frugal) and not member.gone]
        self.most["rate"] = max(self.most["rate"], sum(member.rate for member in everybody))
        self.most["inflight"] = max(self.most["inflight"], sum(member.inflight for member in everybody))
        await asyncio.sleep(0.001 * (self.setup.number % 3))
        return await super().beat(lease)


@pytest.mark.parametrize("limit", ["rate", "max_inflight"])
def test_leases_are_of_one_budget(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """However nodes come and go, also where one is silent: nobody is told more than others have given up.

    In the end all have the same part.
    """
    monkeypatch.setattr(crew, "SILENT_S", 0.5)
    budget = 100

    class Lessee(Frugal):
        most: Counter[str] = Counter()  # noqa: RUF012 - of the class

        async def beat(self, lease: Lease | None) -> Pulse:
            assert lease is None or (lease.rate if limit == "rate" else lease.inflight)
            if self.node.id == "mute" and len(self.leases) > 3:
                asyncio.get_running_loop().call_later(0.25, setattr, self, "gone", True)  # by its own clock
                raise Silent("away")
            return await super().beat(lease)

        async def work(self, shard: list[Target]) -> None:
            await asyncio.sleep(0.1)

    async def eventful(cluster: Cluster) -> AsyncIterator[list[Target]]:
        for number in range(5):
            yield targets(20, 20 * number)
            await asyncio.sleep(0.1)
            cluster.alive.append(node(f"late {number}", 2))
        cluster.alive.append(node("mute"))
        await asyncio.sleep(0.3)
        for name in ("mute", "late 1", "late 2"):
            cluster.remove(name)
            for member in cluster.on(name):
                member.gone = True  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)
        present = [member for member in cluster.members if not member.ended]
        assert len(present) == 7
        parts = {round(member.leases[-1].rate if limit == "rate" else member.leases[-1].inflight) for member in present}
        assert parts == {budget // 7}

    async def test() -> None:
        cluster = Cluster(Lessee, node("a"))
        await bounded(runner_of(cluster, replace(settings, **{limit: budget}), ledger), eventful(cluster), ledger)

    asyncio.run(test())
    assert budget * 0.9 <= Lessee.most["rate" if limit == "rate" else "inflight"] <= budget * (1 + 1e-9)


def test_fewer_conversations_than_actors(settings: ScanConfig, ledger: Ledger) -> None:
    """Nobody is told 0, which would be no limit, and not more have a part than there are conversations."""

    class Lessee(Frugal):
        most: Counter[str] = Counter()  # noqa: RUF012 - of the class

        async def work(self, shard: list[Target]) -> None:
            assert self.leases[-1].inflight > 0
            await asyncio.sleep(0.1)

    async def slowly() -> AsyncIterator[list[Target]]:
        for start in range(0, 60, 10):
            yield targets(10, start)
            await asyncio.sleep(0.05)

    cluster = Cluster(Lessee, node("a", 4))
    asyncio.run(bounded(runner_of(cluster, replace(settings, max_inflight=2), ledger), slowly(), ledger))
    assert Lessee.most["inflight"] <= 2
    assert all(lease.inflight > 0 for member in cluster.members for lease in member.leases)


def test_who_waits_for_a_part_hears_of_its_driver(
    settings: ScanConfig, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an actor would drop itself while somebody else who cannot be reached still has its part."""
    monkeypatch.setattr(crew, "SILENT_S", 1.0)
    waited: list[float] = []

    class Mute(Worker):
        async def beat(self, lease: Lease | None) -> Pulse:
            if self.node.id == "a" and self.leases:
                self.cluster.alive = [self.node, node("b")]
                raise Silent("away")
            if lease is None:
                waited.append(time.monotonic() - self.told_at)
            return await super().beat(lease)

    cluster = Cluster(Mute, node("a"))

    async def late() -> AsyncIterator[list[Target]]:
        await until(lambda: cluster.on("b") and cluster.on("b")[0].leases)
        yield targets(10)

    asyncio.run(bounded(runner_of(cluster, replace(settings, rate=10.0), ledger), late(), ledger))
    assert waited and max(waited) < 1.0 / 2
    assert cluster.on("b")[0].leases[0].rate > 0
