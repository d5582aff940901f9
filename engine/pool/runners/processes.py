"""The default runner: a pool of worker processes, each on a core of its own, targets routed by a hash of their host.

Exactly once, whatever happens to a worker: a target stays in its slot's `outstanding` until the message with its row
has been received whole. When a worker dies, a new process takes over the slot and scans what is outstanding again; rows
that were on their way in a broken message were never delivered, so nothing is lost and nothing doubled.
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from engine.errors import ConfigError, EngineError
from engine.model import Batch, Reason, ScanConfig, Target
from engine.pool.runners.base import Deliver, Source
from engine.pool.wire import Kind, frame, receive, setup_frame
from engine.pool.worker import inflight_limit
from engine.signals import held_back
from engine.targets.permutation import route

log = logging.getLogger("probemill.pool")

MAX_BARREN_DEATHS = 4  # of one slot in a row without a row delivered; then the run gives up
_MAIN = "import sys; from engine.pool.serve import serve; serve(int(sys.argv[1]))"  # imports nothing of the caller
COLLECTORS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # signals that are not a worker's business
GRACE_S = 2.0  # for a worker to end by itself once its link is closed
PATIENCE_S = 4.0  # before people are told what the workers are doing
STREAM_LIMIT = 1 << 22  # bytes that are buffered of one worker's messages


class _Slot:
    """One worker's place: its process, its link, and what it owes."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: subprocess.Popen[bytes] | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader | None = None
        self.outstanding: dict[int, Target] = {}
        self.room = asyncio.Event()
        self.barren_deaths = 0
        self.draining = False
        self.ready = False


class ProcessRunner:
    """config.workers processes (at least one)."""

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._window = 2 * inflight_limit(config)
        self._slots = [_Slot(index) for index in range(max(1, config.workers))]
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Batch).decode
        self._feeder: asyncio.Task[None] | None = None
        self._cancelled: Reason | None = None
        self.restarts = 0

    @property
    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        self._cancelled = reason
        if self._feeder is not None:
            self._feeder.cancel()
        for slot in self._slots:
            self._write(slot, frame(Kind.CANCEL, reason.value.encode()))

    def outstanding(self) -> list[int]:
        return [len(slot.outstanding) for slot in self._slots]

    async def run(self, source: Source, deliver: Deliver) -> None:
        try:
            for slot in self._slots:
                await self._launch(slot)
            patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._explain_waiting)
            readers = [asyncio.create_task(self._attend(slot, deliver)) for slot in self._slots]
            self._feeder = asyncio.create_task(self._feed(source))
            if self._cancelled is not None:  # while the workers were starting
                self._feeder.cancel()
            try:
                await self._until_done(self._feeder, readers)
            finally:
                patience.cancel()
        finally:
            if self._feeder is not None:
                self._feeder.cancel()
            await self._discard(self._slots)

    def _explain_waiting(self) -> None:
        if not any(slot.ready for slot in self._slots):
            log.warning("preparing the database; the first time this can take a minute")

    async def _until_done(self, feeder: "asyncio.Task[None]", readers: "list[asyncio.Task[None]]") -> None:
        """Wait for the reader, then for every worker; the first thing to go wrong ends the run."""
        try:
            tasks: set[asyncio.Task[None]] = {feeder, *readers}
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled():
                        task.result()
                if feeder in done:
                    for slot in self._slots:
                        slot.draining = True
                        self._write(slot, frame(Kind.DRAIN))
        finally:
            for task in (feeder, *readers):
                task.cancel()
            await asyncio.gather(feeder, *readers, return_exceptions=True)

    async def _feed(self, source: Source) -> None:
        slots = self._slots
        count = len(slots)
        async for targets in source:
            shares: list[list[Target]] = [[] for _ in slots]
            for target in targets:
                shares[route(target.host, count)].append(target)
            for slot, share in zip(slots, shares, strict=True):
                if share:
                    await self._give(slot, share)

    async def _give(self, slot: _Slot, targets: Sequence[Target]) -> None:
        while len(slot.outstanding) >= self._window:
            slot.room.clear()
            await slot.room.wait()
        for target in targets:
            slot.outstanding[target.ordinal] = target
        self._write(slot, frame(Kind.TARGETS, self._encode(targets)))

    async def _attend(self, slot: _Slot, deliver: Deliver) -> None:
        """Take in what a worker sends until it says goodbye; replace it when it dies."""
        while True:
            assert slot.reader is not None
            message = await receive(slot.reader)
            if message is None:
                await self._replace(slot)
                continue
            kind, body = message
            if kind is Kind.BATCH:
                batch = self._decode(body)
                for ordinal in batch.done:
                    del slot.outstanding[ordinal]
                slot.barren_deaths = 0
                slot.room.set()
                await deliver(batch)
            elif kind is Kind.READY:
                slot.ready = True
            elif kind is Kind.FAULT:
                raise ConfigError(body.decode())
            elif kind is Kind.BYE:
                return

    async def _launch(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            with held_back(*COLLECTORS):
                slot.process = subprocess.Popen([sys.executable, "-c", _MAIN, str(descriptor)], pass_fds=[descriptor])
        slot.reader, slot.writer = await asyncio.open_unix_connection(sock=ours, limit=STREAM_LIMIT)
        self._write(slot, setup_frame(self._config))

    async def _replace(self, slot: _Slot) -> None:
        assert slot.process is not None
        pid = slot.process.pid
        status = await asyncio.to_thread(slot.process.wait)
        slot.barren_deaths += 1
        self.restarts += 1
        log.warning(
            "worker %d (pid %d) died with status %d; its %d unfinished targets are scanned again",
            slot.index,
            pid,
            status,
            len(slot.outstanding),
        )
        if slot.barren_deaths >= MAX_BARREN_DEATHS:
            raise EngineError(f"worker {slot.index} died {slot.barren_deaths} times without a result; giving up")
        await self._discard([slot])
        await self._launch(slot)
        if slot.outstanding:
            self._write(slot, frame(Kind.TARGETS, self._encode(list(slot.outstanding.values()))))
        if self._cancelled is not None:
            self._write(slot, frame(Kind.CANCEL, self._cancelled.value.encode()))
        if slot.draining:
            self._write(slot, frame(Kind.DRAIN))

    @staticmethod
    def _write(slot: _Slot, data: bytes) -> None:
        """Send if there is somebody to send to; a dead worker is noticed, and mended, where it is read."""
        if slot.writer is not None and not slot.writer.is_closing():
            slot.writer.write(data)

    @staticmethod
    async def _discard(slots: Sequence[_Slot]) -> None:
        """Let go of workers: their links first, which ends them, then their processes."""
        for slot in slots:
            if slot.writer is not None:
                slot.writer.close()
                slot.writer = slot.reader = None
        processes = [slot.process for slot in slots if slot.process is not None]
        for slot in slots:
            slot.process = None
        await asyncio.sleep(0)  # the links close on the loop's next turn
        for process in processes:
            await asyncio.to_thread(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
