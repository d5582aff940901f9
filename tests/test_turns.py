"""Turns: never more than allowed, nobody forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pool.turns import Turns


def test_those_who_find_no_turn_are_called_in_their_order() -> None:
    turns: Turns[str] = Turns(2)
    assert [turns.take(who) for who in "abcd"] == [True, True, False, False]
    assert turns.call() is None
    turns.leave("b")
    assert (turns.call(), turns.call()) == ("c", None)
    turns.leave("a")
    turns.leave("c")
    assert (turns.call(), turns.call()) == ("d", None)
    turns.leave("d")
    assert len(turns) == 0


def test_a_turn_is_taken_once() -> None:
    """Who has one and asks again has it still, and waits for no second."""
    turns: Turns[str] = Turns(1)
    assert turns.take("a")
    assert turns.take("a")
    assert not turns.take("b")
    assert not turns.take("b")
    assert len(turns) == 2
    turns.leave("a")
    assert (turns.call(), turns.call()) == ("b", None)
    assert turns.take("b")


def test_who_comes_later_does_not_go_first() -> None:
    """A turn that has become free belongs to the first in line, even before it is called."""
    turns: Turns[str] = Turns(1)
    assert [turns.take(who) for who in "ab"] == [True, False]
    turns.leave("a")
    assert not turns.take("c")
    assert (turns.call(), turns.call()) == ("b", None)
    turns.leave("b")
    assert turns.call() == "c"


def test_who_gives_up_waiting_is_not_called() -> None:
    turns: Turns[str] = Turns(1)
    for who in "abc":
        turns.take(who)
    turns.leave("b")
    turns.leave("nobody")
    turns.leave("a")
    assert turns.call() == "c"


def test_dismissed_are_those_who_wait() -> None:
    turns: Turns[str] = Turns(1)
    for who in "abc":
        turns.take(who)
    assert turns.dismiss() == ["b", "c"]
    turns.leave("a")
    assert turns.call() is None


@pytest.mark.parametrize("at_once", [1, 3])
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=80))
def test_no_more_than_allowed_have_a_turn(at_once: int, steps: list[tuple[bool, int]]) -> None:
    """Arrivals and departures in any order: whoever waits is called when those before it have gone."""
    turns: Turns[int] = Turns(at_once)
    having: set[int] = set()
    waiting: list[int] = []
    for comes, who in steps:
        if comes and turns.take(who):
            having.add(who)
        elif comes and who not in waiting:
            waiting.append(who)
        elif not comes:
            turns.leave(who)
            having.discard(who)
            waiting = [each for each in waiting if each != who]
        while (called := turns.call()) is not None:
            assert called == waiting.pop(0)
            having.add(called)
        assert len(having) <= at_once
        assert not waiting or len(having) == at_once
        assert len(turns) == len(having) + len(waiting)
