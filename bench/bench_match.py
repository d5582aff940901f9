"""Matching in groups: which lines may fit, which does, its fields, and the whole. See conftest.py."""

from itertools import cycle

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.corpora import Corpus, mutated
from bench.match_table import wrong_answers
from bench.steps import asked, confirm, find, sets
from matcher import Matcher
from matcher.patterns import pcre
from matcher.patterns.pcre import Patience
from matcher.version import compile_templates, uses_groups

CASES = 2000  # per round
SLOW_CASES = 50  # per round of the reference
GROUPS = 10  # that templates can name


def describe(benchmark: BenchmarkFixture, corpus: Corpus, responses: int) -> None:
    benchmark.extra_info.update(corpus=corpus.name, responses=responses)


@pytest.mark.benchmark(group="candidates")
def test_candidates(benchmark: BenchmarkFixture, quick_matcher: Matcher, corpus: Corpus) -> None:
    """Which lines may fit a response that was never seen, when the automata are warm."""
    part = corpus.sample(CASES)
    answers = [quick_matcher.match(*case) for case in part.cases]
    known = asked(part.cases, answers)
    made = sets(corpus.database, quick_matcher.engine, [(probe.lists, b"") for probe, _ in part.cases])
    assert confirm(quick_matcher, known, find(made, known))[1] == answers
    seeds = cycle(range(1 << 30))
    describe(benchmark, corpus, CASES)

    def new() -> tuple[tuple[object, ...], dict[str, object]]:
        cases = list(mutated(part, CASES, next(seeds)))
        return (made, asked(cases, [quick_matcher.match(*case) for case in cases])), {}

    benchmark.pedantic(find, setup=new, rounds=5)


@pytest.mark.benchmark(group="confirm")
def test_confirm(benchmark: BenchmarkFixture, quick_matcher: Matcher, corpus: Corpus) -> None:
    """Which of the lines that may fit does, and its fields."""
    part = corpus.sample(CASES)
    answers = [quick_matcher.match(*case) for case in part.cases]
    questions = asked(part.cases, answers)
    found = find(sets(corpus.database, quick_matcher.engine, questions), questions)
    assert confirm(quick_matcher, questions, found)[1] == answers
    assert wrong_answers(answers, part) == 0
    describe(benchmark, corpus, CASES)
    benchmark(confirm, quick_matcher, questions, found)


@pytest.mark.benchmark(group="templates")
def test_templates(benchmark: BenchmarkFixture, best_matcher: Matcher, corpus: Corpus) -> None:
    """The fields of lines whose templates name groups, when it is known where these are."""
    work, infos = [], []
    for probe, response in corpus.sample(CASES).cases:
        match = best_matcher.match(probe, response)
        if match is None or not uses_groups(match.signature.templates):
            continue
        line = best_matcher.line(match.probe.index, match.probe.signatures.index(match.signature))
        found = line.search(response, Patience())
        spans = [pcre.span(found, response, number) for number in range(min(line.groups() + 1, GROUPS))]
        spans += [(-1, -1)] * (GROUPS - len(spans))
        work.append((compile_templates(match.signature.templates), response, spans))
        infos.append(match.info)
    assert [expand(response, spans) for expand, response, spans in work] == infos
    describe(benchmark, corpus, len(work))
    benchmark(lambda: [expand(response, spans) for expand, response, spans in work])


@pytest.mark.benchmark(group="match, recorded")
def test_recorded_responses(benchmark: BenchmarkFixture, matcher: Matcher, corpus: Corpus) -> None:
    """Recorded responses again and again: candidates, confirm and fields."""
    part = corpus.sample(SLOW_CASES if matcher.engine == "reference" else CASES)
    assert wrong_answers([matcher.match(*case) for case in part.cases], part) == 0
    describe(benchmark, corpus, len(part.cases))
    benchmark(lambda: [matcher.match(*case) for case in part.cases])


@pytest.mark.benchmark(group="match, never seen")
def test_responses_never_seen(benchmark: BenchmarkFixture, matcher: Matcher, corpus: Corpus) -> None:
    """Recorded responses with random changes, new ones in every round."""
    reference = Matcher(corpus.database, "reference")
    for case in mutated(corpus, SLOW_CASES, seed=-1):
        assert matcher.match(*case) == reference.match(*case)
    size = SLOW_CASES if matcher.engine == "reference" else CASES
    seeds = cycle(range(1 << 30))
    describe(benchmark, corpus, size)
    benchmark.pedantic(
        lambda *cases: [matcher.match(*case) for case in cases],
        setup=lambda: (tuple(mutated(corpus, size, next(seeds))), {}),
        rounds=5,
    )
