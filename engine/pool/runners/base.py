"""The seam between the flow of targets and the places where they are scanned."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from engine.model import Batch, Reason, ScanConfig, Target
from engine.pool.cluster.words import NodeStatus, Outcome

Source = AsyncIterator[Sequence[Target]]
"""Targets in small lists, as they become known."""

Deliver = Callable[[Batch | Outcome], Awaitable[None]]
"""Takes finished rows, or a segment of them that is put already; taking its time slows down the flow to the reader."""


class Runner(Protocol):
    """restarts: workers that died and were replaced. ready: whether one could begin; before that there is no row."""

    restarts: int
    ready: bool

    async def run(self, source: Source, deliver: Deliver) -> None:
        """Scan all targets of `source`. Every target is delivered exactly once, whatever happens to workers."""
        ...

    def cancel(self, reason: Reason = Reason.CANCELLED) -> None:
        """Finish early: what is in flight is delivered as incomplete for `reason`, the rest is not begun."""
        ...

    def outstanding(self) -> list[int]:
        """Per worker, the targets it was given and has not done."""
        ...

    def conversations(self) -> list[int]:
        """Per worker, the conversations that are open now, as it last said."""
        ...

    def unsettled(self) -> int:
        """Targets that are done and not delivered yet, because their segment is not whole."""
        ...

    def nodes(self) -> list[NodeStatus]:
        """The machines of a cluster; none where there is none."""
        ...


@contextmanager
def deadline(config: ScanConfig, cancel: Callable[[Reason], None]) -> Iterator[None]:
    """Inside, `cancel(BUDGET)` is called once the config's deadline for the whole run, counted from now, is over."""
    if not config.deadline_s:
        yield
        return
    handle = asyncio.get_running_loop().call_later(config.deadline_s, cancel, Reason.BUDGET)
    try:
        yield
    finally:
        handle.cancel()
