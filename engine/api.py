"""Scan from Python: `async for result in scan(targets, config)`, and the same without async as `scan_sync`.

    from engine import ScanConfig, scan_sync

    for result in scan_sync(["192.0.2.7:22", "192.0.2.7:443"], ScanConfig(intensity=5)):
        print(result.ip, result.port, result.name, result.product, result.version)

Results come in the order in which the services are done. Leaving the loop early ends the scan.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

from msgspec.structs import replace

from engine.conversation.context import scan_context
from engine.errors import InputError
from engine.model import Batch, ScanConfig, ServiceResult, Target
from engine.pool.descriptors import raise_descriptor_limit
from engine.pool.runners import Runner
from engine.pool.runners.inline import InlineRunner
from engine.pool.runners.processes import ProcessRunner
from engine.post.second_opinion import open_opinion
from engine.results.sinks.base import decode_rows
from engine.targets import Item
from engine.targets.plain import PlainReader
from engine.targets.source import TargetSource
from engine.transports.local_addresses import check_sources

Targets = Iterable[str | Target] | AsyncIterable[str | Target]


def make_runner(config: ScanConfig) -> Runner:
    """The runner that `config.workers` asks for.

    Raises ConfigError for a source address that is not this machine's, and, where there are no workers that would find
    out, MatcherError for a database or engine that cannot be used; always for a folder of fingerprints that cannot.
    """
    check_sources(config.sources)
    if config.recog:
        open_opinion(config.recog)  # what is wrong with the folder is said before anything begins
    raise_descriptor_limit()
    return ProcessRunner(config) if config.workers else InlineRunner(config, scan_context(config))


async def scan(targets: Targets, config: ScanConfig | None = None) -> AsyncIterator[ServiceResult]:
    """Identify the services on `targets`: `Target` objects, or texts such as `192.0.2.7:22/tcp`.

    Raises InputError at the first text that is no target, MatcherError for an unusable database.
    """
    runner = make_runner(config or ScanConfig())
    results: asyncio.Queue[list[ServiceResult] | None] = asyncio.Queue(8)

    async def deliver(batch: Batch) -> None:
        await results.put(decode_rows(batch.rows))

    async def run() -> None:
        try:
            await runner.run(aiter(TargetSource(_items(targets), _refuse)), deliver)
        finally:
            await results.put(None)

    running = asyncio.create_task(run())
    try:
        while (rows := await results.get()) is not None:
            for row in rows:
                yield row
        await running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def scan_sync(targets: Targets, config: ScanConfig | None = None) -> Iterator[ServiceResult]:
    """As `scan`, for code without an event loop."""
    with asyncio.Runner() as runner:
        results = scan(targets, config)
        try:
            while True:
                try:
                    yield runner.run(_next(results))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(_close(results))


async def _next(results: AsyncIterator[ServiceResult]) -> ServiceResult:
    return await anext(results)


async def _close(results: AsyncIterator[ServiceResult]) -> None:
    await results.aclose()  # type: ignore[attr-defined]


def _refuse(error: InputError) -> None:
    raise error


async def _items(targets: Targets) -> AsyncIterator[list[Item]]:
    """Numbered in the order in which they come, whatever ordinals the caller's own objects have."""
    reader = PlainReader("targets")

    def items(target: str | Target) -> list[Item]:
        if isinstance(target, str):
            return reader.read_line(target)
        reader.ordinal += 1
        return [replace(target, ordinal=reader.ordinal - 1)]

    if isinstance(targets, AsyncIterable):
        async for target in targets:
            yield items(target)
    else:
        for target in targets:
            yield items(target)
