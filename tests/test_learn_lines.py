"""One line for several responses: what is literal in it, what is not, what is captured, and what it may cost."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from matcher import parse_database
from matcher.regex.tree import parse
from matcher.tools.aligned import MOST_COST, MOST_PATTERN, aligned
from matcher.tools.cost import worst_case
from matcher.tools.propose import fitter
from matcher.tools.tokens import LONGEST, mask, telling, tellings, tokens

HEAD = r"^HTTP/1\.[01] \d\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*?"


def line_of(*responses: bytes) -> tuple[str, str, int]:
    parts = [part for one in responses if (part := telling(one))]
    made = aligned(parts)
    for one in responses:
        assert re.search(made.pattern, one, re.DOTALL if made.flags else 0), one
    return made.pattern.decode("latin-1"), made.product.decode(), made.version


@pytest.mark.parametrize(
    ("responses", "pattern", "product", "version"),
    [
        (
            (b"220 alpha Toyd 1.4 ready\r\n", b"220 beta Toyd 1.5 ready\r\n"),
            r"^220 [^ \r\n]+ Toyd ([\w.+~-]+) ready\r\n",
            "Toyd",
            1,
        ),
        ((b"SSH-2.0-Foo_1.2p1\r\n", b"SSH-2.0-Foo_1.3\r\n"), r"^SSH-2\.0-Foo_([\w.+~-]+)\r\n", "Foo", 1),
        (
            (b"HTTP/1.1 200 OK\r\nDate: now\r\nServer: Foo-Bar/2.1.3 (Linux)\r\n\r\n",),
            HEAD + r"Server: Foo-Bar/([\w.+~-]+) \(Linux\)\r\n",
            "Foo-Bar",
            1,
        ),
        ((b"HTTP/1.0 200 OK\r\nServer: ToyOS Web\r\n\r\n",), HEAD + r"Server: ToyOS Web\r\n", "ToyOS Web", 0),
        (
            (b'HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm="Toy Router"\r\n\r\n',),
            HEAD + r'WWW-Authenticate: Basic realm="Toy Router"',
            "Toy Router",
            0,
        ),
        (
            (b"HTTP/1.0 200 OK\r\n\r\n<html><title>Toy page</title>",),
            r"^HTTP/1\.[01] \d\d\d.*?<title>Toy page</title>",
            "Toy page",
            0,
        ),
        ((b"\x00\x01\x02\x03abc\x00\xff", b"\x00\x01\x05\x03abc\x00\xfe"), r"^\x00\x01.\x03abc\x00", "", 0),
        ((b"hello |there| 12345 times\n",), r"^hello \x7cthere\x7c \d+ times\n", "", 0),
    ],
)
def test_a_line_of_responses(responses: tuple[bytes, ...], pattern: str, product: str, version: int) -> None:
    """Literal where all agree, a class where they differ or what is said varies by its kind, a group for a version."""
    assert line_of(*responses) == (pattern, product, version)


def test_what_three_different_responses_agree_on_is_literal() -> None:
    """A number in all of three different responses is the program's; in two it may be chance."""
    two = [b"alpha has port 4321 open\n", b"beta has port 4321 open\n"]
    assert r"\d+" in line_of(*two)[0]
    assert "4321" in line_of(*two, b"gamma has port 4321 open\n")[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            b"220 a.example.org at Mon, 13 Mar 2006 11:22:33 GMT\r\n",
            b"220 mail7.b.net at Tue, 1 Apr 2025 00:00:00 UTC\r\n",
        ),
        (
            b"id 123e4567-e89b-12d3-a456-426614174000 of 10.0.0.1\n",
            b"id 00000000-e89b-12d3-a456-000000000000 of 1.2.3.4\n",
        ),
        (b"cookie deadbeef01 mac 00:11:22:33:44:55\n", b"cookie 0123456789abcdef mac aa:bb:cc:dd:ee:ff\n"),
        (b"key dGhpcyBpcyBhIHRlc3Qgb2YgYmFzZTY0 done\n", b"key c29tZXRoaW5nIGVsc2UgMTIzNDU2Nzg5MA== done\n"),
        (b"started 2024-01-02T03:04:05Z version 1.2.3\n", b"started 2019-12-31T23:59:59Z version 10.22\n"),
    ],
)
def test_copies_of_a_program_have_one_mask(first: bytes, second: bytes) -> None:
    """Of dates, hosts, addresses, UUIDs, hexadecimal, base64 and numbers the kind counts, not what they say."""
    assert mask(tokens(tellings(first)[0])) == mask(tokens(tellings(second)[0]))


def test_other_words_are_another_mask() -> None:
    assert mask(tokens(tellings(b"220 Toyd ready\r\n")[0])) != mask(tokens(tellings(b"220 Foo ready\r\n")[0]))


HOSTILE = st.one_of(
    st.binary(min_size=1, max_size=700),
    st.text(alphabet="|=%@~!\\/$^.*+?()[]{}<> \r\n\tq1.aF-_:", min_size=1, max_size=300).map(str.encode),
    st.tuples(
        st.sampled_from([b"HTTP/1.1 200 OK\r\nServer: ", b"220 ", b"\x00\x01", b"SSH-2.0-"]), st.binary(max_size=300)
    ).map(b"".join),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(HOSTILE, min_size=1, max_size=6))
@example([b"\n", b"\r\n"])
@example([b"HTTP/1.1 200 \r\nServer: \r\n\r\n"])
@example([b"|" * 600, b"\\" * 600])
def test_a_line_fits_what_it_was_made_of_and_can_be_a_line(responses: list[bytes]) -> None:
    """Whatever bytes: none is lost, the pattern fits each response, is short and cheap, and a database can hold it."""
    for form in {part.form for one in responses for part in tellings(one)}:
        chosen = [one for one in responses if telling(one, form)]
        parts = [part for one in chosen if (part := telling(one, form))]
        for part in parts:
            assert b"".join(token.text for token in tokens(part)) == part.text[:LONGEST]
        made = aligned(parts)
        line = b"match x m|%b|%b" % (made.pattern, made.flags)
        assert len(made.pattern) <= MOST_PATTERN
        assert worst_case(parse(b"^" + made.body, dotall=bool(made.flags))) <= MOST_COST
        assert len(parse_database(b"Probe TCP NULL q||\n" + line + b"\n", "made").probes[0].signatures) == 1
        fits = fitter(line)
        assert all(map(fits, chosen))
