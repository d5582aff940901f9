"""Thousands of sockets and deadlines inside one asyncio loop, at a fraction of the loop's own cost per socket.

The sockets are registered, edge-triggered, with an epoll of our own, and that epoll's descriptor is one reader of the
loop. Deadlines sit in a wheel of ticks: a handle per deadline would cost more than the conversations. Both run in the
loop's thread, so nothing here needs a lock.

Contract: a `Ready` gets `ready(mask, now)`; a `Timed` gets `expired(now)` at or up to a tick after its `deadline`.
Moving a deadline later is free (it is looked at when its old slot comes up); moving it earlier means `arm` again.

* What was there in time counts: whatever waits on the sockets is told before a deadline expires.
* Deadlines count the time in which we run. A pause - SIGSTOP, a suspended machine, a callback that held up the loop -
  moves all of them by its length, with `put_off`.
* One that raises gets `crashed`, and the others of its batch get their turn.
"""

import asyncio
import select
import time
from collections.abc import Callable
from math import inf
from typing import Protocol

from engine.transports.base import Load
from engine.transports.crashes import report

TICK_S = 0.01
EVENTS_PER_TURN = 256  # then the loop gets a turn, so that results and new targets flow while sockets are busy
PAUSE_S = 1.0  # with deadlines to wait for there is a turn every tick; where none came for so long, we did not run
PAUSE_COUNTS_S = 0.1  # of a pause, so that deadlines come even to a process that is stopped again and again

READ = select.EPOLLIN | select.EPOLLRDHUP
BROKEN = select.EPOLLERR | select.EPOLLHUP
EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Fallible(Protocol):
    def crashed(self, error: Exception, now: float) -> None:
        """What it was told just now made it raise."""
        ...


class Ready(Fallible, Protocol):
    def ready(self, mask: int, now: float) -> None: ...


class Timed(Fallible, Protocol):
    deadline: float
    slot: "set[Timed] | None"

    def expired(self, now: float) -> None: ...

    def put_off(self, pause_s: float) -> None:
        """Move the deadline, and every other moment that is waited for, later by so much."""
        ...


class Reactor:
    """after_turn: called once after each batch of events or deadlines, for work that is cheaper done together.

    load: what has been seen since somebody put a new one in its place.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, after_turn: Callable[[], None] = lambda: None) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._slots: dict[int, set[Timed]] = {}
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._awake = time.monotonic()  # when we last ran, as far as there were deadlines
        self._behind = False  # the last turn left sockets waiting: what follows is no idleness, whoever has the core
        self._tick_at = 0.0  # when the next tick is to come; a pause moves it as it moves deadlines
        self.load = Load()
        self.idle_s = 0.0  # waited with nothing left to do altogether
        self.paused_s = 0.0  # by how much deadlines have been put off altogether
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

    def _turn(self) -> int:
        """Tell a batch of those that are ready. -> how many they were"""
        now = self._wake()
        ready = self._ready
        events = self._epoll.poll(0, EVENTS_PER_TURN)
        for fd, mask in events:
            owner = ready.get(fd)
            if owner is not None:
                try:
                    owner.ready(mask, now)
                except Exception as error:
                    self.crash(owner, error, now)
        self._behind = len(events) == EVENTS_PER_TURN  # until somebody looks again
        if events:
            self._end_turn()
        return len(events)

    # -- deadlines

    def arm(self, timed: Timed) -> None:
        """See to it that `timed` expires at its deadline."""
        if timed.slot is not None:
            timed.slot.discard(timed)
            timed.slot = None
        if timed.deadline == inf:
            return
        if self._timer is None:
            self._awake = time.monotonic()
            self._tick = int(self._awake / TICK_S)
            self._tick_at = self._awake + TICK_S
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
        due = self._wake()
        first, self._tick = self._tick + 1, int(due / TICK_S)
        ticks = range(first, self._tick + 1)
        self.load.late_s = max(self.load.late_s, due - self._tick_at)
        self._tick_at = due + TICK_S
        slots = [slot for tick in ticks if (slot := self._slots.pop(tick, None))]
        if any(timed.deadline <= due for slot in slots for timed in slot):
            self._read_what_waits()
        now = time.monotonic()
        for slot in slots:
            for timed in tuple(slot):
                if timed.slot is not slot:
                    continue  # disarmed, or armed anew, by what was told before it
                timed.slot = None
                if timed.deadline > due:
                    self.arm(timed)
                    continue
                try:
                    timed.expired(now)
                except Exception as error:
                    self.crash(timed, error, now)
        self._timer = self._loop.call_later(TICK_S, self._advance) if self._slots else None
        self._end_turn()

    def _read_what_waits(self) -> None:
        """Everybody who is ready now has been told afterwards. The kernel keeps them in order, so later ones wait."""
        for _ in range(1 + len(self._ready) // EVENTS_PER_TURN):
            if self._turn() < EVENTS_PER_TURN:
                return

    # -- all turns

    def _wake(self) -> float:
        """The time. If there was a pause since the last turn, the deadlines have been put off."""
        now = time.monotonic()
        asleep_s, self._awake = now - self._awake, now
        if asleep_s > PAUSE_S:
            pause_s = asleep_s - PAUSE_COUNTS_S
            self.paused_s += pause_s
            self._tick_at += pause_s
            for slot in self._slots.values():
                for timed in slot:
                    timed.put_off(pause_s)
        elif not self._behind:
            self.idle_s += asleep_s
            self.load.idle_s += asleep_s
        self._behind = False
        return now

    def _end_turn(self) -> None:
        try:
            self.after_turn()
        except Exception as error:
            report("after a turn", error, time.monotonic())
        self._awake = time.monotonic()

    @staticmethod
    def crash(owner: Fallible, error: Exception, now: float) -> None:
        """Tell somebody that it has raised, whatever comes of it."""
        try:
            owner.crashed(error, now)
        except Exception as worse:
            report(f"a {type(owner).__name__} that had crashed", worse, now)
