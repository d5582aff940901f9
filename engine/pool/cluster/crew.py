"""The actors of a run: started on the nodes there are, given leases each second, watched, buried and replaced.

Contract: `joined` is called for an actor that is ready and has a lease; `lost` when nothing more may be given to it;
`ended`, once, when it is certain that it contacts nobody any more, so that others may have what it had: at once where
it has ended or its node is gone, else when it must have dropped everything by itself (words.SILENT_S). Only who answers
counts: an actor that a busy node has no room for holds nothing up. What the actors together were told they may use is
never above what the config allows.
"""

import asyncio
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from engine import __version__
from engine.errors import EngineError
from engine.model import ScanConfig
from engine.pool.cluster.engine import Dropped, Engine, Gone, Member, Node, Silent
from engine.pool.cluster.leases import Leases, parts
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.words import SILENT_S, Facts, Lease, Logs, NodeStatus, Pulse, Setup
from engine.state.attempt import Staging
from matcher import MatcherError

log = logging.getLogger("probemill.cluster")

BEAT_S = 1.0  # from one lease to the next
NODES_S = 1.0  # from one look at the nodes to the next
HEAD_S = 20.0  # for the cluster to say which nodes it has
START_S = 600.0  # for an actor to be ready; its node may be busy, or compile a database
LOOK_S = 0.25  # from one look at a silent actor's node to the next
MAX_STARTS = 3  # of a node in a row that fail; then it is left alone for a while
REST_S = 60.0
LONGEST_S = 600.0  # for a conversation, where the user set no limit
STALLED_S = 60.0  # beyond what a conversation may take
IDLE_BEATS = 2  # without anything to do, until an actor gives up most of its leases
SLOWING = 0.8  # what remains of a speed after a second that was slower

Begin = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Runs a job of the run's; what it raises ends the run."""


class Actor:
    """facts: once it is ready. heard_at: when the last beat was sent that it answered, monotonic.

    moved_at: when it was last seen to get on. committed: targets whose segment is. speed: conversations that it begins
    in a second, about, in its best of late.
    """

    def __init__(self, number: int, node: Node, member: Member) -> None:
        self.number = number
        self.node = node
        self.member = member
        self.facts: Facts | None = None
        self.pulse = Pulse(0, 0)
        self.joined = False
        self.lost = False
        self.heard_at = self.moved_at = time.monotonic()
        self.committed = 0
        self.speed = 0.0
        self._felt_at = self.heard_at
        self.idle_beats = 0

    @property
    def unsettled(self) -> int:
        """Targets that are done, in shards that are not."""
        return max(0, self.pulse.done - self.committed)

    def feel(self, pulse: Pulse, now: float) -> None:
        """A sign of life. now: monotonic."""
        if (pulse.done, pulse.inflight) != (self.pulse.done, self.pulse.inflight):
            self.moved_at = now
        begun = pulse.done + pulse.inflight - self.pulse.done - self.pulse.inflight
        self.speed = max(begun / max(0.1, now - self._felt_at), self.speed * SLOWING)
        self._felt_at = now
        self.pulse = pulse

    def __str__(self) -> str:
        pid = f", pid {self.facts.pid}" if self.facts else ""
        return f"actor {self.number} (node {self.node.address}{pid})"


class Crew:
    """config.workers: actors; 0 for as many as there is room for. nodes: that are alive."""

    def __init__(
        self,
        config: ScanConfig,
        settings: ClusterSettings,
        engine: Engine,
        staging: Staging,
        begin: Begin,
        *,
        joined: Callable[[Actor], None],
        felt: Callable[[Actor], None],
        is_busy: Callable[[Actor], bool],
        lost: Callable[[Actor], None],
        ended: Callable[[Actor, bool], None],
    ) -> None:
        """felt: called with each sign of life. is_busy: whether there is something that an actor has not done.

        ended: also told whether what the actor was given may be the cause.
        """
        self.nodes: list[Node] = []
        self.actors: dict[int, Actor] = {}
        self._lost_at: Counter[str] = Counter()  # actors, by address of their node, and what they had done
        self._done_by_lost: Counter[str] = Counter()
        self.growing = True  # whether actors are started
        self._config = config
        self._settings = settings
        self._engine = engine
        self._staging = staging
        self._begin = begin
        self._joined = joined
        self._felt = felt
        self._is_busy = is_busy
        self._lost = lost
        self._ended = ended
        self._rate = Leases(config.rate)
        self._inflight = Leases(config.max_inflight)
        self._started = 0
        self._failed: Counter[str] = Counter()  # starts in a row, by node
        self._resting: dict[str, float] = {}  # nodes to be left alone until then
        self._said: set[tuple[str, str]] = set()  # of nodes where no scan is possible

    async def work(self) -> None:
        """Until cancelled. Raises EngineError when the cluster does not answer any more."""
        if self._config.workers:
            self._engine.want(self._config.workers * self._settings.cpus_per_actor)
        while True:
            try:
                async with asyncio.timeout(HEAD_S):
                    self.nodes = await self._engine.nodes()
            except (EngineError, TimeoutError):
                raise EngineError(
                    f"the cluster at {self._engine.name} no longer answers; what is committed is safe: start it again, "
                    "and go on with --resume"
                ) from None
            alive = {node.id for node in self.nodes}
            for actor in [actor for actor in self.actors.values() if actor.node.id not in alive]:
                self.bury(actor, "its node is gone", blamed=False)
            if self.growing:
                self._start_missing()
            await asyncio.sleep(NODES_S)

    def status(self, zones: Callable[[dict[str, float]], list[str]], given: Callable[[Actor], int]) -> list[NodeStatus]:
        """By address, those nodes that are gone behind those that are there. Any thread may ask.

        zones: of a node, by its resources. given: targets that an actor has not done.
        """
        now = time.monotonic()
        there = {node.address: ",".join(filter(None, zones(node.resources))) for node in self.nodes}
        table = []
        for address in dict.fromkeys((*there, *self._done_by_lost)):
            actors = [it for it in list(self.actors.values()) if it.node.address == address and it.joined]
            done = sum(max(actor.pulse.done, actor.committed) for actor in actors)
            table.append(
                NodeStatus(
                    address,
                    there.get(address, ""),
                    sum(not actor.lost for actor in actors),
                    sum(map(given, actors)),
                    sum(actor.pulse.inflight for actor in actors),
                    done + self._done_by_lost[address],
                    round(max((now - actor.heard_at for actor in actors), default=0.0), 1),
                    min((actor.facts.descriptors for actor in actors if actor.facts), default=0),
                    self._lost_at[address],
                )
            )
        return table

    @staticmethod
    def tell(actor: Actor, logs: Logs) -> None:
        """What an actor has to say."""
        for level, text in logs:
            log.log(level, "%s: %s", actor, text)

    def close(self) -> None:
        for actor in self.actors.values():
            actor.member.end()

    def bury(self, actor: Actor, why: str, *, blamed: bool) -> None:
        """It contacts nobody any more, for certain."""
        if self.actors.pop(actor.number, None) is None:
            return
        if not actor.lost:
            log.warning("%s has ended (%s)", actor, why)
        actor.lost = True
        actor.member.end()
        self._rate.end(actor.number)
        self._inflight.end(actor.number)
        if actor.joined:
            self._lost_at[actor.node.address] += 1
            self._done_by_lost[actor.node.address] += actor.committed
            self._ended(actor, blamed)

    def distrust(self, actor: Actor, error: EngineError) -> None:
        """It has not done what it was asked for: it has ended, has dropped everything, or nobody knows what it does."""
        if isinstance(error, Gone):
            self.bury(actor, str(error), blamed=not error.node)
        elif isinstance(error, Dropped):
            self.bury(actor, str(error), blamed=False)
        else:
            self.lose_sight(actor, str(error))

    def lose_sight(self, actor: Actor, why: str) -> None:
        """It cannot be reached, and may go on for a while."""
        if actor.lost:
            return
        actor.lost = True
        actor.member.end()
        log.warning("%s cannot be reached (%s)", actor, why or f"no sign of life for {SILENT_S:.0f} s")
        if actor.joined:
            self._lost(actor)
        self._begin(self._bury_later(actor))

    async def _bury_later(self, actor: Actor) -> None:
        """By SILENT_S after a beat that it answered it has dropped everything; `work` sees when its node is gone."""
        while actor.number in self.actors and time.monotonic() < actor.heard_at + SILENT_S:
            await asyncio.sleep(LOOK_S)
        self.bury(actor, "", blamed=True)

    # -- starting

    def _start_missing(self) -> None:
        """Actors wherever there is room, spread over the nodes, until there are as many as are wanted."""
        now = time.monotonic()
        room = {
            node.id: int(node.cpus / self._settings.cpus_per_actor)
            for node in self.nodes
            if self._resting.get(node.id, 0.0) < now
        }
        running = Counter(actor.node.id for actor in self.actors.values())
        wanted = self._config.workers or sum(room.values())
        nodes = {node.id: node for node in self.nodes}
        while running.total() < wanted:
            free = [(running[name], name) for name, most in room.items() if running[name] < most]
            if not free:
                return
            _, name = min(free)
            running[name] += 1
            self._start(nodes[name], min(room[name], wanted))

    def _start(self, node: Node, neighbours: int) -> None:
        self._started += 1
        setup = Setup(self._started, self._config, self._staging, neighbours)
        actor = self.actors[self._started] = Actor(self._started, node, self._engine.start(node, setup))
        self._begin(self._attend(actor))

    async def _attend(self, actor: Actor) -> None:
        """From its start to its end: whatever it takes to be ready, then a lease each second."""
        try:
            async with asyncio.timeout(START_S):
                actor.facts = await actor.member.begin()
            _compare(actor.facts)
        except (EngineError, MatcherError, TimeoutError) as error:
            self._failed_to_start(actor, error)
            return
        actor.heard_at = time.monotonic()
        self._failed.pop(actor.node.id, None)
        while not actor.lost:
            await self._beat(actor)
            await asyncio.sleep(BEAT_S)

    def _failed_to_start(self, actor: Actor, error: Exception) -> None:
        name = actor.node.id
        self._failed[name] += 1
        if not isinstance(error, Gone | Silent) or self._failed[name] >= MAX_STARTS:
            self._resting[name] = time.monotonic() + REST_S
            why = str(error) or "it was not ready in time"
            if (name, why) not in self._said:
                self._said.add((name, why))
                log.warning("node %s: no scan there for now: %s", actor.node.address, why)
        actor.lost = True  # which is no news of an actor that nobody has met
        self.bury(actor, "", blamed=False)

    # -- leases

    async def _beat(self, actor: Actor) -> None:
        lease = self._offer(actor)
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(SILENT_S):
                pulse = await actor.member.beat(lease)
        except TimeoutError:
            self.lose_sight(actor, "")
            return
        except EngineError as error:
            self.distrust(actor, error)
            return
        actor.heard_at = sent_at
        if lease is not None:
            self._rate.settle(actor.number, lease.rate)
            self._inflight.settle(actor.number, max(lease.inflight, pulse.inflight))
        if pulse.trouble and not actor.pulse.trouble:
            log.warning("%s: %s; trying again", actor, pulse.trouble)
        self.tell(actor, pulse.logs)
        actor.feel(pulse, sent_at)
        if actor.lost:
            return
        if lease is not None and not actor.joined:
            actor.joined = True
            self._joined(actor)
        if actor.joined:
            self._felt(actor)
        if not self._is_busy(actor) or pulse.trouble:
            actor.moved_at = sent_at  # it waits for us, or for a place that it has told us of
        elif sent_at - actor.moved_at > self._longest_s():
            self.lose_sight(actor, f"it answers, but has done nothing for {sent_at - actor.moved_at:.0f} s")

    def _longest_s(self) -> float:
        """For how long an actor that is well may neither begin nor end a conversation."""
        config = self._config
        turns_s = 10 * len(self.actors) / config.rate if config.rate else 0.0
        return (config.service_timeout_s or LONGEST_S) + 2 * config.host_delay_s + turns_s + STALLED_S

    def _offer(self, actor: Actor) -> Lease | None:
        """A part of what there is, small for who has nothing to do; None while others have not given up theirs."""
        config = self._config
        actor.idle_beats = 0 if self._is_busy(actor) else actor.idle_beats + 1
        ready = [other for other in self.actors.values() if other.facts is not None and not other.lost]
        busy = sum(other.idle_beats < IDLE_BEATS for other in ready)
        is_idle = actor.idle_beats >= IDLE_BEATS
        small, large = parts(config.rate, len(ready) - busy, busy)
        rate = self._rate.offer(actor.number, small if is_idle else large) if config.rate else 0.0
        inflight = 0
        if config.max_inflight:  # of which nobody can have less than one
            small, large = parts(config.max_inflight, len(ready) - busy, busy, least=1.0)
            inflight = int(self._inflight.offer(actor.number, int(small if is_idle else large)))
        if (config.rate and not rate) or (config.max_inflight and not inflight):
            if not actor.joined:  # it uses nothing of what it could have had
                self._rate.settle(actor.number, 0.0)
                self._inflight.settle(actor.number, 0.0)
            return None
        return Lease(rate, inflight)


def _compare(facts: Facts) -> None:
    """Raises EngineError for an actor whose answers might not be ours."""
    if (facts.version, _minor(facts.python)) != (__version__, _minor(platform.python_version())):
        raise EngineError(
            f"it has probemill {facts.version} on Python {facts.python}, and here is {__version__} "
            f"on {platform.python_version()}; install the same"
        )


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
