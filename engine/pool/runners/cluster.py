"""The runner of many machines: actors on the nodes of a cluster are given shards, and put segments that are committed
here. Which engine starts the actors is none of its business (pool/cluster/engine.py).

Exactly once, whatever happens to actors and nodes: a shard is owed by its actor until its segment is committed, and the
first segment with a target is the one that counts. An actor that has ended has its shards given to others at once. One
that cannot be reached has them given to others when it must have dropped them by itself (words.SILENT_S), so that no
host is ever scanned by two. Only who has answered is given anything: an actor that a busy node has no room for holds
nothing up. docs/cluster.md says what happens when.
"""

import asyncio
import logging
import platform
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from engine import __version__
from engine.conversation.scan import Finish, ScanContext, ServiceScan, crashed_row, rfc3339
from engine.errors import EngineError
from engine.model import Batch, DatabaseRef, Reason, ScanConfig, ServiceResult, Target
from engine.pool.cluster.engine import Engine, Gone, Member, Node, Silent
from engine.pool.cluster.leases import Leases
from engine.pool.cluster.settings import ClusterSettings, Zones
from engine.pool.cluster.shards import MOST, Shard, Shards
from engine.pool.cluster.supplies import database_of, gathered
from engine.pool.cluster.words import SILENT_S, Facts, Lease, Pulse, Setup
from engine.pool.runners.base import Deliver, NodeStatus, Source
from engine.services import ServiceTable
from engine.state.attempt import Staging
from matcher import MatcherError

log = logging.getLogger("probemill.cluster")

BEAT_S = 1.0  # from one lease to the next
TURN_S = 0.25  # from one look at what waits to the next
NODES_S = 1.0  # from one look at the nodes to the next
HEAD_S = 20.0  # for the cluster to say which nodes it has
START_S = 600.0  # for an actor to be ready; its node may be busy, or compile a database
EXPLAIN_S = 20.0  # before people are told that nothing is ready yet, and from then on
AHEAD = 100_000  # targets that wait to be given; beyond it none is read
WINDOW = 2 * MOST  # targets that an actor has beside those it converses with
ENDING_S = 8.0  # for actors to hand over what they have when the run is to end early
MAX_STARTS = 3  # of a node in a row that fail; then it is left alone for a while
REST_S = 60.0
SCAN = "scan"  # what tasks are called that wait for a shard


class _Actor:
    """heard_at: when a beat was sent that it answered, monotonic; sent_at: the last one."""

    def __init__(self, number: int, node: Node, member: Member) -> None:
        self.number = number
        self.node = node
        self.member = member
        self.facts: Facts | None = None
        self.pulse = Pulse(0, 0)
        self.joined = False
        self.lost = False
        self.restless = False  # it was killed for being silent, or has died: what it was given may be the cause
        self.heard_at = self.sent_at = time.monotonic()
        self.committed = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        pid = f", pid {self.facts.pid}" if self.facts else ""
        return f"actor {self.number} (node {self.node.address}{pid})"


class ClusterRunner:
    """config.workers: actors; 0 for as many as the cluster has room for."""

    def __init__(self, config: ScanConfig, settings: ClusterSettings, engine: Engine, staging: Staging) -> None:
        """Raises ConfigError, InputError, MatcherError for files that cannot be used."""
        self.restarts = 0
        self._config = config
        self._settings = settings
        self._engine = engine
        self._staging = staging
        self._supplies = gathered(config)
        self._zones = Zones(settings.zones)
        self._shards = Shards(self._zones, by_prefix=config.per_prefix > 0)
        self._rate = Leases(config.rate)
        self._inflight = Leases(config.max_inflight)
        self._actors: dict[int, _Actor] = {}
        self._nodes: list[Node] = []
        self._failed: Counter[str] = Counter()  # starts in a row, by node
        self._resting: dict[str, float] = {}  # nodes to be left alone until then
        self._lost: Counter[str] = Counter()  # actors, by address of their node, and what they had done
        self._done_by_lost: Counter[str] = Counter()
        self._started = 0
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._fed = False
        self._cancelled: Reason | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._deliver: Deliver | None = None
        self._waits_since = time.monotonic()
        self._explained_at = time.monotonic()

    # -- what a run asks for

    async def run(self, source: Source, deliver: Deliver) -> None:
        self._deliver = deliver
        try:
            await self._engine.open(self._supplies)
            self._feeder = self._begin(self._feed(source))
            self._begin(self._look_at_nodes())
            self._begin(self._turn())
            await self._over.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for actor in self._actors.values():
                actor.member.end()
            await self._engine.close()

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        if self._cancelled is None:
            asyncio.get_running_loop().call_later(ENDING_S, self._over.set)
        self._cancelled = reason
        if self._feeder is not None:
            self._feeder.cancel()
        for actor in self._actors.values():
            if actor.joined and not actor.lost:
                self._begin(self._told(actor.member.cancel(reason)))
        self._look_for_the_end()

    def outstanding(self) -> list[int]:
        return [self._shards.outstanding(number) for number, actor in self._actors.items() if actor.joined]

    def unsettled(self) -> int:
        return sum(max(0, actor.pulse.done - actor.committed) for actor in self._actors.values())

    def nodes(self) -> list[NodeStatus]:
        """By address, those that are gone behind those that are there. Any thread may ask."""
        now = time.monotonic()
        zones = {node.address: ",".join(filter(None, self._zones.of_node(node.resources))) for node in self._nodes}
        table = []
        for address in dict.fromkeys((*zones, *self._done_by_lost)):
            actors = [it for it in list(self._actors.values()) if it.node.address == address and it.joined]
            done = sum(max(actor.pulse.done, actor.committed) for actor in actors)
            table.append(
                NodeStatus(
                    address,
                    zones.get(address, ""),
                    sum(not actor.lost for actor in actors),
                    sum(map(self._given_to, actors)),
                    sum(actor.pulse.inflight for actor in actors),
                    done + self._done_by_lost[address],
                    round(max((now - actor.heard_at for actor in actors), default=0.0), 1),
                    min((actor.facts.descriptors for actor in actors if actor.facts), default=0),
                    self._lost[address],
                )
            )
        return table

    def _given_to(self, actor: _Actor) -> int:
        try:
            return self._shards.outstanding(actor.number)
        except KeyError:  # it has left while another thread asks
            return 0

    # -- targets

    async def _feed(self, source: Source) -> None:
        try:
            async for targets in source:
                while self._shards.waiting >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
                reachable = [target for target in targets if target.host]
                self._shards.add(reachable)
                if len(reachable) < len(targets):
                    await self._deliver_unresolved([target for target in targets if not target.host])
        except EngineError as error:  # told when everything that had been read is done
            self._failure = error
        self._fed = True
        self._shards.end()
        self._give()
        self._look_for_the_end()

    async def _deliver_unresolved(self, targets: list[Target]) -> None:
        """The rows of names without an address: nobody is contacted for them, so no actor is asked."""
        context = self._local_context()
        rows = [ServiceScan(target, context).start(time.monotonic()) for target in targets]
        results = [action.result for action in rows if isinstance(action, Finish)]
        await self._deliver_rows(results, [target.ordinal for target in targets])

    def _local_context(self) -> ScanContext:
        return ScanContext(
            database_of(self._supplies),
            lambda _probe, _response: None,
            service_name=ServiceTable(*self._supplies.services).name,
            wall_offset=time.time() - time.monotonic(),
        )

    async def _deliver_rows(self, results: list[ServiceResult], ordinals: list[int]) -> None:
        tally: Counter[str] = Counter()
        for result in results:
            tally["verdict:" + result.verdict.value] += 1
            if result.reason is not None:
                tally["reason:" + result.reason.value] += 1
        assert self._deliver is not None
        await self._deliver(Batch(msgspec.json.Encoder().encode_lines(results), len(results), ordinals, tally))

    def _give(self) -> None:
        """Every actor that can take something gets it."""
        if self._cancelled is not None:
            return
        for number, shard in self._shards.due(time.monotonic()):
            actor = self._actors[number]
            self._begin(self._scan(actor, shard), of=actor, name=SCAN)
        self._room.set()

    async def _scan(self, actor: _Actor, shard: Shard) -> None:
        try:
            outcome = await actor.member.scan(shard.body)
        except Gone as error:
            self._lose(actor, str(error), blamed=not error.node)
        except Silent as error:
            self._lose_sight(actor, str(error))
        except EngineError as error:  # it has dropped everything, and told us so
            self._lose(actor, str(error), blamed=False)
        else:
            assert self._deliver is not None
            await self._deliver(outcome)
            actor.committed += outcome.manifest.rows
            if not actor.lost:
                self._shards.done(actor.number, shard.number)
                self._give()
            self._look_for_the_end()

    # -- actors

    async def _attend(self, actor: _Actor) -> None:
        """From its start to its end: whatever it takes to be ready, then a lease each second."""
        try:
            actor.facts = await asyncio.wait_for(actor.member.begin(), START_S)
            self._compare(actor.facts)
        except (EngineError, MatcherError, TimeoutError) as error:
            self._failed[actor.node.id] += 1
            if not isinstance(error, Gone | Silent) or self._failed[actor.node.id] >= MAX_STARTS:
                self._resting[actor.node.id] = time.monotonic() + REST_S
                log.warning("%s: no scan there for now: %s", actor, error or "it is not ready in time")
            self._drop(actor)
            return
        self._failed.pop(actor.node.id, None)
        while not actor.lost:
            await self._beat(actor)
            await asyncio.sleep(BEAT_S)

    async def _beat(self, actor: _Actor) -> None:
        ready = max(1, sum(other.facts is not None and not other.lost for other in self._actors.values()))
        config, facts = self._config, actor.facts
        assert facts is not None
        lease = Lease(
            self._rate.offer(actor.number, ready) if config.rate else 0.0,
            int(self._inflight.offer(actor.number, ready)) if config.max_inflight else 0,
        )
        starved = (config.rate and not lease.rate) or (config.max_inflight and not lease.inflight)
        if starved and not actor.joined:
            return  # it has to wait until others have given up a part of what they have
        actor.sent_at = time.monotonic()
        try:
            pulse = await asyncio.wait_for(actor.member.beat(lease), SILENT_S)
        except (Silent, TimeoutError) as error:
            self._lose_sight(actor, str(error))
            return
        except Gone as error:
            self._lose(actor, str(error), blamed=not error.node)
            return
        except EngineError as error:
            self._lose(actor, str(error), blamed=False)
            return
        actor.heard_at = actor.sent_at
        self._rate.settle(actor.number, lease.rate)
        self._inflight.settle(actor.number, max(lease.inflight, pulse.inflight))
        if pulse.trouble and pulse.trouble != actor.pulse.trouble:
            log.warning("%s: %s; trying again until it can be put", actor, pulse.trouble)
        for level, text in pulse.logs:
            log.log(level, "%s: %s", actor, text)
        actor.pulse = pulse
        if not actor.joined and not actor.lost:
            actor.joined = True
            limit = min(facts.inflight, lease.inflight or facts.inflight)
            self._shards.join(actor.number, self._zones.of_node(actor.node.resources), limit + WINDOW, time.monotonic())
            self._give()

    @staticmethod
    def _compare(facts: Facts) -> None:
        """Raises EngineError for an actor whose answers might not be ours."""
        ours = __version__, platform.python_version_tuple()[:2]
        if (facts.version, tuple(facts.python.split(".")[:2])) != ours:
            raise EngineError(
                f"it has probemill {facts.version} on Python {facts.python}, and here is {__version__} "
                f"on {platform.python_version()}; install the same"
            )

    def _lose_sight(self, actor: _Actor, why: str) -> None:
        """It cannot be reached. What it has is given to others when it must have dropped it, or is known to be gone."""
        if actor.lost:
            return
        actor.lost = True
        actor.member.end()
        log.warning("%s cannot be reached (%s)", actor, why or f"no sign of life for {SILENT_S:.0f} s")
        self._begin(self._bury_later(actor))

    async def _bury_later(self, actor: _Actor) -> None:
        # It answers to nobody by SILENT_S after the last beat that it can have heard, if its node lives until then.
        while time.monotonic() < actor.heard_at + SILENT_S:
            if self._nodes and all(node.id != actor.node.id for node in self._nodes):
                self._bury(actor, blamed=False)
                return
            await asyncio.sleep(TURN_S)
        self._bury(actor, blamed=True)

    def _lose(self, actor: _Actor, why: str, *, blamed: bool) -> None:
        """It has ended, or does nothing any more."""
        if actor.lost:
            return
        actor.lost = True
        actor.member.end()
        log.warning("%s has ended (%s)", actor, why)
        self._bury(actor, blamed=blamed)

    def _bury(self, actor: _Actor, *, blamed: bool) -> None:
        """Others have what it had."""
        self.restarts += 1
        self._lost[actor.node.address] += 1
        self._done_by_lost[actor.node.address] += actor.committed
        owed = self._shards.outstanding(actor.number) if actor.joined else 0
        culprit = self._shards.leave(actor.number, blamed=blamed) if actor.joined else None
        if owed:
            log.warning("%s: its %d unfinished targets are given to others", actor, owed)
        self._drop(actor)
        if culprit is not None:
            log.warning("%s port %d/%s kills our actors; given up", culprit.host, culprit.port, culprit.proto)
            self._begin(self._deliver_obituary(culprit))
        self._give()
        self._look_for_the_end()

    def _drop(self, actor: _Actor) -> None:
        actor.lost = True
        actor.member.end()
        self._rate.end(actor.number)
        self._inflight.end(actor.number)
        self._actors.pop(actor.number, None)

    async def _deliver_obituary(self, target: Target) -> None:
        database = database_of(self._supplies)
        row = crashed_row(target, DatabaseRef(database.name, database.sha256), rfc3339(time.time()), state=target.state)
        await self._deliver_rows([row], [target.ordinal])

    # -- nodes

    async def _look_at_nodes(self) -> None:
        """Start actors wherever there is room, and see which nodes are gone."""
        if self._config.workers:
            self._engine.want(self._config.workers * self._settings.cpus_per_actor)
        while True:
            try:
                self._nodes = await asyncio.wait_for(self._engine.nodes(), HEAD_S)
            except (EngineError, TimeoutError):
                raise EngineError(
                    f"the cluster at {self._engine.name} no longer answers; what is committed is safe: start it again, "
                    "and go on with --resume"
                ) from None
            alive = {node.id for node in self._nodes}
            for actor in list(self._actors.values()):
                if actor.node.id not in alive and not actor.lost:
                    self._lose(actor, "its node is gone", blamed=False)
            if self._cancelled is None:
                self._start_missing()
            self._explain_waiting()
            await asyncio.sleep(NODES_S)

    def _start_missing(self) -> None:
        now = time.monotonic()
        room = {
            node.id: int(node.cpus / self._settings.cpus_per_actor)
            for node in self._nodes
            if self._resting.get(node.id, 0.0) < now
        }
        running = Counter(actor.node.id for actor in self._actors.values() if not actor.lost)
        wanted = self._config.workers or sum(room.values())
        nodes = {node.id: node for node in self._nodes}
        while sum(running.values()) < wanted:
            free = [(running[name], name) for name, most in room.items() if running[name] < most]
            if not free:
                return
            _, name = min(free)  # spread over the nodes
            running[name] += 1
            self._start(nodes[name], min(room[name], wanted))

    def _start(self, node: Node, neighbours: int) -> None:
        self._started += 1
        setup = Setup(self._started, self._config, self._staging, neighbours)
        actor = _Actor(self._started, node, self._engine.start(node, setup))
        self._actors[actor.number] = actor
        self._begin(self._attend(actor), of=actor)

    def _explain_waiting(self) -> None:
        """Say what waits for nodes. Raises EngineError when it has waited for too long."""
        now = time.monotonic()
        waiting = self._shards.stranded() if self._shards.waiting or not self._shards.idle else {}
        if not waiting:
            self._waits_since = self._explained_at = now
            return
        if now - self._explained_at < EXPLAIN_S and now - self._waits_since < self._settings.patience:
            return
        self._explained_at = now
        said = ", ".join(f"{count:,} targets{f' of zone {zone}' * bool(zone)}" for zone, count in waiting.items())
        if now - self._waits_since < self._settings.patience:
            log.warning("%s: no actor is ready for %s (%d nodes)", self._engine.name, said, len(self._nodes))
            return
        raise EngineError(
            f"{self._engine.name}: in {self._settings.patience:.0f} s no node could take {said}; what is committed is "
            "safe: see `probemill cluster check`, and go on with --resume"
        )

    # -- the loop

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(TURN_S)
            self._give()

    def _look_for_the_end(self) -> None:
        if self._cancelled is not None:
            if not any(task for actor in self._actors.values() for task in actor.tasks if task.get_name() == SCAN):
                self._over.set()
        elif self._fed and self._shards.idle:
            self._over.set()

    async def _told(self, job: Coroutine[Any, Any, None]) -> None:
        with suppress(EngineError):
            await job

    def _begin(self, job: Coroutine[Any, Any, None], of: _Actor | None = None, name: str = "") -> "asyncio.Task[None]":
        task = asyncio.create_task(job, name=name)
        self._tasks.add(task)
        if of is not None:
            of.tasks.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if of is not None:
                of.tasks.discard(task)
            if task.cancelled():
                return
            if (error := task.exception()) is not None:
                self._failure = error
                self._over.set()

        task.add_done_callback(ended)
        return task
