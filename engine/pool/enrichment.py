"""What becomes of a result beyond the match: read further at once, and asked for in further conversations.

`read` costs little and contacts nobody. Where a module wants to hold a conversation, `begin` takes the result over: so
many are held at once, the others wait in line, and each result comes back through `done` in any case, enriched, or as
it was where its conversations failed or were cancelled. docs/post.md has the modules.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import msgspec

from engine.model import ServiceResult, Target
from engine.pool.descriptors import POST_CONVERSATIONS
from engine.pool.opinions import Opinion
from engine.pool.turns import Turns
from engine.post import LIMIT_S, PostProcessing
from engine.transports.crashes import report
from engine.transports.dial import Dialler


class _Asking(msgspec.Struct, eq=False):
    """A result in its conversations, or waiting for them; the fields are what `begin` was given."""

    target: Target
    result: ServiceResult
    response: bytes
    budget_at: float


class Enrichment:
    """opinion: of whoever is asked beside the database, or None.

    dial: (result, deadline) -> what talks to this service until then, by the loop's clock.
    resumed: told of a target that had to wait and goes on now: with its conversations, or with `done` at once.
    done: takes a result back; called from the loop, for those who still wait from within `cancel`.
    """

    def __init__(
        self,
        post: PostProcessing,
        opinion: Opinion | None,
        dial: Callable[[ServiceResult, float], Dialler],
        resumed: Callable[[], None],
        done: Callable[[Target, ServiceResult], None],
    ) -> None:
        self._post = post
        self._opinion = opinion
        self._dial = dial
        self._resumed = resumed
        self._done = done
        self._turns: Turns[_Asking] = Turns(POST_CONVERSATIONS)
        self._talking: set[asyncio.Task[ServiceResult]] = set()

    @property
    def busy(self) -> bool:
        """Whether results are here that have not come back."""
        return len(self._turns) > 0

    @property
    def conversations(self) -> int:
        """How many are open now."""
        return len(self._talking)

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        """The result with what can be told without contacting anybody."""
        return self._post.read(self._judged(result, response), response)

    def _judged(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        """The result with the second opinion; as it was where that fails, whatever a peer has sent."""
        if self._opinion is None:
            return result
        try:
            return self._opinion.on(result, response)
        except Exception as error:
            report(f"{result.ip} port {result.port}: second opinion", error, time.monotonic())
            return result

    def wants(self, result: ServiceResult) -> bool:
        """Whether there is something to ask the service for."""
        return self._post.wants(result)

    def begin(self, target: Target, result: ServiceResult, response: bytes, budget_at: float) -> bool:
        """Ask, at most until the target's budget ends (monotonic seconds). Whether at once: else in its turn."""
        asking = _Asking(target, result, response, budget_at)
        at_once = self._turns.take(asking)
        if at_once:
            self._start(asking)
        return at_once

    def cancel(self) -> None:
        """Every result comes back as it was: at once if it still waits, otherwise in one of the loop's next turns."""
        for asking in self._turns.dismiss():
            self._resumed()
            self._done(asking.target, asking.result)
        for task in self._talking:
            task.cancel()

    def _start(self, asking: _Asking) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(asking))
        self._talking.add(task)
        task.add_done_callback(partial(self._asked, asking))

    async def _ask(self, asking: _Asking) -> ServiceResult:
        left_s = asking.budget_at - time.monotonic()
        deadline = asyncio.get_running_loop().time() + min(LIMIT_S, left_s)
        dial = self._dial(asking.result, deadline)
        return await self._post.enrich(asking.result, asking.response, dial)

    def _asked(self, asking: _Asking, task: asyncio.Task[ServiceResult]) -> None:
        self._talking.discard(task)
        self._turns.leave(asking)
        while (following := self._turns.call()) is not None:
            self._resumed()
            self._start(following)
        result = asking.result
        if not task.cancelled() and task.exception() is None:
            result = self._judged(task.result())  # there may be a certificate or an icon now
        self._done(asking.target, result)
