"""Orders that are not stored, and shares of machines that do not talk: each thing once, and the same everywhere."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.targets.permutation import Permutation, Shard, parse_shard, route

HOSTS = [f"10.{i >> 8}.{i & 255}.7" for i in range(4096)]


@settings(deadline=None)
@given(size=st.integers(0, 3000), seed=st.integers())
def test_each_number_comes_once(size: int, seed: int) -> None:
    assert sorted(Permutation(size, seed)) == list(range(size))


@settings(deadline=None)
@given(size=st.integers(1, 1 << 64), seed=st.integers(), data=st.data())
def test_a_position_can_be_asked_back(size: int, seed: int, data: st.DataObject) -> None:
    """At any size, without a table: `position` undoes `at`, and both stay inside."""
    permutation = Permutation(size, seed)
    position = data.draw(st.integers(0, size - 1))
    value = permutation.at(position)
    assert 0 <= value < size
    assert permutation.position(value) == position
    assert permutation.at(permutation.position(position)) == position


def test_the_seed_alone_decides_the_order() -> None:
    """Written down, since a run that is resumed by a later version has to find the same order."""
    assert list(Permutation(10, 1)) == list(Permutation(10, 1))
    assert list(Permutation(1000, 1)) != list(Permutation(1000, 2))
    assert [Permutation(1 << 40, 7).at(i) for i in range(3)] == [834788536969, 1057614369357, 561034507531]


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_are_far_apart(seed: int) -> None:
    """The first 4,096 of a /8 lie in nearly as many /24s as chance would have it, and in all parts of it."""
    first = [Permutation(1 << 24, seed).at(i) for i in range(4096)]
    assert len({value >> 8 for value in first}) > 3500  # 65,536 prefixes: chance gives 3,970
    parts = Counter(value >> 20 for value in first)
    assert len(parts) == 16
    assert all(256 * 0.6 < count < 256 * 1.4 for count in parts.values())  # five standard deviations around 256


@pytest.mark.parametrize(("size", "position"), [(0, 0), (5, 5), (5, -1)])
def test_outside_is_an_error(size: int, position: int) -> None:
    with pytest.raises(IndexError):
        Permutation(size, 1).at(position)
    with pytest.raises(IndexError):
        Permutation(size, 1).position(position)


@pytest.mark.parametrize("size", [-1, (1 << 64) + 1])
def test_no_such_size(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Permutation(size, 1)


@pytest.mark.parametrize(("text", "shard"), [("1/1", Shard()), ("1/4", Shard(0, 4)), ("4/4", Shard(3, 4))])
def test_shard(text: str, shard: Shard) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/4", "-1/4", "1 / 4", "٣/4"])
def test_bad_shard(text: str) -> None:
    with pytest.raises(ConfigError, match="expected i/n with i from 1 to n"):
        parse_shard(text)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_every_host_is_in_one_shard_and_shards_are_even(count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    kept = Counter(shard.index for host in HOSTS for shard in shards if shard.keeps(host))
    assert sum(kept.values()) == len(HOSTS)
    assert all(abs(number * count / len(HOSTS) - 1) < 0.3 for number in kept.values())


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("shards", [1, 2, 8])
def test_the_workers_of_each_shard_have_even_shares(workers: int, shards: int) -> None:
    """What a shard keeps still spreads over all workers of its machine: the two choices are independent."""
    kept = [host for host in HOSTS if Shard(0, shards).keeps(host)]
    share = Counter(route(host, workers) for host in kept)
    assert set(share) == set(range(workers))
    assert all(abs(number * workers / len(kept) - 1) < 0.6 for number in share.values())
