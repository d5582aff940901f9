"""What a second database says of the responses that rows rest on, and that nobody is contacted for it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from loopback import Farm, Visit, config, database_file, scan
from peers import row

from engine.api import check_config
from engine.cli.match import match_command
from engine.conversation.fingerprint import Fingerprint
from engine.conversation.opinion import DatabaseOpinion
from engine.errors import ConfigError
from engine.model import Also, Evidence, ScanConfig, ServiceResult, Verdict
from engine.post.recog_opinion import Beside, open_opinion
from matcher import (
    Matcher,
    MatcherError,
    ProbeDatabase,
    Said,
    akin,
    load_databases,
    nmap_database,
    parse_database,
)

FIRST = rb"""Probe TCP NULL q||
totalwaitms 300
tcpwrappedms 100
match hello m|^HELLO ([\d.]+)| p/Hello server/ v/$1/ cpe:/a:hello:hello:$1/
match broad m|^.| p/Broad/
Probe TCP Ask q|ASK|
rarity 1
totalwaitms 300
match hello m|^HELLO ([\d.]+)| p/Hello server/ v/$1/
Probe TCP GetRequest q|GET it|
softmatch http m|^HTTP|
"""
SECOND = rb"""Probe TCP NULL q||
match hello m|^HELLO ([\d.]+)| p/Hello/ v/$1/
match other m|^OTHER (\w+)| p/Other thing/ v/$1/
Probe TCP Question q|ASK|
match hello m|^HELLO| p/Goodbye/
softmatch odd m|^ODD|
Probe TCP GetRequest q|GET that|
match http m|^HTTP x| p/Webd/
Probe TCP RtspOptions q|OPTIONS|
match rtsp m|^RTSP| p/Rtspd/
"""


def opinion(first: bytes = FIRST, second: bytes = SECOND) -> DatabaseOpinion:
    other = parse_database(second, "second")
    return DatabaseOpinion(parse_database(first, "first"), other, Matcher(other, "reference", cache=False).match)


def matched(product: str = "Hello", name: str = "hello", probe: str = "NULL", **fields: Any) -> ServiceResult:
    usual: dict[str, Any] = {"confidence": 0.8, "reasons": ("plain",), "evidence": Evidence(probe, 2)}
    return row(name, 7, product=product, **usual | fields)


def test_what_is_the_same_is_agreement_and_nothing_else() -> None:
    """Half of the doubt is gone."""
    told = opinion().on(matched(version="1.0"), b"HELLO 1.0")
    assert (told.also, told.reasons, told.confidence) == (None, ("plain", "agreed"), 0.9)


def test_other_words_for_the_same_program_are_agreement_but_stand_there() -> None:
    told = opinion().on(matched("Hello server", version="1.0"), b"HELLO 1.0")
    assert told.also == Also(name="hello", product="Hello", version="1.0", line=2, database="second")
    assert (told.reasons, told.confidence) == (("plain", "agreed"), 0.9)


def test_another_program_is_dispute() -> None:
    """A third of the trust is gone; what the first database said stays."""
    told = opinion().on(matched("Broad", "broad"), b"OTHER x")
    assert told.also == Also(name="other", product="Other thing", version="x", line=3, database="second")
    assert (told.name, told.product, told.reasons, told.confidence) == ("broad", "Broad", ("plain", "disputed"), 0.56)


@pytest.mark.parametrize(
    ("product", "name", "reasons"),
    [("Broad", "odd", ("plain",)), ("", "odd", ("plain", "agreed")), ("Broad", "hello", ("plain", "disputed"))],
)
def test_who_names_no_product_does_not_bear_one_out(product: str, name: str, reasons: tuple[str, ...]) -> None:
    """The service alone agrees with the service alone, and disputes another one."""
    told = opinion().on(matched(product, name, "Ask"), b"ODD")
    assert told.reasons == reasons
    assert (told.also is None) is (product == "")


def test_who_has_nothing_to_say_changes_nothing() -> None:
    before = matched()
    assert opinion().on(before, b"?") is before
    assert opinion().on(before, b"") is before


@pytest.mark.parametrize("verdict", [Verdict.TCPWRAPPED, Verdict.EXCLUDED, Verdict.INCOMPLETE])
def test_what_was_not_answered_is_not_judged(verdict: Verdict) -> None:
    before = matched(verdict=verdict)
    assert opinion().on(before, b"OTHER x") is before


def test_nothing_is_judged_twice() -> None:
    """Confidence would move again."""
    asked = opinion()
    for response in (b"HELLO 1.0", b"OTHER x"):
        once = asked.on(matched(version="1.0"), response)
        assert asked.on(once, response) is once


@pytest.mark.parametrize(
    ("probe", "response", "name"),
    [
        ("Ask", b"HELLO 1", "hello"),  # Question sends the same
        ("GetRequest", b"HTTP x", "http"),  # another string, the same name
        ("RTSPRequest", b"RTSP", "rtsp"),  # the same question under another name
        ("Unknown", b"HELLO 1", ""),
    ],
)
def test_probes_are_brought_together(probe: str, response: bytes, name: str) -> None:
    """By what they send, by name, by the question."""
    found = opinion().match("tcp", probe, response)
    assert (found.service if found else "") == name


def test_fallbacks_and_greetings_are_the_second_database_s_own() -> None:
    """Its probe is asked as its own scan would: lists of its own, then NULL."""
    found = opinion().match("tcp", "Ask", b"OTHER x")
    assert found is not None and found.service == "other"


def test_a_row_that_nobody_recognised() -> None:
    """Its responses are in its fingerprint: the first hard match of them speaks."""
    told = Fingerprint(7, "tcp", version="0", intensity=7, platform="x")
    for probe, response in (("Ask", b"ODD"), ("GetRequest", b"HTTP x")):
        told.add(probe, response, 0.0)
    result = opinion().on(row("unknown", 7, verdict=Verdict.NOMATCH, fingerprint=told.text), b"HTTP x")
    assert result.also == Also(name="http", product="Webd", line=8, database="second")
    assert (result.confidence, result.reasons, result.name) == (None, (), "unknown")


@given(st.binary(max_size=60), st.sampled_from(["NULL", "Ask", "GetRequest", "X"]), st.text(max_size=60))
def test_whatever_a_peer_sends(response: bytes, probe: str, fingerprint: str) -> None:
    """Nothing of the first database's answer is changed, and confidence stays between 0 and 1."""
    before = matched("Broad", "broad", probe, fingerprint=fingerprint)
    told = ASKED.on(before, response)
    assert (told.name, told.product, told.evidence) == (before.name, before.product, before.evidence)
    assert told.confidence is not None and 0 <= told.confidence <= 1


ASKED = opinion()


@given(*(st.text(max_size=80) for _ in range(4)), st.binary(max_size=80))
def test_kinship_takes_any_text(name: str, product: str, cpe: str, other: str, response: bytes) -> None:
    assert akin(Said(name, product, (cpe,)), Said(name, other, (cpe,)), response) in (True, False, None)


@pytest.mark.parametrize(
    ("one", "other", "kin"),
    [
        (Said("smtp", "Postfix smtpd"), Said("smtp", "Postfix"), True),
        (Said("smtp", "Postfix smtpd"), Said("smtp", "Exim smtpd"), False),
        (Said("http", "mpd"), Said("http", "Music Player Daemon"), True),
        (Said("http", "nginx", ("cpe:/a:f5:nginx",)), Said("http", "nginx", ("cpe:/a:igor_sysoev:nginx",)), True),
        (Said("domain", "Plesk Onyx BIND", ("cpe:/a:parallels:plesk_onyx",)),
         Said("domain", "ISC BIND", ("cpe:/a:isc:bind",)), False),
        (Said("http"), Said("http", "nginx"), True),
        (Said("http", "nginx"), Said("http"), None),
        (Said("ssl/http"), Said("http"), True),
        (Said("ftp"), Said("http"), None),
        (Said("ftp", "vsftpd"), Said("http"), False),
    ],
)  # fmt: skip
def test_who_is_the_same_program(one: Said, other: Said, kin: bool | None) -> None:
    assert akin(one, other) is kin


def test_a_name_that_the_response_spells_is_its_own() -> None:
    assert akin(Said("http", "Thing"), Said("http", "Other"), b"Server: thing/1") is True


# -- scans


async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    writer.write(b"OTHER x")
    visit.received = await reader.read()


def test_a_scan_with_a_second_opinion_sends_nothing_more(tmp_path: Path) -> None:
    """Counted at the server: as many connections, and the same bytes."""
    second = tmp_path / "second"
    second.write_bytes(SECOND)
    seen = {}
    for chosen in ("", str(second)):
        with Farm(odd) as farm:
            settings = config(database_file(tmp_path, FIRST), second_opinion=chosen)
            (told,), _ = scan(farm.targets("127.3.0.1"), settings)
            seen[chosen] = told, [visit.received for visit in farm.visits]
    (plain, without), (judged, with_it) = seen.values()
    assert without == with_it == [b""]
    assert plain.also is None and plain.product == judged.product == "Broad"
    assert judged.also == Also(name="other", product="Other thing", version="x", line=3, database=str(second))
    assert "disputed" in judged.reasons


def test_recog_beside_the_row(tmp_path: Path) -> None:
    """With `recog` its fingerprints fill nothing in."""
    (tmp_path / "ssh.xml").write_text(
        '<fingerprints matches="ssh.banner" protocol="ssh"><fingerprint pattern="^Acme_(\\S+)"><description>Acme'
        '</description><param pos="0" name="service.product" value="Acme"/><param pos="1" name="service.version"/>'
        "</fingerprint></fingerprints>"
    )
    beside = Beside(open_opinion(str(tmp_path)))
    told = beside.on(matched("", "ssh"), b"SSH-2.0-Acme_2.1\r\n")
    assert told.product == ""
    assert told.also is not None
    assert (told.also.product, told.also.version, told.also.line, told.also.database) == ("Acme", "2.1", 0, "recog")
    assert told.also.recog.endswith("Acme") and told.reasons == ("plain", "agreed")
    assert "disputed" in beside.on(matched("OpenSSH", "ssh"), b"SSH-2.0-Acme_2.1\r\n").reasons
    before = matched("OpenSSH", "ssh")
    assert beside.on(before, b"SSH-2.0-x\r\n") is before


def test_what_cannot_be_asked_is_said_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--recog DIR"):
        check_config(ScanConfig(second_opinion="recog"))
    with pytest.raises(ConfigError, match="speaks first"):
        check_config(ScanConfig(second_opinion="builtin", probes=("builtin",)))
    with pytest.raises(MatcherError, match="no-such"):
        check_config(ScanConfig(second_opinion=str(tmp_path / "no-such")))


# -- stored responses


def test_match_writes_it_beside(tmp_path: Path) -> None:
    """Where the second database says something else, and only there."""
    (tmp_path / "second").write_bytes(SECOND)
    (tmp_path / "in").write_text('{"banner":"HELLO 1.0"}\n{"banner":"OTHER x"}\n{"banner":"?"}\n')
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--probes", database_file(tmp_path, FIRST)]
    done = CliRunner().invoke(match_command, [*arguments, "--second-opinion", str(tmp_path / "second"), "-q"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    name = str(tmp_path / "second")
    assert [line["match"]["product"] for line in rows] == ["Hello server", "Broad", "Broad"]
    assert [line.get("also") for line in rows] == [
        {"name": "hello", "product": "Hello", "version": "1.0", "line": 2, "database": name},
        {"name": "other", "product": "Other thing", "version": "x", "line": 3, "database": name},
        None,
    ]


def test_an_earlier_answer_goes_whole(tmp_path: Path) -> None:
    """Rows that were answered before get new answers, and no second `also`; one before `match` is the user's own."""
    (tmp_path / "in").write_text(
        '{"also":1,"banner":"?","match":null}\n{"banner":"?","match":null,"also":{"name":"x"}}\n'
    )
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--probes", database_file(tmp_path, SECOND)]
    assert CliRunner().invoke(match_command, [*arguments, "-q"]).exit_code == 0
    assert (tmp_path / "out").read_text() == '{"also":1,"banner":"?","match":null}\n{"banner":"?","match":null}\n'


# -- an overlay that corrects a line of Nmap's


@pytest.mark.skipif(nmap_database() is None, reason="needs an installed Nmap")
def test_an_overlay_corrects_a_broad_line(tmp_path: Path) -> None:
    """`--probes mine,nmap`: mine speaks first where it knows better, and Nmap's line goes on with the rest."""
    nmap = load_databases(["nmap"])
    asked = nmap.probe("mongodb")
    assert asked is not None
    payload = "".join(f"\\x{byte:02x}" for byte in asked.payload)
    mine = tmp_path / "mine"
    line = r"match status m|^status ok; app version => +([\d.]+)| p/statusd/ v/$1/"
    mine.write_text(f"Probe TCP mongodb q|{payload}|\n{line}\n")
    both = load_databases([str(mine), "nmap"])
    statusd, mongo = b"status ok; app version =>  1.2.3 ready\r\n", b"....\x02version\0\x06\0\0\x002.4.10\0"
    assert products(nmap, "mongodb", statusd, mongo) == ["MongoDB", "MongoDB"]
    assert products(both, "mongodb", statusd, mongo) == ["statusd", "MongoDB"]


def products(database: ProbeDatabase, name: str, *responses: bytes) -> list[str]:
    matcher, probe = Matcher(database), database.probe(name)
    assert probe is not None
    matches = (matcher.match(probe, response) for response in responses)
    return ["" if match is None else match.info.product for match in matches]
