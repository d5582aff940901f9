"""What a worker owes: given once more after a death, and narrowed down where the deaths go on."""

import random

import pytest

from engine.model import Target
from engine.pool.owed import LONE_DEATHS, Owed


def targets(count: int, first: int = 0) -> list[Target]:
    return [Target(first + number, f"192.0.2.{number}", 1) for number in range(count)]


def test_what_is_added_is_due_once() -> None:
    owed = Owed()
    owed.add(targets(3))
    assert list(owed.due()) == targets(3)
    assert not owed.due()
    assert len(owed) == 3
    owed.done([0, 2])
    assert owed.targets() == targets(3)[1:2]


def test_after_one_death_everything_is_given_again_at_once() -> None:
    """Most deaths are nobody's fault: nothing is held back, and more may come."""
    owed = Owed()
    owed.add(targets(9))
    owed.due()
    owed.done([4])
    assert owed.died() is None
    assert [target.ordinal for target in owed.due()] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert not owed.is_narrowing
    owed.add(targets(1, 9))
    assert list(owed.due()) == targets(1, 9)


def test_deaths_far_apart_are_no_reason_to_narrow() -> None:
    """What was there at the last death is done: the next one is a first death again."""
    owed = Owed()
    for first in range(0, 50, 10):
        owed.add(targets(10, first))
        owed.due()
        assert owed.died() is None
        assert len(owed.due()) == 10
        owed.done(range(first, first + 10))
    assert not len(owed)


@pytest.mark.parametrize("seed", range(20))
def test_every_culprit_is_found_and_nobody_else(seed: int) -> None:
    """A worker does what it was given in any order, in batches, and dies when it comes to a culprit."""
    luck = random.Random(seed)
    count = luck.choice([1, 2, 50, 1000])
    culprits = set(luck.sample(range(count), min(count, luck.choice([1, 1, 3]))))
    owed, given, found, rows, deaths = Owed(), [], set(), set(), 0
    owed.add(targets(count))
    while len(owed):
        given += owed.due()
        assert given, "something is owed and nothing is due"
        luck.shuffle(given)
        done, died = [], False
        while given and len(done) < luck.choice([1, 100]):
            target = given.pop()
            if target.ordinal in culprits:
                died = True
                break
            done.append(target.ordinal)
        if not died or luck.random() < 0.5:  # a batch may have left before
            owed.done(done)
            rows.update(done)
        if died:
            deaths += 1
            given = []
            if (culprit := owed.died()) is not None:
                found.add(culprit.ordinal)
    assert found == culprits
    assert rows == set(range(count)) - culprits
    assert deaths <= len(culprits) * (2 * count.bit_length() + LONE_DEATHS + 2)


def test_a_lone_target_is_tried_several_times() -> None:
    """A kill from outside is no proof."""
    owed = Owed()
    owed.add(targets(1))
    for _ in range(LONE_DEATHS - 1):
        assert owed.due()
        assert owed.died() is None
    owed.due()
    owed.done([0])
    owed.add(targets(1, 1))
    owed.due()
    assert owed.died() is None


def test_a_death_without_targets_blames_nobody() -> None:
    assert Owed().died() is None
