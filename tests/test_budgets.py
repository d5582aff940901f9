"""Budgets: until when a service may take. Time is a number that the tests move."""

from math import inf

import pytest

from engine.pool.budgets import Budgets

ONE, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.mark.parametrize(("service_s", "ends_at"), [(0.0, inf), (30.0, 130.0)])
def test_each_service_has_its_own_time(service_s: float, ends_at: float) -> None:
    budgets = Budgets(service_s, 0.0)
    assert [budgets.enter(ONE, 100.0) for _ in range(3)] == [ends_at] * 3
    budgets.leave(ONE)


def test_all_services_of_a_host_end_together() -> None:
    """The host's time runs from its first service, also while none is in progress; the service's own may end before."""
    budgets = Budgets(30.0, 50.0)
    assert budgets.enter(ONE, 100.0) == 130.0
    assert budgets.enter(ONE, 140.0) == 150.0
    assert budgets.enter(OTHER, 140.0) == 170.0
    budgets.leave(ONE)
    budgets.leave(ONE)
    assert budgets.enter(ONE, 160.0) == 150.0  # over before it has begun


def test_a_worker_remembers_a_bounded_number_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it a host's clock goes with its last service, and only then."""
    monkeypatch.setattr("engine.pool.budgets.HOST_CLOCKS", 2)
    budgets = Budgets(0.0, 50.0)
    hosts = [f"192.0.2.{last}" for last in range(5)]
    for host in (*hosts, hosts[0]):
        budgets.enter(host, 100.0)
    budgets.leave(hosts[0])
    assert budgets.enter(hosts[0], 110.0) == 150.0  # there is one in progress
    for host in (hosts[0], hosts[0], *hosts[1:]):
        budgets.leave(host)
    assert [budgets.enter(host, 110.0) for host in hosts] == [160.0, 160.0, 160.0, 150.0, 150.0]
