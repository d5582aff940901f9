"""JA4S and JA4X: the published fingerprints, on whatever bytes, in the row of a scan that asked for them."""

import asyncio
import ssl
from pathlib import Path

import pytest
from certificates import certificate, context_with
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import (
    BasicConstraints,
    DNSName,
    ExtendedKeyUsage,
    ExtendedKeyUsageOID,
    load_der_x509_certificate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Farm, Outcome, Visit, config, database_file, scan, second_visit
from peers import speak_tls
from test_chains import MIDDLE, SERVER, key
from test_fuzz_post import EDITS, edited

from engine.model import TlsFacts
from engine.transports.ja4 import MOST, _hash, ja4s, ja4x
from engine.transports.tls import FIRST

# Fingerprints as FoxIO publishes them for its captures and in its README: raw, and hashed.
PUBLISHED = {
    "t130200_1301_0033,002b": "t130200_1301_234ea6891581",
    "t130200_1301_002b,0033": "t130200_1301_a56c5b993250",
    "t130300_1301_002b,0033,0029": "t130300_1301_0ee26285a86f",
    "t130300_1301_0029,0033,002b": "t130300_1301_6bbbaf601ed8",
    "t100100_0005_ff01": "t100100_0005_bc98f8e001b5",
    "t1204h2_cca9_0000,ff01,000b,0010": "t1204h2_cca9_1428ce7b4018",
    "t1205h1_c02b_0000,ff01,000b,0023,0010": "t1205h1_c02b_845f7282a956",
}
ALPN = {"00": b"", "h2": b"h2", "h1": b"http/1.1"}
VERSIONS = {"10": b"\x03\x01", "12": b"\x03\x03", "13": b"\x03\x03"}


def server_hello(raw: str, *, alpn: bytes | None = None, record: int = 1 << 14) -> bytes:
    """A ServerHello of this raw fingerprint, in records of so many bytes, with a certificate behind it."""
    head, cipher, kinds = raw.split("_")
    chosen = ALPN.get(head[-2:], b"") if alpn is None else alpn
    extensions = b""
    for kind in filter(None, kinds.split(",")):
        data = {"002b": b"\x03\x04", "0010": bytes((0, len(chosen) + 1, len(chosen))) + chosen}.get(kind, b"\x01\x02")
        extensions += bytes.fromhex(kind) + len(data).to_bytes(2, "big") + data
    body = VERSIONS[head[1:3]] + bytes(32) + b"\x02id" + bytes.fromhex(cipher) + b"\0"
    if kinds:
        body += len(extensions).to_bytes(2, "big") + extensions
    messages = b"\x02" + len(body).to_bytes(3, "big") + body + b"\x0b\0\x10\0" + bytes(4096)
    pieces = [messages[at : at + record] for at in range(0, len(messages), record)]
    return b"".join(b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("record", [1, 7, 100, 1 << 14])
@pytest.mark.parametrize("raw", PUBLISHED)
def test_published_fingerprints_of_servers(raw: str, record: int) -> None:
    """However the records are cut, and with no more than is kept of them."""
    said = server_hello(raw, record=record)
    assert ja4s(said[:MOST]) == PUBLISHED[raw]
    assert record < 100 or ja4s(said[:FIRST]) == PUBLISHED[raw]


@pytest.mark.parametrize(
    ("alpn", "ends"), [(b"h3-29", "h9"), (b"x", "xx"), (b"\xff\xfe", "99"), (b"_a", "9a"), (b"", "00")]
)
def test_ends_of_an_alpn(alpn: bytes, ends: str) -> None:
    """Its first and last character, and 9 for what is no letter and no digit."""
    assert ja4s(server_hello("t120100_c030_0010", alpn=alpn))[5:7] == ends


def test_a_hello_without_extensions() -> None:
    assert ja4s(server_hello("t120000_0005_")) == "t120000_0005_000000000000"


@pytest.mark.parametrize(
    ("identifiers", "digest"),
    [
        ("550406,55040a,550403", "a373a9f83c6b"),
        ("550403", "7022c563de38"),
        ("551d0f,551d25,551d11", "aae71e8db6d7"),
        ("", "000000000000"),
    ],
)
def test_published_hashes_of_certificates(identifiers: str, digest: str) -> None:
    """FoxIO's own test has two of them."""
    assert _hash(identifiers.split(",") if identifiers else []) == digest


def test_how_a_certificate_is_made() -> None:
    """The identifiers of issuer, subject and extensions in their order; what they say counts for nothing."""
    own = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    der = certificate(own, names=[DNSName("a.test")], extensions=[BasicConstraints(ca=True, path_length=0), usage])
    name = _hash(["55040a", "550403"])
    assert ja4x(der) == f"{name}_{name}_{_hash(['551d11', '551d13', '551d25'])}"
    assert ja4x(certificate(own, name="other.test")) == f"{name}_{name}_000000000000"


def test_identifiers_as_another_library_reads_them() -> None:
    """cryptography's dotted ones."""
    dotted = [attribute.oid.dotted_string for attribute in load_der_x509_certificate(SERVER).subject]
    assert dotted == ["2.5.4.10", "2.5.4.3"]
    assert ja4x(SERVER).split("_")[1] == _hash(["55040a", "550403"])


@settings(max_examples=400, deadline=None)
@given(raw=st.sampled_from(sorted(PUBLISHED)), edits=EDITS, record=st.integers(1, 300))
def test_changed_hellos(raw: str, edits: list[tuple[float, int, bytes]], record: int) -> None:
    """A fingerprint fit to be shown, or none."""
    found = ja4s(edited(server_hello(raw, record=record)[:600], edits))
    assert found.isprintable()
    assert found.isascii()
    assert len(found) in (0, len("t130200_1301_234ea6891581"))


@settings(max_examples=400, deadline=None)
@given(der=st.one_of(EDITS.map(lambda edits: edited(SERVER, edits)), st.binary(max_size=200)))
def test_changed_certificates(der: bytes) -> None:
    assert len(ja4x(der)) in (0, 3 * 12 + 2)


def test_a_hello_that_is_none() -> None:
    for said in (
        b"",
        b"\x15\x03\x03\0\x02\x02\x28",
        b"HTTP/1.1 400",
        b"\x16\x03\x03\xff\xff\x02\xff\xff\xff",
        b"\x16" * 99,
    ):
        assert ja4s(said) == ""


# -- in a scan


def scanned(folder: Path, post: tuple[str, ...]) -> Outcome:
    context = context_with(key(), SERVER, MIDDLE)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def in_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await speak_tls(reader, writer, b"HELLO 2.0\r\n", context)

    with Farm(second_visit(b"TLS PLEASE\r\n", in_tls)) as farm:
        found = scan(farm.targets("127.63.2.1", "127.63.2.2"), config(database_file(folder), post=post))
        assert set(farm.per_address.values()) == {2}, "it costs no connection"
    return found


def test_a_row_has_them_where_they_were_asked_for(tmp_path: Path) -> None:
    """Of the scan's own handshake, and of every certificate that was shown."""
    rows, _ = scanned(tmp_path, ("ja4",))
    for row in rows:
        assert row.tls is not None
        assert row.tls.ja4s.startswith("t12")
        assert row.tls.ja4x == (ja4x(SERVER),) * 2  # made alike
        assert len(row.tls.chain) == 1


@pytest.mark.parametrize("post", [(), ("default",)])
def test_a_row_is_without_them_by_default(tmp_path: Path, post: tuple[str, ...]) -> None:
    """Their use is licensed: nobody gets them unasked."""
    rows, _ = scanned(tmp_path, post)
    assert {(row.tls or TlsFacts()).ja4s for row in rows} == {""}
    assert {(row.tls or TlsFacts()).ja4x for row in rows} == {()}
    assert all(row.tls and row.tls.chain for row in rows)
