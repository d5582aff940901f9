"""A whole run: targets from their inputs, through a runner, into the sinks, with the bounds and endings in between.

The command line and anything else that wants files in and files out stands on `Run`; who wants results as objects takes
`engine.api`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from functools import partial

from msgspec import Struct

from engine.errors import EngineError, InputError, OutputError
from engine.model import NOT_SCANNED, Batch, Reason, ScanConfig, Target
from engine.pool.cluster.words import Outcome
from engine.pool.patience import GIVEN_UP
from engine.pool.runners import NodeStatus, Runner, deadline
from engine.results.collector import Collector
from engine.results.ending import CUT, Ending
from engine.results.sinks import Sink, SinkClosed, Summary
from engine.state.delivery import Deliveries
from engine.state.digest import InputDigest
from engine.state.ordinals import OrdinalSet, Range
from engine.state.records import Plan
from engine.state.segments import SegmentSink
from engine.targets import Item, PlainReader, TargetSpec, target_reader
from engine.targets.selection import Selection
from engine.targets.source import Report, TargetSource, read_items
from engine.threads import Desk

ROTATE_S = 1.0  # between two looks at the age of a segment
STUCK_S = 10.0  # after the deadline of the run, for an output that takes nothing
UNHEARD = "nobody reads the output any more"
ASTRAY = "a proxy did not lead to all targets"
LAST_S = 1.0  # for the outputs of a run that is given up


class Inputs(Struct, frozen=True):
    """Where targets come from: texts given directly, then files (`-` is standard input), and which of them count."""

    texts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    form: str = "auto"
    selection: Selection = Selection()

    def plan(self) -> Plan:
        """What decides the ordinals, apart from the bytes of the files."""
        numbers = OrdinalSet()  # of ports, UDP behind TCP
        ports = self.selection.ports
        if ports is not None:
            pairs = map(ports.at, range(len(ports)))
            numbers.update(port + (0 if proto == "tcp" else 1 << 16) for port, proto in pairs)
        return {
            "targets": self.texts,
            "ports": list(numbers.ranges()),
            "input_format": self.form,
            "seed": self.selection.seed,
        }

    async def items(self, digest: InputDigest | None = None) -> AsyncIterator[list[Item]]:
        """In order. digest: sees the bytes of all files. Raises InputError, and ConfigError as the digest does."""
        digest = digest or InputDigest()
        reader = PlainReader("argument", self.selection.ports)
        for text in self.texts:
            reader.line += 1
            yield reader.read_line(text)
        ordinal = reader.ordinal
        for path in self.files:
            source = "standard input" if path == "-" else path
            file_reader = target_reader(source, self.form, self.selection.ports, ordinal)
            digest.begin_input()
            async for items in read_items(path, file_reader, digest.feed):
                yield items
            ordinal = file_reader.ordinal
        digest.check_end()


class Run:
    """One run and what can be seen of it while it goes on. Every number is a plain attribute, cheap to read often.

    segments: where rows are committed, and which targets need no scan any more because they were by a run before.
    """

    def __init__(
        self,
        config: ScanConfig,
        inputs: Inputs,
        runner: Runner,
        sinks: Sequence[Sink],
        report: Report,
        *,
        segments: SegmentSink | None = None,
    ) -> None:
        self.config = config
        self.collector = Collector(sinks, segments)
        self.done_before = segments.journal.committed if segments is not None else OrdinalSet()
        self.read = 0  # targets
        self.input_ended = False
        self.cancelled = False
        self.interrupted = False
        self.given_up = False
        self.led_astray = False  # no proxy leads to targets any more
        self.unheard = False  # whoever read our output has gone
        self.started = time.monotonic()
        self._inputs = inputs
        self._runner = runner
        self._sinks = sinks
        self._segments = segments
        self._report = report
        self._source: TargetSource | None = None
        self._desk = Desk()  # where outputs are written: a slow one does not make the run deaf
        self._tasks: set[asyncio.Task[None]] = set()
        if (deliveries := self._deliveries) is not None:
            deliveries.hurried = lambda: self.cancelled
            deliveries.progressed = self._desk.beat

    @property
    def in_flight(self) -> int:
        """Targets that were read and have no row yet."""
        return self.read - self.collector.rows

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def blocked(self) -> int:
        """Targets that lists or shards left out."""
        return self._source.blocked if self._source is not None else 0

    def behind(self) -> dict[str, int]:
        """How many committed segments each sink lacks, by its name."""
        return self._deliveries.behind() if self._deliveries is not None else {}

    @property
    def _deliveries(self) -> Deliveries | None:
        return self._segments.deliveries if self._segments is not None else None

    def outstanding(self) -> list[int]:
        """Per worker, the targets it was given and has not done."""
        return self._runner.outstanding()

    def conversations(self) -> list[int]:
        """Per worker, the conversations that are open now; a worker tells a few times a second."""
        return self._runner.conversations()

    @property
    def done(self) -> int:
        """Targets that are done, those included whose segment is not whole yet."""
        return self.collector.rows + self._runner.unsettled()

    def nodes(self) -> list[NodeStatus]:
        """The machines of a cluster; none where there is none."""
        return self._runner.nodes()

    @property
    def preparing(self) -> bool:
        """Whether nothing can have begun yet."""
        return not self._runner.ready

    def restarts(self) -> int:
        """Workers that died and were replaced."""
        return self._runner.restarts

    def interrupt(self) -> None:
        """Somebody wants the run to end: finish early with what is known."""
        self.interrupted = True
        self.cancel()

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        """Finish early; what is in flight gets its row, incomplete for `reason`."""
        self.cancelled = True
        self._runner.cancel(reason)

    def give_up(self) -> None:
        """Do not wait for anything any more, neither for workers nor for an output that takes nothing."""
        self.given_up = True
        for task in self._tasks:
            task.cancel()

    def ending(self) -> Ending:
        """How the run ended, as far as it has. A target whose row says `cancelled` was not reached."""
        source = self._source
        unread = source is None or not source.ended
        names = source.names - source.looked_up if source is not None else 0
        tally = self.collector.tally
        missing = self.read - self.collector.rows + sum(tally["reason:" + reason.value] for reason in NOT_SCANNED)
        cut = 0 if self.interrupted else self.collector.tally[CUT]
        why = ""
        if self.interrupted:
            why = "interrupted"
        elif missing or cut or names or unread:
            why = self._why_early() or (ASTRAY if tally["reason:" + Reason.PROXY.value] else "a fault of ours")
        return Ending(
            why=why,
            read=self.read,
            done=self.read - missing,
            not_reached=missing,
            cut=cut,
            names=names,
            unread=unread,
        )

    def _why_early(self) -> str:
        if self.led_astray:
            return "no proxy leads to targets any more"
        return "the deadline has passed" if self.cancelled else UNHEARD if self.unheard else ""

    async def run(self) -> None:
        """To the end. Closes the sinks whatever happens. Raises EngineError, MatcherError."""
        failure = ""
        rotating = asyncio.create_task(self._rotate())
        scanning = asyncio.create_task(self._scan())
        self._tasks = {scanning}
        try:
            await scanning
        except asyncio.CancelledError:
            if not self.given_up:
                raise
        except SinkClosed:
            self.unheard = True
        except EngineError as error:
            failure = str(error)
            raise
        finally:
            scanning.cancel()
            rotating.cancel()
            await self._end(Summary(time.time(), failure, self.ending()))

    async def _scan(self) -> None:
        async with contextlib.aclosing(self._targets()) as source:
            with deadline(self.config, self._expire):
                await self._runner.run(source, self._deliver)

    def _expire(self, reason: Reason) -> None:
        """The deadline of the run has passed: soon this ends, even if nobody takes its rows."""
        self.cancel(reason)
        self._tasks.add(asyncio.create_task(self._give_up_when_stuck()))

    async def _give_up_when_stuck(self) -> None:
        while self._desk.stuck_s() < STUCK_S:
            await asyncio.sleep(STUCK_S / 10)
        self.give_up()

    async def _end(self, summary: Summary) -> None:
        """Close the sinks, for which a run that is given up takes little time. Raises OutputError, SinkClosed."""
        closing = asyncio.create_task(self._desk.do(partial(self._close, summary)))
        self._tasks = {task for task in self._tasks if not task.done()}
        if not self.given_up:
            self._tasks.add(closing)
        done, _ = await asyncio.wait({closing}, timeout=LAST_S if self.given_up else None)
        if closing in done and not closing.cancelled():
            closing.result()
        elif self.given_up:
            closing.cancel()
            if any(self.behind().values()):
                raise OutputError("a sink was not waited for; its rows are safe in the state folder")
            raise OutputError("an output takes nothing; what was not written to it is lost")

    async def _deliver(self, part: Batch | Outcome) -> None:
        taken = partial(self.collector.take, part) if isinstance(part, Batch) else partial(self._commit, part)
        await self._desk.do(taken)
        if part.tally.get(GIVEN_UP) and not self.cancelled:
            self.led_astray = True
            self.cancel()

    def _commit(self, outcome: Outcome) -> None:
        """A segment that somebody else has written. Where another was first with its targets, it is as if none was."""
        assert self._segments is not None
        if (record := self._segments.take_segment(outcome.manifest)) is not None:
            rows = self._segments.journal.rows_of(record) if record.name and self._sinks else ()
            self.collector.take_committed(rows, record.rows, outcome.tally)

    def _close(self, summary: Summary) -> None:
        with contextlib.ExitStack() as closing:
            for sink in self._sinks:
                closing.callback(sink.close, summary)
            if self._segments is not None:
                closing.callback(self._segments.close, summary)

    async def _rotate(self) -> None:
        """Commit what is due even while no rows come. What fails here is told with the next rows, or at the end."""
        if self._segments is not None:
            with contextlib.suppress(OutputError):
                while True:
                    await asyncio.sleep(ROTATE_S)
                    await self._desk.do(self._segments.rotate_if_due)

    async def _items(self) -> AsyncIterator[list[Item]]:
        """What the inputs say and is not done; held back until they are seen to be those of the run before.

        What is held back is bounded: the run before had dealt with all it had read but its last queues.
        """
        if self._segments is None:
            async for items in self._inputs.items():
                yield items
            return
        digest, done = self._segments.digest, self.done_before
        held: list[Item] = []
        begun_anew = not done
        async for items in self._inputs.items(digest):
            held += [
                item
                for item in items
                if begun_anew or isinstance(item, InputError) or not done.covers(*_ordinals(item))
            ]
            if digest.verified:
                yield held
                held = []

    async def _targets(self) -> AsyncGenerator[list[Target], None]:
        selection = self._inputs.selection
        self._source = TargetSource(
            self._items(),
            self._report,
            admit=selection.admit,
            seed=selection.seed,
            family=selection.family,
            names=selection.names,
            done=self.done_before,
            pass_over=self._pass_over,
            put_off=self._put_off,
        )
        async for targets in self._source:
            self.read += len(targets)
            yield targets
        self.input_ended = True

    def _pass_over(self, ordinals: Iterable[int]) -> None:
        if self._segments is not None:
            self._desk.post(partial(self._segments.pass_over, list(ordinals)))

    def _put_off(self, ordinals: Iterable[int]) -> None:
        if self._segments is not None:
            self._desk.post(partial(self._segments.put_off, list(ordinals)))


def _ordinals(item: Target | TargetSpec) -> Range:
    return item.ordinal, item.ordinal + (1 if isinstance(item, Target) else item.count)
