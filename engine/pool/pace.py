"""How many conversations at once pay: found while scanning. Pure: time and what the loop has seen are arguments.

A worker that waits has room: with a share `i` of its time idle it could carry 1 / (1 - i) times as many conversations
(Little's law), so while every slot is taken, the limit grows by that, at most twofold from one look to the next. Silent
services leave it nearly idle, and the slots that they need are there within a second; services that answer at once keep
it busy with a few hundred, and more would only wait in line. It shrinks, a fifth at a time, when deadlines come late,
which is when we have more than we can do, or when connections take longer than they did although we have time: then it
is the network or the other side. Beyond what was left then it grows slowly, until it stands above what had been too
much and nothing has come of it for a while.

A machine that runs out of sockets is limits.py's to notice (`Gate.starved`); the limit here is what that bound returns
to. A number that the user gave is a pace that begins at its ceiling, and stays there.
"""

from math import ceil, inf

from engine.transports.base import Load

START = 256  # conversations of a worker to begin with, and never fewer
LOOK_S = 0.05
ROOM = 0.1  # the least share of idle time that is worth growing for; so much may be other work in the loop
MOST_GROWTH = 2.0
SHRINK = 0.8
CAREFUL_GROWTH = 1.01  # beyond what was once too much
CALM = 40  # looks that grew without trouble: as 1.01 ** 40 > 1 / SHRINK, the limit is then above what was too much
LATE_S = 0.5  # of a deadline
SLOWER, SLOWER_S = 2.0, 0.1  # connections: so many times the usual time, and so much more
CONNECTS = 8  # the fewest in a look whose mean says something


class Pace:
    """limit: conversations at once, from now on. ceiling: the most that it may be. look_at: when to look again.

    now: of a clock that stands still during pauses.
    """

    __slots__ = ("_calm", "_careful", "_ceiling", "_looked_at", "_start", "_usual_s", "limit", "look_at")

    def __init__(self, ceiling: int, now: float, *, start: int = START) -> None:
        self.limit = min(start, ceiling)
        self.look_at = now + LOOK_S
        self._start = start
        self._ceiling = ceiling
        self._looked_at = now
        self._careful = inf  # the limit from which on it grows slowly
        self._calm = 0  # looks that grew since there was trouble
        self._usual_s = 0.0  # that a connection takes; 0 before any was made

    def change(self, ceiling: int) -> None:
        """Another ceiling from now on."""
        self._ceiling = ceiling
        self.limit = min(max(self.limit, self._start), ceiling)

    def look(self, load: Load, inflight: int, now: float, *, full: bool) -> int:
        """The new limit. load: what was seen since the last look. full: whether more targets wait for a slot."""
        idle = load.idle_s / max(now - self._looked_at, LOOK_S)
        self._looked_at, self.look_at = now, now + LOOK_S
        has_room = idle > ROOM
        is_slow = self._is_slow(load) and has_room  # otherwise it is we who keep them waiting
        if is_slow or load.late_s > LATE_S:
            self._calm = 0
            if self.limit <= self._start:  # so it was not for what we do: these targets are further away
                self._usual_s, self._careful = 0.0, inf
            elif inflight <= self.limit:  # what was taken away before is gone
                self.limit = min(self.limit, max(int(inflight * SHRINK), self._start))
                self._careful = self.limit
        elif full and has_room:
            self._calm += 1
            if self._calm > CALM:
                self._careful = inf
            most = MOST_GROWTH if self.limit < self._careful else CAREFUL_GROWTH
            growth = 1 / max(1 - idle, 1 / most)
            self.limit = min(ceil(self.limit * growth), self._ceiling)
        return self.limit

    def _is_slow(self, load: Load) -> bool:
        if load.connects < CONNECTS:
            return False
        mean_s = load.connect_s / load.connects
        self._usual_s = min(mean_s, self._usual_s or mean_s)
        return mean_s > self._usual_s * SLOWER + SLOWER_S
