"""What the groups under pytest-benchmark share: `make bench-parts`, or one file as

    python -m pytest -o addopts= -o python_files='bench_*.py' bench/bench_match.py

Each compares its answers with what is known before anything is timed.
"""

import pytest

from bench.corpora import Corpus, golden, own
from matcher import EngineUnavailable, Matcher
from matcher.patterns import ENGINES


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The golden corpus where it is there, else this project's samples."""
    found = golden()
    return own() if isinstance(found, str) else found


@pytest.fixture(scope="module", params=ENGINES)
def matcher(request: pytest.FixtureRequest, corpus: Corpus) -> Matcher:
    """Of every engine, ready to be asked."""
    return _matcher(request.param, corpus)


@pytest.fixture(scope="module", params=[name for name in ENGINES if name != "reference"])
def quick_matcher(request: pytest.FixtureRequest, corpus: Corpus) -> Matcher:
    """Of every engine that finds lines in some clever way."""
    return _matcher(request.param, corpus)


@pytest.fixture(scope="module")
def best_matcher(corpus: Corpus) -> Matcher:
    return _matcher("auto", corpus)


def _matcher(engine: str, corpus: Corpus) -> Matcher:
    try:
        made = Matcher(corpus.database, engine)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    made.compile_all()
    return made
