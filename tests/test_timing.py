"""Adaptive timing, rule by rule, in virtual time: what each saves, what it costs, and what it must not lose.

The rules have the names of docs/timing.md.
"""

from typing import Any
from unittest.mock import ANY, Mock

import pytest
from cases import Case, Do, Expected, Step
from replay import replay

from engine.conversation.driver import Driver
from engine.conversation.scan import Connect, Finish, Listen, ScanContext, Send, ServiceScan
from engine.conversation.timing import (
    ALIKE,
    DOORS,
    IN_VAIN,
    QUIET_FLOOR_S,
    QUIET_ROUND_TRIPS,
    QUIET_UDP_S,
    TACITURN,
    AdaptiveTiming,
    NmapTiming,
    Pace,
    Timing,
)
from engine.model import Reason, ServiceResult, Target, Tunnel, Verdict
from matcher import compile_matcher, parse_database

OTHERS = 10
DATABASE = (
    """Probe TCP NULL q||
totalwaitms 6000
tcpwrappedms 3000
match greeter m|^HELLO|
Probe TCP First q|FIRST|
rarity 1
ports 80
sslports 443
match answerer m|^first|
match ssl m|^TLS|
softmatch late4 m|^guess| i/guessed/
"""
    + "".join(f"Probe TCP Q{n} q|Q{n}|\nrarity 1\nmatch late{n} m|^q{n}|\n" for n in range(OTHERS))
    + """Probe TCP InTls q|INTLS|
rarity 1
sslports 1
match tlsonly m|^intls|
Probe UDP U q|U|
rarity 1
match useful m|^u|
"""
)
PARSED = parse_database(DATABASE.encode(), "timing")
MATCH = compile_matcher(PARSED, "reference").match
NULL = PARSED.null_probe
assert NULL is not None
FIRST, LATE = PARSED.probes[1], PARSED.probes[2]
PROBES = OTHERS + 2


def talk(
    server: list[list[Step]], timing: Timing | None = None, *, port: int = 80, **case: Any
) -> tuple[ServiceResult, list[bytes]]:
    """The row of a conversation with a scripted server, and what it received by connection."""
    told = Case(id="timing", what="", db=DATABASE, server=server, expect=Expected(), port=port, **case)
    return replay(told, ScanContext(PARSED, MATCH, timing=timing or AdaptiveTiming()), port=port)


def answer(words: dict[str, str], after_s: float = 0.0) -> list[Step]:
    """A server that answers what begins with a word, so much later."""
    return [Do(on={word: [Do(wait=after_s), Do(send=said), "hold"] for word, said in words.items()})]


def taciturn(port: int = 80) -> AdaptiveTiming:
    """A policy that has seen enough services of a port that answer and do not greet."""
    timing = AdaptiveTiming()
    for _ in range(TACITURN):
        talk([answer({"FIRST": "first"})], timing, port=port)
    return timing


# -- quiet


def test_silent_port_costs_two_patient_windows_and_short_ones() -> None:
    """The banner's, two answers', and from then on what a near port is given."""
    row, sent = talk([["hold"]])
    assert row.verdict is Verdict.NOMATCH
    assert len(sent) == PROBES
    assert row.elapsed_ms == pytest.approx(1000 * (0.5 + 2 * 1.5 + (PROBES - 2) * QUIET_FLOOR_S), abs=20)


def test_short_windows_hear_a_prompt_answer_to_a_late_probe() -> None:
    row, _ = talk([answer({"Q8": "q8"}, QUIET_FLOOR_S * 0.9)])
    assert row.name == "late8"


def test_price_of_short_windows() -> None:
    """A service that is silent to two probes and then thinks longer than a short window is not heard."""
    slow = answer({"Q8": "q8"}, QUIET_FLOOR_S * 1.1)
    assert talk([slow])[0].verdict is Verdict.NOMATCH
    assert talk([slow], NmapTiming())[0].name == "late8"


def test_price_of_counting_windows_that_a_pause_ended() -> None:
    """After two answers that no line fits, neither a thought nor a pause longer than a short window is borne."""
    words: dict[str, str | list[Step]] = {"FIRST": [Do(send="junk"), "hold"], "Q0": [Do(send="junk"), "hold"]}
    for wait_s, name in ((QUIET_FLOOR_S * 0.9, "late1"), (QUIET_FLOOR_S * 1.1, "unknown")):
        for late in ([Do(wait=wait_s), Do(send="q1")], [Do(send="q"), Do(wait=wait_s), Do(send="1")]):
            server: list[list[Step]] = [[Do(on={**words, "Q1": [*late, "hold"]})]]
            assert talk(server)[0].name == name
            assert talk(server, NmapTiming())[0].name == "late1"


def test_patient_windows_outlast_a_lost_packet() -> None:
    """A second and a long round trip are borne by the first probes."""
    row, _ = talk([answer({"FIRST": "first"}, 1.4)])
    assert row.name == "answerer"


@pytest.mark.parametrize("rtt_s", [0.05, 0.3, 0.7])
def test_far_port_is_not_cut(rtt_s: float) -> None:
    """A short window is several of the port's round trips, or of its quickest answer."""
    near = Pace(0.001, expired=20)
    for _ in range(2):
        near.answered(rtt_s)
    for pace in (Pace(rtt_s, expired=20), near):
        assert AdaptiveTiming().silence_s(LATE, pace) >= QUIET_ROUND_TRIPS * rtt_s


def test_waiting_for_a_turn_to_connect_is_no_round_trip() -> None:
    """A rate, a host's delay or other handshakes may hold a connection up; windows are those of a near port."""

    scan = ServiceScan(Target(0, "127.0.0.1", 80), ScanContext(PARSED, MATCH, timing=AdaptiveTiming()))
    driver = Driver(scan, Mock(open=Mock(side_effect=[None, Mock()])))
    driver.begin(0.0)
    driver.reopen(4.0)
    driver.connected(4.01)
    assert driver.deadline == pytest.approx(4.51)


def test_one_answer_that_was_held_up_does_not_lengthen_windows() -> None:
    pace = Pace(0.001, expired=20)
    pace.answered(1.2)
    assert AdaptiveTiming().silence_s(LATE, pace) == QUIET_FLOOR_S


def test_what_was_learned_holds_for_silent_ports() -> None:
    """Neither below what this probe's answers take, nor below what answers in this run take: both doubled."""
    timing = AdaptiveTiming()
    for _ in range(100):
        timing.heard(FIRST, Pace(), 0.4)
    assert timing.silence_s(FIRST, Pace(0.001, expired=20)) == pytest.approx(0.8, abs=0.02)
    assert timing.silence_s(LATE, Pace(0.001, expired=20)) >= 0.6, "a far network behind a proxy that is near"


def test_one_answer_does_not_overshoot() -> None:
    timing = AdaptiveTiming()
    timing.heard(FIRST, Pace(), 0.001)
    assert timing.silence_s(FIRST, Pace(0.001, expired=20)) == QUIET_FLOOR_S


def test_udp_has_no_round_trip() -> None:
    """Where no connection has measured one, short windows are twice as long."""
    datagram = PARSED.probes[-1]
    assert datagram.proto == "udp"
    assert AdaptiveTiming().silence_s(datagram, Pace(expired=20)) == QUIET_UDP_S


def test_short_windows_are_never_longer_than_patient_ones() -> None:
    timing = AdaptiveTiming()
    for _ in range(1000):
        timing.heard(FIRST, Pace(), 20.0)
    for probe in (FIRST, LATE):
        patient, quiet = (timing.silence_s(probe, Pace(0.5, expired=expired)) for expired in (0, 20))
        assert quiet <= patient <= probe.totalwait_s


def test_softmatch_begins_anew() -> None:
    """What is asked after a softmatch is meant for this service, and is waited for patiently."""
    database = DATABASE.replace("match late5", "softmatch slow").replace("match late8", "match slow")
    parsed = parse_database(database.encode(), "soft")
    context = ScanContext(parsed, compile_matcher(parsed, "reference").match, timing=AdaptiveTiming())
    server = [answer({"Q5": "q5"}), answer({"Q8": "q8"}, 1.2)]
    case = Case(id="soft", what="", db=database, server=[["hold"]] * 6 + [server[0], server[1]], expect=Expected())
    row, _ = replay(case, context, port=7)
    assert (row.name, row.verdict) == ("slow", Verdict.HARDMATCHED)


# -- greeting


def test_doors_that_never_greet_are_asked_at_once() -> None:
    row, sent = talk([answer({"FIRST": "first"})], taciturn())
    assert (row.name, row.elapsed_ms, sent) == ("answerer", 0, [b"FIRST"])


def test_other_doors_are_not() -> None:
    """What one port is like says nothing of another, nor of the same number inside TLS."""
    timing = taciturn()
    assert timing.hurries(80, Tunnel.NONE)
    assert not timing.hurries(80, Tunnel.SSL)
    assert not timing.hurries(81, Tunnel.NONE)


def test_where_no_probe_names_the_port_a_stranger_speaks_first() -> None:
    """Nobody greets there, but they are of several kinds."""
    timing = AdaptiveTiming()
    for at in range(2 * TACITURN):
        talk([answer({"FIRST": "first"} if at % 2 else {"Q8": "q8"})], timing, port=7)
    row, _ = talk([answer({"FIRST": "first"})], timing, port=7)
    assert timing.hurries(7, Tunnel.NONE) and row.elapsed_ms == 500


def test_greeter_among_them_is_still_known_by_its_greeting() -> None:
    """It is matched with the NULL probe's lines whatever was asked before it came; its door is hurried no more."""
    timing = taciturn()
    row, _ = talk([[Do(wait=0.2), Do(send="HELLO"), "hold"]], timing)
    assert row.name == "greeter"
    assert row.evidence is not None
    assert (row.evidence.probe, row.evidence.sent) == ("NULL", "First")
    assert not timing.hurries(80, Tunnel.NONE)


def test_late_greeter_is_heard_as_long_as_at_other_doors() -> None:
    """What asking at once saves is not taken from who says nothing at first."""
    for timing in (taciturn(), AdaptiveTiming()):
        row, _ = talk([[Do(wait=1.9), Do(send="HELLO"), "hold"]], timing)
        assert (row.name, timing.hurries(80, Tunnel.NONE)) == ("greeter", False)
    silent = [talk([["hold"]], timing)[0].elapsed_ms for timing in (taciturn(), AdaptiveTiming())]
    assert silent[0] == silent[1]


def test_greeters_keep_their_door() -> None:
    timing = AdaptiveTiming()
    for _ in range(10):
        for _ in range(TACITURN - 1):
            talk([answer({"FIRST": "first"})], timing)
        talk([[Do(send="HELLO"), "hold"]], timing)
    assert not timing.hurries(80, Tunnel.NONE)


def test_price_of_asking_at_once() -> None:
    """Where the others of a door do not greet, a greeter that complains first is named by its complaint."""
    complaint = [Do(recv=0.3), Do(send="first, HELLO"), "hold"]
    assert talk([complaint], taciturn())[0].name == "answerer"


def test_doors_are_bounded() -> None:
    timing = AdaptiveTiming()
    for port in range(DOORS):
        for tunnel in Tunnel:
            timing.greeted(port, tunnel, False)
            timing.told(port, tunnel, FIRST)
    assert len(timing._silent) == len(timing._kinds) == DOORS


# -- telling


def alike(kind: list[Step], port: int = 7) -> AdaptiveTiming:
    """A policy that has seen enough services of one kind behind a port that no probe names."""
    timing = AdaptiveTiming()
    for _ in range(ALIKE):
        talk([kind], timing, port=port)
    return timing


MUTTERS = answer({"FIRST": "pardon?", "Q8": "q8"})  # and the others are not answered


def test_the_probe_that_tells_the_services_of_a_door_is_sent_before_all_others() -> None:
    row, sent = talk([MUTTERS], alike(MUTTERS), port=7)
    assert (row.name, row.elapsed_ms, row.connections, sent) == ("late8", 0, 1, [b"Q8"])
    first, _ = talk([MUTTERS], port=7)
    assert first.evidence == row.evidence and first.connections == 10


@pytest.mark.parametrize(
    "stranger",
    [
        answer({"Q8": "what?", "Q3": "q3"}),
        answer({"FIRST": "first"}),
        answer({"Q2": "q2"}, 1.2),
        [Do(recv=2), Do(send="junk"), "rst"],
        [Do(recv=30), "close"],
        [Do(wait=0.1), "close"],
        [Do(wait=0.1), "rst"],
        ["hold"],
    ],
)
def test_who_it_does_not_tell_is_seen_as_if_nothing_were_known(stranger: list[Step]) -> None:
    """Whatever it has said to that probe, or done: the rest of the conversation is that of a first service."""
    alone, sent_alone = talk([stranger], port=7)
    row, sent = talk([stranger, stranger], alike(MUTTERS), port=7)
    assert (sent[0], b"".join(sent[1:])) == (b"Q8", b"".join(sent_alone))
    for field in ("name", "product", "verdict", "state", "conf", "evidence", "reason"):
        assert getattr(row, field) == getattr(alone, field), field
    assert (row.fingerprint == "") == (alone.fingerprint == "")


def test_what_a_guess_led_to_tells_nothing() -> None:
    """After a softmatch probes are sent that the intensity leaves out, and the guess has fields of its own."""
    timing = AdaptiveTiming()
    for _ in range(2 * ALIKE):
        row, _ = talk([answer({"FIRST": "guess", "Q4": "q4"})], timing, port=7)
        assert (row.name, row.extrainfo) == ("late4", "guessed")
    assert timing.teller(7, Tunnel.NONE) is None


def test_one_in_so_many_is_asked_in_the_order_of_all() -> None:
    """So a kind that knows an answer to that probe, too, does not go unseen for long."""
    timing, both = alike(MUTTERS), answer({"FIRST": "first", "Q8": "q8"})
    names = [talk([both], timing, port=7)[0].name for _ in range(5 * ALIKE)]
    assert names == ["late8"] * (ALIKE - 1) + ["answerer"] * (4 * ALIKE + 1)


def test_one_of_another_kind_ends_it() -> None:
    timing = alike(MUTTERS)
    talk([answer({"Q3": "q3"})], timing, port=7)
    assert timing.teller(7, Tunnel.NONE) is None
    assert timing.hurries(7, Tunnel.NONE)


def test_a_greeter_among_them_is_known_by_its_greeting() -> None:
    row, _ = talk([[Do(wait=0.2), Do(send="HELLO"), "hold"]], alike(MUTTERS), port=7)
    assert (row.name, row.evidence and row.evidence.probe) == ("greeter", "NULL")


def test_greeters_are_told_by_no_probe() -> None:
    """Nor who greets only on a later connection, where its greeting comes before the answer to what was asked."""
    for late in ([["hold"]] * 2 + [[Do(send="HELLO"), "hold"]], [[Do(send="HELLO"), "hold"]]):
        timing = AdaptiveTiming()
        for _ in range(ALIKE + 1):
            assert talk(late, timing, port=7)[0].name == "greeter"
        assert timing.teller(7, Tunnel.NONE) is None


def test_what_tells_a_udp_service_says_nothing_of_tcp() -> None:
    timing = AdaptiveTiming()
    for _ in range(ALIKE + 1):
        assert talk([answer({"U": "u"})], timing, port=7, proto="udp")[0].name == "useful"
    assert timing.teller(7, Tunnel.NONE) is None


def test_what_tells_that_a_service_speaks_tls_is_sent_first_too() -> None:
    """Inside, the conversation begins anew, with what is known of services in TLS there."""
    server = [answer({"FIRST": "TLS"}), ["tls", *answer({"Q1": "q1"})]]
    timing = AdaptiveTiming()
    for _ in range(ALIKE):
        talk(server, timing, port=7)
    row, sent = talk(server, timing, port=7)
    assert (row.name, row.tunnel, sent) == ("late1", Tunnel.SSL, [b"FIRST", b"Q1"])


def test_the_number_of_probes_is_kept() -> None:
    """The one that comes ahead is not counted, and none is sent where none may be."""
    scan = ServiceScan(Target(0, "127.0.0.1", 7), ScanContext(PARSED, MATCH, timing=alike(MUTTERS)), max_probes=1)
    scan.start(0.0)
    assert scan.connected(0.0) == Send(b"Q8", ANY)
    assert isinstance(scan.timed_out(9.0), Connect)
    assert isinstance(scan.connected(9.0), Listen)
    assert scan.timed_out(10.0) == Send(b"FIRST", ANY)
    assert isinstance(scan.timed_out(19.0), Finish)
    spent = AdaptiveTiming()
    for _ in range(ALIKE):
        talk([answer({"FIRST": "TLS"}), ["tls", *answer({"Q1": "q1"})]], spent, port=7)
    scan = ServiceScan(Target(0, "127.0.0.1", 7), ScanContext(PARSED, MATCH, timing=spent), max_probes=1)
    scan.start(0.0)
    assert scan.connected(0.0) == Send(b"FIRST", ANY)
    assert isinstance(scan.received(b"TLS", 0.0), Connect)
    assert scan.connected(0.0) == Send(b"Q1", ANY), "the one that came ahead has left all that may be sent"
    silent = ServiceScan(Target(0, "127.0.0.1", 7), ScanContext(PARSED, MATCH, timing=alike(MUTTERS)), max_probes=0)
    silent.start(0.0)
    assert isinstance(silent.connected(0.0), Listen)


def test_price_of_asking_what_tells_first() -> None:
    """Who knows an answer to both that probe and an earlier one is named by that probe."""
    both = answer({"FIRST": "first", "Q8": "q8"})
    assert talk([both], port=7)[0].name == "answerer"
    assert talk([both], alike(MUTTERS), port=7)[0].name == "late8"


# -- second look


@pytest.mark.parametrize("leaving", ["close", "rst"])
def test_peer_that_leaves_unasked_is_tcpwrapped_though_it_was_asked_at_once(leaving: Step) -> None:
    server: list[Step] = [Do(wait=0.1), leaving]
    row, sent = talk([server], taciturn())
    assert (row.verdict, sent) == (Verdict.TCPWRAPPED, [b"FIRST", b""])
    assert talk([server], NmapTiming())[0].verdict is Verdict.TCPWRAPPED


def test_peer_that_leaves_late_is_tcpwrapped_though_the_banner_window_was_short() -> None:
    row, sent = talk([[Do(wait=1.2), "close"]])
    assert (row.verdict, len(sent)) == (Verdict.TCPWRAPPED, 2)


def test_peer_that_leaves_because_it_was_asked_is_not_tcpwrapped() -> None:
    """Looked at a second time it stays; the conversation goes on where it was, the first question is not repeated."""
    row, sent = talk([[Do(recv=30), "close"]])
    assert row.verdict is Verdict.NOMATCH
    assert sent[:3] == [b"FIRST", b"Q0", b"Q1"]
    assert talk([[Do(recv=30), "close"]], NmapTiming())[0].verdict is Verdict.NOMATCH


@pytest.mark.parametrize("warm", [False, True])
def test_second_look_that_is_refused_says_nothing(warm: bool) -> None:
    """Only who accepts and hangs up unasked is tcpwrapped: the row is what it would be without the second look."""
    rows = [
        talk([[Do(recv=30), "close"]], timing, closes_after=1)[0]
        for timing in (taciturn() if warm else AdaptiveTiming(), NmapTiming())
    ]
    assert {(row.verdict, row.reason, row.name, row.conf) for row in rows} == {
        (Verdict.INCOMPLETE, Reason.REFUSED, "", 0)
    }


@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.TIMEOUT, Reason.UNREACHABLE])
def test_conversation_goes_on_after_a_second_look_that_failed(reason: Reason) -> None:
    """The next probe has its own connection; in the end the port is one that nobody could name."""
    scan = ServiceScan(Target(0, "127.0.0.1", 80), ScanContext(PARSED, MATCH, timing=taciturn()))
    scan.start(0.0)
    assert scan.connected(0.0) == Send(b"FIRST", ANY)
    assert isinstance(scan.closed(0.1), Connect), "the second look"
    assert isinstance(scan.failed(reason, 0.1), Connect), "the next probe"
    for n in range(OTHERS):
        assert scan.connected(1.0 + n) == Send(b"Q%d" % n, ANY)
        scan.closed(1.0 + n)
    assert scan.connected(20.0) == Send(b"INTLS", ANY)
    ended = scan.closed(20.0)
    assert isinstance(ended, Finish)
    assert (ended.result.verdict, ended.result.conf) == (Verdict.NOMATCH, 0)


def test_one_second_look_is_enough() -> None:
    _, sent = talk([[Do(recv=30), "close"]])
    assert len(sent) == PROBES


# -- tunnel


def in_tls(*then: Step) -> list[list[Step]]:
    return [answer({"FIRST": "TLS"}), ["tls", *then]]


def test_service_in_tls_that_says_nothing_is_asked_only_what_is_asked_in_tls() -> None:
    row, sent = talk(in_tls("hold"))
    assert row.tunnel is Tunnel.SSL
    assert [b"".join(sent[1:])] == [b"FIRST" + b"".join(b"Q%d" % n for n in range(IN_VAIN - 1)) + b"INTLS"]


def test_service_in_tls_is_still_found_by_a_probe_for_tls() -> None:
    row, _ = talk([answer({"FIRST": "TLS"}), ["tls", *answer({"INTLS": "intls"})]])
    assert (row.name, row.tunnel) == ("tlsonly", Tunnel.SSL)


def test_service_in_tls_that_says_the_same_to_everything_is_left() -> None:
    _, sent = talk(in_tls(Do(send="me"), "hold"))
    assert len(sent) == 1 + 1 + IN_VAIN


def test_price_of_ending_a_tunnel_early() -> None:
    """A service in TLS that answers only a probe that the database never sends in TLS, after silence to others."""
    server = [answer({"FIRST": "TLS"}), ["tls", *answer({"Q8": "q8"})]]
    assert talk(server)[0].verdict is Verdict.NOMATCH
    assert talk(server, NmapTiming())[0].name == "late8"


def test_outside_a_tunnel_every_probe_is_sent() -> None:
    for server in (["hold"], [Do(send="me"), "hold"], [Do(recv=30), "close"]):
        assert len(talk([server])[1]) == PROBES


# -- exactness


def test_nmap_timing_learns_nothing() -> None:
    """Whatever a run has seen, the conversation and its duration are those of the first."""
    timing = NmapTiming()
    servers: list[list[list[Step]]] = [[["hold"]], [answer({"FIRST": "first"}, 3.0)], in_tls("hold")]
    before = [talk(server, timing) for server in servers]
    for _ in range(TACITURN):
        talk([answer({"FIRST": "first"})], timing)
    after = [talk(server, timing) for server in servers]
    assert [(row.elapsed_ms, sent) for row, sent in before] == [(row.elapsed_ms, sent) for row, sent in after]
