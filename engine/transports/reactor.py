"""Thousands of sockets and deadlines inside one asyncio loop, at a fraction of the loop's own cost per socket.

The sockets are registered, edge-triggered, with an epoll of our own, and that epoll's descriptor is one reader of the
loop. Deadlines sit in a wheel of ticks: a handle per deadline would cost more than the conversations. Both run in the
loop's thread, so nothing here needs a lock.

Contract: a `Ready` gets `ready(mask, now)`; a `Timed` gets `expired(now)` at or up to a tick after its `deadline`.
Moving a deadline later is free (it is looked at when its old slot comes up); moving it earlier means `arm` again.
"""

import asyncio
import select
import time
from collections.abc import Callable
from math import inf
from typing import Protocol

TICK_S = 0.01
EVENTS_PER_TURN = 256  # then the loop gets a turn, so that results and new targets flow while sockets are busy

READ = select.EPOLLIN | select.EPOLLRDHUP
BROKEN = select.EPOLLERR | select.EPOLLHUP
EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Ready(Protocol):
    def ready(self, mask: int, now: float) -> None: ...


class Timed(Protocol):
    deadline: float
    slot: "set[Timed] | None"

    def expired(self, now: float) -> None: ...


class Reactor:
    """after_turn: called once after each batch of events or deadlines, for work that is cheaper done together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after_turn: Callable[[], None] = lambda: None) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._slots: dict[int, set[Timed]] = {}
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self.after_turn = after_turn
        loop.add_reader(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- sockets

    def register(self, fd: int, owner: Ready) -> None:
        self._ready[fd] = owner
        self._epoll.register(fd, EDGE)

    def rearm(self, fd: int) -> None:
        """Report the socket's present state once more, though no new edge came."""
        self._epoll.modify(fd, EDGE)

    def unregister(self, fd: int) -> None:
        """Forget a socket that is about to be closed; closing it takes it out of the epoll."""
        del self._ready[fd]

    def _turn(self) -> None:
        now = time.monotonic()
        ready = self._ready
        for fd, mask in self._epoll.poll(0, EVENTS_PER_TURN):
            owner = ready.get(fd)
            if owner is not None:
                owner.ready(mask, now)
        self.after_turn()

    # -- deadlines

    def arm(self, timed: Timed) -> None:
        """See to it that `timed` expires at its deadline."""
        if timed.slot is not None:
            timed.slot.discard(timed)
            timed.slot = None
        if timed.deadline == inf:
            return
        if self._timer is None:
            self._tick = int(time.monotonic() / TICK_S)
            self._timer = self._loop.call_later(TICK_S, self._advance)
        tick = max(int(timed.deadline / TICK_S), self._tick) + 1  # what is past already comes up with the next tick
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
        slot.add(timed)
        timed.slot = slot

    @staticmethod
    def disarm(timed: Timed) -> None:
        if timed.slot is not None:
            timed.slot.discard(timed)
            timed.slot = None

    def _advance(self) -> None:
        now = time.monotonic()
        first, self._tick = self._tick + 1, int(now / TICK_S)
        for tick in range(first, self._tick + 1):
            slot = self._slots.pop(tick, None)
            if slot is None:
                continue
            for timed in tuple(slot):
                if timed.slot is not slot:
                    continue  # disarmed by one that expired before it in this very slot
                timed.slot = None
                if timed.deadline > now:
                    self.arm(timed)
                else:
                    timed.expired(now)
        self._timer = self._loop.call_later(TICK_S, self._advance) if self._slots else None
        self.after_turn()
