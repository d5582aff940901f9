"""Matching under pytest-benchmark: `python -m pytest -o addopts= bench/bench_match.py`.

The golden corpus where it is there, else this project's samples; `python -m bench.match_table` prints more.
"""

import platform
from itertools import cycle

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.corpora import Corpus, golden, mutated, own
from bench.match_table import wrong_answers
from matcher import EngineUnavailable, Matcher
from matcher.patterns import ENGINES

CASES = 2000  # per round
SLOW_CASES = 50  # per round of the reference


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    found = golden()
    return own() if isinstance(found, str) else found


@pytest.fixture(scope="module", params=ENGINES)
def matcher(request: pytest.FixtureRequest, corpus: Corpus) -> Matcher:
    try:
        made = Matcher(corpus.database, request.param)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    made.compile_all()
    return made


def describe(benchmark: BenchmarkFixture, corpus: Corpus, responses: int) -> None:
    benchmark.extra_info.update(corpus=corpus.name, responses=responses, machine=platform.processor())


def test_recorded_responses(benchmark: BenchmarkFixture, matcher: Matcher, corpus: Corpus) -> None:
    """Recorded responses again and again: candidates, confirm and fields."""
    part = corpus.sample(SLOW_CASES if matcher.engine == "reference" else CASES)
    assert wrong_answers([matcher.match(*case) for case in part.cases], part) == 0
    describe(benchmark, corpus, len(part.cases))
    benchmark(lambda: [matcher.match(*case) for case in part.cases])


def test_responses_never_seen(benchmark: BenchmarkFixture, matcher: Matcher, corpus: Corpus) -> None:
    """Recorded responses with random changes, new ones in every round."""
    size = SLOW_CASES if matcher.engine == "reference" else CASES
    seeds = cycle(range(1 << 30))
    describe(benchmark, corpus, size)
    benchmark.pedantic(
        lambda *cases: [matcher.match(*case) for case in cases],
        setup=lambda: (tuple(mutated(corpus, size, next(seeds))), {}),
        rounds=5,
    )


def test_engines_agree_on_what_was_never_seen(corpus: Corpus, matcher: Matcher) -> None:
    """The times above count only because the answers are the reference's."""
    reference = Matcher(corpus.database, "reference")
    for case in mutated(corpus, SLOW_CASES, seed=-1):
        assert matcher.match(*case) == reference.match(*case)
