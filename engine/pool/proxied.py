"""What the results of a scan through proxies tell of the proxies, and what a failing proxy makes of results. Pure.

A row that did not get through says at which proxy. And when a proxy dies, the conversations that had got through it
break off; one in which nothing had been heard looks like a service behind a TCP wrapper. Hence such a result is in
doubt for DOUBT_S: where a proxy fails at that time, nobody knows of the target, and it says so.
"""

import logging
from math import inf

from msgspec.structs import replace

from engine.model import Reason, ServiceResult, Target, Verdict
from engine.pool.patience import Patience
from engine.transports.base import HopError

log = logging.getLogger("probemill.worker")

DOUBT_S = 0.5
TOLD = 3  # failures that a worker tells in words; every row has its own
_ANSWERED = {Reason.REFUSED, Reason.RESET, Reason.UNREACHABLE}  # what was told of a target, so somebody was reached


class Proxied:
    """now: monotonic seconds, everywhere."""

    __slots__ = ("_lost", "_lost_at", "_told", "patience")

    def __init__(self) -> None:
        self.patience = Patience()
        self._lost: HopError | None = None  # the last failure of a proxy that did not even answer
        self._lost_at = -inf
        self._told = 0

    def judged(self, result: ServiceResult, lost: HopError | None, now: float) -> ServiceResult:
        """The row of a conversation that has ended. lost: where, if at a proxy."""
        if result.reason is not Reason.PROXY or lost is None:
            if result.verdict is Verdict.INCOMPLETE:
                passed = result.reason in _ANSWERED
            else:
                passed = result.verdict is not Verdict.TCPWRAPPED
            if passed:
                self.patience.passed()
            return result
        if lost.gone:
            self.patience.failed(now)
            self._lost, self._lost_at = lost, now
        else:
            self.patience.passed()
        if self._told < TOLD:
            self._told += 1
            log.warning("%s", lost.strerror)
        return _noted(result, lost, lost.why)

    @staticmethod
    def doubts(result: ServiceResult) -> bool:
        """Whether it is to be seen first how the proxies get on: then `settled` has the row, DOUBT_S later."""
        return result.verdict is Verdict.TCPWRAPPED

    def settled(self, target: Target, result: ServiceResult, ended_at: float) -> ServiceResult:
        """ended_at: when the conversation did."""
        if self._lost is None or self._lost_at < ended_at - DOUBT_S:
            self.patience.passed()
            return result
        unknown = replace(
            result, verdict=Verdict.INCOMPLETE, reason=Reason.PROXY, state=target.state, name="", method="", conf=0
        )
        return _noted(unknown, self._lost, "it failed while the target was listened to")


def _noted(result: ServiceResult, lost: HopError, why: str) -> ServiceResult:
    return replace(result, post={**(result.post or {}), "proxy": {"hop": lost.hop, "at": lost.at, "why": why}})
