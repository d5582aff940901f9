"""The two steps of matching, each alone: which lines may fit (`find`), and which of them does (`confirm`).

Contract: `find` gives what a set proposes for every list that Matcher.match would ask, and `confirm` the answers that
come of it, so that both can be compared with what is known before their times count. Times are CPU microseconds a
response.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.corpora import Case
from bench.re2_set import Asked, Pass
from matcher import EngineUnavailable, Match, Matcher, ProbeDatabase
from matcher.patterns import PatternSet, engine
from matcher.patterns.keyed import KeyedSet
from matcher.patterns.pcre import Patience
from matcher.patterns.plan import Line, plan

_PLANNED: dict[tuple[str, int], tuple[Line, ...]] = {}  # (database, list): dear, and the same for every corpus


def asked(cases: Sequence[Case], answers: Sequence[Match | None]) -> list[Asked]:
    """The lists that are asked for each response: up to the one that answers it."""
    questions = []
    for (probe, response), answer in zip(cases, answers, strict=True):
        lists = tuple(probe.lists)
        if answer is not None:
            lists = lists[: lists.index(answer.probe.index) + 1]
        questions.append((lists, response))
    return questions


def sets(database: ProbeDatabase, engine_name: str, questions: Sequence[Asked]) -> dict[int, PatternSet]:
    """Fresh sets with cold automata, for the lists that are asked. Raises EngineUnavailable."""
    finding = engine(engine_name).finding
    if finding is None:
        raise EngineUnavailable(f"{engine_name} finds nothing")
    made: dict[int, PatternSet] = {}
    for index in lists_of(questions):
        key = (database.sha256, index)
        if key not in _PLANNED:
            _PLANNED[key] = plan(database.probes[index].signatures)
        made[index] = KeyedSet(_PLANNED[key], finding)
    return made


def lists_of(questions: Sequence[Asked]) -> list[int]:
    return sorted({index for lists, _ in questions for index in lists})


def find(made: dict[int, PatternSet], questions: Sequence[Asked]) -> Pass:
    all_found = []
    with _no_collector():
        began = time.process_time()
        for lists, response in questions:
            all_found.append([made[index].candidates(response) for index in lists])
        taken = time.process_time() - began
    return Pass(taken / len(questions) * 1e6, [[list(positions) for positions in found] for found in all_found])


def candidates(found: Pass) -> float:
    """Lines proposed a response."""
    return sum(len(positions) for lists in found.found for positions in lists) / len(found.found)


def confirm(matcher: Matcher, questions: Sequence[Asked], found: Pass) -> tuple[float, list[Match | None]]:
    """(time, answers). matcher: gives the lines; of any engine."""
    work = list(zip(questions, found.found, strict=True))
    with _no_collector():
        began = time.process_time()
        answers = [_confirmed(matcher, lists, response, proposed) for (lists, response), proposed in work]
        taken = time.process_time() - began
    return taken / len(work) * 1e6, answers


@contextmanager
def _no_collector() -> Iterator[None]:
    """What is kept here would make Python's collector walk through the whole database now and then."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _confirmed(matcher: Matcher, lists: Sequence[int], response: bytes, found: list[list[int]]) -> Match | None:
    patience = Patience()
    for index, positions in zip(lists, found, strict=True):
        for position in positions:
            line = matcher.line(index, position)
            groups = line.search(response, patience)
            if groups is not None:
                return line.matched(response, groups)
    return None
