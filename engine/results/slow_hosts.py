"""The hosts that took the longest so far: told by workers with each batch, kept in bounded memory. Pure.

With a batch go the few of its hosts that took longest, as counters `host_ms:ADDRESS`, in milliseconds summed over the
host's conversations. A run keeps some hundreds of them. So a sum is what was seen: at least that long it was, and a
host that is slow in many batches is never missed for one that was slow once.
"""

from collections import Counter
from collections.abc import Iterable
from heapq import nlargest

from engine.model import ServiceResult

KIND = "host_ms:"
SLOW_MS = 1000  # in one batch; a host below it is not slow
TOLD = 8  # hosts of a batch
KEPT = 256  # hosts of a run; twice as many before the others are forgotten


def slowest(rows: Iterable[ServiceResult]) -> dict[str, int]:
    """What a batch tells: counters by their names."""
    spent: dict[str, int] = {}
    for row in rows:
        spent[row.ip] = spent.get(row.ip, 0) + row.elapsed_ms
    slow = [(ms, ip) for ip, ms in spent.items() if ms >= SLOW_MS and ip and ip.isascii()]
    return {KIND + ip: ms for ms, ip in nlargest(TOLD, slow)}


class SlowHosts:
    """What a run keeps."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()

    def add(self, host: str, milliseconds: int) -> None:
        self._spent[host] += milliseconds
        if len(self._spent) > 2 * KEPT:
            self._spent = Counter(dict(self._spent.most_common(KEPT)))

    def longest(self, count: int) -> list[tuple[str, int]]:
        """Hosts and their milliseconds, longest first."""
        return self._spent.copy().most_common(count)
