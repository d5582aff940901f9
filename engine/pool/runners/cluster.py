"""The runner of many machines: actors on the nodes of a cluster are given shards, and put segments that are committed
here. Which engine starts the actors is none of its business (pool/cluster/engine.py); who they are, whether they live
and what they may use is the crew's (pool/cluster/crew.py).

Exactly once, whatever happens to actors and nodes: a shard is owed by its actor until its segment is committed, and the
first segment with a target is the one that counts. What an actor had is given to others when it is certain that it
contacts nobody any more, so that no host is ever scanned by two. docs/cluster.md says what happens when.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from engine.conversation.scan import Finish, ScanContext, ServiceScan, crashed_row, rfc3339
from engine.errors import EngineError, OutputError
from engine.model import Batch, Reason, ScanConfig, Target
from engine.pool.cluster.crew import Actor, Crew
from engine.pool.cluster.engine import Engine
from engine.pool.cluster.settings import ClusterSettings, Zones
from engine.pool.cluster.shards import LEAST, Shard, Shards
from engine.pool.cluster.supplies import database_of, gathered
from engine.pool.cluster.words import NodeStatus, Outcome
from engine.pool.outbox import batch_of
from engine.pool.runners.base import Deliver, Source
from engine.services import ServiceTable
from engine.state.attempt import Staging

log = logging.getLogger("probemill.cluster")

TURN_S = 0.25  # from one look at what waits to the next
EXPLAIN_S = 10.0  # before people are told that nothing is ready yet, and from then on
AHEAD = 100_000  # targets that wait to be given; beyond it none is read
WINDOW = 2 * LEAST  # targets that an actor has at least beside those it converses with
WINDOW_S = 2.0  # and as many as it begins in this time; what is more, others may have
ENDING_S = 8.0  # for actors to hand over what they have when the run is to end early


class ClusterRunner:
    """config.workers: actors; 0 for as many as the cluster has room for. restarts: actors that have ended."""

    def __init__(self, config: ScanConfig, settings: ClusterSettings, engine: Engine, staging: Staging) -> None:
        """Raises ConfigError, InputError, MatcherError for files that cannot be used."""
        self.restarts = 0
        self.ready = True  # what its machines do is told by `nodes`
        self._config = config
        self._settings = settings
        self._engine = engine
        self._supplies = gathered(config)
        self._zones = Zones(settings.zones)
        self._shards = Shards(self._zones, by_prefix=config.per_prefix > 0)
        self._crew = Crew(
            *(config, settings, engine, staging, self._begin),
            joined=self._welcome,
            felt=self._resize,
            is_busy=lambda actor: actor.joined and self._shards.outstanding(actor.number) > 0,
            lost=lambda actor: self._shards.stop(actor.number),
            ended=self._inherit,
        )
        self._open: set[tuple[Actor, int]] = set()  # shards whose outcome is waited for
        self._delivering = 0
        self._fed = False
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._cancelled: Reason | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._deliver: Deliver | None = None
        self._waits_since = self._explained_at = time.monotonic()

    # -- what a run asks for

    async def run(self, source: Source, deliver: Deliver) -> None:
        self._deliver = deliver
        try:
            self._begin(self._join(source))
            await self._over.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=ENDING_S)
            self._crew.close()
            await self._engine.close()

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        if self._cancelled is not None:
            return  # it is ending
        self._cancelled = reason
        asyncio.get_running_loop().call_later(ENDING_S, self._over.set)
        self._crew.growing = False
        if self._feeder is not None:
            self._feeder.cancel()
        for actor in self._crew.actors.values():
            if actor.joined and not actor.lost:
                self._begin(_told(actor.member.cancel(reason)))
        self._look_for_the_end()

    def outstanding(self) -> list[int]:
        return [self._given_to(actor) for actor in list(self._crew.actors.values()) if actor.joined]

    def conversations(self) -> list[int]:
        return [actor.pulse.inflight for actor in list(self._crew.actors.values()) if actor.joined]

    def unsettled(self) -> int:
        return sum(actor.unsettled for actor in list(self._crew.actors.values()))

    def nodes(self) -> list[NodeStatus]:
        return self._crew.status(self._zones.of_node, self._given_to)

    def _given_to(self, actor: Actor) -> int:
        """Targets that it has not done. Any thread may ask."""
        with suppress(KeyError):  # it has just left
            return self._shards.outstanding(actor.number)
        return 0

    async def _join(self, source: Source) -> None:
        await self._engine.open(self._supplies)
        if self._cancelled is None:  # meanwhile
            self._feeder = self._begin(self._feed(source))
            self._begin(self._crew.work())
            self._begin(self._turn())

    # -- targets

    async def _feed(self, source: Source) -> None:
        lists = aiter(source)
        while True:
            try:
                targets = await anext(lists)
            except StopAsyncIteration:
                break
            except EngineError as error:  # told when everything that had been read is done
                self._failure = error
                break
            while self._shards.waiting >= AHEAD:
                self._room.clear()
                await self._room.wait()
            reachable = [target for target in targets if target.host]
            self._shards.add(reachable)
            if len(reachable) < len(targets):
                await self._deliver_unresolved([target for target in targets if not target.host])
        self._fed = True
        self._shards.end()
        self._give()
        self._look_for_the_end()

    @cached_property
    def _context(self) -> ScanContext:
        """For rows of targets that are not contacted."""
        return ScanContext(
            database_of(self._supplies),
            lambda _probe, _response: None,
            service_name=ServiceTable(*self._supplies.services).name,
            wall_offset=time.time() - time.monotonic(),
        )

    async def _deliver_unresolved(self, targets: Sequence[Target]) -> None:
        """The rows of names without an address: nobody is contacted for them, so no actor is asked."""
        actions = [ServiceScan(target, self._context).start(time.monotonic()) for target in targets]
        rows = [action.result for action in actions if isinstance(action, Finish)]
        await self._hand_on(batch_of(rows, [target.ordinal for target in targets]))

    async def _deliver_obituary(self, target: Target) -> None:
        """The row of a target that no actor survives."""
        row = crashed_row(target, self._context.reference, rfc3339(time.time()), state=target.state)
        await self._hand_on(batch_of([row], [target.ordinal]))
        self._delivering -= 1
        self._look_for_the_end()

    async def _hand_on(self, part: Batch | Outcome) -> None:
        assert self._deliver is not None
        self._delivering += 1
        await self._deliver(part)
        self._delivering -= 1
        self._look_for_the_end()

    def _give(self) -> None:
        """Every actor that can take something gets it."""
        if self._cancelled is not None:
            return
        for number, shard in self._shards.due(time.monotonic()):
            self._begin(self._scan(self._crew.actors[number], shard))
        self._room.set()

    async def _scan(self, actor: Actor, shard: Shard) -> None:
        self._open.add((actor, shard.number))
        try:
            outcome = await actor.member.scan(shard.body)
        except OutputError as error:  # no other actor would fare better
            raise OutputError(f"{actor}: {error}") from error
        except EngineError as error:
            self._crew.distrust(actor, error)
        else:
            self._crew.tell(actor, outcome.logs)
            await self._hand_on(outcome)
            actor.committed += outcome.manifest.rows
            if actor.number in self._crew.actors:
                self._shards.done(actor.number, shard.number)
                self._give()
        finally:
            self._open.discard((actor, shard.number))
        self._look_for_the_end()

    # -- actors

    def _welcome(self, actor: Actor) -> None:
        zones = self._zones.of_node(actor.node.resources)
        self._shards.join(actor.number, zones, WINDOW, time.monotonic())

    def _resize(self, actor: Actor) -> None:
        """What an actor needs until its next sign of life. What waits for the slowest of its shard holds up nothing."""
        held = actor.pulse.inflight + actor.unsettled
        self._shards.resize(actor.number, held + max(WINDOW, int(actor.speed * WINDOW_S)))
        self._give()

    def _inherit(self, actor: Actor, blamed: bool) -> None:
        """Others have what an actor had that contacts nobody any more."""
        self.restarts += 1
        owed = self._shards.outstanding(actor.number)
        culprit = self._shards.leave(actor.number, blamed=blamed)
        if owed:
            log.warning("%s: its %d unfinished targets are given to others", actor, owed)
        if culprit is not None:
            log.warning("%s port %d/%s kills our actors; given up", culprit.host, culprit.port, culprit.proto)
            self._delivering += 1
            self._begin(self._deliver_obituary(culprit))
        self._give()
        self._look_for_the_end()

    # -- the loop

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(TURN_S)
            self._give()
            self._explain_waiting()

    def _explain_waiting(self) -> None:
        """Say what waits for nodes. Raises EngineError when it has waited for too long."""
        now = time.monotonic()
        waiting = self._shards.stranded() if self._cancelled is None else {}
        if not waiting:
            self._waits_since = self._explained_at = now
            return
        patience, name = self._settings.patience, self._engine.name
        said = ", ".join(f"{count:,} targets{f' of zone {zone}' * bool(zone)}" for zone, count in waiting.items())
        if now - self._waits_since >= patience:
            raise EngineError(
                f"{name}: in {patience:.0f} s no node could take {said}; what is committed is safe: see "
                "`probemill cluster check`, and go on with --resume"
            )
        if now - self._explained_at >= EXPLAIN_S:
            self._explained_at = now
            cpus = sum(node.cpus for node in self._crew.nodes)
            where = f"nodes: {len(self._crew.nodes)}, CPUs: {cpus:g}, which others may have booked"
            log.warning("%s: no actor is ready for %s yet (%s)", name, said, where)

    def _look_for_the_end(self) -> None:
        if self._delivering:
            return
        if self._cancelled is None:
            if self._fed and self._shards.idle:
                self._over.set()
        elif all(actor.lost for actor, _ in self._open):
            self._over.set()

    def _begin(self, job: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._over_with)
        return task

    def _over_with(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._over.set()


async def _told(job: Coroutine[Any, Any, None]) -> None:
    with suppress(EngineError):
        await job
