"""Politeness: rates, caps and order. Time is a number that the tests move."""

import random
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.model import Target
from engine.pool.limits import FRAGILE_TCP, Gate, RateLimiter, is_fragile, kin, prefix_of


def targets(*hosts: str) -> list[Target]:
    return [Target(ordinal, host, 80) for ordinal, host in enumerate(hosts)]


def gate(waiting: list[Target], **limits: object) -> Gate:
    made = Gate(**{"max_inflight": 1000, **limits})  # type: ignore[arg-type]
    assert all(made.offer(target) for target in waiting)
    return made


def ready(from_gate: Gate, now: float) -> list[int]:
    """The ordinals of all that may start now."""
    found = []
    while (target := from_gate.next_ready(now)) is not None:
        found.append(target.ordinal)
    return found


def take(limiter: RateLimiter, now: float) -> bool:
    """Take a token if there is one."""
    if now < limiter.ready_at:
        return False
    limiter.reserve(now)
    return True


# --- rate -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    rate=st.floats(0.1, 1e5),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_rate_holds_over_every_span(rate: float, burst: int, pauses: list[float]) -> None:
    """In any span of t seconds no more than burst + rate * t tokens are taken, however the takers hurry."""
    limiter = RateLimiter(rate, burst)
    now, taken = 1000.0, []
    for pause in pauses:
        now += pause / rate
        while take(limiter, now):
            taken.append(now)
        assert limiter.ready_at > now
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - taken[first]) + 1e-6 * rate


def test_rate_is_reached_by_waking_in_time() -> None:
    """Who comes back at `ready_at` finds a token, and gets the whole rate."""
    limiter, now, taken = RateLimiter(100, burst=5), 0.0, 0
    while now < 10:
        while take(limiter, now):
            taken += 1
        now = limiter.ready_at
    assert taken == pytest.approx(10 * 100 + 5, abs=1)


def test_reserved_tokens_are_paid_later() -> None:
    limiter = RateLimiter(10, burst=1)
    assert [limiter.reserve(5.0) for _ in range(3)] == pytest.approx([5.0, 5.1, 5.2])
    assert not take(limiter, 5.29)
    assert take(limiter, 5.3 + 1e-9)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_no_such_rate(rate: float) -> None:
    with pytest.raises(ConfigError, match="a rate is above 0"):
        RateLimiter(rate)


# --- gate -----------------------------------------------------------------------------------------------------------


def test_capacity_holds_back_the_reader() -> None:
    made = gate(targets("192.0.2.1", "192.0.2.2"), capacity=2, max_inflight=1)
    late = Target(2, "192.0.2.3", 80)
    assert not made.offer(late)
    assert ready(made, 0.0) == [0]
    assert made.offer(late)


def test_inflight_is_bounded_and_may_change() -> None:
    waiting = targets("192.0.2.1", "192.0.2.2", "192.0.2.3")
    made = gate(waiting, max_inflight=2)
    assert (ready(made, 0.0), made.inflight, made.wake_at()) == ([0, 1], 2, None)
    made.max_inflight = 1
    made.release(waiting[0])
    assert ready(made, 0.0) == []
    made.release(waiting[1])
    assert (ready(made, 0.0), made.inflight) == ([2], 1)


def test_a_limit_lowered_for_want_of_sockets_recovers() -> None:
    """A tenth less than there were; one more after as many releases as it has places, at the end as many as before."""
    made, releases = gate([], max_inflight=12), []
    made.starved(10)
    assert made.max_inflight == 9
    for number in range(100):
        target = Target(number, "192.0.2.1", 80)
        assert made.offer(target)
        assert made.next_ready(0.0) is target
        before = made.max_inflight
        made.release(target)
        if made.max_inflight > before:
            releases.append(number + 1)
    assert releases == [9, 9 + 10, 9 + 10 + 11]
    assert made.max_inflight == 12


def test_another_limit_is_within_what_the_sockets_allow() -> None:
    """A limit that is set holds at once; while the machine has no sockets, only where it is the lower one."""
    made = gate([], max_inflight=100)
    made.allow(200)
    assert made.max_inflight == 200
    made.starved(100)
    made.allow(300)
    assert made.max_inflight == 90
    made.allow(50)
    assert made.max_inflight == 50
    made.allow(60)
    assert made.max_inflight == 60


@pytest.mark.parametrize(("conversations", "left"), [(1, 1), (0, 1), (1000, 900)])
def test_want_of_sockets_leaves_one_place(conversations: int, left: int) -> None:
    """And however many there are, no more than 64 releases bring one back."""
    made = gate([], max_inflight=2000)
    made.starved(conversations)
    assert made.max_inflight == left
    for number in range(min(64, left)):
        target = Target(number, "192.0.2.1", 80)
        assert made.offer(target)
        assert made.next_ready(0.0) is target
        assert made.max_inflight == left
        made.release(target)
    assert made.max_inflight == left + 1


@pytest.mark.parametrize(
    ("limits", "paces"),
    [({}, False), ({"per_host": 1}, False), ({"rate": RateLimiter(9)}, True), ({"host_delay_s": 1.0}, True)],
)
def test_a_gate_knows_whether_connections_wait_for_their_time(limits: dict[str, object], paces: bool) -> None:
    made = gate([], **limits)
    assert made.paces is paces
    first, second = (made.reconnect_at("192.0.2.1", 5.0) for _ in range(2))
    assert (first, second > 5.0) == (5.0, paces)


@pytest.mark.parametrize(
    ("hosts", "order"),
    [
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"], [0, 3, 1, 2]),
        (["192.0.2.1"] * 3 + ["198.51.100.1"] * 2 + ["203.0.113.1"], [0, 3, 5, 1, 4, 2]),
        (["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"], [0, 2, 1]),
        (["fe80::1%eth0", "fe80::2%eth1", "192.0.2.1"], [0, 2, 1]),
    ],
)
def test_prefixes_take_turns(hosts: list[str], order: list[int]) -> None:
    """Two of one prefix follow each other only when no other prefix has any."""
    assert ready(gate(targets(*hosts)), 0.0) == order


def test_a_host_at_its_cap_does_not_hold_the_others() -> None:
    waiting = targets("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
    made = gate(waiting, per_host=1)
    assert ready(made, 0.0) == [0, 3]
    assert made.wake_at() is None  # only a release can help
    made.release(waiting[3])
    assert ready(made, 0.0) == []
    made.release(waiting[0])
    assert ready(made, 0.0) == [1]


def test_a_prefix_at_its_cap_does_not_hold_the_others() -> None:
    waiting = targets("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1")
    made = gate(waiting, per_prefix=2)
    assert ready(made, 0.0) == [0, 3, 1]
    assert made.offer(Target(4, "192.0.2.4", 80))
    made.release(waiting[3])
    assert ready(made, 0.0) == []
    made.release(waiting[1])
    assert ready(made, 0.0) == [2]


def test_a_host_rests_between_connections() -> None:
    waiting = targets("192.0.2.1", "192.0.2.1", "192.0.2.2")
    made = gate(waiting, host_delay_s=2.0)
    assert ready(made, 10.0) == [0, 2]
    assert made.wake_at() == 12.0
    made.release(waiting[0])
    assert ready(made, 11.9) == []
    assert ready(made, 12.0) == [1]
    assert made.wake_at() is None


def test_a_reconnect_is_charged_like_a_start() -> None:
    """The next connection of a conversation waits for the host's rest, and the host's next target waits for it."""
    made = gate(targets("192.0.2.1", "192.0.2.1"), host_delay_s=1.0)
    assert ready(made, 0.0) == [0]
    assert made.reconnect_at("192.0.2.1", 0.25) == 1.0
    assert made.reconnect_at("192.0.2.1", 0.5) == 2.0
    assert ready(made, 2.9) == []
    assert ready(made, 3.0) == [1]
    assert made.reconnect_at("192.0.2.9", 3.0) == 3.0


def test_a_reconnect_takes_from_the_rate() -> None:
    made = gate(targets("192.0.2.1", "198.51.100.1"), rate=RateLimiter(2, burst=1))
    assert ready(made, 0.0) == [0]
    assert made.reconnect_at("192.0.2.1", 0.0) == 0.5
    assert made.wake_at() == 1.0
    assert ready(made, 0.9) == []
    assert ready(made, 1.0) == [1]


def test_what_was_parked_goes_before_what_came_later() -> None:
    """Also when it was woken while no socket was free, and another of its host started first."""
    waiting = targets("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    made = gate(waiting, per_host=1, max_inflight=2)
    assert ready(made, 0.0) == [0, 2]
    made.release(waiting[0])
    assert ready(made, 0.0) == [1]

    waiting = targets("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
    made = gate(waiting, per_host=2, max_inflight=2, host_delay_s=1.0)
    assert ready(made, 0.0) == [0, 4]
    assert ready(made, 1.0) == []  # 1 is woken and finds no socket
    made.release(waiting[0])  # 2 is woken
    assert ready(made, 1.0) == [2]
    made.release(waiting[4])
    assert ready(made, 1.0) == []
    assert ready(made, 2.0) == [1]


def test_clearing_forgets_what_waits_and_counts_what_runs() -> None:
    waiting = targets("192.0.2.1", "192.0.2.1", "192.0.2.2", "198.51.100.1")
    made = gate(waiting, per_host=1, per_prefix=2, max_inflight=2)
    assert ready(made, 0.0) == [0, 3]
    made.clear()
    assert (made.waiting, made.inflight, made.wake_at()) == (0, 2, None)
    made.release(waiting[0])
    assert ready(made, 0.0) == []
    assert made.offer(waiting[2])
    assert ready(made, 0.0) == [2]


def test_a_late_comer_does_not_overtake_the_parked() -> None:
    waiting = targets("192.0.2.1", "192.0.2.1", "192.0.2.1")
    made = gate(waiting, per_host=1)
    assert ready(made, 0.0) == [0]
    for ordinal in range(3, 40):
        assert made.offer(Target(ordinal, "192.0.2.1", 80))
        made.release(waiting[0])
        assert ready(made, 0.0) == [ordinal - 2]


HOSTS = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8::2"]


LIMITS = st.fixed_dictionaries(
    {
        "max_inflight": st.integers(1, 8),
        "per_host": st.integers(0, 3),
        "per_prefix": st.integers(0, 3),
        "host_delay_s": st.sampled_from([0.0, 0.5]),
        "capacity": st.integers(1, 20),
    }
)


def test_a_changed_rate_has_saved_up_nothing() -> None:
    """A part that was another's until now starts with an empty bucket, and what was taken in advance is paid for."""
    limiter = RateLimiter(100, burst=5)
    limiter.change(20, now=10.0)
    assert limiter.ready_at == pytest.approx(10.05)
    for _ in range(4):
        limiter.reserve(10.0)
    assert limiter.ready_at == pytest.approx(10.25)
    limiter.change(1000, now=10.0)
    assert limiter.ready_at == pytest.approx(10.006)


def test_a_tiny_rate_does_not_outlive_itself() -> None:
    """Nobody waits at the pace of a rate that was changed since."""
    limiter = RateLimiter(500)
    limiter.change(1e-13, now=0.0)
    limiter.change(100, now=1.0)
    assert limiter.ready_at == pytest.approx(1.02)


def test_a_changed_gate() -> None:
    """Fewer at once and more again, while targets are in flight."""
    made = gate(targets(*"abcdef"), max_inflight=2)
    assert len(ready(made, 0.0)) == 2
    made.change(4, 0.0, now=0.0)
    assert len(ready(made, 0.0)) == 2
    made.change(1, 0.0, now=0.0)
    made.release(Target(0, "a", 80))
    assert not ready(made, 0.0)


def test_kin() -> None:
    """Where a network has a cap, its hosts belong together; else each host is by itself."""
    assert kin("192.0.2.7", by_prefix=False) == "192.0.2.7"
    assert kin("192.0.2.7", by_prefix=True) == kin("192.0.2.9", by_prefix=True) != kin("192.0.3.7", by_prefix=True)
    assert kin("2001:db8::1", by_prefix=True) == kin("2001:db8::ffff", by_prefix=True)
    assert kin("", by_prefix=True) == ""


@settings(deadline=None)
@given(st.lists(st.sampled_from(HOSTS), max_size=60), LIMITS, st.sampled_from([0, 4]), st.integers(0, 1000))
def test_every_target_starts_once_and_no_limit_is_passed(
    hosts: list[str], limits: dict[str, int], rate: int, seed: int
) -> None:
    """A whole run in which releases come at random: the gate never stalls while it says that it will wake."""
    made = Gate(**limits, rate=RateLimiter(rate, burst=1) if rate else None)
    per_host, per_prefix, host_delay_s = limits["per_host"], limits["per_prefix"], limits["host_delay_s"]
    randomly = random.Random(seed)
    left = targets(*hosts)[::-1]
    live: list[Target] = []
    started: list[tuple[float, Target]] = []
    now = 100.0
    for _ in range(len(hosts) * 20 + 10):
        while left and made.offer(left[-1]):
            left.pop()
        assert made.waiting <= limits["capacity"]
        while (target := made.next_ready(now)) is not None:
            started.append((now, target))
            live.append(target)
            assert len(live) == made.inflight <= limits["max_inflight"]
            loads = Counter(target.host for target in live)
            areas = Counter(prefix_of(target.host) for target in live)
            assert not per_host or max(loads.values()) <= per_host
            assert not per_prefix or max(areas.values()) <= per_prefix
        if not (left or live or made.waiting):
            break
        wake = made.wake_at()
        if wake is not None and (not live or randomly.random() < 0.5):
            assert wake > now
            now = wake
        else:
            assert live, "neither time nor a release can help: the gate has stalled"
            made.release(live.pop(randomly.randrange(len(live))))
    assert sorted(target.ordinal for _, target in started) == list(range(len(hosts)))
    if rate:
        assert all(later - sooner >= 1 / rate - 1e-9 for (sooner, _), (later, _) in pairwise(started))
    times = defaultdict(list)
    for at, target in started:
        times[target.host].append(at)
    assert all(later - sooner >= host_delay_s for gaps in times.values() for sooner, later in pairwise(gaps))


def test_a_gate_remembers_only_what_is_in_flight() -> None:
    """A million hosts cost no more than a few: nothing is kept of those that are done."""
    made = Gate(max_inflight=10, per_host=1, per_prefix=1, host_delay_s=0.001)
    sizes = set()
    for number in range(3000):
        host = f"10.{number >> 8}.{number & 255}.1"
        assert made.offer(Target(number, host, 80))
        target = made.next_ready(number * 0.01)
        assert target is not None
        made.release(target)
        sizes.add(sum(len(value) for value in vars(made).values() if hasattr(value, "__len__")))
    assert max(sizes) <= 4


# --- fragile ports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "proto", "fragile"),
    [
        (9100, "tcp", True),
        (9107, "tcp", True),
        (9108, "tcp", False),
        (502, "tcp", True),
        (47808, "udp", True),
        (2222, "udp", True),
        (2222, "tcp", False),
        (80, "tcp", False),
    ],
)
def test_fragile_ports(port: int, proto: str, fragile: bool) -> None:
    assert is_fragile(port, proto) is fragile


def test_no_common_port_is_fragile() -> None:
    assert not FRAGILE_TCP & {21, 22, 23, 25, 80, 110, 143, 443, 445, 515, 631, 3306, 3389, 5432, 8080, 8443}
