"""What a run says of itself in one line, however narrow: done, how fast, in flight, found, failed, and the time left.

Pure, from what can be seen of a run. A line is made of parts. Where it would be too wide, those that matter least go
first: failures are summed up, then go nodes, failures, what was found, the rate, what is in flight, and the time left.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from engine.cli.terminal import PATIENCE_S, PREPARING
from engine.results import paint
from engine.run import Run
from engine.text import counted

FOUND = ("hardmatched", "softmatched")
GAP = "  "
MEMORY_S = 10.0  # how far back the rate looks
SETTLE_S = 5.0  # in which the time left follows a rate that has changed
QUIET_S = 2.0  # without a row, after which a rate says nothing of conversations that are open
KNOWN_S = 3.0  # of looking on, before there is a rate to rely on
ALWAYS = 9


class Part(NamedTuple):
    """A piece of the line. It is there from one degree of narrowness up to another, that one not included."""

    text: str
    until: int = ALWAYS
    since: int = 0
    style: str = ""


class Pace:
    """How fast a run gets on, and what time that leaves. Neither jumps.

    rate: targets per second, weighted towards the last ten seconds. left_s: seconds; None while nobody can know.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self.left_s: float | None = None
        self._at: float | None = None
        self._since = 0.0
        self._row_at = 0.0
        self._done = 0
        self._count = 0.0  # targets, and the seconds they took, both fading
        self._seconds = 0.0

    def look(self, now: float, done: int, left: int | None, under_way: int = 0) -> None:
        """done: targets so far. left: those that are not; None while more may come. under_way: conversations.

        Where nothing but conversations is left, and none ends, how long they wait is theirs: nobody can know.
        """
        if self._at is None:
            self._at, self._since, self._row_at, self._done = now, now, now, done
            return
        passed = now - self._at
        if passed <= 0:
            return
        kept = math.exp(-passed / MEMORY_S)
        if done > self._done:
            self._row_at = now
        self._count = self._count * kept + max(0, done - self._done)
        self._seconds = self._seconds * kept + passed
        self._at, self._done = now, done
        self.rate = self._count / self._seconds
        waits = left is not None and left <= under_way and now - self._row_at >= QUIET_S
        if left is None or waits or now - self._since < KNOWN_S or self._count < 0.5:
            self.left_s = None
            return
        estimate = left / self.rate
        if self.left_s is None:
            self.left_s = estimate
        else:
            counted_down = max(0.0, self.left_s - passed)
            self.left_s = counted_down + (estimate - counted_down) * (1 - math.exp(-passed / SETTLE_S))


def left_of(run: Run) -> int | None:
    """Targets that are not done; None while the input goes on."""
    return max(0, run.read - run.done) if run.input_ended else None


def status(run: Run, pace: Pace) -> list[Part]:
    """In the order of the line."""
    if run.preparing and run.elapsed_s >= PATIENCE_S:
        return [Part(PREPARING, style=paint.HEADING)]
    tally = run.collector.tally.copy()
    failed = sorted((name[7:], count) for name, count in tally.items() if name[:7] == "reason:")
    parts = [
        Part(f"{run.done:,} done" + (f" of {run.read:,}" if run.input_ended else ""), style=paint.HEADING),
        Part(f"{speed(pace.rate)}/s", until=6),
        Part(f"{sum(run.conversations()):,} in flight", until=7),
        Part(f"{found(tally):,} found", until=5, style=paint.SERVICE),
    ]
    if nodes := [node for node in run.nodes() if node.actors]:
        actors = sum(node.actors for node in nodes)
        parts.append(Part(f"{counted(len(nodes), 'node')}, {counted(actors, 'actor')}", until=3))
    parts += [Part(f"{count:,} {reason}", until=1, style=paint.BAD) for reason, count in failed]
    if failed:
        parts.append(Part(f"{sum(count for _, count in failed):,} failed", since=1, until=4, style=paint.BAD))
    if run.input_ended and not run.in_flight and (behind := max(run.behind().values(), default=0)):
        parts.append(Part(f"{behind:,} segments left to deliver", until=8))
    elif pace.left_s is not None and left_of(run):
        parts.append(Part(f"{duration(pace.left_s)} left", until=8, style=paint.MUTED))
    return parts


def fit(parts: Sequence[Part], columns: int) -> list[Part]:
    """Those that there is room for; the last resort is an ellipsis."""
    kept = list(parts)
    for narrowness in range(ALWAYS):
        kept = [part for part in parts if part.since <= narrowness < part.until]
        if cell_len(text_of(kept)) <= columns:
            return kept
    return [Part(cropped(text_of(kept), columns))]


def text_of(parts: Sequence[Part], painted: paint.Paint = paint.plain) -> str:
    return GAP.join(painted(part.style, part.text) for part in parts)


def cropped(text: str, columns: int) -> str:
    """At most so many columns of a terminal; an ellipsis stands for what is missing."""
    if cell_len(text) <= columns:
        return text
    return set_cell_size(text, columns - 1).rstrip() + "…" if columns > 0 else ""


def found(tally: dict[str, int]) -> int:
    """Targets whose service is known."""
    return sum(tally.get("verdict:" + verdict, 0) for verdict in FOUND)


def speed(per_second: float) -> str:
    """With a digit behind the point where there is not much before it."""
    return f"{per_second:.1f}" if 0 < per_second < 9.95 else f"{per_second:,.0f}"


def duration(seconds: float) -> str:
    """`12 s`, `5 min`, `2 h 10 min`, `3 d 4 h`: as exact as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"
