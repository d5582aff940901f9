"""Pseudo-random orders that are not stored, and the shares of machines that know nothing of each other.

`Permutation(size, seed)` visits each of 0 .. size-1 once, in an order that the seed alone decides; any position can be
asked for, and asked back, at once. `Shard` and `route` decide from a host's text alone, the same on every machine.

Source: a Feistel network on a domain of two coordinates (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002): each round adds to one coordinate a keyed hash of the other, which can be undone. The few values outside the
wanted range are walked through to the next one inside. An order, not a cipher: it scatters, it keeps no secrets.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from math import isqrt
from zlib import crc32

from msgspec import Struct

from engine.errors import ConfigError

ROUNDS = 4  # two for each coordinate; with fewer, neighbours stay neighbours in one of them
_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiplying by it spreads every bit upwards


class Permutation:
    """A bijection of range(size), size from 0 to 2^64. Iterating it gives the order from start to end."""

    __slots__ = ("_columns", "_keys", "_rows", "size")

    def __init__(self, size: int, seed: int) -> None:
        if not 0 <= size <= 1 << 64:
            raise ValueError(f"the size of a permutation is 0 to 2^64, not {size}")
        self.size = size
        self._rows = isqrt(max(size - 1, 0)) + 1
        self._columns = -(-size // self._rows) or 1  # rows * columns is the size, or a little more
        digest = blake2b(str(seed).encode(), digest_size=8 * ROUNDS).digest()
        self._keys = tuple(int.from_bytes(digest[i : i + 8], "big") for i in range(0, 8 * ROUNDS, 8))

    def at(self, position: int) -> int:
        """Which number comes at 0-based `position`."""
        self._check(position)
        rows, columns = self._rows, self._columns
        value = position
        while True:
            left, right = divmod(value, columns)
            for i in range(0, ROUNDS, 2):
                left = (left + _scatter(right, self._keys[i])) % rows
                right = (right + _scatter(left, self._keys[i + 1])) % columns
            value = left * columns + right
            if value < self.size:
                return value

    def position(self, value: int) -> int:
        """When `value` comes: the inverse of `at`."""
        self._check(value)
        rows, columns = self._rows, self._columns
        while True:
            left, right = divmod(value, columns)
            for i in range(ROUNDS - 2, -1, -2):
                right = (right - _scatter(left, self._keys[i + 1])) % columns
                left = (left - _scatter(right, self._keys[i])) % rows
            value = left * columns + right
            if value < self.size:
                return value

    def __iter__(self) -> Iterator[int]:
        return map(self.at, range(self.size))

    def _check(self, number: int) -> None:
        if not 0 <= number < self.size:
            raise IndexError(f"{number} is outside a permutation of {self.size}")


class Shard(Struct, frozen=True):
    """One of `count` equal shares of a scan; index is 0-based."""

    index: int = 0
    count: int = 1

    def keeps(self, host: str) -> bool:
        """Whether a host belongs to this share: all its targets do, or none.

        host: the name that the user gave, where there is one, since it may resolve differently elsewhere; else the
        address.
        """
        return self.count == 1 or crc32(host.encode()) % self.count == self.index


def parse_shard(text: str) -> Shard:
    """`2/5`, the second of five shares. Raises ConfigError."""
    form = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if form is None or not 1 <= int(form[1]) <= int(form[2]):
        raise ConfigError(f"bad shard {text[:40]!r}; expected i/n with i from 1 to n, as 1/4 or 4/4")
    return Shard(int(form[1]) - 1, int(form[2]))


def route(host: str, workers: int) -> int:
    """The worker, 0 to workers - 1, that has all targets of a host."""
    # The upper bits of a product: what they say is independent of the remainder that chose the shard.
    return (crc32(host.encode()) * _ODD & _MASK) * workers >> 64


def _scatter(value: int, key: int) -> int:
    """A keyed hash of 64 bits in which each bit of `value` reaches all others (splitmix64's finaliser)."""
    value = (value + key) * _ODD & _MASK
    value = (value ^ value >> 31) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 30
