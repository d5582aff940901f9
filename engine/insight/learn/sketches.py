"""Counting and sampling in bounded memory, the same whatever the order: the least of digests that are spread evenly.

`Distinct` counts exactly up to MOST different things, and estimates beyond (standard error 6 %: the k least of n evenly
spread numbers tell n). `Sample` keeps the MOST things with the least digests, so that each different one had the same
chance. Pure. Source: Bar-Yossef et al., Counting distinct elements in a data stream (2002), the algorithm of k minima.
"""

from heapq import heappush, heappushpop, nlargest
from typing import Generic, TypeVar

MOST = 256
SPACE = 1 << 64

Thing = TypeVar("Thing")


class Distinct:
    """digests: numbers below SPACE."""

    __slots__ = ("_heap", "_kept")

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._heap: list[int] = []  # the kept ones, negative: the greatest first

    def add(self, digest: int) -> None:
        if digest in self._kept:
            return
        if len(self._kept) < MOST:
            heappush(self._heap, -digest)
        elif digest < -self._heap[0]:
            self._kept.discard(-heappushpop(self._heap, -digest))
        else:
            return
        self._kept.add(digest)

    def merge(self, other: "Distinct") -> None:
        for digest in other._kept:
            self.add(digest)

    @property
    def count(self) -> int:
        if len(self._kept) < MOST:
            return len(self._kept)
        return round((MOST - 1) * SPACE / (-self._heap[0] + 1))


class Sample(Generic[Thing]):
    """By digest. most: how many are kept."""

    __slots__ = ("_most", "things")

    def __init__(self, most: int) -> None:
        self.things: dict[int, Thing] = {}
        self._most = most

    def wants(self, digest: int) -> bool:
        return digest not in self.things and (len(self.things) < 2 * self._most or digest < max(self.things))

    def add(self, digest: int, thing: Thing) -> None:
        """The first of several with one digest stays."""
        self.things.setdefault(digest, thing)
        if len(self.things) > 2 * self._most:  # in one go, now and then
            for late in nlargest(len(self.things) - self._most, self.things):
                del self.things[late]

    def kept(self) -> list[Thing]:
        """In the order of their digests."""
        return [self.things[digest] for digest in sorted(self.things)[: self._most]]
