"""How long to wait for an answer: the timing policies.

A policy says two things about a probe that has just been sent: how long silence is borne, and how long to go on
listening once unmatched data has stopped coming. `NMAP` is exact: the probe's whole window, whatever happens in it.
`ADAPTIVE` scales the windows with the measured round trip; docs/timing.md names its rules and their price.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from matcher import Probe


class Timing(Protocol):
    def silence_s(self, probe: Probe, rtt_s: float) -> float:
        """Seconds without a byte after which the probe is given up."""
        ...

    def idle_s(self, probe: Probe, rtt_s: float) -> float:
        """Seconds without a further byte, after unmatched data, after which the probe is given up."""
        ...


class NmapTiming:
    """Every probe gets its whole window; data neither lengthens nor shortens it."""

    def silence_s(self, probe: Probe, rtt_s: float) -> float:
        return probe.totalwait_s

    def idle_s(self, probe: Probe, rtt_s: float) -> float:
        return probe.totalwait_s


NMAP = NmapTiming()
TIMINGS: Mapping[str, Timing] = MappingProxyType({"nmap": NMAP, "adaptive": NMAP})
