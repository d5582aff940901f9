"""Rows on their way out of an actor: each shard has an outbox of its own, which fills its segment. Pure.

Takes the place of a worker's outbox (pool/outbox.py). Counters that are of no target are told with the next shard that
is done; those of targets with their shard alone, so that the attempts that count add up to what is in the rows.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from engine.model import NOT_SCANNED, Batch, ServiceResult, Target
from engine.pool.alarm import CallLater
from engine.pool.outbox import Outbox

ROWS = 256  # encoded at once


class OpenShard:
    """A shard that is being scanned. left: targets without a row; the shard is whole when there are none."""

    def __init__(self, outbox: Outbox, left: int, whole: Callable[[], None]) -> None:
        self.outbox = outbox
        self.left = left
        self.tally: Counter[str] = Counter()
        self.whole = whole

    def put(self, ordinal: int, result: ServiceResult) -> None:
        self.left -= 1
        if result.reason not in NOT_SCANNED:  # which has not been scanned: the next run does it
            self.outbox.put(ordinal, result)
        if not self.left:
            self.outbox.flush()
            self.whole()


class ShardOutbox:
    """done: targets since the start. congested, failures: as pool/outbox.py has them."""

    def __init__(self, congested: Callable[[], bool], call_later: CallLater, failures: Mapping[str, int]) -> None:
        self.congested = congested
        self.done = 0
        self.tally: defaultdict[str, int] = defaultdict(int)
        self._call_later = call_later
        self._failures = failures
        self._failures_told: Counter[str] = Counter()
        self._shards: dict[int, OpenShard] = {}  # by ordinal

    def open(self, targets: Sequence[Target], write: Callable[[Batch], None], whole: Callable[[], None]) -> OpenShard:
        """write: takes rows as they come; whole: called behind the last ones."""

        def deliver(batch: Batch) -> None:
            shard.tally.update(batch.tally)
            write(batch)

        outbox = Outbox(deliver, self.congested, self._call_later, batch_rows=ROWS, batch_s=0.0, failures={})
        shard = OpenShard(outbox, len(targets), whole)
        self._shards.update((target.ordinal, shard) for target in targets)
        return shard

    def drop(self, targets: Sequence[Target]) -> None:
        """These get no row any more."""
        for target in targets:
            self._shards.pop(target.ordinal, None)

    def told(self, shard: OpenShard) -> dict[str, int]:
        """What is to be told with a shard that is done."""
        failures = Counter(self._failures)
        for cause, count in (failures - self._failures_told).items():
            self.tally["engine:" + cause] += count
        self._failures_told = failures
        shard.tally.update(self.tally)
        self.tally.clear()
        return dict(shard.tally)

    # -- what a worker asks for

    def put(self, ordinal: int, result: ServiceResult) -> None:
        self.done += 1
        if (shard := self._shards.pop(ordinal, None)) is not None:
            shard.put(ordinal, result)

    def settle(self, now: float) -> None:
        """Rows leave when their shard is whole, not by the clock."""

    def flush(self) -> None:
        """The worker is idle: every shard is whole, or was cut short by who cancelled."""

    def close(self) -> None:
        self._shards.clear()
        self.congested = lambda: False
