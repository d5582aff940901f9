"""The seam between the flow of targets and the places where they are scanned."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from engine.model import Batch, Target

Source = AsyncIterator[Sequence[Target]]
"""Targets in small lists, as they become known."""

Deliver = Callable[[Batch], Awaitable[None]]
"""Takes finished rows; taking its time slows the whole flow down to the reader."""


class Runner(Protocol):
    async def run(self, source: Source, deliver: Deliver) -> None:
        """Scan all targets of `source`. Every target is delivered exactly once, whatever happens to workers."""
        ...

    def cancel(self) -> None:
        """Finish early: what is in flight is delivered as cancelled, the rest is not begun."""
        ...
