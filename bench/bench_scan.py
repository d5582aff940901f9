"""What a row costs without a network: recorded services in virtual time, and rows as they leave a worker."""

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.corpora import Case, Corpus
from bench.replayed import played
from engine.conversation.scan import ScanContext
from engine.model import Batch, ServiceResult, Target
from engine.pool.outbox import Outbox
from matcher import Matcher

PORT = 80  # names GetRequest, so that it is the first probe after the banner
SERVICES = 500  # a round


def recorded(corpus: Corpus, matcher: Matcher, probe: str) -> list[Case]:
    """Services whose first answer to a probe settles what they are."""
    answered = ((case, matcher.match(*case)) for case in corpus.only(probe, probe).cases)
    return [case for case, match in answered if match is not None and not match.soft and match.service != "ssl"][
        :SERVICES
    ]


def rows(cases: list[Case], context: ScanContext) -> list[ServiceResult]:
    made = []
    for number, (probe, response) in enumerate(cases):
        banner, answers = (response, {}) if probe.is_null else (b"", {probe.payload: response})
        made.append(played(Target(number, f"192.0.2.{number % 250}", PORT), context, banner, answers))
    return made


@pytest.mark.benchmark(group="scan by replay")
@pytest.mark.parametrize("probe", ["NULL", "GetRequest"])
def test_scan(benchmark: BenchmarkFixture, corpus: Corpus, best_matcher: Matcher, probe: str) -> None:
    """From the target to the row: plan, windows, matching, everything but sockets."""
    cases = recorded(corpus, best_matcher, probe)
    context = ScanContext(corpus.database, best_matcher.match)
    matches = [best_matcher.match(*case) for case in cases]
    assert cases
    for row, match in zip(rows(cases, context), matches, strict=True):
        assert match is not None
        assert row.evidence is not None
        assert (row.product, row.version, row.evidence.line) == (
            match.info.product,
            match.info.version,
            match.signature.line,
        )
    benchmark.extra_info.update(corpus=corpus.name, services=len(cases))
    benchmark(rows, cases, context)


@pytest.mark.benchmark(group="encode")
def test_encode(benchmark: BenchmarkFixture, corpus: Corpus, best_matcher: Matcher) -> None:
    """Rows counted and encoded into a batch, as a worker does it."""
    made = rows(recorded(corpus, best_matcher, "NULL"), ScanContext(corpus.database, best_matcher.match))
    batches: list[Batch] = []

    def send() -> None:
        batches.clear()
        outbox = Outbox(
            batches.append,
            lambda: False,
            lambda *_: pytest.fail("no timer is needed"),
            batch_rows=len(made) + 1,
            batch_s=1.0,
            failures={},
        )
        for number, row in enumerate(made):
            outbox.put(number, row)
        outbox.flush()

    send()
    assert sum(batch.count for batch in batches) == len(made)
    assert msgspec.json.Decoder(ServiceResult).decode_lines(batches[0].rows) == made
    benchmark.extra_info.update(rows=len(made))
    benchmark(send)
