"""What an actor obeys, and what becomes of its rows where nobody takes them.

What is to happen by the clock is told to the actor by a clock that tests move; sockets and pauses run in small times.
"""

import asyncio
import time
from pathlib import Path
from threading import Event

import pytest
from actors import (
    PATIENCE_S,
    RUN,
    SLOW,
    Clock,
    FakeStaging,
    body,
    names,
    nothing_put,
    rows,
    run,
    targets,
    until,
    working,
)
from loopback import Farm, config, database_file, greeting_after, most_at_once, silent

from engine.errors import OutputError
from engine.pool.cluster import actor as actor_module
from engine.pool.cluster import outbox as outbox_module
from engine.pool.cluster.actor import Dropped
from engine.pool.cluster.words import LEASE_S, Lease
from engine.results.lake import Unavailable
from engine.state.attempt import Staging


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The actor's; it looks at it all the time."""
    made = Clock()
    monkeypatch.setattr(actor_module, "time", made)
    monkeypatch.setattr(actor_module, "WATCH_S", 0.01)
    return made


# -- leases


def test_without_a_lease_everything_is_dropped(tmp_path: Path, folder: Path, clock: Clock) -> None:
    """What is open is closed and nothing is opened; whoever asks is told; what was done and not put never is."""
    settings = config(database_file(tmp_path, SLOW))

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            actor.beat(Lease(0.0, 4))
            scans = [
                asyncio.create_task(actor.scan(body(each)))
                for each in (targets(open_, 3) + targets(tarpit, 10, 3), targets(tarpit, 10, 13))
            ]
            await until(lambda: actor.beat(Lease(0.0, 4)).done == 3 and len(tarpit.visits) == 4)
            clock.now += LEASE_S - 0.1
            await asyncio.sleep(0.1)
            assert not any(scan.done() for scan in scans)
            assert not any(visit.busy_until for visit in tarpit.visits)
            clock.now += 0.2
            for scan in scans:
                with pytest.raises(Dropped):
                    await scan
            for _ in range(2):
                with pytest.raises(Dropped):
                    actor.beat(Lease(0.0, 4))
                with pytest.raises(Dropped):
                    await actor.scan(body(targets(open_, 5, 50)))
            await until(lambda: all(visit.busy_until for visit in tarpit.visits))
            await asyncio.sleep(0.2)

    with Farm(greeting_after(0.0)) as open_, Farm(silent) as tarpit:
        run(test())
        assert (len(open_.visits), len(tarpit.visits)) == (3, 4)
    assert nothing_put(folder)


@pytest.mark.parametrize("asks", ["beat", "scan"])
def test_a_lease_behind_a_gap_revives_nothing(
    tmp_path: Path, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    """Also where the actor itself has slept, and its driver's word is the first thing that it hears."""
    monkeypatch.setattr(actor_module, "WATCH_S", 1000.0)
    settings = config(database_file(tmp_path, SLOW))

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            open_ = asyncio.create_task(actor.scan(body(targets(tarpit, 3))))
            await until(lambda: len(tarpit.visits) == 3)
            clock.now += LEASE_S + 0.1
            with pytest.raises(Dropped):
                _ = actor.beat(Lease()) if asks == "beat" else await actor.scan(body(targets(tarpit, 3, 10)))
            with pytest.raises(Dropped):
                await open_
            clock.now -= LEASE_S  # as if it had been in time
            with pytest.raises(Dropped):
                actor.beat(Lease())
            await until(lambda: all(visit.busy_until for visit in tarpit.visits))

    with Farm(silent) as tarpit:
        run(test())
        assert len(tarpit.visits) == 3
    assert nothing_put(folder)


def test_leases_keep_it_at_work(tmp_path: Path, folder: Path, clock: Clock) -> None:
    settings = config(database_file(tmp_path))

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            scan = asyncio.create_task(actor.scan(body(targets(farm, 5))))
            while not scan.done():
                clock.now += LEASE_S * 0.9
                actor.beat(Lease())
                await asyncio.sleep(0.02)
            assert len(rows(folder, await scan)) == 5

    with Farm(greeting_after(0.3)) as farm:
        run(test())


def test_the_lease_says_how_many_at_once(tmp_path: Path, folder: Path) -> None:
    """From the beat that brings it on; what it may use beyond is what goes on already."""
    settings = config(database_file(tmp_path))

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            actor.beat(Lease(0.0, 6))
            scan = asyncio.create_task(actor.scan(body(targets(farm, 60))))
            await until(lambda: len(farm.visits) >= 18)
            assert actor.beat(Lease(0.0, 2)).inflight <= 6
            await until(lambda: actor.beat(Lease(0.0, 2)).inflight <= 2)
            lowered, wide = time.monotonic(), len(farm.visits)
            await until(lambda: len(farm.visits) >= wide + 8)
            raised = time.monotonic()
            actor.beat(Lease(0.0, 20))
            assert len(rows(folder, await scan)) == 60
        begun = [visit for visit in farm.visits if lowered < visit.at < raised]
        assert most_at_once(begun) <= 2
        assert most_at_once(visit for visit in farm.visits if visit.at < lowered) <= 6
        assert 6 < most_at_once(farm.visits) <= 20

    with Farm(greeting_after(0.1)) as farm:
        run(test())


def test_the_lease_says_how_fast(tmp_path: Path, folder: Path) -> None:
    """Whatever the config said of all; changed while it runs."""
    settings = config(database_file(tmp_path), rate=5000.0)

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            actor.beat(Lease(20.0))
            began = time.monotonic()
            scan = asyncio.create_task(actor.scan(body(targets(farm, 400))))
            await until(lambda: len(farm.visits) >= 16)
            slow_s = time.monotonic() - began
            actor.beat(Lease(2000.0))
            raised = time.monotonic()
            assert len(rows(folder, await scan)) == 400
            fast_s = time.monotonic() - raised
        assert slow_s > 14 / 20
        assert fast_s < 384 / 20 / 2

    with Farm(greeting_after(0.0)) as farm:
        run(test())


# -- a staging that fails


def test_a_segment_is_put_again_until_it_is_there(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the way is told meanwhile; the rows are there once."""
    monkeypatch.setattr(actor_module, "PAUSES_S", (0.01, 0.02))
    hindered = Event()
    tries = 0

    def hinder() -> None:
        nonlocal tries
        tries += 1
        if not hindered.is_set():
            raise OutputError("no space left")

    async def test() -> None:
        async with working(config(database_file(tmp_path)), FakeStaging(folder, hinder)) as actor:
            assert actor.beat(Lease()).trouble == ""
            scan = asyncio.create_task(actor.scan(body(targets(farm, 5))))
            await until(lambda: tries > 5)
            assert actor.beat(Lease()).trouble == "no space left"
            assert not scan.done()
            hindered.set()
            assert len(rows(folder, await scan)) == 5
            assert actor.beat(Lease()).trouble == ""
            assert len(names(folder)) == 1

    with Farm(greeting_after(0.0)) as farm:
        run(test())


@pytest.mark.parametrize("error", [OutputError("no space left"), Unavailable("nobody answers")], ids=["full", "away"])
def test_what_lasts_is_said_and_what_may_come_back_is_waited_for(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: OutputError
) -> None:
    """A place that takes nothing ends the scan of a shard with its error; one that cannot be reached does not."""
    monkeypatch.setattr(actor_module, "LASTING_S", 0.2)
    monkeypatch.setattr(actor_module, "PAUSES_S", (0.01,))

    def hinder() -> None:
        raise error

    async def test() -> None:
        async with working(config(database_file(tmp_path)), FakeStaging(folder, hinder)) as actor:
            scan = asyncio.create_task(actor.scan(body(targets(farm, 3))))
            done, _ = await asyncio.wait((scan,), timeout=1.5)
            if isinstance(error, Unavailable):
                assert not done
                scan.cancel()
            else:
                with pytest.raises(OutputError, match="no space left"):
                    scan.result()

    with Farm(greeting_after(0.0)) as farm:
        run(test())


def test_a_folder_that_was_away(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was removed, and somebody makes it again."""
    monkeypatch.setattr(actor_module, "PAUSES_S", (0.01,))

    async def test() -> None:
        async with working(config(database_file(tmp_path)), Staging(str(folder), RUN)) as actor:
            folder.rmdir()
            scan = asyncio.create_task(actor.scan(body(targets(farm, 5))))
            await until(lambda: actor.beat(Lease()).trouble)
            folder.mkdir(0o700)
            async with asyncio.timeout(2):
                assert len(rows(folder, await scan)) == 5

    with Farm(greeting_after(0.0)) as farm:
        run(test())


def test_dropped_while_a_segment_cannot_be_put(
    tmp_path: Path, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried again, even where it might work now."""
    monkeypatch.setattr(actor_module, "PAUSES_S", (0.5,))
    hindered = Event()

    def hinder() -> None:
        if not hindered.is_set():
            raise OutputError("away")

    async def test() -> None:
        async with working(config(database_file(tmp_path)), FakeStaging(folder, hinder)) as actor:
            scan = asyncio.create_task(actor.scan(body(targets(farm, 5))))
            await until(lambda: actor.beat(Lease()).trouble)
            clock.now += LEASE_S + 0.1
            hindered.set()
            with pytest.raises(Dropped):
                await scan
            await asyncio.sleep(0.7)

    with Farm(greeting_after(0.0)) as farm:
        run(test())
    assert nothing_put(folder)


def test_no_target_begins_behind_a_full_backlog(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A staging that takes its time holds the scan back, and everything is there in the end."""
    monkeypatch.setattr(actor_module, "BACKLOG", 3)
    monkeypatch.setattr(outbox_module, "ROWS", 1)
    stuck, go_on = Event(), Event()

    def hinder() -> None:
        stuck.set()
        go_on.wait(PATIENCE_S)

    async def test() -> None:
        async with working(config(database_file(tmp_path)), FakeStaging(folder, hinder)) as actor:
            actor.beat(Lease(0.0, 4))
            first = asyncio.create_task(actor.scan(body(targets(farm, 1))))
            await until(stuck.is_set)
            second = asyncio.create_task(actor.scan(body(targets(farm, 60, 1))))
            await until(lambda: actor.beat(Lease(0.0, 4)).done >= 5)
            await asyncio.sleep(0.3)
            assert len(farm.visits) <= 1 + 3 + 1 + 4
            go_on.set()
            assert [len(rows(folder, await each)) for each in (first, second)] == [1, 60]

    with Farm(greeting_after(0.0)) as farm:
        run(test())


def test_dropped_while_a_segment_is_being_put(tmp_path: Path, folder: Path, clock: Clock) -> None:
    """Who waits for the shard is told at once, however long the staging takes."""
    stuck, go_on = Event(), Event()

    def hinder() -> None:
        stuck.set()
        go_on.wait(PATIENCE_S)

    async def test() -> None:
        async with working(config(database_file(tmp_path)), FakeStaging(folder, hinder)) as actor:
            scan = asyncio.create_task(actor.scan(body(targets(farm, 1))))
            await until(stuck.is_set)
            clock.now += LEASE_S + 0.1
            done, _ = await asyncio.wait({scan}, timeout=1.0)
            go_on.set()
            with pytest.raises(Dropped):
                await scan
            assert done

    with Farm(greeting_after(0.0)) as farm:
        run(test())
