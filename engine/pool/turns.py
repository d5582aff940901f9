"""What only so many may do at once: who does it, and who waits for a turn. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Who = TypeVar("_Who", bound=Hashable)


class Turns(Generic[_Who]):
    """at_once: so many have a turn at the same time. The others wait, and go in the order in which they came.

    Nobody is told that a turn has become free: who calls `leave` sees to it that somebody asks `call`.
    """

    __slots__ = ("_at_once", "_having", "_waiting")

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._having: set[_Who] = set()
        self._waiting: OrderedDict[_Who, None] = OrderedDict()

    def __len__(self) -> int:
        """How many have a turn or wait for one."""
        return len(self._having) + len(self._waiting)

    def take(self, who: _Who) -> bool:
        """Whether `who` has a turn, from now on or since before; if not, it waits."""
        if who in self._having:
            return True
        if self._waiting or len(self._having) >= self._at_once:
            self._waiting[who] = None
            return False
        self._having.add(who)
        return True

    def call(self) -> _Who | None:
        """The next of those who wait, if a turn is free; it has it from now on."""
        if not self._waiting or len(self._having) >= self._at_once:
            return None
        who, _ = self._waiting.popitem(last=False)
        self._having.add(who)
        return who

    def leave(self, who: _Who) -> None:
        """Done with its turn, or with waiting for one; harmless for who does neither."""
        self._having.discard(who)
        if self._waiting:
            self._waiting.pop(who, None)

    def dismiss(self) -> list[_Who]:
        """All who wait, in their order; they wait no longer."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting
