"""Pseudo services: which hosts are caught, and which are remembered."""

import pytest
from msgspec.structs import replace
from peers import row

from engine.model import Pseudo, Verdict
from engine.pool.pseudo import PseudoServices

ANSWER = b"whatever you say"


def hear(hosts: PseudoServices, host: str, port: int, answer: bytes = ANSWER) -> Pseudo | None:
    return hosts.label(replace(row("", port, verdict=Verdict.NOMATCH), ip=host), answer)


def ports(label: Pseudo | None) -> int:
    return label.ports if label is not None else 0


def test_equal_answers_of_distinct_ports_make_a_pseudo_service() -> None:
    hosts = PseudoServices(3)
    assert [ports(hear(hosts, "a", port)) for port in (1, 2, 2, 1)] == [0, 0, 0, 0]
    assert hear(hosts, "a", 3, b"another answer") is None
    assert not hosts.is_caught("a")
    assert [ports(hear(hosts, "a", port)) for port in (4, 5)] == [3, 4]
    assert hosts.is_caught("a")
    assert not hosts.is_caught("b")


def test_what_proves_nothing_is_not_counted() -> None:
    """Short answers, conversations that were broken off, and everything where nobody asked."""
    hosts = PseudoServices(1)
    incomplete = row("", 1, verdict=Verdict.INCOMPLETE)
    for _ in range(3):
        assert hear(hosts, "a", 1, b"abc") is None
        assert hosts.label(incomplete, ANSWER) is None
        assert hear(PseudoServices(0), "a", 1) is None
    assert not hosts.is_caught("a")


def test_the_label_tells_answers_apart() -> None:
    hosts = PseudoServices(2)
    labels = [
        hear(hosts, host, port, answer)
        for host, answer in (("a", b"same"), ("b", b"same"), ("c", b"other"))
        for port in (1, 2)
    ]
    hashes = [label.hash for label in labels if label is not None]
    assert len(hashes) == 3
    assert hashes[0] == hashes[1] != hashes[2]


def test_many_answers_of_one_host_push_out_the_rare_ones() -> None:
    hosts = PseudoServices(3)
    hear(hosts, "a", 1)
    hear(hosts, "a", 2)
    for port in range(10, 60):
        hear(hosts, "a", port, b"answer %d" % port)
    assert ports(hear(hosts, "a", 3)) == 3


def test_the_hosts_heard_of_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they said something new or the same again."""
    monkeypatch.setattr("engine.pool.pseudo.HOSTS", 2)
    hosts = PseudoServices(3)
    hear(hosts, "a", 1)
    hear(hosts, "b", 1)
    hear(hosts, "a", 2)
    hear(hosts, "c", 1)  # b is forgotten
    assert [ports(hear(hosts, host, 3)) for host in ("a", "b")] == [3, 0]
    assert hosts.is_caught("a")


def test_the_caught_heard_of_last_stay_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pool.pseudo.HOSTS", 2)
    hosts = PseudoServices(2)
    for host, port in (("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3), ("c", 1), ("a", 4), ("c", 2)):
        hear(hosts, host, port)
    assert [hosts.is_caught(host) for host in "abc"] == [True, False, True]
