"""A clock that tests move by hand, with `call_later` as an event loop has it."""

from collections.abc import Callable


class Later:
    """A callback to be made at some time, unless it is cancelled."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self._later: list[Later] = []

    @property
    def pending(self) -> list[float]:
        """When callbacks will be made."""
        return sorted(later.at for later in self._later if not later.cancelled)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Later:
        assert delay_s >= 0
        later = Later(self.now + delay_s, callback)
        self._later.append(later)
        return later

    def move(self, seconds: float) -> None:
        """Let time pass, and make the callbacks that fall into it, each at its time."""
        until = self.now + seconds
        while self.pending and self.pending[0] <= until:
            later = min((each for each in self._later if not each.cancelled), key=lambda each: each.at)
            self._later.remove(later)
            self.now = later.at
            later.callback()
        self.now = until
