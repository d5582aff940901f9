"""How many conversations at once: the limit that a worker finds by itself, with farms in virtual time."""

from heapq import heappop, heappush
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Target
from engine.pool.limits import Gate
from engine.pool.pace import CALM, CAREFUL_GROWTH, LOOK_S, START, Pace
from engine.transports.base import Load

CEILING = 10_000
CONNECT_S = 0.02
TARGET = Target(0, "192.0.2.1", 80)


class Scan:
    """A worker whose loop spends `cost_s` on each conversation, which takes `wait_s` beside that; targets never end.

    network: conversations that the network takes at once; where more are open, each waits for the others. sockets: of
    the machine.
    """

    def __init__(
        self, pace: Pace, cost_s: float, wait_s: float, *, network: float = inf, sockets: int = CEILING
    ) -> None:
        self.pace, self.gate = pace, Gate(max_inflight=pace.limit)
        self.cost_s, self.wait_s, self.network, self.sockets = cost_s, wait_s, network, sockets
        self.now = 0.0
        self.done = 0
        self.starved = 0
        self._due: list[float] = []
        self._load = Load()

    @property
    def inflight(self) -> int:
        return len(self._due)

    def run(self, seconds: float) -> float:
        """Conversations per second meanwhile."""
        before, until = self.done, self.now + seconds
        while self.now < until:
            self._turn()
            if self.now >= self.pace.look_at:
                full = self.inflight >= self.gate.max_inflight
                self.gate.allow(self.pace.look(self._load, self.inflight, self.now, full=full))
                self._load = Load()
        return (self.done - before) / seconds

    def _turn(self) -> None:
        due, load = self._due, self._load
        if self.inflight < self.gate.max_inflight:
            if self.inflight >= self.sockets:
                self.starved += 1
                self.gate.starved(self.inflight)
                return
            self.now += self.cost_s / 2
            crowding = max(1.0, (self.inflight + 1) / self.network)
            load.connects += 1
            load.connect_s += CONNECT_S * crowding
            heappush(due, self.now + self.wait_s * crowding)
        elif due[0] <= self.now:
            load.late_s = max(load.late_s, self.now - heappop(due))
            self.now += self.cost_s / 2
            self.done += 1
            self.gate.inflight += 1
            self.gate.release(TARGET)
        else:
            until = min(due[0], self.pace.look_at)
            load.idle_s += until - self.now
            self.now = until


def scan(cost_s: float, wait_s: float, **world: float) -> Scan:
    return Scan(Pace(CEILING, 0.0), cost_s, wait_s, **world)  # type: ignore[arg-type]


def test_services_that_answer_at_once_need_few() -> None:
    """A loop that is never idle has enough to do, and more conversations would only wait in line."""
    made = scan(cost_s=0.0001, wait_s=0.001)
    assert made.run(3.0) > 0.98 / made.cost_s
    assert made.pace.limit == START


@pytest.mark.parametrize("wait_s", [0.05, 0.2, 0.5])
def test_as_many_as_keep_the_loop_busy(wait_s: float) -> None:
    """Where each conversation waits, the limit grows until the loop is busy, and not far beyond."""
    made = scan(cost_s=0.0001, wait_s=wait_s)
    made.run(wait_s * 4 + 1.0)
    assert made.run(5.0) > 0.89 / made.cost_s
    needed = wait_s / made.cost_s
    assert made.pace.limit <= max(START, 2.5 * needed)


def test_silent_services_have_their_slots_within_a_second() -> None:
    """A loop that has nothing to do can hold any number of silent services."""
    made = scan(cost_s=0.0001, wait_s=6.0)
    made.run(1.0)
    assert made.pace.limit == CEILING


def test_a_network_that_slows_down_is_spared() -> None:
    """Once connections take longer because of us, the limit falls, and stays near what the network takes."""
    made = scan(cost_s=0.0001, wait_s=0.5, network=500)
    made.run(5.0)
    limits = []
    for _ in range(100):
        made.run(LOOK_S)
        limits.append(made.pace.limit)
    assert min(limits) >= START
    assert max(limits) < CEILING / 2


def test_slow_targets_are_not_a_slow_network_for_long() -> None:
    """Connections that take longer from now on, whatever the limit, are the usual before long."""
    pace = Pace(CEILING, 0.0)
    now = 0.0
    for connect_s in [0.02] * 10 + [0.3] * 200:
        now += LOOK_S
        pace.look(Load(idle_s=LOOK_S, connects=100, connect_s=100 * connect_s), pace.limit, now, full=True)
    assert pace.limit == CEILING


def test_late_deadlines_lower_it() -> None:
    """A loop that comes late has taken too much on; one fifth less a look, once what was taken away is gone."""
    pace = Pace(CEILING, 0.0)
    pace.limit = 5000
    late = Load(late_s=2.0)
    assert pace.look(late, 5000, 0.1, full=True) == 4000
    assert pace.look(late, 4900, 0.2, full=True) == 4000
    assert pace.look(late, 3900, 0.3, full=True) == 3120
    for step in range(100):
        pace.look(late, pace.limit, 0.4 + step * LOOK_S, full=True)
    assert pace.limit == START


def test_one_bad_moment_is_forgotten() -> None:
    """What was once too much is no bound for the rest: it doubles again once it stood above that for a while."""
    made = scan(cost_s=0.0001, wait_s=6.0)
    made.run(0.2)
    grown = made.pace.limit
    made.pace.look(Load(late_s=2.0), made.inflight, made.now, full=True)
    assert START < made.pace.limit < grown < CEILING / 3
    made.run(1.0)
    assert made.pace.limit < grown * 1.1
    made.run(2.5)
    assert made.pace.limit == CEILING


def test_more_trouble_is_remembered_as_long() -> None:
    """The quiet that it takes begins anew with each sign of trouble."""
    pace = Pace(CEILING, 0.0)
    pace.limit = 1000
    now = 0.0
    for step in range(3 * CALM):
        now += LOOK_S
        bad = step % (CALM // 2) == 0
        before, load = pace.limit, Load(late_s=1.0) if bad else Load(idle_s=LOOK_S)
        assert pace.look(load, pace.limit, now, full=True) <= max(before * CAREFUL_GROWTH + 1, START)


def test_no_growth_without_need() -> None:
    """Slots that stay empty are no reason for more, however idle the loop is."""
    pace = Pace(CEILING, 0.0)
    assert pace.look(Load(idle_s=LOOK_S), 20, LOOK_S, full=False) == START


def test_a_machine_without_sockets() -> None:
    """What the gate has learned of the machine's sockets holds, though the pace would allow more."""
    made = scan(cost_s=0.0001, wait_s=6.0, sockets=1000)
    made.run(10.0)
    assert made.starved
    assert made.gate.max_inflight <= 1000 < made.pace.limit
    before = made.starved
    made.run(60.0)
    assert made.starved - before < 60  # it asks for more only now and then


def test_a_number_that_was_asked_for() -> None:
    """A pace that begins at its ceiling stays there."""
    pace = Pace(700, 0.0, start=700)
    for step, load in enumerate([Load(idle_s=LOOK_S), Load(late_s=3.0), Load(connects=50, connect_s=1.0)] * 20):
        assert pace.look(load, 700, step * LOOK_S, full=True) == 700


def test_a_ceiling_that_moves() -> None:
    """A lease is the ceiling: the limit is never above it, and need not reach it."""
    pace = Pace(CEILING, 0.0)
    pace.change(100)
    assert pace.limit == 100
    assert pace.look(Load(idle_s=LOOK_S), 100, LOOK_S, full=True) == 100
    pace.change(5000)
    assert pace.limit == START
    assert pace.look(Load(idle_s=LOOK_S), START, 2 * LOOK_S, full=True) == 2 * START


@given(
    st.lists(
        st.builds(
            Load,
            idle_s=st.floats(0, 10),
            late_s=st.floats(-1, 10),
            connects=st.integers(0, 1000),
            connect_s=st.floats(0, 1000),
        )
    ),
    st.integers(1, 20_000),
    st.integers(0, 30_000),
)
def test_bounds(loads: list[Load], ceiling: int, inflight: int) -> None:
    """Whatever was seen, the limit is between where it began and its ceiling."""
    pace = Pace(ceiling, 0.0)
    for step, load in enumerate(loads):
        assert min(START, ceiling) <= pace.look(load, inflight, step * 0.2, full=True) <= ceiling
