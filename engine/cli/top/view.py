"""What can be seen of a run at one moment, wherever it was learned, and how fast things went until then."""

from collections import deque
from itertools import pairwise
from math import inf
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from engine.errors import EngineError

KEPT = 600  # moments
RATE_S = 5.0  # over which the present rate is taken
PRESENT = frozenset({"in flight", "given", "silent s"})  # columns of a Load that are of the moment


class Asked(Struct):
    """A probe. windows: how often its answer was waited for, ms: how long in all; hits: matches that it drew.

    None for what nobody knows.
    """

    windows: int | None = None
    ms: int | None = None
    hits: int = 0


class Load(Struct):
    """A worker, or a node of a cluster. Numbers by the names of their columns, as they are to be read."""

    name: str
    numbers: dict[str, str]


class View(Struct, kw_only=True):
    """A run at one moment. None stands for what its source cannot know, and `unknown` names that in words.

    where: the source, for people. done: targets with a row. slow: hosts and their milliseconds, longest first.
    rates: targets a second, one value a moment, and open: conversations at the same moments; newest last.
    ended: why the run goes on no more, where the source was told. log: its last lines, oldest first.
    """

    where: str
    done: int
    read: int | None = None
    input_ended: bool = False
    in_flight: int | None = None
    elapsed_s: float | None = None
    rate: float | None = None
    rates: list[float] = field(default_factory=list)
    open: list[float] = field(default_factory=list)
    verdicts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    services: dict[str, int] = field(default_factory=dict)
    probes: dict[str, Asked] = field(default_factory=dict)
    slow: list[tuple[str, int]] = field(default_factory=list)
    workers: list[Load] = field(default_factory=list)
    nodes: list[Load] = field(default_factory=list)
    trouble: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    ended: str = ""
    unknown: str = ""

    @property
    def left_s(self) -> float | None:
        """Until the last target is done, at the present rate; None where that cannot be said."""
        if self.read is None or not self.input_ended or not self.rate or self.ended:
            return None
        return max(0, self.read - self.done) / self.rate


def closed(view: View, why: str) -> View:
    """The last look at a run that has ended since: what it found stays, what went on at that moment does not."""
    nodes = [replace(node, numbers={k: n for k, n in node.numbers.items() if k not in PRESENT}) for node in view.nodes]
    return replace(view, ended=why, rate=None, in_flight=None, workers=[], nodes=nodes)


class UnseenError(EngineError):
    """A source has nothing to say now; the text says why, in one line. gone: nobody is there any more."""

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


class Source(Protocol):
    """where: for people, one line."""

    where: str

    def look(self) -> View:
        """May block for some seconds. Raises UnseenError."""


class History:
    """Numbers of a run at moments, from which rates are taken. A run that begins anew has a history of its own."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque(maxlen=KEPT + 1)
        self._elapsed_s = -inf

    def add(self, elapsed_s: float, done: int, in_flight: int) -> None:
        """elapsed_s: since the run began, by its own clock."""
        if elapsed_s < self._elapsed_s or (self._seen and done < self._seen[-1][1]):
            self._seen.clear()
        self._elapsed_s = elapsed_s
        if not self._seen or elapsed_s > self._seen[-1][0]:
            self._seen.append((elapsed_s, done, in_flight))

    def rates(self) -> list[float]:
        """Targets a second from each moment to the next."""
        seen = list(self._seen)
        return [(n1 - n0) / (t1 - t0) for (t0, n0, _), (t1, n1, _) in pairwise(seen)]

    def open(self) -> list[float]:
        return [float(count) for _, _, count in self._seen]

    def rate(self) -> float:
        """Over the last seconds; over the whole run as long as it was looked at only once."""
        t1, n1, _ = self._seen[-1]
        t0, n0 = next(((t, n) for t, n, _ in self._seen if t1 - t <= RATE_S), (t1, n1))
        if t1 > t0:
            return (n1 - n0) / (t1 - t0)
        return n1 / t1 if t1 > 0 else 0.0
