"""Faults of our own in the middle of a scan: a line on the log says where, and the scan goes on."""

import logging
import traceback
from pathlib import Path

log = logging.getLogger("probemill.worker")

EVERY_S = 10.0  # one line at most; a fault that one stranger can provoke, thousands can


class _Reporter:
    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._untold = 0

    def __call__(self, what: str, error: Exception, now: float) -> None:
        """what: the target, or whatever it happened to; now: monotonic seconds. The error's text is the stranger's."""
        if now < self._quiet_until:
            self._untold += 1
            return
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" at {Path(place[0].filename).name}:{place[0].lineno}" if place else ""
        more = f"; {self._untold} more before" if self._untold else ""
        log.error("%s: %s%s%s", what, type(error).__name__, where, more)
        self._quiet_until, self._untold = now + EVERY_S, 0


report = _Reporter()
