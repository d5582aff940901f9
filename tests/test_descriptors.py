"""Descriptors: how many conversations they allow."""

import resource

import pytest

from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.pool.descriptors import MAX_INFLIGHT, inflight_limit, raise_descriptor_limit

Limits = tuple[int, int]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """The soft and hard limit, the last ones counting."""
    known: list[Limits] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: known[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: known.append(pair))
    return known


@pytest.mark.parametrize(
    ("descriptors", "options", "expected"),
    [
        ((1 << 20, 1 << 20), {}, MAX_INFLIGHT),
        ((1 << 20, resource.RLIM_INFINITY), {"workers": 4}, MAX_INFLIGHT // 4),
        ((1 << 20, 1 << 20), {"max_inflight": 10, "workers": 3}, 3),
        ((1 << 20, 1 << 20), {"max_inflight": 2, "workers": 3}, 1),
        ((1024, 1024), {}, 1024 - 64 - 100),
        ((40, 40), {}, 1),
    ],
)
def test_conversations_at_once(
    limits: list[Limits], descriptors: Limits, options: dict[str, int], expected: int
) -> None:
    """What was asked for, divided among the workers, as far as the descriptors reach; one in any case."""
    limits.append(descriptors)
    assert inflight_limit(ScanConfig(**options)) == expected


def test_too_few_for_anything(limits: list[Limits]) -> None:
    limits.append((16, 16))
    with pytest.raises(ConfigError, match="16 file descriptors are too few; let ulimit -n allow at least 32"):
        inflight_limit(ScanConfig())


def test_the_hard_limit_is_taken(limits: list[Limits]) -> None:
    limits.append((1024, 4096))
    raise_descriptor_limit()
    assert limits[-1] == (4096, 4096)
