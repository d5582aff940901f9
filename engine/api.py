"""What Python programs call: `async for result in scan(targets, config)`, the same without async as `scan_sync`, and
`match` for one response that is at hand already. probemill.py is where they are imported from.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated

from msgspec import Meta, ValidationError, convert, to_builtins
from msgspec.structs import replace

from engine.conversation.context import RECOG, MakeContext, scan_context
from engine.databases import open_database, shared_matcher
from engine.errors import ConfigError, EngineError, InputError
from engine.model import Batch, ScanConfig, ServiceResult, Target
from engine.pool.cluster.words import Outcome
from engine.pool.descriptors import raise_descriptor_limit
from engine.pool.patience import GIVEN_UP
from engine.pool.runners import Runner, deadline
from engine.pool.runners.processes import ProcessRunner
from engine.post import module_names
from engine.results.sinks.base import decode_rows
from engine.targets import Item, Unreadable
from engine.targets.plain import PlainReader
from engine.targets.selection import select
from engine.targets.source import TargetSource
from engine.threads import in_thread
from engine.transports.local_addresses import Sources, check_door, check_sources
from matcher import Match, Proto


class _Checked(Target, frozen=True, array_like=True):
    """A target of the caller's, whose fields hold what they say."""

    ordinal: int
    host: str
    port: Annotated[int, Meta(ge=1, le=65535)]


Targets = Iterable[str | Target] | AsyncIterable[str | Target]


def make_runner(config: ScanConfig, context: MakeContext = scan_context) -> Runner:
    """The runner that `config.workers` asks for. context: makes a scan without workers ready.

    Raises ConfigError for a source address that is not this machine's or a post-processing module that is not there,
    MatcherError for a folder of fingerprints that cannot be used. A database that cannot be is found out when it runs.
    """
    check_local(config)
    check_config(config)
    if config.workers:
        return ProcessRunner(config)
    from engine.pool.runners.inline import InlineRunner  # and the worker, which otherwise other processes are

    return InlineRunner(config, context)


def reached(config: ScanConfig) -> ScanConfig:
    """The config with the address of its first proxy, of which it has some, once that leads to the last. Blocking.

    Raises EngineError, ConfigError.
    """
    from engine.transports.base import HopError
    from engine.transports.base_proxy import parse_proxies
    from engine.transports.proxy_check import reach, resolved

    check_local(config)
    proxies = parse_proxies(config.proxy)
    proxies = (resolved(proxies[0]), *proxies[1:])
    local = Sources(config.sources, config.source_port, config.interface).towards(proxies[0].host)
    try:
        reach(proxies, local, config.connect_timeout_s)
    except HopError as error:
        raise EngineError(error.strerror) from error
    return replace(config, proxy=tuple(proxy.url for proxy in proxies))


def check_local(config: ScanConfig) -> None:
    """Whether connections can begin where they are to begin on this machine. Raises ConfigError."""
    if config.source_port and config.proxy:
        raise ConfigError("source_port: not with a proxy, where all connections have the same other end")
    check_sources(config.sources)
    if config.source_port or config.interface:
        check_door(config.source_port, config.interface)


def check_config(config: ScanConfig) -> None:
    """Whatever runs it: what is wrong is said before anything begins. Raises ConfigError, MatcherError."""
    module_names(config.post)
    if config.alpn:
        from engine.transports.tls import check_alpn

        check_alpn(config.alpn)
    if config.proxy:
        from engine.transports.base_proxy import parse_proxies

        parse_proxies(config.proxy)
    if config.second_opinion == RECOG and not config.recog:
        raise ConfigError("second_opinion: recog needs the folder of its fingerprints; name it with --recog DIR")
    if config.second_opinion not in {"", RECOG}:
        second = open_database((config.second_opinion,))
        if second.sha256 == open_database(config.probes).sha256:
            raise ConfigError(f"second_opinion: {second.name} is the database that speaks first; name another one")
    if config.recog:
        from engine.post.recog_opinion import open_opinion

        open_opinion(config.recog)
    raise_descriptor_limit()


async def scan(targets: Targets, config: ScanConfig | None = None) -> AsyncIterator[ServiceResult]:
    """Identify the services on `targets`: `Target` objects, or texts such as `192.0.2.7:22/tcp`.

    Results come in the order in which the services are done; what lists and shard leave out has none. Leaving the loop
    early ends the scan. An iterable that waits for its next target (a pipe, a queue) has to be an asynchronous one: a
    plain one is read inside the loop. What it raises is raised when the targets before it are done. Raises InputError
    at the first text that is no target, ConfigError for a config that cannot be obeyed, MatcherError for an unusable
    database.
    """
    async with aclosing(encoded_rows(targets, config or ScanConfig())) as batches:
        async for batch in batches:
            for row in decode_rows(batch):
                yield row


async def encoded_rows(
    targets: Targets, config: ScanConfig, context: MakeContext = scan_context
) -> AsyncGenerator[bytes, None]:
    """As `scan`: the rows as NDJSON lines, as many together as a worker sends. context: as `make_runner` has it."""
    if isinstance(targets, str | bytes | Target):
        raise ConfigError(f"targets: {targets!r} is one target; give a list of them")
    selection = select(config)
    if config.proxy:
        config = await in_thread(partial(reached, config))
    runner = make_runner(config, context)
    results: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = asyncio.Semaphore(8)  # batches that wait to be taken; the end always finds a place

    async def deliver(batch: Batch | Outcome) -> None:
        assert isinstance(batch, Batch)  # as those runners give that are made here
        await room.acquire()
        results.put_nowait(batch.rows)
        if batch.tally.get(GIVEN_UP):
            raise EngineError("no proxy leads to targets any more")

    async def run() -> None:
        items = _items(targets, PlainReader("targets", selection.ports))
        source = TargetSource(items, _refuse, admit=selection.admit, seed=selection.seed, names=selection.names)
        try:
            with deadline(config, runner.cancel):
                await runner.run(aiter(source), deliver)
        finally:
            results.put_nowait(None)

    running = asyncio.create_task(run())
    try:
        while (rows := await results.get()) is not None:
            room.release()
            yield rows
        await running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def scan_sync(targets: Targets, config: ScanConfig | None = None) -> Iterator[ServiceResult]:
    """As `scan`, for code without an event loop. Raises EngineError where there is one."""
    _refuse_in_a_loop()
    return _scan_sync(targets, config)


def _scan_sync(targets: Targets, config: ScanConfig | None) -> Iterator[ServiceResult]:
    _refuse_in_a_loop()
    with asyncio.Runner() as runner:
        results = scan(targets, config)
        try:
            while True:
                _refuse_in_a_loop()
                try:
                    yield runner.run(_next(results))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(_close(results))


def _refuse_in_a_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise EngineError("scan_sync: there is an event loop here; write `async for row in scan(...)`, or use a thread")


def match(
    response: bytes | bytearray | memoryview,
    probe: str = "NULL",
    proto: Proto = "tcp",
    *,
    config: ScanConfig | None = None,
) -> Match | None:
    """The line of the database that identifies `response` as an answer to `probe`, or None. Contacts nobody.

    probe: by its name in the database; `NULL` for what a service says unasked. config: its `probes` and `matcher`
    count; the first call with a choice of them compiles the database, the others use it.
    Raises ConfigError for a probe that the database does not have, MatcherError for an unusable database.
    """
    config = config or ScanConfig()
    if not isinstance(response, bytes | bytearray | memoryview):
        raise ConfigError(f"response: {response!r} cannot be used; expected the bytes that were received")
    shared = shared_matcher(config.probes, config.matcher)
    database = shared.matcher.database
    asked = database.probe(probe, proto)
    if asked is None:
        raise ConfigError(f"{database.name} has no {proto} probe {probe!r}")
    return shared.match(asked, bytes(response))


async def _next(results: AsyncIterator[ServiceResult]) -> ServiceResult:
    return await anext(results)


async def _close(results: AsyncIterator[ServiceResult]) -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task.get_coro().__name__ == _next.__name__:  # type: ignore[union-attr]
            task.cancel()  # left in the middle, by an exception of a signal's handler
            await asyncio.wait({task})
    await results.aclose()  # type: ignore[attr-defined]


def _refuse(error: InputError) -> None:
    raise error


async def _items(targets: Targets, reader: PlainReader) -> AsyncIterator[list[Item]]:
    """Numbered in the order in which they come, whatever ordinals the caller's own objects have."""

    def items(target: str | Target) -> list[Item]:
        reader.line += 1
        if isinstance(target, str):
            return reader.read_line(target)
        try:
            checked = convert(to_builtins(target), _Checked)
            return [reader.item(checked.host or checked.name, checked.port, checked.proto, checked.name, checked.state)]
        except ValidationError:
            return [reader.error(f"{target!r} is no target")]
        except Unreadable as reason:
            return [reader.error(str(reason))]

    if isinstance(targets, AsyncIterable):
        async for target in targets:
            yield items(target)
    else:
        for target in targets:
            yield items(target)
