"""An actor without its engine: shards in, segments out, on a loop of its own, by the driver's supplies alone."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from actors import (
    RUN,
    SLOW,
    body,
    counted,
    done,
    names,
    of_rows,
    rows,
    run,
    targets,
    until,
    working,
)
from loopback import Farm, config, database_file, greeting_after, silent
from msgspec.structs import replace

from engine import __version__
from engine.databases import open_database
from engine.errors import ConfigError
from engine.model import Reason, Target, Verdict
from engine.pool.cluster import actor as actor_module
from engine.pool.cluster.actor import ShardActor
from engine.pool.cluster.supplies import gathered
from engine.pool.cluster.words import Lease, Setup
from engine.state.attempt import Staging

# -- shards


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_shard_is_one_segment(tmp_path: Path, folder: Path, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """With exactly its rows, and a tally that says the same; the actor says who it is, and how many are done."""
    settings = config(database_file(tmp_path))

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            shard = targets(farm, 600)
            outcome = await actor.scan(body(shard))
            pulse = actor.beat(Lease())
        found = rows(folder, outcome)
        assert sorted(row.ip for row in found) == sorted(target.host for target in shard)
        assert {row.verdict for row in found} == {Verdict.HARDMATCHED}
        assert done(outcome) == set(range(600))
        assert of_rows(outcome.tally) == counted(found)
        assert outcome.ended is None
        assert names(folder) == [outcome.manifest.key]
        assert (pulse.done, pulse.inflight, pulse.trouble) == (600, 0, "")
        database = open_database(settings.probes)
        facts = actor.facts
        assert (facts.pid, facts.version) == (os.getpid(), __version__)
        assert (facts.database.name, facts.database.sha256) == (database.name, database.sha256)
        assert 0 < facts.inflight < facts.descriptors

    with Farm(greeting_after(0.0)) as farm:
        run(test(), loop)


def test_shards_at_once_keep_apart(tmp_path: Path, folder: Path) -> None:
    """Each has its own rows, done and tally, in whatever order their targets come."""
    settings = config(database_file(tmp_path))

    async def test() -> None:
        every = targets(farm, 200)
        shards = [every[start::4] for start in range(4)]
        async with working(settings, Staging(str(folder), RUN)) as actor:
            outcomes = await asyncio.gather(*(actor.scan(body(shard)) for shard in shards))
        for shard, outcome in zip(shards, outcomes, strict=True):
            found = rows(folder, outcome)
            assert sorted(row.ip for row in found) == sorted(target.host for target in shard)
            assert done(outcome) == {target.ordinal for target in shard}
            assert of_rows(outcome.tally) == counted(found)
        sent = sum((Counter(outcome.tally) for outcome in outcomes), Counter[str]())
        assert sent["hit:NULL"] == 200
        assert len(names(folder)) == 4

    with Farm(greeting_after(0.01)) as farm:
        run(test())


def test_what_the_lists_forbid_is_never_contacted(tmp_path: Path, folder: Path) -> None:
    """Whoever asks for it: such a target is done without a row, and a shard of such alone is no file."""
    settings = config(database_file(tmp_path), blocklist=("127.61.0.3", "127.61.0.5"))

    async def test() -> None:
        shard = targets(farm, 6)
        async with working(settings, Staging(str(folder), RUN)) as actor:
            mixed = await actor.scan(body(shard[:4]))
            forbidden = await actor.scan(body(shard[4:5]))
        assert sorted(row.ip for row in rows(folder, mixed)) == ["127.61.0.1", "127.61.0.2", "127.61.0.4"]
        assert done(mixed) == {0, 1, 2, 3}
        assert (rows(folder, forbidden), done(forbidden)) == ([], {4})
        assert of_rows(forbidden.tally) == Counter()
        assert names(folder) == [mixed.manifest.key]

    with Farm(greeting_after(0.0)) as farm:
        run(test())
        assert set(farm.per_address) == {"127.61.0.1", "127.61.0.2", "127.61.0.4"}


def test_nothing_is_read_but_the_supplies(tmp_path: Path, folder: Path) -> None:
    """Database, names of ports, fingerprints and lists are the driver's: the paths lead nowhere on a node."""
    fingerprints = tmp_path / "recog"
    fingerprints.mkdir()
    (fingerprints / "ssh.xml").write_text(
        '<fingerprints matches="ssh.banner" protocol="ssh"><fingerprint pattern="^ours_(.*)$"><description>x'
        '</description><param pos="0" name="service.product" value="Ours"/></fingerprint></fingerprints>'
    )
    blocked = tmp_path / "blocked"
    blocked.write_text("127.61.0.2\n")

    async def test() -> None:
        (tmp_path / "nmap-services").write_text(f"our-own-name\t{mute.port}/tcp\n")
        here = config(database_file(tmp_path), recog=str(fingerprints), blocklist=(str(blocked),))
        there = replace(here, probes=("/nowhere/probes",), recog="/nowhere/recog", blocklist=("/nowhere/list",))
        shard = [*targets(ssh, 2), Target(2, "127.61.0.4", mute.port), Target(3, "127.61.0.5", hello.port)]
        async with working(there, Staging(str(folder), RUN), here) as actor:
            outcome = await actor.scan(body(shard))
        by_host = {row.ip: row for row in rows(folder, outcome)}
        assert set(by_host) == {"127.61.0.1", "127.61.0.4", "127.61.0.5"}
        assert by_host["127.61.0.1"].product == "Ours"
        assert by_host["127.61.0.4"].name == "our-own-name"
        assert by_host["127.61.0.5"].product == "Hello"

    with (
        Farm(greeting_after(0.0, b"SSH-2.0-ours_1\r\n")) as ssh,
        Farm(silent) as mute,
        Farm(greeting_after(0.0)) as hello,
    ):
        run(test())


def test_connections_come_from_the_addresses_that_are_here(tmp_path: Path, folder: Path) -> None:
    """Of those that the driver names; where there is none, nothing is scanned."""
    settings = config(database_file(tmp_path), sources=("203.0.113.9", "127.0.0.77"))

    async def test() -> None:
        async with working(settings, Staging(str(folder), RUN)) as actor:
            assert actor.facts.sources == ("127.0.0.77",)
            await actor.scan(body(targets(farm, 3)))
        with pytest.raises(ConfigError, match="203"):
            ShardActor(
                Setup(1, replace(settings, sources=("203.0.113.9",)), Staging(str(folder)), 1), gathered(settings)
            )

    with Farm(greeting_after(0.0)) as farm:
        run(test())
        assert {visit.peer for visit in farm.visits} == {"127.0.0.77"}


# -- being asked to end


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.BUDGET])
def test_cancelled(tmp_path: Path, folder: Path, reason: Reason) -> None:
    """What is done is put; what was in flight has a row if the budget was the reason; the rest is as if never given."""
    settings = config(database_file(tmp_path, SLOW))

    async def test() -> None:
        shard = targets(open_, 3) + targets(tarpit, 20, 3)
        async with working(settings, Staging(str(folder), RUN)) as actor:
            actor.beat(Lease(0.0, 5))
            first, second = (asyncio.create_task(actor.scan(body(each))) for each in (shard[:12], shard[12:]))
            await until(lambda: actor.beat(Lease(0.0, 5)).done == 3 and len(tarpit.visits) == 5)
            await actor.cancel(reason)
            outcomes = [await first, await second, await actor.scan(body(targets(open_, 5, 50)))]
        assert {outcome.ended for outcome in outcomes} == {reason}
        found = [row for outcome in outcomes for row in rows(folder, outcome)]
        verdicts = Counter(row.verdict for row in found)
        assert verdicts == Counter({Verdict.HARDMATCHED: 3, Verdict.INCOMPLETE: 5 * (reason is Reason.BUDGET)})
        assert {row.reason for row in found} <= {None, Reason.BUDGET}
        assert sum((of_rows(outcome.tally) for outcome in outcomes), Counter[str]()) == +counted(found)
        hosts = {target.ordinal: target.host for target in shard}
        for outcome in outcomes:
            assert sorted(row.ip for row in rows(folder, outcome)) == sorted(hosts[one] for one in done(outcome))

    with Farm(greeting_after(0.0)) as open_, Farm(silent) as tarpit:
        run(test())
        assert len(tarpit.visits) == 5
        assert len(open_.visits) == 3


def test_logs_are_told_once(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings and worse, with the next sign of life or shard; where they are many, the first, and how many more."""
    monkeypatch.setattr(actor_module, "LOGS", 3)
    log = logging.getLogger("probemill.somewhere")

    async def test() -> None:
        async with working(config(database_file(tmp_path)), Staging(str(folder), RUN)) as actor:
            actor.beat(Lease())
            log.info("not this")
            log.warning("one of %d", 2)
            log.error("two")
            assert actor.beat(Lease()).logs == ((logging.WARNING, "one of 2"), (logging.ERROR, "two"))
            assert actor.beat(Lease()).logs == ()
            for number in range(5):
                log.warning("%d", number)
            assert [text for _, text in actor.beat(None).logs] == ["0", "1", "2", "and 2 more lines"]
            log.warning("late")
            outcome = await actor.scan(body([]))
            assert outcome.logs == ((logging.WARNING, "late"),)
            assert actor.beat(Lease()).logs == ()
        log.warning("behind its end")

    run(test())
