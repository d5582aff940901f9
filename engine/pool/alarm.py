"""One callback later, at the earliest of the times that were asked for. Pure: the loop's timer is an argument."""

from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """What a loop gives for a callback that it will make."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Handle]
"""`call_later` of an event loop: seconds from now, and whom to call then."""


class Alarm:
    """ring: called each time the alarm goes off; it may set it again."""

    __slots__ = ("_at", "_call_later", "_handle", "_ring")

    def __init__(self, call_later: CallLater, ring: Callable[[], None]) -> None:
        self._call_later = call_later
        self._ring = ring
        self._handle: Handle | None = None
        self._at = 0.0

    def set(self, at: float, now: float) -> None:
        """Go off at `at`, or at once where that is past; an alarm that is set to an earlier time stays as it is."""
        if self._handle is not None:
            if self._at <= at:
                return
            self._handle.cancel()
        self._at = at
        self._handle = self._call_later(max(0.0, at - now), self._rung)

    def stop(self) -> None:
        """Do not go off until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rung(self) -> None:
        self._handle = None
        self._ring()
