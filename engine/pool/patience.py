"""What a worker does when its proxies fail: go slower, and at last give up, before a dead one has spoilt every target.

Pure. After IN_A_ROW conversations in a row that no proxy led anywhere, no target begins for a while, then a single one
to see whether it has become better; the pauses grow from FIRST_S to LONGEST_S. One conversation that gets through ends
all that. After GIVE_UP_S of it the run is to be ended. A failure that concerns one destination (`HopError.gone` is
false: a rule forbids it) is none of this.
"""

from math import inf

GIVEN_UP = "proxy_gone"  # in the tally of a worker that has given up
IN_A_ROW = 16
FIRST_S = 0.5
LONGEST_S = 8.0
GIVE_UP_S = 60.0


class Patience:
    """begins_at: no target before that; -inf where there is no trouble. given_up: the run is to be ended."""

    __slots__ = ("_failed", "_pause_s", "_since", "begins_at", "given_up")

    def __init__(self) -> None:
        self.begins_at = -inf
        self.given_up = False
        self._failed = 0  # in a row
        self._pause_s = FIRST_S
        self._since = 0.0  # the trouble began

    def failed(self, now: float) -> None:
        """A conversation has ended at a proxy."""
        self._failed += 1
        if self._failed < IN_A_ROW:
            return
        if self.begins_at == -inf:
            self._since, self.begins_at = now, now + self._pause_s
        elif now >= self._since + GIVE_UP_S:
            self.given_up = True

    def room(self, now: float, usual: int) -> int:
        """How many targets may begin now, where without trouble it would be so many."""
        return usual if self.begins_at == -inf else int(now >= self.begins_at)

    def began(self, now: float) -> None:
        """A target begins: in trouble a feeler, and the next one waits."""
        if self.begins_at > -inf:
            self._pause_s = min(self._pause_s * 2, LONGEST_S)
            self.begins_at = now + self._pause_s

    def passed(self) -> None:
        """A conversation has got through."""
        if self._failed:
            self._failed, self._pause_s, self.begins_at = 0, FIRST_S, -inf
