"""A whole run: targets from their inputs, through a runner, into the sinks, with the bounds and endings in between.

The command line and anything else that wants files in and files out stands on `Run`; who wants results as objects takes
`engine.api`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from msgspec import Struct

from engine.collector import Collector
from engine.errors import EngineError
from engine.inputs import Item, PlainReader, PortSpec, target_reader
from engine.model import Reason, ScanConfig, Target
from engine.runners import Runner
from engine.sinks import Sink, SinkClosed, Summary
from engine.source import Report, TargetSource, read_items


class Inputs(Struct, frozen=True):
    """Where targets come from: texts given directly, then files (`-` is standard input).

    ports: for bare hosts. admit, seed: as in TargetSource.
    """

    texts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    form: str = "auto"
    ports: PortSpec | None = None
    admit: Callable[[Target], bool] | None = None
    seed: int | None = None

    async def items(self) -> AsyncIterator[list[Item]]:
        reader = PlainReader("argument", self.ports)
        for text in self.texts:
            reader.line += 1
            yield reader.read_line(text)
        ordinal = reader.ordinal
        for path in self.files:
            file_reader = target_reader("standard input" if path == "-" else path, self.form, self.ports, ordinal)
            async for items in read_items(path, file_reader):
                yield items
            ordinal = file_reader.ordinal


class Run:
    """One run and what can be seen of it while it goes on. Every number is a plain attribute, cheap to read often."""

    def __init__(
        self, config: ScanConfig, inputs: Inputs, runner: Runner, sinks: Sequence[Sink], report: Report
    ) -> None:
        self.config = config
        self.collector = Collector(sinks)
        self.read = 0  # targets
        self.input_ended = False
        self.cancelled = False
        self.interrupted = False
        self.started = time.monotonic()
        self._inputs = inputs
        self._runner = runner
        self._sinks = sinks
        self._report = report
        self._source: TargetSource | None = None

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

    def outstanding(self) -> list[int]:
        """Per worker, the targets it was given and has not done."""
        return self._runner.outstanding()

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

    async def run(self) -> None:
        """To the end. Closes the sinks whatever happens. Raises EngineError, MatcherError."""
        failure = ""
        try:
            async with contextlib.aclosing(self._targets()) as source:
                await self._runner.run(source, self.collector.deliver)
        except asyncio.CancelledError:
            if not self.cancelled:
                raise
        except SinkClosed:
            pass
        except EngineError as error:
            failure = str(error)
            raise
        finally:
            for sink in self._sinks:
                sink.close(Summary(time.time(), failure))

    async def _targets(self) -> AsyncGenerator[list[Target], None]:
        inputs = self._inputs
        self._source = TargetSource(inputs.items(), self._report, inputs.admit, inputs.seed)
        async for targets in self._source:
            self.read += len(targets)
            yield targets
        self.input_ended = True
