"""What one worker owes: targets it was given and has not done, and, when it keeps dying, which of them is to blame.

Pure. A worker that dies has its targets given again, all at once: most deaths are nobody's fault. When its successor
dies before these are done, one of them may kill whoever touches it. Then they are given in halves, the rest held back,
until the culprit is alone: a target that was alone with LONE_DEATHS workers that died is given up. Everything else is
done on the way, in about twice as many deaths as the number of targets has binary digits.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from engine.model import Target

LONE_DEATHS = 3  # a kill from outside may hit a worker twice while it has one target left


class Owed:
    """A target is owed from `add` to `done`. What is owed is either with the worker or held back."""

    def __init__(self) -> None:
        self._given: dict[int, Target] = {}
        self._held: deque[list[Target]] = deque()
        self._suspects: set[int] = set()  # of the last death, not done since
        self._deaths = 0  # in a row, without all suspects being done in between
        self._accused = -1
        self._lone_deaths = 0

    def __len__(self) -> int:
        return len(self._given) + sum(map(len, self._held))

    @property
    def is_narrowing(self) -> bool:
        """Whether new targets have to wait, because a culprit is looked for."""
        return bool(self._held)

    def targets(self) -> list[Target]:
        return [*self._given.values(), *(target for group in self._held for target in group)]

    def add(self, targets: Iterable[Target]) -> None:
        """These are owed from now on; `due` says when they are to be given."""
        self._held.append(list(targets))

    def due(self) -> Sequence[Target]:
        """What to give to the worker now: nothing while it has something of a death to do, else the next group."""
        if not self._held or (self._given and self._deaths > 1):
            return ()
        group = self._held.popleft()
        self._given.update((target.ordinal, target) for target in group)
        return group

    def done(self, ordinals: Iterable[int]) -> None:
        """These have their rows."""
        for ordinal in ordinals:
            del self._given[ordinal]
            self._suspects.discard(ordinal)
        if not self._suspects:
            self._deaths = self._lone_deaths = 0

    def died(self) -> Target | None:
        """The worker is dead; what it had is due again. Or the target that is to blame, which is no longer owed."""
        suspects, self._given = list(self._given.values()), {}
        if not suspects:
            return None
        self._deaths += 1
        self._suspects.update(target.ordinal for target in suspects)
        if len(suspects) > 1:
            half = len(suspects) if self._deaths == 1 else (len(suspects) + 1) // 2
            self._held.extendleft(filter(None, (suspects[half:], suspects[:half])))
            return None
        (alone,) = suspects
        if alone.ordinal != self._accused:
            self._accused, self._lone_deaths = alone.ordinal, 0
        self._lone_deaths += 1
        if self._lone_deaths < LONE_DEATHS:
            self._held.appendleft(suspects)
            return None
        self._suspects.discard(alone.ordinal)
        if not self._suspects:
            self._deaths = self._lone_deaths = 0
        return alone
