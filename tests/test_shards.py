"""Who scans what on a cluster: slots, shards, and what becomes of them when actors go."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model import Target
from engine.pool.cluster import shards
from engine.pool.cluster.shards import LONE_DEATHS, Shard, Shards


def targets(count: int, hosts: int, first: int = 0) -> list[Target]:
    return [Target(first + n, f"198.51.{n % hosts // 256}.{n % hosts % 256}", 1 + n // hosts) for n in range(count)]


def given_to(made: Shards, actor: int, now: float = 100.0) -> list[Shard]:
    """Everything that is due, of which one actor is given this."""
    return [shard for whose, shard in made.due(now) if whose == actor]


def ordinals(given: list[Shard]) -> list[int]:
    return sorted(target.ordinal for shard in given for target in shard.targets())


def test_a_small_scan_is_shared() -> None:
    """What is little is spread over all actors at once, when it is known to be all."""
    made = Shards()
    for actor in range(4):
        made.join(actor, [""], 1000, 0.0)
    made.add(targets(20, 20))
    assert not list(made.due(0.1))
    made.end()
    given = list(made.due(0.1))
    assert sorted((actor, shard.count) for actor, shard in given) == [(0, 5), (1, 5), (2, 5), (3, 5)]
    assert ordinals([shard for _, shard in given]) == list(range(20))


def test_slow_targets_do_not_wait_for_long() -> None:
    made = Shards()
    made.join(1, [""], 1000, 0.0)
    made.add(targets(3, 3))
    assert not list(made.due(1.0))
    assert [shard.count for _, shard in made.due(shards.WAIT_S)] == [3]


def test_an_actor_has_no_more_than_its_window() -> None:
    made = Shards()
    made.join(1, [""], 600, 0.0)
    made.add(targets(5000, 5000))
    given = given_to(made, 1)
    assert sum(shard.count for shard in given) < 600 + shards.MOST
    assert not list(made.due(200.0))
    made.done(1, given[0].number)
    assert list(made.due(200.0))


def test_a_host_stays_with_its_actor_until_all_of_it_is_done() -> None:
    made = Shards()
    made.join(1, [""], 1, 0.0)
    made.add([Target(0, "192.0.2.1", 80)])
    (first,) = given_to(made, 1)
    made.join(2, [""], 10_000, 0.0)
    made.add([Target(1, "192.0.2.1", 81)])
    assert not list(made.due(100.0))
    made.done(1, first.number)
    assert given_to(made, 1, 200.0)


def test_zones() -> None:
    """Targets of a zone are given to its actors only, and wait where there are none."""
    made = Shards(lambda host: "dmz" if host.startswith("10.") else "")
    made.join(1, [""], 1000, 0.0)
    made.add([Target(0, "10.0.0.1", 80), Target(1, "192.0.2.1", 80)])
    assert ordinals(given_to(made, 1)) == [1]
    assert made.stranded() == {"dmz": 1}
    made.join(2, ["dmz", "lab"], 1000, 0.0)
    assert made.stranded() == {}
    assert ordinals(given_to(made, 2)) == [0]
    made.leave(2, blamed=False)
    assert made.stranded() == {"dmz": 1}
    assert not list(made.due(300.0))


def test_idle_actors_take_over() -> None:
    """What waits for a busy actor goes to one that came later, but nothing of a host that is being scanned."""
    made = Shards()
    made.join(1, [""], 600, 0.0)
    made.add(targets(9000, 3000))
    mine = given_to(made, 1)
    made.add(targets(9000, 3000, 9000))
    made.join(2, [""], 100_000, 0.0)
    theirs = given_to(made, 2)
    assert theirs
    hosts = [{target.host for shard in part for target in shard.targets()} for part in (mine, theirs)]
    assert not hosts[0] & hosts[1]


def test_a_lost_node_blames_nobody() -> None:
    """However often, its shards are given again as they were."""
    made = Shards()
    made.add(targets(100, 100))
    made.end()
    for actor in range(10):
        made.join(actor, [""], 1000, 0.0)
        assert ordinals(given_to(made, actor)) == list(range(100))
        assert made.leave(actor, blamed=False) is None
    assert not made.idle


@pytest.mark.parametrize("killer", [0, 37, 99])
def test_the_target_that_kills_is_found(killer: int) -> None:
    """Everything else is done, and the deaths are about as many as its number has binary digits."""
    made = Shards()
    made.add(targets(100, 100))
    made.end()
    done: list[int] = []
    deaths, culprit = 0, None
    for actor in range(40):
        made.join(actor, [""], 1000, 0.0)
        while given := given_to(made, actor):
            if killer in ordinals(given):
                culprit = made.leave(actor, blamed=True)
                deaths += 1
                break
            for shard in given:
                made.done(actor, shard.number)
            done += ordinals(given)
        if made.idle:
            break
    assert culprit is not None and culprit.ordinal == killer
    assert sorted([*done, killer]) == list(range(100))
    assert deaths <= 3 + 7 + LONE_DEATHS
    assert made.idle


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10**9), hosts=st.sampled_from([1, 3, 40, 700]), zones=st.booleans())
def test_whatever_happens(seed: int, hosts: int, zones: bool) -> None:
    """Actors come, go and die at any time: each target is done once, and no host is with two actors at a time."""
    chance = random.Random(seed)
    made = Shards(lambda host: "odd" if zones and int(host.rpartition(".")[2]) % 2 else "")
    coming = targets(2500, hosts)
    out: dict[int, dict[int, Shard]] = {}
    done: Counter[int] = Counter()
    number, now = 0, 0.0
    while not (made.idle and not coming):
        now += chance.choice([0.0, 0.1, 3.0])
        for actor, shard in made.due(now):
            out[actor][shard.number] = shard
        holders: dict[str, int] = {}
        for actor, held in out.items():
            for host in {target.host for shard in held.values() for target in shard.targets()}:
                assert holders.setdefault(host, actor) == actor
            assert made.outstanding(actor) == sum(shard.count for shard in held.values())
        what = chance.random()
        if coming and what < 0.4:
            made.add(coming[:300])
            coming = coming[300:]
            if not coming:
                made.end()
        elif what < 0.5 and len(out) < 6:
            number += 1
            out[number] = {}
            made.join(number, chance.choice([[""], ["odd"], ["", "odd"]]), chance.choice([1, 50, 2000]), now)
        elif what < 0.56 and out:
            actor = chance.choice(list(out))
            del out[actor]
            assert made.leave(actor, blamed=chance.random() < 0.3) is None or True
        elif out and (held := out[chance.choice(list(out))]):
            actor = next(actor for actor, those in out.items() if those is held)
            shard = held.pop(chance.choice(list(held)))
            made.done(actor, shard.number)
            done.update(target.ordinal for target in shard.targets())
    assert set(done.values()) <= {1}
    assert not any(made.stranded().values())
