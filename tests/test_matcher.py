"""The first line in file order over a probe, its fallbacks and the NULL list; the same with every engine."""

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from matcher import EngineUnavailable, Match, Matcher, compile_matcher, load_database, nmap_database, parse_database
from matcher.patterns import ENGINES, SetFailure, pcre

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "nmap-7.93-open.ndjson.zst"
NEWER = Path(__file__).parents[2] / "shared" / "data" / "nmap-service-probes-2026-08"

DATABASE = parse_database(
    rb"""Probe TCP NULL q||
match banner m|^null|
match both m|both$|
Probe TCP Ask q|ask|
fallback More,Other
softmatch soft m|^so| i/soft/
match hard m|^soft and hard|
match groups m|^(\w+)=(\w+)?(;)?(x)?| p/$1/ v/$2/ i/fixed/
Probe TCP More q|more|
match more m|^more|
match both m|both|
match broken m|^broken| p/$7/
Probe TCP Other q|other|
match more m|more|
Probe UDP Ask q|ask|
match udp m|^null|
Probe UDP Borrow q|b|
fallback Other
match udp m|^null|
""",
    "test",
)


@pytest.fixture(params=ENGINES)
def matcher(request: pytest.FixtureRequest) -> Matcher:
    try:
        return compile_matcher(DATABASE, request.param, cache=False)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))


ANSWERS = [  # (protocol, probe), response, (service, line) or None, why
    (("tcp", "NULL"), b"null", ("banner", 2), "the NULL probe has its own list alone"),
    (("tcp", "NULL"), b"more", None, "and no fallback"),
    (("tcp", "Ask"), b"soft and hard", ("soft", 6), "a soft line hides the hard one after it"),
    (("tcp", "Ask"), b"more", ("more", 10), "the first fallback's list"),
    (("tcp", "Ask"), b"no more", ("more", 14), "the second fallback's list"),
    (("tcp", "Ask"), b"or both", ("both", 11), "a fallback comes before the NULL list"),
    (("tcp", "Other"), b"or both", ("both", 3), "the NULL list is tried last, for every TCP probe"),
    (("tcp", "More"), b"no more", None, "fallbacks are not inherited"),
    (("tcp", "Ask"), b"broken", ("broken", 12), "a line whose fields fail is the match all the same"),
    (("udp", "Ask"), b"null", ("udp", 16), "UDP probes have lists of their own"),
    (("udp", "Ask"), b"or both", None, "and no NULL list"),
    (("udp", "Borrow"), b"no more", ("more", 14), "a UDP probe may borrow a TCP probe's list"),
    (("tcp", "Ask"), b"", None, "nothing was received"),
]


@pytest.mark.parametrize(("asked", "response", "expected", "why"), ANSWERS, ids=[row[3] for row in ANSWERS])
def test_which_line_wins(
    matcher: Matcher, asked: tuple[str, str], response: bytes, expected: tuple[str, int] | None, why: str
) -> None:
    probe = next(each for each in DATABASE.probes if (each.proto, each.name) == asked)
    match = matcher.match(probe, response)
    assert (match and (match.service, match.signature.line)) == expected


def test_fields_come_from_the_groups(matcher: Matcher) -> None:
    """Unset and missing groups drop their field only."""
    ask = DATABASE.probe("Ask")
    assert ask is not None
    match = matcher.match(ask, b"one=two;")
    assert match is not None
    assert (match.info.product, match.info.version, match.info.extrainfo) == ("one", "two", "fixed")
    match = matcher.match(ask, b"one=")
    assert match is not None
    assert (match.info.product, match.info.version, match.info.extrainfo) == ("one", "", "fixed")


def test_a_match_tells_where_it_comes_from(matcher: Matcher) -> None:
    ask = DATABASE.probe("Ask")
    assert ask is not None
    match = matcher.match(ask, b"null")
    assert match is not None
    assert match.probe.is_null
    assert not match.soft


def test_a_set_that_fails_loses_no_line(matcher: Matcher) -> None:
    """Every line is tried instead, and the failure is counted by its cause."""

    class Failing:
        def candidates(self, response: bytes) -> list[int]:
            raise SetFailure("out of memory")

    matcher._sets = [Failing() for _ in matcher._sets]
    ask = DATABASE.probe("Ask")
    assert ask is not None
    match = matcher.match(ask, b"no more")
    assert match is not None and match.signature.line == 14
    assert matcher.stats.failures == {"out of memory": 3}


def test_the_quick_limit_alone_decides_nothing() -> None:
    """A match that needs more steps than the quick limit is still found."""
    pattern = pcre.Pattern(rb"^(?:a|b)*c(?:a|b)*d", caseless=False, dotall=False)
    response = b"ab" * 1500 + b"c" + b"ab" * 1500 + b"d"
    with pytest.raises(pcre.LibraryError):
        pcre.match(pattern.compile(), response, len(response), 0, pcre.CONTEXT)
    assert pattern.search(response, pcre.Patience()) is not None


def test_patience_ends() -> None:
    """A hostile response makes a few patterns run long, not all of them."""
    patience = pcre.Patience()
    response = b"a" * 40 + b"!"
    for _ in range(pcre.MAX_PATIENCE + 3):
        # The look-ahead is dropped from the linear-time check, so the check lets this one through.
        pattern = pcre.Pattern(rb"^(a+)+(?=\d)", caseless=False, dotall=False)
        assert pattern.search(response, patience) is None
    assert patience.left == 0


def test_near_misses_cost_no_patience() -> None:
    """What the linear-time check rules out is never run with the full limit."""
    patience = pcre.Patience()
    assert pcre.Pattern(rb"^(a+)+$", caseless=False, dotall=False).search(b"a" * 40 + b"!", patience) is None
    assert patience.left == pcre.MAX_PATIENCE


@pytest.mark.parametrize("size", [pcre.LONG + 1, 60_000, 600_000])
@pytest.mark.parametrize(
    "pattern", [rb"^x+END", rb"END$", rb"(?<=x)(E)ND", rb"^(?!y)(?s:.*)E(ND)", rb"(?(?=E)END|y)", rb"\GxxxE?|END"]
)
def test_a_long_response_is_matched_to_its_end(pattern: bytes, size: int) -> None:
    response = b"x" * (size - 3) + b"END"
    found = pcre.Pattern(pattern, caseless=False, dotall=False).search(response, pcre.Patience())
    assert found is not None
    assert pcre.span(found, response, 0)[1] in (size, 4, 3)


# --- Nmap's own answers ---------------------------------------------------------------------------------------------


def golden_rows() -> Iterator[tuple[str, str, bytes, dict[str, object] | None]]:
    import zstandard

    with zstandard.open(GOLDEN, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["proto"], row["probe"], base64.b64decode(row["data"]), row["expect"]


def as_row(match: Match | None) -> dict[str, object] | None:
    if match is None:
        return None
    info = match.info
    fields = ("product", "version", "extrainfo", "hostname", "ostype", "devicetype")
    row: dict[str, object] = {"name": match.service}
    row |= {name: getattr(info, name) for name in fields if getattr(info, name)}
    return row | ({"cpe": list(info.cpe)} if info.cpe else {})


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_golden_row(engine: str) -> None:
    """Nmap 7.93's verdict on each recorded response, field by field."""
    installed = nmap_database()
    if not GOLDEN.exists() or installed is None:
        pytest.skip("needs ../shared/golden and an installed nmap-service-probes of Nmap 7.93")
    database = load_database(installed)
    if not database.sha256.startswith(NMAP_793):
        pytest.skip(f"{installed} is not Nmap 7.93's")
    matcher = Matcher(database, engine)
    for proto, name, response, expected in golden_rows():
        probe = next(each for each in database.probes if (each.proto, each.name) == (proto, name))
        assert as_row(matcher.match(probe, response)) == expected, (name, response[:60])


NMAP_793 = "293d7b3679d8d09c"


@pytest.mark.slow
def test_engines_agree_on_a_newer_database() -> None:
    if not GOLDEN.exists() or not NEWER.exists():
        pytest.skip("needs ../shared/golden and ../shared/data")
    database = load_database(NEWER)
    matchers = []
    for engine in ENGINES:
        try:
            matchers.append(Matcher(database, engine))
        except EngineUnavailable:
            continue
    sample = random.Random(7).sample(list(golden_rows()), 600)
    for proto, name, response, _ in sample:
        probe = next((each for each in database.probes if (each.proto, each.name) == (proto, name)), None)
        if probe is not None:
            first, *others = [matcher.match(probe, response) for matcher in matchers]
            assert all(other == first for other in others), (name, response[:60])


# --- patterns that were once read otherwise than PCRE2 reads them ----------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("pattern", "response"),
    [
        (b"(?x)foo {1,3}bar", b"foobar"),
        (b"ab(?#c){1,3}cde", b"abcde"),
        (rb"foo\E\E{1,3}bar", b"foobar"),
        (rb"foo\Q\E{0,3}bar", b"fobar"),
        (b"[[:<:]]SSH[[:>:]]", b"SSH"),
        (b"(?xx)^[^a b]zz", b" zz"),
    ],
)
def test_what_a_quantifier_belongs_to(pattern: bytes, response: bytes, engine: str) -> None:
    database = parse_database(b"Probe TCP NULL q||\nmatch found m@%b@\n" % pattern, "db")
    try:
        match = compile_matcher(database, engine, cache=False).match(database.probes[0], response)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    assert match is not None


@pytest.mark.parametrize("engine", ENGINES)
def test_lines_that_cannot_fit_cost_no_patience(engine: str) -> None:
    """Not even where RE2 cannot say so: the line behind them still has the full limit, with every engine."""
    dear = [b"^(?:a|a)*(?:KEYON%d|KEYTWO)(?:[pq]{0,900}){6}" % number for number in range(5)]
    rooted = [b"^aaaa+ZZZ%d" % number for number in range(1000, 1020)]  # so many that they are found by key
    lines = [b"match other m@%b@\n" % text for text in (*dear, *rooted)]
    lines.insert(5, b"match good m@^(?:(?:a|aa)+c|a+GOODKEY)@\n")
    database = parse_database(b"Probe TCP NULL q||\n" + b"".join(lines), "db")
    try:
        match = compile_matcher(database, engine, cache=False).match(database.probes[0], b"a" * 16 + b"GOODKEY")
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    assert match is not None
    assert match.service == "good"
