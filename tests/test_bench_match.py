"""The steps of matching that the benchmarks time one by one are those of the matcher."""

import pytest

from bench import re2_set
from bench.corpora import Corpus, own
from bench.rivals import re2_sets
from bench.steps import asked, confirm, find, sets
from matcher import EngineUnavailable, Matcher


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return own()


@pytest.mark.parametrize("engine", ["hyperscan", "re2"])
def test_finding_and_confirming_give_the_answers_of_the_matcher(corpus: Corpus, engine: str) -> None:
    try:
        matcher = Matcher(corpus.database, engine)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    answers = [matcher.match(*case) for case in corpus.cases]
    questions = asked(corpus.cases, answers)
    found = find(sets(corpus.database, engine, questions), questions)
    assert len(found.found) == len(answers)
    assert confirm(matcher, questions, found)[1] == answers


def test_a_set_of_whole_patterns_gives_the_same_answers(corpus: Corpus) -> None:
    """Where google-re2 is in its folder already; no test installs it."""
    if not re2_set.FOLDER.is_dir():
        pytest.skip("make bench-match has not installed google-re2 here")
    matcher = Matcher(corpus.database, "re2")
    answers = [matcher.match(*case) for case in corpus.cases]
    questions = asked(corpus.cases, answers)
    answer = re2_sets(corpus.database, [questions, questions])
    assert [confirm(matcher, questions, found)[1] for found in answer.passes] == [answers, answers]
    assert answer.failures == 0
