"""A budget that many share: what holders may be using is never above it, and in the end everybody has as much.

The model: a holder uses the largest of the parts that it was offered since, and including, the last one that it was
known to have settled. It is of offers and answers on their way, so it knows nothing of how `Leases` counts.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pool.cluster.leases import Leases, parts

BUDGETS = st.sampled_from([1.0, 3.0, 100.0, 0.1, 1e6])
HOLDERS = range(5)
ROUNDING = 1 + 1e-9


class Model:
    """Offers and answers of every holder. settled: how many of its offers it was known to have taken up."""

    def __init__(self, budget: float) -> None:
        self.leases = Leases(budget)
        self.budget = budget
        self.offers: dict[int, list[float]] = {}
        self.settled: dict[int, int] = {}

    def offer(self, holder: int, holders: int) -> float:
        part = self.leases.offer(holder, self.budget / holders)
        self.offers.setdefault(holder, []).append(part)
        self.settled.setdefault(holder, 0)
        assert 0 <= part <= self.budget / holders
        return part

    def answer(self, holder: int, number: int) -> None:
        """The answer to one of the offers of a holder arrives, perhaps not for the first time."""
        if holder in self.offers:
            self.settled[holder] = max(self.settled[holder], number)
            self.leases.settle(holder, self.offers[holder][number])

    def end(self, holder: int) -> None:
        self.leases.end(holder)
        self.offers.pop(holder, None)
        self.settled.pop(holder, None)

    def play(self, steps: list[tuple[str, int, int]], *, answers: bool = True) -> None:
        """Holders come and go, and say how many there are, rightly or wrongly; answers come late, twice, or never."""
        for what, holder, holders in steps:
            if what == "offer":
                self.offer(holder, holders)
            elif what == "answer" and answers and self.offers.get(holder):
                self.answer(holder, len(self.offers[holder]) - 1)
            elif what == "end":
                self.end(holder)
            self.check()

    @property
    def used(self) -> float:
        return sum(max(offers[self.settled[holder] :]) for holder, offers in self.offers.items())

    def check(self) -> None:
        assert self.used <= self.budget * ROUNDING


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "answer", "answer", "end"]), st.sampled_from(HOLDERS), st.integers(1, 6)
    ),
    max_size=60,
)


@settings(deadline=None)
@given(BUDGETS, STEPS)
def test_never_above_the_budget(budget: float, steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens, in any order."""
    Model(budget).play(steps)


@settings(deadline=None)
@given(BUDGETS, STEPS, st.integers(1, 7))
def test_equal_parts_in_the_end(budget: float, steps: list[tuple[str, int, int]], holders: int) -> None:
    """However it began: two rounds of offers that are answered, and everybody has the same."""
    model = Model(budget)
    model.play(steps, answers=False)
    for gone in set(model.offers) - set(range(holders)):
        model.end(gone)
    parts = {}
    for _ in range(2):
        for holder in range(holders):
            parts[holder] = model.offer(holder, holders)
            model.answer(holder, len(model.offers[holder]) - 1)
            model.check()
    assert list(parts.values()) == pytest.approx([budget / holders] * holders)


@settings(deadline=None)
@given(BUDGETS, STEPS)
def test_nothing_leaks(budget: float, steps: list[tuple[str, int, int]]) -> None:
    """When all have gone, whoever comes next is offered everything, to the last bit."""
    model = Model(budget)
    model.play(steps)
    for holder in HOLDERS:
        model.end(holder)
    assert model.offer(99, 1) == budget


def test_a_part_that_shrinks_is_free_when_its_holder_says_so() -> None:
    """Before, whoever comes has to wait; and who goes on using more than it was given counts with that."""
    leases = Leases(100.0)
    assert leases.offer("first", 100.0) == 100.0
    leases.settle("first", 100.0)
    assert leases.offer("second", 50.0) == 0.0
    assert leases.offer("first", 50.0) == 50.0
    assert leases.offer("second", 50.0) == 0.0
    leases.settle("first", 80.0)
    assert leases.offer("second", 50.0) == 20.0
    leases.settle("first", 50.0)
    assert leases.offer("second", 50.0) == 50.0


def test_who_cannot_be_reached_keeps_its_part_until_its_end() -> None:
    leases = Leases(100.0)
    for holder in ("here", "lost"):
        leases.settle(holder, leases.offer(holder, 50.0))
    assert leases.offer("here", 100.0) == 50.0
    leases.settle("here", 50.0)
    leases.end("lost")
    assert leases.offer("here", 100.0) == 100.0


def test_an_answer_behind_the_end_is_nothing() -> None:
    """Neither what it says nor its holder is remembered, and an end counts once."""
    leases = Leases(100.0)
    leases.offer("gone", 100.0)
    leases.end("gone")
    leases.settle("gone", 100.0)
    leases.end("gone")
    assert leases.offer("next", 100.0) == 100.0


@given(BUDGETS, st.integers(0, 50), st.integers(0, 50))
def test_parts_are_the_budget(budget: float, idle: int, busy: int) -> None:
    """All together; equal among those who have something to do, and never more for who has nothing."""
    small, large = parts(budget, idle, busy)
    if idle or busy:
        assert idle * small + busy * large == pytest.approx(budget)
    assert 0 < small <= (large if busy else budget)


@given(st.integers(1, 100), st.integers(0, 50), st.integers(0, 50))
def test_parts_of_what_cannot_be_divided_further(budget: int, idle: int, busy: int) -> None:
    """Nobody is to have less than one; some wait then until others are gone."""
    small, large = parts(float(budget), idle, busy, least=1.0)
    assert small >= 1
    assert large >= 1 or not busy
    if budget >= idle + busy > 0:
        assert idle * int(small) + busy * int(large) <= budget
