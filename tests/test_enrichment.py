"""Enrichment: every result comes back, so many talk at once, the others wait in line."""

import asyncio
import time
from math import inf

import pytest
from msgspec.structs import replace
from peers import row, run

from engine.model import ServiceResult, Target
from engine.pool.enrichment import Enrichment
from engine.post import LIMIT_S

PLAIN = row("http", 80)


class Asker:
    """In place of PostProcessing: each conversation lasts until it is answered."""

    def __init__(self) -> None:
        self.begun: list[int] = []  # ports
        self.deadlines: list[float] = []  # of the dialler
        self.answered: dict[int, asyncio.Event] = {}

    def wants(self, result: ServiceResult) -> bool:
        return not result.extrainfo

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        return replace(result, product=result.product + " read")

    async def enrich(self, result: ServiceResult, response: bytes, deadline: float) -> ServiceResult:
        self.begun.append(result.port)
        self.deadlines.append(deadline)
        event = self.answered[result.port] = asyncio.Event()
        await event.wait()
        return replace(result, extrainfo=response.decode())


class Opinion:
    """In place of RecogOpinion: shows in the product when it was asked."""

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        return replace(result, product=result.product + f" opinion({response.decode()})")


class Room:
    """An enrichment, and what came back from it."""

    def __init__(self, opinion: Opinion | None = None) -> None:
        self.asker = Asker()
        self.back: list[tuple[int, ServiceResult]] = []
        self.resumed = 0
        self.enrichment = Enrichment(
            self.asker,  # type: ignore[arg-type]
            opinion,  # type: ignore[arg-type]
            lambda result, deadline: deadline,  # type: ignore[arg-type, return-value]
            self.count_resumed,
            lambda target, result: self.back.append((target.ordinal, result)),
        )

    def count_resumed(self) -> None:
        self.resumed += 1

    def begin(self, *ports: int, budget_at: float = inf) -> None:
        for port in ports:
            target = Target(port * 10, PLAIN.ip, port)
            self.enrichment.begin(target, replace(PLAIN, port=port), b"told", budget_at)

    async def answer(self, *ports: int) -> None:
        for port in ports:
            self.asker.answered[port].set()
        await turn()


async def turn() -> None:
    """Let everything happen that can happen."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_reading_contacts_nobody() -> None:
    """The second opinion is on what the scan found, the modules read what it left."""
    assert Room().enrichment.read(PLAIN, b"x").product == " read"
    room = Room(Opinion())
    assert room.enrichment.read(PLAIN, b"x").product == " opinion(x) read"
    assert room.enrichment.wants(PLAIN)
    assert not room.enrichment.wants(replace(PLAIN, extrainfo="known"))
    assert not room.enrichment.busy


def test_so_many_talk_at_once_and_the_others_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pool.enrichment.POST_CONVERSATIONS", 2)

    async def test() -> None:
        room = Room()
        room.begin(1, 2, 3, 4)
        await turn()
        assert room.asker.begun == [1, 2]
        await room.answer(2)
        assert room.asker.begun == [1, 2, 3]
        await room.answer(1, 3)
        assert room.asker.begun == [1, 2, 3, 4]
        assert room.enrichment.busy
        await room.answer(4)
        assert not room.enrichment.busy
        assert [(ordinal, result.port, result.extrainfo) for ordinal, result in room.back] == [
            (20, 2, "told"),
            (10, 1, "told"),
            (30, 3, "told"),
            (40, 4, "told"),
        ]

    run(test())


def test_those_who_had_to_wait_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """`begin` says who waits, and every one of them resumes, to talk or because all is cancelled."""
    monkeypatch.setattr("engine.pool.enrichment.POST_CONVERSATIONS", 1)

    async def test() -> None:
        room = Room()
        begun = [room.enrichment.begin(Target(n, PLAIN.ip, n), replace(PLAIN, port=n), b"", inf) for n in range(4)]
        assert begun == [True, False, False, False]
        await turn()
        assert room.resumed == 0
        await room.answer(0)
        assert room.resumed == 1
        room.enrichment.cancel()
        await turn()
        assert room.resumed == 3
        assert len(room.back) == 4

    run(test())


class Bad(Opinion):
    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        raise ValueError("whatever a peer has sent")


def test_a_second_opinion_that_fails_costs_no_row() -> None:
    async def test() -> None:
        room = Room(Bad())
        assert room.enrichment.read(PLAIN, b"x").product == " read"
        room.begin(1)
        await turn()
        await room.answer(1)
        assert [result.extrainfo for _, result in room.back] == ["told"]

    run(test())


def test_cancelled_results_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in a conversation, those about to begin one and those in line; nobody is contacted any more."""
    monkeypatch.setattr("engine.pool.enrichment.POST_CONVERSATIONS", 2)

    async def test() -> None:
        room = Room(Opinion())
        room.begin(1)
        await turn()
        room.begin(2, 3, 4)
        room.enrichment.cancel()
        await turn()
        assert room.asker.begun == [1]
        assert not room.enrichment.busy
        assert sorted((ordinal, result) for ordinal, result in room.back) == [
            (port * 10, replace(PLAIN, port=port)) for port in (1, 2, 3, 4)
        ]

    run(test())


def test_the_second_opinion_is_asked_once_more() -> None:
    async def test() -> None:
        room = Room(Opinion())
        room.begin(1)
        await turn()
        await room.answer(1)
        assert [result.product for _, result in room.back] == [" opinion()"]

    run(test())


@pytest.mark.parametrize(("left_s", "expected_s"), [(inf, LIMIT_S), (100.0, LIMIT_S), (2.0, 2.0), (-3.0, -3.0)])
def test_conversations_end_with_the_budget(left_s: float, expected_s: float) -> None:
    async def test() -> None:
        room = Room()
        now = asyncio.get_running_loop().time()
        room.begin(1, budget_at=time.monotonic() + left_s)
        await turn()
        assert room.asker.deadlines == [pytest.approx(now + expected_s, abs=1)]
        await room.answer(1)

    run(test())
