"""Until when a service may take: so long by itself, and all services of its host so long together. Pure.

A host's time runs from its first service begun, whatever it does in between. The clocks of hosts that have nothing in
progress are kept, so that more of their services may follow, but not more than HOST_CLOCKS altogether: beyond that a
host that comes again starts anew.
"""

from math import inf

import msgspec

HOST_CLOCKS = 65_536


class _Clock(msgspec.Struct):
    """When the first service of a host was begun, and how many of its services are in progress."""

    started: float
    active: int = 0


class Budgets:
    """service_s, host_s: seconds; 0 is no limit."""

    __slots__ = ("_clocks", "_host_s", "_service_s")

    def __init__(self, service_s: float, host_s: float) -> None:
        self._service_s = service_s
        self._host_s = host_s
        self._clocks: dict[str, _Clock] = {}

    def enter(self, host: str, now: float) -> float:
        """A service of `host` begins: when its time is up, perhaps now. Each is followed by one `leave`."""
        ends_at = now + self._service_s if self._service_s else inf
        if not self._host_s:
            return ends_at
        clock = self._clocks.get(host)
        if clock is None:
            clock = self._clocks[host] = _Clock(now)
        clock.active += 1
        return min(ends_at, clock.started + self._host_s)

    def leave(self, host: str) -> None:
        """A service of `host` is done."""
        if not self._clocks:
            return
        clock = self._clocks[host]
        clock.active -= 1
        if not clock.active and len(self._clocks) > HOST_CLOCKS:
            del self._clocks[host]
