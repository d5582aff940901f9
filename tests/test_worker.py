"""A worker as a whole: what it counts beside its rows, and that it always comes to an end."""

import asyncio
from collections.abc import Callable
from errno import ENETUNREACH
from pathlib import Path

import pytest
from loopback import DATABASE, Farm, Visit, collect, config, database_file, greeting_after, scan, silent

from engine.conversation.context import scan_context
from engine.model import Batch, Reason, Target
from engine.pool.pace import START
from engine.pool.runners.inline import InlineRunner
from engine.pool.worker import Worker, in_batches
from engine.transports.tcp import TcpTransport
from matcher import Match, Probe


def test_failures_of_compiled_sets_are_counted_once(tmp_path: Path) -> None:
    """However many batches a run has: the tally is what the matcher says in the end."""
    settings = config(database_file(tmp_path), batch_rows=1)
    context = scan_context(settings)
    failures = {"at the start": 2}
    match = context.match

    def failing(probe: Probe, response: bytes) -> Match | None:
        failures["later"] = failures.get("later", 0) + 1
        return match(probe, response)

    context.match, context.failures = failing, failures
    with Farm(greeting_after(0.0)) as farm:
        targets = [f"127.91.0.{last}:{farm.port}" for last in range(1, 6)]
        rows, tally = asyncio.run(collect(targets, InlineRunner(settings, lambda *_: context)))
    assert {row.name for row in rows} == {"hello"}
    assert (tally["engine:at the start"], tally["engine:later"]) == (2, failures["later"])
    assert failures["later"] >= len(targets)


def test_a_connection_that_fails_after_waiting_for_its_time_ends_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else happens then: no socket is open, no deadline runs."""
    whole = TcpTransport.__init__
    attempts = 0

    def failing(self: TcpTransport, *args: object, **options: object) -> None:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            raise OSError(ENETUNREACH, "connect")
        whole(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TcpTransport, "__init__", failing)
    settings = config(database_file(tmp_path), rate=0.8, connect_timeout_s=0.1, service_timeout_s=0.0)
    with Farm(silent) as farm:
        (row,), _ = scan(farm.targets("127.3.0.1"), settings, limit_s=10)
    assert (row.reason, row.connections) == (Reason.UNREACHABLE, 1)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("congested", [False, True])
def test_a_closed_worker_is_still(tmp_path: Path, congested: bool) -> None:
    """Connections end, further conversations too, those that wait are not begun, nothing is delivered or called."""

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit is farm.visits[0]:
            writer.write(b"BROKER")
        await silent(reader, writer, visit)

    database = database_file(tmp_path, DATABASE.replace(b"softmatch maybe", b"match amqp m|^BROKER|\nsoftmatch maybe"))
    settings = config(database, post=("amqp",), max_inflight=2, batch_rows=1)
    delivered: list[Batch] = []
    complaints: list[dict[str, object]] = []
    closing = False

    async def test() -> None:
        nonlocal closing
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        context = scan_context(settings)
        outbox = in_batches(settings, context, delivered.append, lambda: closing and congested)
        worker = Worker(settings, context, outbox)
        targets = [("127.3.0.1", farm.port), ("127.3.1.1", tarpit.port), ("127.3.2.1", tarpit.port)]
        worker.submit([Target(ordinal, *target) for ordinal, target in enumerate(targets)])
        await until(lambda: len(farm.visits) == 2 and bool(farm.visits[1].received) and len(tarpit.visits) == 1)
        closing = True
        worker.close()
        await until(lambda: all(visit.busy_until for visit in farm.visits + tarpit.visits))
        await asyncio.sleep(0.1)

    with Farm(broker) as farm, Farm(silent) as tarpit:
        asyncio.run(test())
        assert (len(farm.visits), len(tarpit.visits)) == (2, 1)
    assert (delivered, complaints) == ([], [])


@pytest.mark.parametrize(("max_inflight", "at_first", "at_last"), [(0, START, 2 * START), (60, 60, 60)])
def test_silent_services_have_the_slots_that_they_need(
    tmp_path: Path, max_inflight: int, at_first: int, at_last: int
) -> None:
    """A worker that finds the number by itself takes more once they keep it idle; one that was told does not."""
    settings = config(database_file(tmp_path), max_inflight=max_inflight, per_host=0)

    async def test() -> None:
        context = scan_context(settings)
        worker = Worker(settings, context, in_batches(settings, context, lambda batch: None))
        targets = (f"127.{second}.0.{last}" for second in (3, 4, 5) for last in range(1, 251))
        worker.submit([Target(ordinal, host, farm.port) for ordinal, host in enumerate(targets)])
        await until(lambda: worker.inflight >= at_first)
        await until(lambda: worker.inflight >= at_last)
        await asyncio.sleep(0.2)
        assert max_inflight in (0, worker.inflight)
        worker.close()

    with Farm(silent) as farm:
        asyncio.run(test())
