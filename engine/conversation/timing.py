"""How long to wait for an answer: the timing policies.

A policy says of a probe that has just been sent how long silence is borne, and how long to go on listening once
unmatched data has stopped coming; and of a port what need not be waited for at all. `NmapTiming` is exact: every
window as the database has it, whatever happens in it. `AdaptiveTiming` gives the same answers where services keep to
what theirs are seen to need; docs/timing.md has its rules by the names used here, and what each costs and saves.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from engine.model import BARE, Tunnel
from matcher import Probe

NULL_FLOOR_S = 0.5  # rule `banner`: whoever speaks first has spoken by then, or is heard while the next probe runs
ANSWER_FLOOR_S = 1.5  # rule `answer`: the least that an answer is waited for; a lost packet comes again within it
IDLE_FLOOR_S = 0.5  # rule `idle`: a pause this long after data ends the window
ROUND_TRIPS = 4  # a window is never shorter than so many measured round trips
SLOWNESS = 2  # rule `learned`: nor than so many times what LEARNED of this probe's answers have taken so far
LEARNED = 0.99
STEP_S = 0.05  # how far one answer moves what is learned
PATIENT_WINDOWS = 2  # rule `quiet`: after so many windows of a port ran out, its others are short
QUIET_FLOOR_S = 0.3
QUIET_UDP_S = 0.6  # where no connection has measured a round trip
QUIET_ROUND_TRIPS = 2
TYPICAL = 0.9  # of all answers to all probes: `quiet` is no shorter than SLOWNESS times what these take
TACITURN = 20  # rule `greeting`: so many services of a door in a row that answered and did not greet
ALIKE = 20  # rule `telling`: so many services of a door in a row that one probe told; and one in so many is asked all
DOORS = 1 << 16  # port numbers, bare or in TLS, that are remembered
IN_VAIN = 4  # rule `tunnel`: probes in a row that a service in TLS left unanswered, or answered alike


class Pace(Struct, gc=False):
    """What a port has shown of itself in its conversation, outside a tunnel or inside.

    rtt_s: the quickest way from SYN to connection, inside TLS half of the quickest way through the handshake; 0 where
    unknown. answers, answer_s: how many probes were answered, and the quickest answer. expired: windows that ran out,
    the NULL probe's apart. unanswered: the last connections in a row that brought nothing. repeated: the last answers
    in a row that were just what the one before was.
    """

    rtt_s: float = 0.0
    answers: int = 0
    answer_s: float = 0.0
    expired: int = 0
    unanswered: int = 0
    repeated: int = 0

    def connected(self, after_s: float, tunnel: Tunnel) -> None:
        rtt_s = after_s if tunnel is BARE else after_s / 2  # a handshake takes at least one more
        self.rtt_s = min(self.rtt_s or rtt_s, rtt_s)

    def answered(self, after_s: float) -> None:
        self.answer_s = min(self.answer_s, after_s) if self.answers else after_s
        self.answers += 1

    def over(self, response: bytes, previous: bytes) -> None:
        """A connection has brought `response`, the last one that brought anything `previous`."""
        if response:
            self.unanswered = 0
            self.repeated = self.repeated + 1 if response == previous else 0
        else:
            self.unanswered += 1


class Timing(Protocol):
    """One policy, shared by all conversations of a worker."""

    def silence_s(self, probe: Probe, pace: Pace) -> float:
        """Seconds without a byte after which the probe is given up."""
        ...

    def idle_s(self, probe: Probe, pace: Pace) -> float:
        """Seconds without a further byte, after unmatched data, after which the probe is given up."""
        ...

    def second_look_s(self, after_s: float) -> float:
        """How long to listen on a new connection to a peer that hung up, `after_s` after connecting, without a word on
        a probe that came before the NULL probe's window was over: it may have left unasked. 0: not at all.
        """
        ...

    def hurries(self, port: int, tunnel: Tunnel) -> bool:
        """Whether a probe that names the port follows the connect at once: services there do not greet."""
        ...

    def teller(self, port: int, tunnel: Tunnel) -> Probe | None:
        """The probe that tells the services there, for a connection before all others. Asked once for each target."""
        ...

    def useful(self, probe: Probe, pace: Pace) -> bool:
        """Whether a probe is worth sending inside a tunnel."""
        ...

    def heard(self, probe: Probe, pace: Pace, after_s: float) -> None:
        """A probe's first byte of answer came so long after its window began; noted in the port's `pace`, too."""
        ...

    def greeted(self, port: int, tunnel: Tunnel, greeted: bool) -> None:
        """A service has spoken on its first connection: unasked, or when asked."""
        ...

    def told(self, port: int, tunnel: Tunnel, probe: Probe) -> None:
        """A service behind TCP was recognised by its answer to this probe, or by its greeting: the NULL probe."""
        ...


class _Kind(Struct, gc=False):
    """The services of a door. told: so many in a row, by the teller; asked: how often that could have come first."""

    teller: Probe
    told: int = 1
    asked: int = 0


class NmapTiming:
    """Every probe is sent, and gets its whole window; data neither lengthens nor shortens it."""

    def silence_s(self, probe: Probe, pace: Pace) -> float:
        return probe.totalwait_s

    def idle_s(self, probe: Probe, pace: Pace) -> float:
        return probe.totalwait_s

    def second_look_s(self, after_s: float) -> float:
        return 0.0

    def hurries(self, port: int, tunnel: Tunnel) -> bool:
        return False

    def teller(self, port: int, tunnel: Tunnel) -> Probe | None:
        return None

    def useful(self, probe: Probe, pace: Pace) -> bool:
        return True

    def heard(self, probe: Probe, pace: Pace, after_s: float) -> None:
        pass

    def greeted(self, port: int, tunnel: Tunnel, greeted: bool) -> None:
        pass

    def told(self, port: int, tunnel: Tunnel, probe: Probe) -> None:
        pass


class AdaptiveTiming:
    """Windows from the measured round trip and from what the run has seen; at most what the database says."""

    def __init__(self) -> None:
        self._learned: dict[int, float] = {}  # probe index -> the LEARNED quantile of its answers' times, tracked
        self._typical_s = 0.0  # the TYPICAL quantile over all probes
        # of a door: a port number, negative in TLS
        self._silent: dict[int, int] = {}  # services in a row that answered without having greeted
        self._kinds: dict[int, _Kind] = {}

    def silence_s(self, probe: Probe, pace: Pace) -> float:
        learned_s = self._learned.get(probe.index, 0.0) * SLOWNESS
        floor_s = ANSWER_FLOOR_S if probe.payload else NULL_FLOOR_S
        window_s = max(floor_s, pace.rtt_s * ROUND_TRIPS, learned_s)
        if pace.expired >= PATIENT_WINDOWS:
            window_s = min(window_s, max(_quiet_s(probe, pace), learned_s, self._typical_s * SLOWNESS))
        return min(probe.totalwait_s, window_s)

    def idle_s(self, probe: Probe, pace: Pace) -> float:
        pause_s = max(IDLE_FLOOR_S, pace.rtt_s * ROUND_TRIPS)
        if pace.expired >= PATIENT_WINDOWS:
            pause_s = min(pause_s, _quiet_s(probe, pace))
        return min(probe.totalwait_s, pause_s)

    def second_look_s(self, after_s: float) -> float:
        return max(NULL_FLOOR_S, after_s * SLOWNESS)

    def hurries(self, port: int, tunnel: Tunnel) -> bool:
        return self._silent.get(_door(port, tunnel), 0) >= TACITURN

    def teller(self, port: int, tunnel: Tunnel) -> Probe | None:
        kind = self._kinds.get(_door(port, tunnel))
        if kind is None or kind.told < ALIKE:
            return None
        kind.asked += 1
        return kind.teller if kind.asked % ALIKE else None  # now and then one is seen as if nothing were known

    def useful(self, probe: Probe, pace: Pace) -> bool:
        if pace.repeated >= IN_VAIN:
            return False
        return pace.unanswered < IN_VAIN or bool(probe.sslports)

    def heard(self, probe: Probe, pace: Pace, after_s: float) -> None:
        self._learned[probe.index] = _tracked(self._learned.get(probe.index, 0.0), after_s, LEARNED)
        if probe.payload:
            self._typical_s = _tracked(self._typical_s, after_s, TYPICAL)
            pace.answered(after_s)

    def greeted(self, port: int, tunnel: Tunnel, greeted: bool) -> None:
        at = _door(port, tunnel)
        count = self._silent.get(at)
        if greeted:
            if count:
                self._silent[at] = 0
            self._kinds.pop(at, None)
        elif count is not None:
            self._silent[at] = min(count + 1, TACITURN)
        elif len(self._silent) < DOORS:
            self._silent[at] = 1

    def told(self, port: int, tunnel: Tunnel, probe: Probe) -> None:
        at = _door(port, tunnel)
        kind = self._kinds.get(at)
        if probe.is_null:
            self._kinds.pop(at, None)
        elif kind is not None and kind.teller is probe:
            kind.told += 1
        elif kind is not None or len(self._kinds) < DOORS:
            self._kinds[at] = _Kind(probe)


def _door(port: int, tunnel: Tunnel) -> int:
    return port if tunnel is BARE else -port


def _quiet_s(probe: Probe, pace: Pace) -> float:
    """What a port that has let windows run out is waited for, as far as it has itself shown what it needs."""
    floor_s = QUIET_FLOOR_S if probe.proto == "tcp" else QUIET_UDP_S
    answer_s = pace.answer_s if pace.answers > 1 else 0.0  # a single one may have been held up
    return max(floor_s, pace.rtt_s * QUIET_ROUND_TRIPS, answer_s * QUIET_ROUND_TRIPS)


def _tracked(quantile_s: float, seen_s: float, share: float) -> float:
    """A running estimate of a quantile, moved by one more value."""
    if seen_s > quantile_s:
        return min(seen_s, quantile_s + STEP_S * share)
    return max(0.0, quantile_s - STEP_S * (1 - share))


TIMINGS: Mapping[str, Callable[[], Timing]] = MappingProxyType({"nmap": NmapTiming, "adaptive": AdaptiveTiming})
