"""Every observed conversation, replayed through the state machine in virtual time: row, bytes sent, connections.

A row must not depend on how the answers were cut into reads. Cases that are about just that name the reason as `uncut`.
"""

from functools import cache

import pytest
from cases import REGISTERED, Case, differences, load_all
from replay import UNREGISTERED_PORT, replay

from engine.scan import ScanContext
from matcher import compile_matcher, parse_database

CASES = load_all()
STREAMS = [case for case in CASES if case.proto == "tcp" and not case.uncut]


@cache
def context_of(data: bytes, intensity: int, all_ports: bool) -> ScanContext:
    database = parse_database(data, "cases")
    return ScanContext(
        database,
        compile_matcher(database, "reference").match,
        intensity=intensity,
        excluded=not all_ports,
        service_name=lambda port, proto: REGISTERED.get((port, proto), ""),
    )


def play(case: Case, cut: int = 0) -> str:
    context = context_of(case.database(case.port or UNREGISTERED_PORT), case.intensity, case.all_ports)
    return differences(case, *replay(case, context, cut=cut))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_outcome(case: Case) -> None:
    """The row and the conversation are those observed."""
    assert not play(case), case.what


@pytest.mark.parametrize("cut", [1, 7])
@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.id)
def test_outcome_in_pieces(case: Case, cut: int) -> None:
    """Whether an answer comes in one read or in many makes no difference."""
    assert not play(case, cut), case.what


@pytest.mark.parametrize("case", [case for case in CASES if case.uncut], ids=lambda case: case.id)
def test_uncut_cases_have_their_reason(case: Case) -> None:
    """Only where cutting does change the outcome is a case exempt from it."""
    assert play(case, 1) or play(case, 7), case.uncut


def test_ids_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
