"""An actor, as it is on its node: one worker on the actor's own event loop, shards in, segments out.

Contract: a shard that `scan` was given ends as one segment, put whole, whose manifest the caller gets; or with an
exception, and then nothing of it counts. The actor obeys the last lease that it heard. When it hears none for LEASE_S,
or a lease comes so late, it drops everything for good: its driver may have given its work to another one by then.
What it contacts is checked once more against the lists that the driver has sent.
"""

import asyncio
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from engine import __version__
from engine.conversation.context import scan_context
from engine.databases import SharedMatcher
from engine.errors import EngineError, OutputError
from engine.model import Batch, Reason, Target
from engine.pool.cluster.engine import Dropped
from engine.pool.cluster.outbox import ShardOutbox
from engine.pool.cluster.supplies import database_of
from engine.pool.cluster.words import LEASE_S, Facts, Lease, Logs, Outcome, Pulse, Setup, Supplies
from engine.pool.descriptors import descriptor_limit, inflight_limit
from engine.pool.worker import Worker
from engine.results.lake import Unavailable
from engine.services import ServiceTable
from engine.state.attempt import Attempt
from engine.threads import Desk
from engine.transports.local_addresses import check_door, own
from matcher import compile_matcher

BACKLOG = 256  # pieces of rows that wait to be compressed; beyond it no new target is begun
PAUSES_S = (0.5, 1.0, 2.0, 5.0)  # before a segment is put again; the last one from then on
LASTING_S = 20.0  # for a place that does not take a segment
LOGS = 100  # lines kept for the driver
WATCH_S = 1.0

_targets = msgspec.msgpack.Decoder(list[Target]).decode


class ShardActor:
    """Made on the event loop that it is to use. Raises EngineError, MatcherError."""

    def __init__(self, setup: Setup, supplies: Supplies) -> None:
        self._kept = _Kept()
        logging.getLogger("probemill").addHandler(self._kept)
        sources = own(setup.config.sources)
        check_door(setup.config.source_port, setup.config.interface)
        config = replace(setup.config, sources=sources, workers=setup.neighbours, max_inflight=0)
        with _unpacked(supplies.recog) as recog:
            config = replace(config, recog=recog)
            self._inflight = inflight_limit(config)
            matcher = SharedMatcher(compile_matcher(database_of(supplies), config.matcher))
            context = scan_context(config, shared=matcher, services=ServiceTable(*supplies.services))
            self._desk = Desk()
            self._outbox = ShardOutbox(
                lambda: len(self._desk) > BACKLOG, asyncio.get_running_loop().call_later, context.failures
            )
            self._worker = Worker(config, context, self._outbox)
        self._config = config
        self._permitted = supplies.permitted
        self._staging = setup.staging
        try:
            self._stage = self._staging.open()
        except OutputError as error:
            raise OutputError(f"{error}: every node has to see this folder; or name --segments") from error
        self._lease = Lease(config.rate / config.workers)
        self._heard_at = time.monotonic()
        self._ended: Reason | None = None
        self._dropped = asyncio.Event()
        self._trouble = ""
        self._cut_short: set[asyncio.Event] = set()
        self._watching = asyncio.create_task(self._watch())
        self.facts = Facts(
            os.getpid(),
            __version__,
            platform.python_version(),
            context.reference,
            descriptor_limit(),
            self._inflight,
            sources,
        )

    def beat(self, lease: Lease | None) -> Pulse:
        """The next lease, or just a sign of life of the driver. Raises Dropped."""
        self._look()
        self._heard_at = time.monotonic()
        if lease is not None and lease != self._lease:
            self._lease = lease
            self._worker.change(min(lease.inflight or self._inflight, self._inflight), lease.rate)
        return Pulse(self._outbox.done, self._worker.inflight, self._trouble, self._kept.taken())

    async def scan(self, body: bytes) -> Outcome:
        """A shard: msgpack of its targets. Raises Dropped."""
        self._look()
        targets = _targets(body)
        attempt = Attempt()
        permitted = targets
        if self._permitted is not None:
            permitted = [target for target in targets if self._permitted.permits(target.host)]
            attempt.done.update({target.ordinal for target in targets} - {target.ordinal for target in permitted})
        over = asyncio.Event()  # whole, or there will be no more of it

        def write(batch: Batch) -> None:
            self._desk.post(lambda: attempt.write(batch.rows, batch.count, batch.done))

        shard = self._outbox.open(permitted, write, over.set)
        self._cut_short.add(over)
        try:
            if permitted and self._ended is None:
                self._worker.submit(permitted)
                whole = asyncio.create_task(over.wait())
                try:
                    await self._first(whole)
                finally:
                    whole.cancel()
            if shard.left:
                shard.outbox.flush()
            await self._put(attempt)
        finally:
            self._cut_short.discard(over)
            self._outbox.drop(permitted)
        assert attempt.manifest is not None
        return Outcome(attempt.manifest, self._outbox.told(shard), self._ended, self._kept.taken())

    async def cancel(self, reason: Reason) -> None:
        """Finish early: every shard ends with what is done of it; what was in flight is incomplete for `reason`."""
        self._ended = reason
        self._worker.cancel(reason)
        await self._worker.idle()
        for over in self._cut_short:
            over.set()

    def close(self) -> None:
        """Let go of everything; whoever waits for a shard is told that it was dropped. Once is enough."""
        if not self._dropped.is_set():
            self._dropped.set()
            self._watching.cancel()
            self._worker.close()
            self._desk.post(self._close_stage)  # behind what is being put
            logging.getLogger("probemill").removeHandler(self._kept)

    async def _put(self, attempt: Attempt) -> None:
        """Until it is there: what is in the way of it is told with every sign of life.

        A place that cannot be reached may come back at any time; what else is wrong with it (a full disk) ends the run,
        if it lasts. Raises OutputError then.
        """
        pauses = iter(PAUSES_S)
        pause = 0.0
        patient_until = time.monotonic() + LASTING_S
        while True:
            putting = asyncio.create_task(self._desk.do(lambda: self._stage.put(attempt)))
            try:
                await self._first(putting)
                putting.result()
            except OutputError as error:
                if not isinstance(error, Unavailable) and time.monotonic() > patient_until:
                    raise
                self._trouble = str(error)
                self._desk.post(self._open_again)
            else:
                self._trouble = ""
                return
            finally:
                putting.cancel()
            pause = next(pauses, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._dropped.wait()
            self._look()

    def _close_stage(self) -> None:
        self._stage.close()

    def _open_again(self) -> None:
        """A folder may have been away, and be another one now."""
        with suppress(EngineError):
            stage = self._staging.open()
            self._stage.close()
            self._stage = stage

    async def _first(self, task: "asyncio.Task[Any]") -> None:
        """Wait for a task. Raises Dropped if that comes first."""
        dropped = asyncio.create_task(self._dropped.wait())
        try:
            await asyncio.wait((task, dropped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            dropped.cancel()
        self._look()

    async def _watch(self) -> None:
        with suppress(Dropped):
            while True:
                await asyncio.sleep(WATCH_S)
                self._look()

    def _look(self) -> None:
        if not self._dropped.is_set() and time.monotonic() - self._heard_at > LEASE_S:
            self.close()
        if self._dropped.is_set():
            raise Dropped("it had not heard from its driver")


class _Kept(logging.Handler):
    """Warnings, for the driver to say; the first of many, and how many more there were."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logs: list[tuple[int, str]] = []
        self._more = 0

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._logs) < LOGS:
            self._logs.append((record.levelno, record.getMessage()))
        else:
            self._more += 1

    def taken(self) -> Logs:
        logs, self._logs = self._logs, []
        more, self._more = self._more, 0
        return (*logs, (logging.WARNING, f"and {more} more lines")) if more else tuple(logs)


@contextmanager
def _unpacked(files: dict[str, bytes]) -> Iterator[str]:
    """A folder with these files, as long as the block; empty where there are none."""
    if not files:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="probemill-") as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        yield folder
