"""The runner without processes: one worker on the caller's own event loop."""

import asyncio
from functools import partial

from engine.conversation.context import MakeContext, scan_context
from engine.model import Batch, Reason, ScanConfig
from engine.pool.cluster.words import NodeStatus
from engine.pool.descriptors import window
from engine.pool.runners.base import Deliver, Source
from engine.pool.worker import Worker, in_batches
from engine.threads import in_thread

QUEUED_BATCHES = 64  # beyond it no new target is begun


class InlineRunner:
    """For `workers=0`: nothing is started, and the caller's loop does the work. restarts stays 0.

    context: makes the database ready, in a thread, so that whoever cancels meanwhile does not wait. It raises
    MatcherError, ConfigError.
    """

    def __init__(self, config: ScanConfig, context: MakeContext = scan_context) -> None:
        self.restarts = 0
        self.ready = False
        self._config = config
        self._context = context
        self._worker: Worker | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._cancelled = False
        self._outstanding = 0
        self._room = asyncio.Event()

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        self._cancelled = True
        if self._feeder is not None:
            self._feeder.cancel()
        if self._worker is not None:
            self._worker.cancel(reason)

    def outstanding(self) -> list[int]:
        return [self._outstanding]

    def conversations(self) -> list[int]:
        return [self._worker.conversations if self._worker is not None else 0]

    def unsettled(self) -> int:
        return 0

    def nodes(self) -> list[NodeStatus]:
        return []

    async def run(self, source: Source, deliver: Deliver) -> None:
        batches: asyncio.Queue[Batch | None] = asyncio.Queue()
        context = await in_thread(partial(self._context, self._config))
        self.ready = True
        outbox = in_batches(self._config, context, batches.put_nowait, lambda: batches.qsize() > QUEUED_BATCHES)
        worker = self._worker = Worker(self._config, context, outbox)
        feeder = self._feeder = asyncio.create_task(self._feed(source, worker))
        if self._cancelled:  # before it had begun
            feeder.cancel()

        async def finish() -> None:
            try:
                await asyncio.wait((feeder,))
                await worker.idle()
            finally:
                batches.put_nowait(None)

        finisher = asyncio.create_task(finish())
        try:
            while (batch := await batches.get()) is not None:
                self._outstanding -= batch.count
                self._room.set()
                await deliver(batch)
            if not feeder.cancelled():
                feeder.result()  # what went wrong while reading is the caller's to know
        finally:
            feeder.cancel()
            finisher.cancel()
            worker.close()

    async def _feed(self, source: Source, worker: Worker) -> None:
        limit = window(self._config)
        async for targets in source:
            while self._outstanding >= limit:
                self._room.clear()
                await self._room.wait()
            self._outstanding += len(targets)
            worker.submit(targets)
