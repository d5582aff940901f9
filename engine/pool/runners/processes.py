"""The default runner: a pool of worker processes, each on a core of its own, targets routed by a hash of their host.

Exactly once, whatever happens to a worker: a target is owed by its slot until the message with its row has been
received whole. When a worker dies, a new process takes over the slot and scans what is owed again; rows that were on
their way in a broken message were never delivered, so nothing is lost and nothing doubled. A target that kills every
worker that touches it is found (pool/owed.py) and has a row that says so. A worker that gives no sign of life is
killed, and so is one that does not end when it is told to: nothing inside a worker can keep the run from ending.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

import msgspec

from engine.conversation.scan import crashed_row, rfc3339
from engine.errors import ConfigError, EngineError
from engine.model import Batch, DatabaseRef, Reason, ScanConfig, Target
from engine.pool.cluster.words import NodeStatus
from engine.pool.descriptors import window
from engine.pool.limits import kin
from engine.pool.outbox import batch_of
from engine.pool.owed import Owed
from engine.pool.process import WorkerProcess
from engine.pool.runners.base import Deliver, Source
from engine.pool.wire import OPEN, Kind, setup_body
from engine.targets.permutation import route
from matcher import MatcherError

log = logging.getLogger("probemill.pool")

MAX_BARREN_DEATHS = 4  # of one slot in a row without a row and without a target to blame; then the run gives up
MAX_CULPRITS = 20  # of one slot in a row without a row in between; then it is not the targets
LOOK_S = 1.0  # from one look at the workers' signs of life to the next
START_S = 600.0  # for a worker to be ready; a slow machine may read a large database for long
HANG_S = 20.0  # without a sign of life; a worker that was stopped for less goes on as if nothing had been
ENDING_S = 5.0  # for workers to hand over what they have when the run is to end early


class _Slot:
    """One worker's place: its process, and what it owes. heard_at: its last sign of life, monotonic.

    conversations: open there when it last said so. A process is started when there is something to do for it.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: WorkerProcess | None = None
        self.owed = Owed()
        self.wanted = asyncio.Event()  # there is something to do for a process
        self.room = asyncio.Event()
        self.barren_deaths = 0
        self.culprits = 0
        self.ready = False
        self.draining = False
        self.done = False
        self.delivering = False
        self.heard_at = 0.0
        self.conversations = 0

    def write(self, kind: Kind, body: bytes = b"") -> None:
        if self.process is not None:
            self.process.write(kind, body)


class ProcessRunner:
    """config.workers processes (at least one)."""

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._window = window(config)
        self._slots = [_Slot(index) for index in range(max(1, config.workers))]
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Batch).decode
        self._feeder: asyncio.Task[None] | None = None
        self._fed = False
        self._cancelled: Reason | None = None
        self._database = DatabaseRef("", "")
        self.restarts = 0
        self.ready = False

    @property
    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        if self._cancelled is None:
            asyncio.get_running_loop().call_later(ENDING_S, self._enforce)
        self._cancelled = reason
        if self._feeder is not None:
            self._feeder.cancel()
        for slot in self._slots:
            self._tell_to_end(slot)

    def outstanding(self) -> list[int]:
        return [len(slot.owed) for slot in self._slots]

    def conversations(self) -> list[int]:
        return [slot.conversations for slot in self._slots]

    def unsettled(self) -> int:
        return 0

    def nodes(self) -> list[NodeStatus]:
        return []

    async def run(self, source: Source, deliver: Deliver) -> None:
        watching = asyncio.create_task(self._watch())
        self._slots[0].wanted.set()  # it makes the database ready while the first target is looked for
        try:
            readers = [asyncio.create_task(self._attend(slot, deliver)) for slot in self._slots]
            self._feeder = asyncio.create_task(self._feed(source))
            if self._cancelled is not None:  # before it had begun
                self._feeder.cancel()
            await self._until_done(self._feeder, readers)
        finally:
            watching.cancel()
            if self._feeder is not None:
                self._feeder.cancel()
            await self._discard(self._slots)

    async def _until_done(self, feeder: "asyncio.Task[None]", readers: "list[asyncio.Task[None]]") -> None:
        """Wait for the reader, then for every worker; the first thing to go wrong with one of these ends the run.

        What goes wrong with the reader is raised when everything that it had read is done.
        """
        try:
            tasks: set[asyncio.Task[None]] = {feeder, *readers}
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {feeder}:
                    task.result()
                if feeder in done:
                    self._fed = True
                    for slot in self._slots:
                        self._give_due(slot)
                        slot.wanted.set()
            if not feeder.cancelled():
                feeder.result()
        finally:
            for task in (feeder, *readers):
                task.cancel()
            await asyncio.gather(feeder, *readers, return_exceptions=True)

    async def _feed(self, source: Source) -> None:
        slots = self._slots
        count = len(slots)
        by_prefix = self._config.per_prefix > 0
        first: int | None = None  # the place whose targets go to the slot that has a process already
        async for targets in source:
            shares: list[list[Target]] = [[] for _ in slots]
            for target in targets:
                place = route(kin(target.host, by_prefix=by_prefix), count)
                first = place if first is None else first
                shares[(place - first) % count].append(target)
            for slot, share in zip(slots, shares, strict=True):
                if share:
                    await self._give(slot, share)

    async def _give(self, slot: _Slot, targets: Sequence[Target]) -> None:
        while len(slot.owed) >= self._window or slot.owed.is_narrowing:
            slot.room.clear()
            await slot.room.wait()
        slot.owed.add(targets)
        self._give_due(slot)

    def _give_due(self, slot: _Slot) -> None:
        """What the worker may have now, and when that was all there will be, the word that it was."""
        if slot.process is None:
            slot.wanted.set()
            return
        if self._cancelled is None:
            while due := slot.owed.due():
                slot.write(Kind.TARGETS, self._encode(due))
            if slot.owed.is_narrowing:
                return
        slot.room.set()
        if self._fed and not slot.draining:
            slot.draining = True
            slot.write(Kind.DRAIN)

    async def _attend(self, slot: _Slot, deliver: Deliver) -> None:
        """Start a worker when it is wanted, take in what it sends until it says goodbye; replace it when it dies."""
        await slot.wanted.wait()
        if not self._needs(slot):
            return
        await self._launch(slot)
        while True:
            assert slot.process is not None
            message = await slot.process.receive()
            slot.heard_at = time.monotonic()
            if message is None:
                if self._cancelled is not None:
                    return
                await self._replace(slot, deliver)
                continue
            kind, body = message
            if kind is Kind.BATCH:
                batch = self._decode(body)
                slot.owed.done(batch.done)
                slot.barren_deaths = slot.culprits = 0
                self._give_due(slot)
                await self._deliver(slot, batch, deliver)
            elif kind is Kind.ALIVE:
                (slot.conversations,) = OPEN.unpack(body)
            elif kind is Kind.READY:
                database = msgspec.msgpack.decode(body, type=DatabaseRef)
                if self.ready and database != self._database:
                    log.warning("%s has changed since the scan began; rows say which one they are by", database.name)
                self._database = database
                slot.ready = self.ready = True
            elif kind is Kind.FAULT:
                fault, text = msgspec.msgpack.decode(body, type=tuple[str, str])
                raise (MatcherError if fault == MatcherError.__name__ else ConfigError)(text)
            elif kind is Kind.BYE:
                slot.done = True  # it has nothing more to say, and that is no silence
                slot.conversations = 0
                return

    def _needs(self, slot: _Slot) -> bool:
        """Whether a process is to be started there, or all is over before there was one."""
        return self._cancelled is None and (bool(slot.owed) or not self._fed)

    @staticmethod
    async def _deliver(slot: _Slot, batch: Batch, deliver: Deliver) -> None:
        """A worker that is not read, because whoever takes its rows is slow, is not silent."""
        slot.delivering = True
        await deliver(batch)
        slot.delivering = False
        slot.heard_at = time.monotonic()

    async def _launch(self, slot: _Slot) -> None:
        slot.ready = slot.draining = False
        slot.conversations = 0
        slot.process = await WorkerProcess.start()
        slot.heard_at = time.monotonic()
        slot.write(Kind.SETUP, setup_body(self._config))
        if self._cancelled is not None:  # meanwhile
            self._tell_to_end(slot)
        self._give_due(slot)

    def _tell_to_end(self, slot: _Slot) -> None:
        """One that is not ready has nothing to hand over, and may not listen for a while."""
        assert self._cancelled is not None
        if slot.ready:
            slot.write(Kind.CANCEL, self._cancelled.value.encode())
        elif slot.process is not None:
            slot.process.kill()

    async def _replace(self, slot: _Slot, deliver: Deliver) -> None:
        """A new process for a slot whose worker has died, and the verdict on what it had. Raises EngineError."""
        assert slot.process is not None
        status = await slot.process.status()
        self.restarts += 1
        owed = len(slot.owed)
        culprit = slot.owed.died()
        slot.barren_deaths += not slot.ready or not owed
        slot.culprits += culprit is not None
        log.warning(
            "worker %d (pid %d) died with status %d; its %d unfinished targets are scanned again",
            slot.index,
            slot.process.pid,
            status,
            owed,
        )
        if slot.barren_deaths >= MAX_BARREN_DEATHS or slot.culprits >= MAX_CULPRITS:
            raise EngineError(f"worker {slot.index} dies again and again, with status {status}; giving up")
        if culprit is not None:
            log.warning("%s port %d/%s kills our workers; given up", culprit.host, culprit.port, culprit.proto)
            await self._deliver(slot, self._obituary(culprit), deliver)
        await self._discard([slot])
        await self._launch(slot)

    def _obituary(self, target: Target) -> Batch:
        """The row of a target that no worker survives."""
        row = crashed_row(target, self._database, rfc3339(time.time()), state=target.state)
        return batch_of([row], [target.ordinal])

    async def _watch(self) -> None:
        """Kill workers that give no sign of life. Time in which this process itself stood still does not count."""
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            paused_s = max(0.0, now - looked_at - 2 * LOOK_S)
            looked_at = now
            for slot in self._slots:
                slot.heard_at += paused_s
                if slot.process is None or slot.delivering or slot.done:
                    continue
                if now - slot.heard_at > (HANG_S if slot.ready else START_S):
                    slot.heard_at = now  # said once
                    log.warning("worker %d (pid %d) is stuck", slot.index, slot.process.pid)
                    slot.process.kill()

    def _enforce(self) -> None:
        """The run was to end some time ago: workers that have not handed over what they have do so no more."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()

    @staticmethod
    async def _discard(slots: Sequence[_Slot]) -> None:
        """Let go of workers, all at the same time. One that is not ready is not waited for."""
        processes = [slot.process for slot in slots if slot.process is not None]
        for slot in slots:
            if slot.process is not None and not slot.ready:
                slot.process.kill()
            slot.process = None
        await asyncio.gather(*(process.end() for process in processes))
