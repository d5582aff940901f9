"""What a database costs before it can be asked: parsed and checked, read from the cache, its lines planned."""

from pathlib import Path

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.corpora import Corpus
from matcher import ProbeDatabase, parse_database
from matcher.database.load import find_database
from matcher.patterns.plan import plan


@pytest.mark.benchmark(group="parse")
def test_parse(benchmark: BenchmarkFixture, corpus: Corpus) -> None:
    """The file, with every pattern checked."""
    data = Path(find_database(corpus.database.name)).read_bytes()
    assert parse_database(data, corpus.database.name) == corpus.database
    benchmark.pedantic(parse_database, (data, corpus.database.name), rounds=3)


@pytest.mark.benchmark(group="parse")
def test_decode(benchmark: BenchmarkFixture, corpus: Corpus) -> None:
    """The parsed database as the cache keeps it."""
    stored = msgspec.msgpack.encode(corpus.database)
    decode = msgspec.msgpack.Decoder(ProbeDatabase).decode
    assert decode(stored) == corpus.database
    benchmark.pedantic(decode, (stored,), rounds=5)


@pytest.mark.benchmark(group="plan")
@pytest.mark.parametrize("name", ["NULL", "GetRequest"])
def test_plan(benchmark: BenchmarkFixture, corpus: Corpus, name: str) -> None:
    """Keys and checks of the lines of a probe."""
    probe = corpus.database.probe(name)
    assert probe is not None
    assert len(plan(probe.signatures)) == len(probe.signatures)
    benchmark.extra_info.update(lines=len(probe.signatures))
    benchmark.pedantic(plan, (probe.signatures,), rounds=3)
