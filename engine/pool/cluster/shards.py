"""Who scans what on a cluster: targets wait in slots, slots are with actors, shards go out and come back. Pure.

A hash of what a target's caps count together (`limits.kin`) picks one of 4,096 slots. A slot is with one actor at a
time, from the first target that is given to the last that is done, so that every cap per host and per prefix stays a
number in one process. A shard is what an actor is given at once: consecutive targets of the slots that are with it.

What an actor had that is gone is inherited by another one, whole: its slots and the shards that it had not done. Where
actors die of what they are given, the shard that two of them died with is given to one that has nothing else, then in
halves, until the target is alone that no actor survives. Actors that have nothing to do take over slots of others.

Zones: a target belongs to the zone that `zone_of` names ("" for none), and is given only to actors of that zone.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import count

import msgspec

from engine.model import Target
from engine.pool.limits import kin
from engine.targets.permutation import route

SLOTS = 4096  # of a zone
LEAST, MOST = 512, 16_384  # targets of a shard
GROWTH = 100  # a shard is no more than this part of what has been read
WAIT_S = 2.0  # for a shard to be full, where targets come slowly
ALONE = 2  # deaths with a shard, after which it is given to an actor that has nothing else
LONE_DEATHS = 3  # with one target and nothing else; then it is given up
WORTH_TAKING = 64  # targets that wait for a busy actor, from which on an idle one takes some over

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Target]).decode


class Shard:
    """Targets on their way. body: msgpack of them, kept in that form because a driver holds millions."""

    __slots__ = ("body", "count", "deaths", "lone_deaths", "number", "slots")

    def __init__(self, number: int, targets: Sequence[Target], slots: "dict[_Slot, int]", deaths: int = 0) -> None:
        self.number = number
        self.body = _encode(targets)
        self.count = len(targets)
        self.slots = slots
        self.deaths = deaths
        self.lone_deaths = 0

    def targets(self) -> list[Target]:
        return _decode(self.body)


class _Slot:
    """waiting: its targets. out: how many are in shards that are not done. leaving: its actor gets no more of it."""

    __slots__ = ("actor", "leaving", "out", "queued", "waiting", "zone")

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.waiting: list[Target] = []
        self.out = 0
        self.actor: _Actor | None = None
        self.queued = False
        self.leaving = False


class _Queue:
    """Slots that have targets to give. waiting: how many."""

    def __init__(self) -> None:
        self.slots: deque[_Slot] = deque()
        self.waiting = 0

    def put(self, slot: _Slot, *, first: bool = False) -> None:
        slot.queued = True
        self.waiting += len(slot.waiting)
        (self.slots.appendleft if first else self.slots.append)(slot)

    def take(self) -> _Slot:
        slot = self.slots.popleft()
        slot.queued = False
        self.waiting -= len(slot.waiting)
        return slot


class _Actor:
    def __init__(self, zones: Sequence[str], window: int, now: float) -> None:
        self.queues = {zone: _Queue() for zone in zones}
        self.window = window
        self.shards: dict[int, Shard] = {}
        self.retries: deque[Shard] = deque()
        self.slots: set[_Slot] = set()
        self.out = 0
        self.alone = False
        self.stopped = False
        self.given_at = now


class _Estate:
    """What an actor left in one zone."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.slots: list[_Slot] = []
        self.shards: list[Shard] = []


class Shards:
    """waiting: targets that no actor has been given. Actors are known by any number of the caller's."""

    def __init__(self, zone_of: Callable[[str], str] = lambda _: "", *, by_prefix: bool = False) -> None:
        self.waiting = 0
        self._zone_of = zone_of
        self._by_prefix = by_prefix
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._free: defaultdict[str, _Queue] = defaultdict(_Queue)
        self._actors: dict[int, _Actor] = {}
        self._estates: list[_Estate] = []
        self._numbers = count()
        self._read = 0
        self._ended = False

    @property
    def idle(self) -> bool:
        """Whether everything that was added is done."""
        return not self.waiting and not self._estates and not any(a.out or a.retries for a in self._actors.values())

    def stranded(self) -> dict[str, int]:
        """Targets that wait in zones of which there is no actor."""
        zones = {zone for actor in self._actors.values() for zone in actor.queues}
        lost = {zone: queue.waiting for zone, queue in self._free.items() if queue.waiting and zone not in zones}
        for estate in self._estates:
            if estate.zone not in zones:
                shards = sum(shard.count for shard in estate.shards)
                lost[estate.zone] = lost.get(estate.zone, 0) + shards + sum(len(s.waiting) for s in estate.slots)
        return lost

    def outstanding(self, actor: int) -> int:
        """Targets that an actor was given and has not done."""
        return self._actors[actor].out

    def add(self, targets: Iterable[Target]) -> None:
        for target in targets:
            host = target.host
            zone = self._zone_of(host)
            key = zone, route(kin(host, by_prefix=self._by_prefix), SLOTS)
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot(zone)
            slot.waiting.append(target)
            self.waiting += 1
            self._read += 1
            if slot.queued:
                self._queue_of(slot).waiting += 1
            elif slot.actor is None:
                self._free[zone].put(slot)
            elif not slot.leaving:
                slot.actor.queues[zone].put(slot)

    def resize(self, actor: int, window: int) -> None:
        """Another window for an actor."""
        self._actors[actor].window = window

    def end(self) -> None:
        """No more targets will be added."""
        self._ended = True

    def join(self, actor: int, zones: Sequence[str], window: int, now: float) -> None:
        """A new actor. window: targets that it may have at once, beside its last shard."""
        self._actors[actor] = _Actor(zones, window, now)

    def due(self, now: float) -> Iterator[tuple[int, Shard]]:
        """What is to be given now, and to which actor: those first that have least. Asked again and again."""
        asking = [(it.out, actor) for actor, it in self._actors.items()]
        heapify(asking)
        while asking:
            _, actor = heappop(asking)
            if (shard := self._next(self._actors[actor], now)) is not None:
                yield actor, shard
                heappush(asking, (self._actors[actor].out, actor))

    def stop(self, actor: int) -> None:
        """Give an actor nothing more; what it has, it has until it leaves."""
        self._actors[actor].stopped = True

    def done(self, actor: int, number: int) -> None:
        """An actor has done a shard."""
        it = self._actors[actor]
        shard = it.shards.pop(number)
        it.out -= shard.count
        it.alone = False
        for slot, targets in shard.slots.items():
            slot.out -= targets
            if not slot.out and (slot.leaving or not slot.waiting):
                self._free_slot(slot)

    def leave(self, actor: int, *, blamed: bool) -> Target | None:
        """An actor is gone, and others have what it had. Or the target that is to blame for it: it is given up.

        blamed: whether what it was given may be the cause, as it is not where a whole node is gone.
        """
        it = self._actors.pop(actor)
        shards = [*it.shards.values(), *it.retries]
        culprit = None
        if blamed and it.alone:
            (shard,) = it.shards.values()
            shards = [*self._narrowed(shard), *it.retries]
            if len(shards) == len(it.retries):
                (culprit,) = shard.targets()
        elif blamed:
            for shard in it.shards.values():
                shard.deaths += 1
        estates: dict[str, _Estate] = {}
        for slot in it.slots:
            slot.queued = False
            slot.leaving = bool(slot.out or slot.waiting)  # until somebody has it, it is in nobody's queue
            if slot.leaving:
                estates.setdefault(slot.zone, _Estate(slot.zone)).slots.append(slot)
            else:
                slot.actor = None
        for shard in shards:
            estates[next(iter(shard.slots)).zone].shards.append(shard)
        self._estates += estates.values()
        return culprit

    # -- how it is done

    def _next(self, it: _Actor, now: float) -> Shard | None:
        if it.alone or it.stopped:
            return None
        if it.out < it.window:
            self._inherit(it)
        if it.retries:
            shard = it.retries[0]
            if it.out and (shard.deaths >= ALONE or it.out + shard.count > it.window):
                return None
            it.alone = shard.deaths >= ALONE
            it.retries.popleft()
        else:
            made = self._cut(it, now)
            if made is None:
                return None
            shard = made
        it.shards[shard.number] = shard
        it.out += shard.count
        it.given_at = now
        return shard

    def _queue_of(self, slot: _Slot) -> _Queue:
        return self._free[slot.zone] if slot.actor is None else slot.actor.queues[slot.zone]

    def _inherit(self, actor: _Actor) -> None:
        """Take over the first estate that nobody has, if it is in a zone of the actor."""
        for estate in self._estates:
            if estate.zone in actor.queues:
                self._estates.remove(estate)
                actor.retries.extend(estate.shards)
                for slot in estate.slots:
                    self._move(slot, actor)
                return

    @staticmethod
    def _move(slot: _Slot, actor: _Actor) -> None:
        slot.actor = actor
        slot.leaving = False
        actor.slots.add(slot)
        if slot.waiting:
            actor.queues[slot.zone].put(slot)

    def _free_slot(self, slot: _Slot) -> None:
        assert slot.actor is not None
        slot.actor.slots.discard(slot)
        slot.actor = None
        slot.leaving = False
        if slot.waiting:
            self._free[slot.zone].put(slot)

    def _cut(self, actor: _Actor, now: float) -> Shard | None:
        """The next shard out of what waits, of one zone."""
        if actor.out >= actor.window:
            return None
        ready, zone = self._most_ready(actor)
        if not ready:
            if not self._take_over(actor):
                return None
            ready, zone = self._most_ready(actor)
        size = max(LEAST, min(MOST, self._read // GROWTH))
        if self._ended:
            actors = len(self._actors)
            least = min(LEAST, -(-self._read // actors))
            size = max(least, min(size, self.waiting // (2 * actors)))
        elif ready < size and now - actor.given_at < WAIT_S:
            return None
        return self._gather(actor, zone, size)

    def _most_ready(self, actor: _Actor) -> tuple[int, str]:
        """How many targets wait for an actor in the zone where most do, and that zone."""
        ready = ((queue.waiting + self._free[zone].waiting, zone) for zone, queue in actor.queues.items())
        return max(ready, default=(0, ""))

    def _gather(self, actor: _Actor, zone: str, size: int) -> Shard:
        targets: list[Target] = []
        slots: dict[_Slot, int] = {}
        for queue in (actor.queues[zone], self._free[zone]):
            while queue.slots and len(targets) < size:
                slot = queue.take()
                room = size - len(targets)
                given, slot.waiting = slot.waiting[:room], slot.waiting[room:]
                targets += given
                slots[slot] = len(given)
                slot.out += len(given)
                if slot.actor is None:
                    slot.actor = actor
                    actor.slots.add(slot)
                if slot.waiting:
                    actor.queues[zone].put(slot, first=True)
        self.waiting -= len(targets)
        return Shard(next(self._numbers), targets, slots)

    def _take_over(self, idle: _Actor) -> bool:
        """Half of the slots that wait for the busiest actor: at once, or when what it has of them is done."""
        if self.waiting < WORTH_TAKING:
            return False
        most, busiest, zone = 0, None, ""
        for actor in self._actors.values():
            for shared in actor.queues.keys() & idle.queues.keys():
                if actor is not idle and actor.queues[shared].waiting > most:
                    most, busiest, zone = actor.queues[shared].waiting, actor, shared
        if busiest is None or most < WORTH_TAKING:
            return False
        queue = busiest.queues[zone]
        moved = False
        for _ in range((len(queue.slots) + 1) // 2):
            slot = queue.slots.pop()
            slot.queued = False
            queue.waiting -= len(slot.waiting)
            if slot.out:
                slot.leaving = True
                continue
            busiest.slots.discard(slot)
            self._move(slot, idle)
            moved = True
        return moved

    def _narrowed(self, shard: Shard) -> list[Shard]:
        """What to try next of a shard that an actor with nothing else has died of; nothing: its target is to blame."""
        if shard.count == 1:
            shard.lone_deaths += 1
            if shard.lone_deaths < LONE_DEATHS:
                return [shard]
            for slot in shard.slots:
                slot.out -= 1
            return []
        targets = shard.targets()
        half = len(targets) // 2
        owners = [slot for slot, targets_of_it in shard.slots.items() for _ in range(targets_of_it)]
        halves = []
        for part, of in ((targets[:half], owners[:half]), (targets[half:], owners[half:])):
            slots: dict[_Slot, int] = {}
            for slot in of:
                slots[slot] = slots.get(slot, 0) + 1
            halves.append(Shard(next(self._numbers), part, slots, shard.deaths))
        return halves
