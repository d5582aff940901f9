"""Every engine keeps the one contract of a PatternSet: false candidates allowed, missed lines never."""

import re
from functools import partial
from importlib import import_module
from time import process_time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_translate import PATTERNS, RESPONSES, full_search

from matcher import EngineUnavailable, Signature, SignatureId
from matcher import patterns as engines
from matcher.patterns import ENGINES, EveryLine, SetFailure, pcre, plan, re2
from matcher.patterns.keyed import KeyedSet


def lines(*texts: bytes, caseless: bool = False, dotall: bool = False) -> list[Signature]:
    return [
        Signature(SignatureId(at), "test", at + 1, f"s{at}", False, text, caseless, dotall)
        for at, text in enumerate(texts)
    ]


def make(engine: str, signatures: list[Signature]) -> engines.PatternSet:
    try:
        made = engines.engine(engine)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    return EveryLine(len(signatures)) if made.finding is None else KeyedSet(plan.plan(signatures), made.finding)


LINES = [
    rb"^SSH-2\.0-OpenSSH_([\w.]+)",  # 0
    rb"^HTTP/1\.[01] \d\d\d .*\r\nServer: Apache/",  # 1
    rb"(?i)server: (?:nginx|caddy)",  # 2
    rb"^\0\0.\x05",  # 3  no literal of a useful length
    rb"^[\x80-\xff]",  # 4  no literal at all
    rb"x|y",  # 5  unanchored, without a literal
    rb"^(\w+) \1 twice",  # 6  back-reference
    rb"^(?!no)\w+ look-around",  # 7
    rb"^(?(?=a)ab|cd)ef",  # 8  a construct this project's parser does not know
    rb"open$",  # 9
    rb"^overlap one",  # 10
    rb"lap on",  # 11  inside the literal of another line
    rb"one two",  # 12  begins inside the literal of another line
    rb"^a{3,2000}b",  # 13
    rb"(?:)",  # 14  fits everything, even nothing
]
ANSWERS = [
    (b"SSH-2.0-OpenSSH_9.6p1", {0}),
    (b"HTTP/1.1 200 OK\r\nServer: Apache/2", {1}),
    (b"SeRvEr: CADDY", {2}),
    (b"\0\0z\x05", {3}),
    (b"\x80", {4}),
    (b"y", {5}),
    (b"go go twice", {6}),
    (b"yes look-around", {7}),
    (b"abef", {8}),
    (b"cdef", {8}),
    (b"they are open\n", {9}),
    (b"overlap one two", {10, 11, 12}),
    (b"a" * 1999 + b"b", {13}),
    (b"", {14}),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("response", "expected"), ANSWERS)
def test_no_line_is_missed(engine: str, response: bytes, expected: set[int]) -> None:
    made = make(engine, lines(*LINES))
    found = list(made.candidates(response))
    assert expected | {14} <= set(found)
    assert found == sorted(set(found))


@pytest.mark.parametrize("engine", ["re2", "hyperscan"])
def test_a_set_narrows_down(engine: str) -> None:
    """An engine that always names every line would keep the contract and be worthless."""
    made = make(engine, lines(*LINES))
    for response, expected in ANSWERS[:5]:
        # Beyond the lines that fit: caseless, without a literal, not understood, and fitting everything.
        assert set(made.candidates(response)) <= expected | {2, 5, 8, 14}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_list_of_lines(engine: str) -> None:
    assert list(make(engine, []).candidates(b"anything")) == []


@pytest.mark.parametrize("engine", ["re2", "hyperscan"])
@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(PATTERNS, min_size=1, max_size=8),
    responses=st.lists(RESPONSES, min_size=1, max_size=8),
    caseless=st.booleans(),
    dotall=st.booleans(),
)
def test_engines_never_disagree_with_pcre2(
    engine: str, texts: list[bytes], responses: list[bytes], caseless: bool, dotall: bool
) -> None:
    texts = [text for text in texts if pcre.check_pattern(text, caseless, dotall) is None]
    made = make(engine, lines(*texts, caseless=caseless, dotall=dotall))
    for response in responses:
        found = set(made.candidates(response))
        for position, text in enumerate(texts):
            if full_search(text, response, caseless=caseless, dotall=dotall):
                assert position in found, (text, response)


def test_re2_finds_every_key_however_they_overlap() -> None:
    """Keys inside, behind and across each other are all found in one pass."""
    keys = [b"abcabc", b"bcab", b"cabx", b"abx", b"xyz", b"xy"]
    made = make("re2", lines(*keys))
    for response in (b"abcabcabxyz", b"bcabx", b"xxyabcabxy", b"ababcabcabc"):
        expected = {at for at, key in enumerate(keys) if key in response}
        assert expected <= set(made.candidates(response))


SMALL = b"aAbB\0\xff\xe9\xc9"  # the last two are one letter in two cases, to RE2 but not to PCRE2
WORDS = st.lists(st.sampled_from(SMALL), min_size=3, max_size=7).map(bytes)


@settings(max_examples=300, deadline=None)
@given(
    exact=st.lists(WORDS, max_size=8),
    caseless=st.lists(WORDS, max_size=8),
    responses=st.lists(st.lists(st.sampled_from(SMALL), max_size=40).map(bytes), min_size=1, max_size=6),
)
def test_keys_that_begin_alike_do_not_hide_each_other(
    exact: list[bytes], caseless: list[bytes], responses: list[bytes]
) -> None:
    """One key begins, ends or holds another one, exact or caseless, with NUL and high bytes: each is found."""
    texts = [b"".join(b"\\x%02x" % code for code in text) for text in exact + caseless]
    made = make("re2", lines(*texts[: len(exact)]) + lines(*texts[len(exact) :], caseless=True))
    spliced = [one[:-1] + other for one in exact for other in caseless]
    for response in responses + exact + caseless + spliced:
        expected = {at for at, text in enumerate(exact) if text in response}
        folded = response.lower()  # bytes.lower() knows ASCII only, as PCRE2 does
        expected |= {len(exact) + at for at, text in enumerate(caseless) if text.lower() in folded}
        assert expected <= set(made.candidates(response))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_byte_can_stand_in_a_key(engine: str) -> None:
    """NUL, line ends, what is special in a pattern, and what is no ASCII."""
    made = make(engine, lines(*(b"key \\x%02x end" % code for code in range(256))))
    for code in range(256):
        assert code in made.candidates(b"\0key " + bytes((code,)) + b" end\xff")
    everything = b"".join(b"key " + bytes((code,)) + b" end" for code in range(256))
    assert list(made.candidates(everything)) == list(range(256))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_response_fits_only_what_needs_nothing(engine: str) -> None:
    made = make(engine, lines(rb"(?:)", rb"^$", rb"^\0*$", b"three", rb"^(?:abc)?$", rb"."))
    assert {0, 1, 2, 4} <= set(made.candidates(b""))


def test_a_flood_of_one_key_takes_linear_time() -> None:
    """The lines behind a key are tested once per response, however often it is found; else this takes a minute."""
    made = make("re2", lines(*[rb"^x*\xff{12}.*ab"] * 20))  # "ab" is too short for a key and is tested directly
    response = b"\xff" * 200_000
    begin = process_time()
    assert list(made.candidates(response)) == []
    assert process_time() - begin < 10


def test_many_keys_take_linear_time() -> None:
    """Each search goes on where the last one ended; if it copied or read the rest, this would take minutes."""
    made = make("re2", lines(*(b"key number %03d" % number for number in range(500))))
    response = b"".join(b"key number %03d, " % (number % 500) for number in range(100_000))
    begin = process_time()
    assert list(made.candidates(response)) == list(range(500))
    assert process_time() - begin < 10


def test_re2_without_memory_says_so() -> None:
    """A set that RE2 cannot build is a failure, never an empty answer."""
    planned = plan.plan(lines(*(b"literal number %d" % number for number in range(300))))
    made = KeyedSet(planned, partial(re2.Finder, memory=1000))
    for _ in range(2):
        with pytest.raises(SetFailure, match="re2"):
            made.candidates(b"a literal")


def test_re2_with_any_memory_misses_nothing() -> None:
    """However little of it there is: a set finds its lines, or says that it cannot be made."""
    planned = plan.plan(lines(*(b"literal number %d" % number for number in range(300))))
    outcomes = set()
    for power in range(80):
        try:
            made = KeyedSet(planned, partial(re2.Finder, memory=int(1.25**power)))
            found = made.candidates(b"a literal number 77, literal number 2")
        except SetFailure:
            outcomes.add("refused")
            continue
        assert {2, 7, 77} <= set(found)
        outcomes.add("right")
    assert outcomes == {"refused", "right"}


def test_a_key_is_what_few_responses_have() -> None:
    """Not what stands in any page, although few lines need that; and not what one line in eight needs."""
    page, server = rb"^HTTP/1\.1 200 OK\r\n.*<!DOCTYPE html>.*kettle", rb"^HTTP/1\.1 \d\d\d .*\r\nServer: "
    made = plan.plan(lines(page, server, *(server + b"product%03d" % number for number in range(100))))
    assert [key.text for key in made[0].keys] == [b"kettle"]
    assert made[1].keys == () and b"\r\nServer: " in made[1].checks
    assert all(len(line.keys) == 1 and line.keys[0].text.endswith(b"%03d" % at) for at, line in enumerate(made[2:]))


def test_a_line_with_a_key_that_is_found_by_chance_is_found_by_its_beginning() -> None:
    date, long = plan.plan(lines(rb"^[A-Z][a-z]{2} \d+ 20\d\d", rb"^[A-Z][a-z]{2} \d+ long"))
    assert not date.keys and date.head and date.checks == (b" 20",)
    assert [key.text for key in long.keys] == [b" long"] and not long.head


@pytest.mark.parametrize("damage", [b"", b"\xff", b"\x92\xc4\x02ab\x90"])
def test_a_damaged_plan_is_refused(damage: bytes) -> None:
    with pytest.raises(ValueError):
        plan.decode(damage)


def test_a_plan_comes_back_as_it_was_kept() -> None:
    made = plan.plan(lines(*LINES))
    assert plan.decode(plan.encode(made)) == made


def test_keys_that_hyperscan_refuses_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every response from then on, never an empty answer."""
    module = pytest.importorskip("matcher.patterns.hyperscan")

    def refuse(*_: object, **__: object) -> None:
        raise module.hyperscan.HyperscanError("too large")

    made = make("hyperscan", lines(b"three", b"four"))
    monkeypatch.setattr(module, "hyperscan", SimpleNamespace(**{**vars(module.hyperscan), "Database": refuse}))
    for _ in range(2):
        with pytest.raises(SetFailure, match="hyperscan"):
            made.candidates(b"three")


def test_more_keys_than_one_database_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are spread over several, each of which is compiled in a moment."""
    module = pytest.importorskip("matcher.patterns.hyperscan")
    monkeypatch.setattr(module, "KEYS", 3)
    made = make("hyperscan", lines(*(b"key number %03d" % number for number in range(10))))
    assert list(made.candidates(b"key number 009, key number 000")) == [0, 9]


@pytest.mark.parametrize("engine", ENGINES)
def test_lines_of_another_first_byte_are_left_out(engine: str) -> None:
    """With many rooted lines or with few; lines that may begin anywhere stand beside both."""
    rooted = [b"^S%03d" % number for number in range(50)] + [b"^T%03d" % number for number in range(3)]
    made = make(engine, lines(*rooted, b"anywhere 7", rb"^[ST]\d+ \w{2,3}: x"))
    for response, expected in (
        (b"S007 ab: x", {7, 54}),
        (b"T002 abc: x anywhere 7", {52, 53, 54}),
        (b"U007, anywhere 7", {53}),
    ):
        found = set(made.candidates(response))
        assert expected <= found
        assert engine == "reference" or found == expected


def test_dotted_begins_are_not_taken_for_others() -> None:
    """Lines without keys are told apart by the sets of bytes they begin with, also behind counted repeats."""
    texts = [rb"^\d{1,2}:\d\d", rb"^\d{1,2}.:", rb"^[A-Z]{3}$", rb"^\d{1,2}\d:", rb"^\w+ .", rb"^.{4}$"]
    made = make("re2", lines(*texts, dotall=True))
    for response in (b"1:23", b"12:23", b"123:", b"ABC", b"ABC\n", b"ABCD", b"a b", b"\n\n\n\n", b"12"):
        exact = {at for at, text in enumerate(texts) if re.search(text, response, re.DOTALL)}
        assert exact <= set(made.candidates(response)), response
    assert set(made.candidates(b"ABC")) == {2}


def test_auto_is_the_best_engine_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name.endswith("hyperscan"):
            raise ImportError("No module named 'hyperscan'")
        return import_module(name)

    monkeypatch.setattr(engines, "import_module", absent)
    assert engines.engine("auto").name == "re2"
    with pytest.raises(EngineUnavailable, match="'hyperscan' is not installed"):
        engines.engine("hyperscan")


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="'grep'; expected auto, hyperscan, re2, reference"):
        engines.engine("grep")
