"""A budget that many share while they come and go: connections per second, or conversations at once. Pure.

Contract: what all holders together may be using at any moment is never above the budget. So a part that becomes smaller
counts as before until its holder has said that it uses no more, and what a holder has that nobody can reach is free
only when it is certain that it has stopped. A holder is offered one part at a time, and settles it before the next.
"""

from collections.abc import Hashable

WORTH = 0.01  # of what is wanted: less is nothing
IDLE = 0.1  # of an equal part: what a holder keeps that has nothing to do


def parts(budget: float, idle: int, busy: int, *, least: float = 0.0) -> tuple[float, float]:
    """What an idle holder and a busy one are to have. Together they are the budget; nobody has less than `least`."""
    if not busy:
        return max(least, budget / max(1, idle)), 0.0
    small = max(least, IDLE * budget / (idle + busy))
    return small, max(least, (budget - idle * small) / busy)


class Leases:
    """budget: of all. Who holds a part is known by any key."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._held: dict[Hashable, float] = {}
        self._all_held = 0.0

    def offer(self, holder: Hashable, wanted: float) -> float:
        """The part to be offered now: what is wanted, or what of it nobody else holds; 0 for nothing yet.

        It counts as held from now on.
        """
        held = self._held.get(holder, 0.0)
        free = self._budget - (self._all_held - held)
        part = max(0.0, min(wanted, free))
        if part < WORTH * wanted and part > held:  # a rest of rounding, or close to it
            part = held
        self._hold(holder, max(held, part))
        return part

    def settle(self, holder: Hashable, part: float) -> None:
        """The holder has answered: it uses no more than this."""
        if holder in self._held:
            self._hold(holder, part)

    def end(self, holder: Hashable) -> None:
        """The holder uses nothing any more, for certain."""
        self._hold(holder, 0.0)
        self._held.pop(holder, None)
        if not self._held:
            self._all_held = 0.0  # no rest of rounding

    def _hold(self, holder: Hashable, part: float) -> None:
        self._all_held += part - self._held.get(holder, 0.0)
        self._held[holder] = part
