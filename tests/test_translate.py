"""Patterns keep their meaning on the way to PCRE2, and every superset matches at least as much as its pattern."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher import UnsupportedPattern
from matcher.patterns import bindings, pcre
from matcher.regex.literals import Literal, head, prefix, requirements
from matcher.regex.translate import anchored, first_bytes, pcre2_text, superset
from matcher.regex.tree import MAX_NESTING, parse


def full_search(pattern: bytes, response: bytes, *, caseless: bool = False, dotall: bool = False) -> bool:
    code = pcre.compile_pattern(pattern, caseless=caseless, dotall=dotall)
    try:
        return pcre.match(code, response, len(response), 0, pcre.CONTEXT)[0] is not None
    except pcre.LibraryError:
        return False


def superset_matches(text: bytes, response: bytes) -> bool:
    return bindings.linear(text, max_mem=8 << 20).search(response) is not None


REWRITES = [  # pattern, what PCRE2 is told, why
    (rb"a\x41b", rb"a\x41b", "two digits are left alone"),
    (rb"a\x4g", rb"a\x04g", "one digit"),
    (rb"a\xg", rb"a\x00g", "no digit is NUL"),
    (rb"\x{41}", rb"\x41", "braces"),
    (rb"[\x4-\x{7}]", rb"[\x04-\x07]", "inside a class"),
    (rb"\\x4", rb"\\x4", "an escaped backslash and plain text"),
    (rb"a{,3}", rb"a\{,3}", "not a quantifier in PCRE 8.39"),
    (rb"a{1,3}b{2}c{4,}", rb"a{1,3}b{2}c{4,}", "real quantifiers"),
    (rb"a{ 1,3}", rb"a\{ 1,3}", "blanks make it text"),
    (rb"[{,3}]{,3}", rb"[{,3}]\{,3}", "a brace in a class is left alone"),
    (rb"[]{]{", rb"[]{]\{", "a first ] does not end a class"),
    (rb"[^]{]{", rb"[^]{]\{", "nor after a ^"),
    (rb"[[:alpha:]{]{", rb"[[:alpha:]{]\{", "nor does the end of a POSIX class"),
    (rb"\Qa{,3}\E{,3}", rb"\Qa{,3}\E\{,3}", "quoted text is left alone"),
    (rb"a\Cb", rb"a(?s:.)b", "any byte; the binding locks \\C"),
    (rb"(?#{)a{", rb"(?#{)a\{", "comments are left alone"),
]


@pytest.mark.parametrize(("pattern", "expected", "why"), REWRITES, ids=[row[2] for row in REWRITES])
def test_pattern_for_pcre2(pattern: bytes, expected: bytes, why: str) -> None:
    assert pcre2_text(pattern).text == expected


FAULTS = [
    (rb"a(b", 3, "missing closing parenthesis"),
    (rb"\x4\x4(", 7, "missing closing parenthesis"),
    (rb"a{,3}b)", 7, "unmatched closing parenthesis"),
    (rb"ab*{1}+*", 6, "quantifier does not follow a repeatable item"),
    (rb"\x{100}", 0, "above 0xff"),
    (rb"a\u0041", 1, r"\u is not supported"),
]


@pytest.mark.parametrize(("pattern", "offset", "reason"), FAULTS)
def test_a_bad_pattern_is_reported_where_its_author_wrote_it(pattern: bytes, offset: int, reason: str) -> None:
    found = pcre.check_pattern(pattern, False, False)
    assert found is not None
    assert reason in found[0]
    assert found[1] == offset


def test_good_patterns_have_no_fault() -> None:
    assert pcre.check_pattern(rb"^(?<n>a)\x4[[:digit:]]{,3}\R$", True, True) is None


SUPERSETS = [  # pattern, response it matches, response that even the superset must refuse
    (rb"^abc$", b"abc\n", b"abc\nx"),
    (rb"^abc\z", b"abc", b"abc\n"),
    (rb"^a\sb", b"a\x0bb", b"a\xa0b"),
    (rb"^a\vb", b"a\nb", b"a b"),
    (rb"^a\h\Rb", b"a \r\nb", b"a\nb"),
    (rb"^\Qa.b\E+$", b"a.bb", b"axb"),
    (rb"^(?:a$|b)c", b"bc", b"dc"),
    (rb"^a{,3}$", b"a{,3}", b"aaa"),
    (rb"^\x4g\x{41}\012\01", b"\x04gA\n\x01", b"x4g"),
    (rb"^(?i)aB(?-i)c", b"Abc", b"ABC"),
    (rb"^(?:x(?i)y|Z)z", b"zz", b"yz"),
    (rb"^[^\n]{2}[]a]", b"\r\0]", b"\n\0]"),
    (rb"^(a|b)\1(?=!)(?!x)(?<=.)", b"aa!", b"c"),
    (rb"^a++b(?>c|d)e*+$", b"aabc", b"abe"),
    (rb"^[[:alpha:]_-]+\d$", b"a_-1", b"a 1"),
    (rb"^(?|(a)|(b))\N\C(?P<x>c)", b"b\r\nc", b"b\n\nc"),
    (rb"(?s)a.b(?x) c  # d", b"a\nbc", b"a\nb"),
    (rb"^a{2,1500}$", b"a" * 3, b"a"),
]


@pytest.mark.parametrize(("pattern", "hit", "miss"), SUPERSETS, ids=[row[0].decode() for row in SUPERSETS])
def test_superset_covers_the_pattern_and_stays_narrow(pattern: bytes, hit: bytes, miss: bytes) -> None:
    text = superset(parse(pattern))
    assert full_search(pattern, hit)
    assert superset_matches(text, hit)
    assert not superset_matches(text, miss)


@pytest.mark.parametrize(
    "pattern", [rb"(*ACCEPT)a", rb"\p{L}", rb"(?(1)a|b)", rb"(a", rb"a)", rb"*a", rb"[z-a]", rb"[a"]
)
def test_what_the_parser_does_not_know_it_refuses(pattern: bytes) -> None:
    with pytest.raises(UnsupportedPattern):
        parse(pattern)


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    with pytest.raises(UnsupportedPattern):
        parse(b"(" * 5000 + b")" * 5000)
    parse(b"(" * (MAX_NESTING - 1) + b"a" + b")" * (MAX_NESTING - 1))


def test_required_literals() -> None:
    """Literals of a sequence are all needed, those of an alternation in turn; optional parts are not.

    Of one that takes either case in places, the rest of it is needed as it is.
    """
    needs = requirements(parse(rb"^abc(?:def)?gh+i(?:one|two)x{3}[Yy]z*end", dotall=True))
    assert needs == [
        (Literal(b"abc"),),
        (Literal(b"gh"),),
        (Literal(b"i"),),
        (Literal(b"one"), Literal(b"two")),
        (Literal(b"xxxy", caseless=True),),
        (Literal(b"xxx"),),
        (Literal(b"end"),),
    ]


def test_prefix_and_first_bytes() -> None:
    assert prefix(parse(rb"^ab\0{2}c+d")) == b"ab\0\0c"
    assert prefix(parse(rb"ab")) == b""
    assert not anchored(parse(rb"^a|b"))
    assert anchored(parse(rb"(?:^a|\Ab)c"))
    assert head(parse(rb"^a\d{2}b{1,2}c{1,3}.")) == rb"a[\x30-\x39]{2}b{1,2}c{1}"
    assert head(parse(rb"^[a-c]{3}$", dotall=True)) == rb"[\x61-\x63]{3}\n?\Z"
    assert head(parse(rb"^a{1,2}a")) == rb"a{1}"
    assert head(parse(rb"^a+b{1,2}c")) == rb"a+b{1,2}c"
    assert head(parse(b"a")) == b""
    assert first_bytes(parse(rb"^(?:a?b|\d*)")) == (1 << 0x61 | 1 << 0x62 | 0x3FF << 0x30, True)


# --- properties: random patterns over a small alphabet, so that responses do match ---------------------------------

ATOMS = st.sampled_from(
    [
        rb"a",
        rb"b",
        rb"AB",
        rb"\n",
        rb".",
        rb"\s",
        rb"\d",
        rb"\w",
        rb"[ab]",
        rb"[^a\n]",
        rb"\x41",
        rb"\0",
        rb"1 ",
        rb"$",
        rb"\b",
        rb"^",
        rb"\z",
        rb"\Z",
        rb"(?=a)",
        rb"(?!b)",
        rb"(?<=a)",
        rb"\R",
        rb"(?i)",
        rb"\Qa.\E",
        rb"[[:alpha:]]",
    ]
)
QUANTIFIERS = st.sampled_from([b"", b"", b"", b"*", b"+", b"?", b"{2}", b"{1,3}", b"{0,2}?", b"*+", b"+?", b"{,2}"])


def groups(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    piece = st.builds(lambda body, count: body + count, inner, QUANTIFIERS)
    sequence = st.lists(piece, min_size=1, max_size=4).map(b"".join)
    kinds = st.sampled_from([b"(%b)", b"(?:%b)", b"(?>%b)", b"(?i:%b)", b"(?=%b)", b"(?s:%b)\\1"])
    grouped = st.builds(lambda kind, body: kind % body, kinds, sequence)
    return st.one_of(sequence, grouped, st.builds(lambda one, two: b"(?:%b|%b)" % (one, two), sequence, sequence))


PATTERNS = st.recursive(ATOMS, groups, max_leaves=8)
RESPONSES = st.lists(
    st.sampled_from([b"a", b"b", b"A", b"B", b"\n", b"\r", b"1", b" ", b"\0", b"{,2}"]), max_size=12
).map(b"".join)


@settings(max_examples=600, deadline=None)
@given(
    pattern=PATTERNS,
    responses=st.lists(RESPONSES, min_size=1, max_size=6),
    caseless=st.booleans(),
    dotall=st.booleans(),
)
def test_no_match_escapes_its_superset(pattern: bytes, responses: list[bytes], caseless: bool, dotall: bool) -> None:
    """Whatever PCRE2 matches, the superset, the required literals, the prefix, the head and the first bytes admit."""
    if pcre.check_pattern(pattern, caseless, dotall) is not None:
        return
    try:
        tree = parse(pattern, caseless=caseless, dotall=dotall)
    except UnsupportedPattern:
        return
    text = superset(tree)
    mask, empty = first_bytes(tree)
    for response in responses:
        if not full_search(pattern, response, caseless=caseless, dotall=dotall):
            continue
        assert superset_matches(text, response)
        assert response.startswith(prefix(tree))
        assert re.match(head(tree), response, re.DOTALL)
        for need in requirements(tree):
            assert any(lit.text in (response.lower() if lit.caseless else response) for lit in need)
        if anchored(tree):
            assert empty or mask >> response[0] & 1
