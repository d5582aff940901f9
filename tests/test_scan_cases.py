"""Every observed conversation, replayed through the state machine in virtual time: row, bytes, connections, duration.

A row must not depend on how the answers were cut into reads. Cases that are about just that name the reason as `uncut`.
"""

from functools import cache, partial
from typing import Literal

import pytest
from cases import REGISTERED, Case, differences, load_all
from msgspec.structs import replace
from replay import UNREGISTERED_PORT, replay

from engine.conversation.scan import Action, Connect, Finish, Listen, ScanContext, Send, ServiceScan
from engine.errors import ScanStateError
from engine.model import Reason, ServiceResult, Target, Tunnel, Verdict
from matcher import compile_matcher, parse_database

CASES = load_all()
STREAMS = [case for case in CASES if case.proto == "tcp" and not case.uncut]


@cache
def context_of(data: bytes, intensity: int, all_ports: bool, dtls: bool = True) -> ScanContext:
    database = parse_database(data, "cases")
    return ScanContext(
        database,
        compile_matcher(database, "reference").match,
        intensity=intensity,
        excluded=not all_ports,
        dtls=dtls,
        service_name=lambda port, proto: REGISTERED.get((port, proto), ""),
    )


def play(case: Case, cut: int = 0) -> str:
    """What differs from the table, duration and number of connections included; empty where nothing does."""
    context = context_of(case.database(case.port or UNREGISTERED_PORT), case.intensity, case.all_ports)
    row, sent = replay(case, context, cut=cut)
    wrong = differences(case, row, sent)
    if row.elapsed_ms != case.ms:
        wrong += f"\nms: expected {case.ms}, got {row.elapsed_ms}"
    if case.proto == "tcp" and row.connections != len(sent):
        wrong += f"\nconnections: expected {len(sent)}, got {row.connections}"
    return wrong


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


@pytest.mark.parametrize("case", [case for case in CASES if case.older], ids=lambda case: case.id)
def test_the_older_generation(case: Case) -> None:
    """Nmap 7.93's outcome, where the newer one's is the usual one here."""
    assert case.older is not None
    context = context_of(case.database(UNREGISTERED_PORT), case.intensity, case.all_ports, dtls=False)
    row, sent = replay(case, context)
    assert not differences(replace(case, expect=case.older), row, sent), case.older.why
    assert row.elapsed_ms == 0


def test_ids_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


# What no scripted server can bring about: events given by hand.

PROBES = b"""\
Probe TCP NULL q||
softmatch smtp m|^220 | p/Soft/
match ssl m|^TLS|
Probe TCP A q|AAA|
match smtp m|^yes|
"""


def scan_of(state: Literal["", "open"] = "open") -> ServiceScan:
    return ServiceScan(Target(0, "192.0.2.1", 61999, "tcp", state=state), context_of(PROBES, 7, False))


def listening(state: Literal["", "open"] = "open") -> ServiceScan:
    """A scan that is connected at 0.0 and waits for a banner."""
    scan = scan_of(state)
    scan.start(0.0)
    scan.connected(0.0)
    return scan


def row_of(action: Action) -> ServiceResult:
    assert isinstance(action, Finish)
    return action.result


def test_deadlines() -> None:
    """5 s to connect, 8 s for TCP and TLS together; a window is counted from the connect, or from sending."""
    scan = scan_of()
    assert scan.start(10.0) == Connect(Tunnel.NONE, 15.0)
    assert scan.connected(10.5) == Listen(15.5)
    assert scan.received(b"x", 12.0) == Listen(15.5)
    assert scan.timed_out(15.5) == Send(b"AAA", 20.5)
    assert scan.received(b"TLS", 16.0) == Listen(20.5)  # behind the x it is no match
    scan = listening()
    assert scan.received(b"TLS", 1.0) == Connect(Tunnel.SSL, 9.0)


@pytest.mark.parametrize(
    ("reason", "state"), [(Reason.REFUSED, "closed"), (Reason.TIMEOUT, "filtered"), (Reason.UNREACHABLE, "filtered")]
)
def test_first_connect_fails(reason: Reason, state: str) -> None:
    """A port that was said to be open is tcpwrapped; one that nobody vouched for is what a port scan would call it."""
    scan = scan_of("open")
    scan.start(0.0)
    known = row_of(scan.failed(reason, 1.0))
    assert (known.state, known.name, known.conf, known.verdict) == ("open", "tcpwrapped", 8, Verdict.TCPWRAPPED)
    scan = scan_of("")
    scan.start(0.0)
    unknown = row_of(scan.failed(reason, 1.0))
    assert (unknown.state, unknown.name, unknown.reason) == (state, "", reason)
    assert unknown.verdict is Verdict.INCOMPLETE


def test_connect_that_hangs_is_a_timeout() -> None:
    scan = scan_of("")
    scan.start(0.0)
    assert row_of(scan.timed_out(5.0)).reason is Reason.TIMEOUT


def test_reset_at_once_is_tcpwrapped_although_nobody_vouched_for_the_port() -> None:
    row = row_of(listening("").failed(Reason.RESET, 0.1))
    assert (row.state, row.name, row.connections) == ("open", "tcpwrapped", 1)


def test_host_unreachable_while_reading_ends_the_service() -> None:
    row = row_of(listening().failed(Reason.UNREACHABLE, 0.1))
    assert (row.name, row.verdict, row.reason) == ("", Verdict.INCOMPLETE, Reason.UNREACHABLE)


def test_broken_write_ends_the_service() -> None:
    """What a softmatch told stays, but counts as table knowledge."""
    scan = listening()
    scan.received(b"220 hi", 0.1)
    assert isinstance(scan.timed_out(5.0), Send)
    row = row_of(scan.write_failed(Reason.RESET, 5.0))
    assert (row.name, row.product, row.method, row.conf) == ("smtp", "Soft", "table", 3)
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.RESET)


@pytest.mark.parametrize("reason", [Reason.BUDGET, Reason.CANCELLED])
def test_abort_keeps_what_is_known(reason: Reason) -> None:
    scan = listening()
    scan.received(b"220 hi", 0.1)
    row = row_of(scan.abort(reason, 0.2))
    assert (row.name, row.product, row.reason, row.bytes) == ("smtp", "Soft", reason, 6)
    with pytest.raises(ScanStateError):
        scan.abort(reason, 0.3)


def test_impossible_events_are_the_drivers_fault() -> None:
    """The error names the state and the event."""
    scan = scan_of()
    with pytest.raises(ScanStateError, match="NEW"):
        scan.connected(0.0)
    scan.start(0.0)
    for event in (partial(scan.start, 0.0), partial(scan.received, b"x", 0.0), partial(scan.closed, 0.0)):
        with pytest.raises(ScanStateError, match="CONNECTING"):
            event()
    scan.failed(Reason.REFUSED, 0.0)
    with pytest.raises(ScanStateError, match="FINISHED"):
        scan.timed_out(0.0)
