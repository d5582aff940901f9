"""Actors of a cluster inside the test's process, on its event loop, and what their segments say."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from loopback import DATABASE, Farm

from engine.model import ScanConfig, ServiceResult, Target
from engine.pool.cluster.actor import ShardActor
from engine.pool.cluster.supplies import gathered
from engine.pool.cluster.words import Outcome, Setup
from engine.results.sinks.base import decode_rows
from engine.state.attempt import Attempt, Stage, Staging
from engine.state.ordinals import OrdinalSet
from engine.state.records import Manifest

RUN = "0123456789abcdef"
PATIENCE_S = 30.0
SLOW = DATABASE.replace(b"totalwaitms 400", b"totalwaitms 60000")  # who says nothing is waited for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeStaging:
    """Puts where a real one does, when `hinder`, which is called in the thread before, lets it."""

    def __init__(self, folder: Path, hinder: Callable[[], object]) -> None:
        self._folder = folder
        self._hinder = hinder

    def open(self) -> Stage:
        stage = Staging(str(self._folder), RUN).open()
        put = stage.put

        def hindered(attempt: Attempt) -> Manifest:
            self._hinder()
            return put(attempt)

        stage.put = hindered  # type: ignore[method-assign]
        return stage


@contextlib.asynccontextmanager
async def working(settings: ScanConfig, staging: Any, supplied: ScanConfig | None = None) -> AsyncIterator[ShardActor]:
    """supplied: whose files the driver has read; the same if None."""
    actor = ShardActor(Setup(1, settings, staging, 1), gathered(supplied or settings))
    try:
        yield actor
    finally:
        actor.close()


def run(job: Coroutine[Any, Any, None], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await job

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(limited())


async def until(reached: Callable[[], object]) -> None:
    while not reached():
        await asyncio.sleep(0.01)


def targets(farm: Farm, count: int, first: int = 0) -> list[Target]:
    return [Target(n, f"127.61.{n // 200}.{n % 200 + 1}", farm.port) for n in range(first, first + count)]


def body(shard: Sequence[Target]) -> bytes:
    return msgspec.msgpack.encode(shard)


def rows(folder: Path, outcome: Outcome) -> list[ServiceResult]:
    """Of the segment, which has as many as it says."""
    manifest = outcome.manifest
    if not manifest.rows:
        assert not manifest.key
        return []
    packed = (folder / manifest.key).read_bytes()
    assert len(packed) == manifest.size
    found = decode_rows(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
    assert len(found) == manifest.rows
    return found


def done(outcome: Outcome) -> set[int]:
    return set(
        itertools.chain.from_iterable(range(*each) for each in OrdinalSet.decode(outcome.manifest.done).ranges())
    )


def counted(found: list[ServiceResult]) -> Counter[str]:
    """What a tally says of rows."""
    tally: Counter[str] = Counter()
    for row in found:
        tally["verdict:" + row.verdict.value] += 1
        tally["bytes"] += row.bytes
        tally["connections"] += row.connections
        tally["waited_ms"] += row.elapsed_ms
        if row.reason is not None:
            tally["reason:" + row.reason.value] += 1
    return tally


def of_rows(tally: dict[str, int]) -> Counter[str]:
    names = ("verdict:", "reason:", "bytes", "connections", "waited_ms")
    return Counter({name: number for name, number in tally.items() if name.startswith(names)})


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def nothing_put(folder: Path) -> bool:
    return not names(folder)
