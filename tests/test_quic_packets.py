"""QUIC on the wire: asking for versions, the answers, transport parameters."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.transports.quic_packets import (
    DATAGRAM,
    RESERVED,
    VERSION_1,
    VERSION_2,
    offered_versions,
    parameters,
    version_name,
    version_query,
)

DRAFT_29 = 0xFF00001D
TO, FROM = b"12345678", b"abcdefgh"


def answer(versions: Iterable[int], *, source: bytes = FROM, destination: bytes = TO) -> bytes:
    """What a server says of its versions."""
    head = bytes((len(source),)) + source + bytes((len(destination),)) + destination
    return b"\xca" + bytes(4) + head + b"".join(version.to_bytes(4, "big") for version in versions)


# -- packets


def test_the_query_is_a_first_packet_in_a_version_that_nobody_has() -> None:
    query = version_query(TO, FROM)
    assert len(query) == DATAGRAM == 1200
    assert query[0] & 0xC0 == 0xC0
    assert int.from_bytes(query[1:5], "big") == RESERVED
    assert RESERVED & 0x0F0F0F0F == 0x0A0A0A0A
    assert query[5:23] == b"\x08" + TO + b"\x08" + FROM


def test_the_versions_in_an_answer() -> None:
    """Without those that servers put in so that nobody relies on the list being short."""
    assert offered_versions(answer((VERSION_1, 0x4A5A6A7A, DRAFT_29)), TO, FROM) == (VERSION_1, DRAFT_29)
    assert offered_versions(answer(()), TO, FROM) == ()
    assert len(offered_versions(answer(range(1, 300)), TO, FROM) or ()) == 32


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x80",
        answer((1,))[:-1],
        b"\x4a" + answer((1,))[1:],
        answer((1,), source=b"abcdefgX"),
        answer((1,), destination=b"1234567"),
        b"\xca\0\0\0\1" + answer((1,))[5:],
        version_query(TO, FROM),
    ],
)
def test_what_is_no_answer(datagram: bytes) -> None:
    assert offered_versions(datagram, TO, FROM) is None


def test_names_of_versions() -> None:
    names = [version_name(version) for version in (VERSION_1, VERSION_2, DRAFT_29, 0x51303530, 0x709A50C4, 2)]
    assert names == ["1", "2", "draft-29", "Q050", "0x709a50c4", "0x00000002"]


def test_numbers_of_variable_length() -> None:
    """The examples of RFC 9000, appendix A.1."""
    for written, number in (
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ):
        value = bytes.fromhex(written)
        assert parameters(b"\x04" + bytes((len(value),)) + value) == {"initial_max_data": number}


def test_parameters_in_wire_order_without_those_that_are_random() -> None:
    extension = bytes.fromhex(
        "0008" + "11" * 8 + "0404800f0000" + "0c00" + "1b0155" + "0102 4100" + "7fff 02 abcd" + "6ab200"
    )
    assert list(parameters(extension).items()) == [
        ("initial_max_data", 983040),
        ("disable_active_migration", True),
        ("max_idle_timeout", 256),
        ("0x3fff", "abcd"),
        ("grease_quic_bit", True),
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    offered_versions(answer(()) + data, TO, FROM)
    try:
        found = parameters(data)
    except ValueError:
        return
    assert len(found) <= 64
