"""How long to wait for an answer: the timing policies.

A policy says two things about a probe that has just been sent: how long silence is borne, and how long to go on
listening once unmatched data has stopped coming. `NmapTiming` is exact: the probe's whole window, whatever happens in
it. `AdaptiveTiming` gives the same answers where services keep to what theirs are seen to need; docs/timing.md has its
rules by the names used here, and what each costs and saves.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from matcher import Probe

NULL_FLOOR_S = 0.5  # rule `banner`: whoever speaks first has spoken by then, or is heard while the next probe runs
ANSWER_FLOOR_S = 1.0  # rule `answer`: the least that a probe's answer is waited for
IDLE_FLOOR_S = 0.5  # rule `idle`: a pause this long after data ends the window
ROUND_TRIPS = 4  # a window is never shorter than so many measured round trips
SLOWNESS = 2  # rule `learned`: nor than so many times what LEARNED of this probe's answers have taken so far
LEARNED = 0.99
STEP_S = 0.05  # how far one answer moves what is learned


class Timing(Protocol):
    """One policy, shared by all conversations of a worker. rtt_s: the round trip of this one, 0 where unknown."""

    def silence_s(self, probe: Probe, rtt_s: float) -> float:
        """Seconds without a byte after which the probe is given up."""
        ...

    def idle_s(self, probe: Probe, rtt_s: float) -> float:
        """Seconds without a further byte, after unmatched data, after which the probe is given up."""
        ...

    def heard(self, probe: Probe, after_s: float) -> None:
        """A probe's first byte of answer came so long after its window began."""
        ...


class NmapTiming:
    """Every probe gets its whole window; data neither lengthens nor shortens it."""

    def silence_s(self, probe: Probe, rtt_s: float) -> float:
        return probe.totalwait_s

    def idle_s(self, probe: Probe, rtt_s: float) -> float:
        return probe.totalwait_s

    def heard(self, probe: Probe, after_s: float) -> None:
        pass


class AdaptiveTiming:
    """Windows from the measured round trip and from what the run has seen; at most what the database says."""

    def __init__(self) -> None:
        self._learned: dict[int, float] = {}  # probe index -> the LEARNED quantile of its answers' times, tracked

    def silence_s(self, probe: Probe, rtt_s: float) -> float:
        floor = ANSWER_FLOOR_S if probe.payload else NULL_FLOOR_S
        learned = self._learned.get(probe.index, 0.0) * SLOWNESS
        return min(probe.totalwait_s, max(floor, rtt_s * ROUND_TRIPS, learned))

    def idle_s(self, probe: Probe, rtt_s: float) -> float:
        return min(probe.totalwait_s, max(IDLE_FLOOR_S, rtt_s * ROUND_TRIPS))

    def heard(self, probe: Probe, after_s: float) -> None:
        learned = self._learned.get(probe.index, 0.0)
        step = STEP_S * (LEARNED if after_s > learned else LEARNED - 1)
        self._learned[probe.index] = max(0.0, learned + step)


TIMINGS: Mapping[str, Callable[[], Timing]] = MappingProxyType({"nmap": NmapTiming, "adaptive": AdaptiveTiming})
