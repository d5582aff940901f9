"""The certificates behind a server's own, and the notes on all of them: what was sent, in order, and what is wrong."""

import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import pytest
from certificates import Key, certificate, context_with
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from daemons import HOST, tool
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz_post import EDITS, edited, texts
from tls_daemons import files_of, nginx

from engine.model import ScanConfig, TlsFacts
from engine.transports.certificates import (
    ALTERNATIVES,
    CHAIN,
    DIGEST,
    SUBJECT,
    certificate_facts,
    sent_chain,
    tls_facts,
    with_chain,
)
from engine.transports.tls import client_context
from probemill import scan_sync

pytestmark = pytest.mark.real

IN_JANUARY = datetime(2026, 1, 15, tzinfo=UTC).timestamp()
DAY_S = 86400
SHA256_RSA, SHA1_RSA = (bytes.fromhex("2a864886f70d0101" + last) for last in ("0b", "05"))  # object identifiers


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def signed(name: str, issuer: str, *, days: int = 30, own: Key | None = None, hosts: Sequence[str] = ()) -> bytes:
    """A certificate of a name, by an issuer; all of them share one key where they say nothing else."""
    names = [x509.DNSName(host) for host in hosts]
    return certificate(own or key(), name=name, issuer=issuer, signer=key(), days=days, names=names)


def with_sha1(name: str, issuer: str) -> bytes:
    """As signed by an authority of long ago; nobody makes such a signature any more, so that this one is none."""
    own = rsa.generate_private_key(65537, 2048)
    return certificate(own, name=name, issuer=issuer).replace(SHA256_RSA, SHA1_RSA)


SERVER, MIDDLE, UPPER, ROOT = (
    signed("server.test", "middle"),
    signed("middle", "upper"),
    signed("upper", "root"),
    signed("root", "root"),
)
STRANGER = signed("stranger", "root")


def read(ders: Sequence[bytes], name: str = "", now: float = IN_JANUARY) -> TlsFacts:
    return with_chain(certificate_facts(ders[0], TlsFacts()), ders, name, now)


def handshaken(server: ssl.SSLContext) -> ssl.SSLObject:
    """Our side of a handshake with a server of this kind, in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client_context().wrap_bio(back, there)
    theirs = server.wrap_bio(there, back, server_side=True)
    for side in (ours, theirs, ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ours


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_everything_that_was_sent_is_shown_in_its_order(version: ssl.TLSVersion) -> None:
    """As it came, with the server's own certificate first."""
    server = context_with(key(), SERVER, UPPER, MIDDLE)
    server.maximum_version = version
    session = handshaken(server)
    assert sent_chain(session) == (SERVER, UPPER, MIDDLE)
    facts = tls_facts(session)
    assert [each.split(" ", 1)[1] for each in facts.chain] == [
        "CN=upper,O=Ünïcode\\, Inc.",
        "CN=middle,O=Ünïcode\\, Inc.",
    ]
    assert all(len(each.split(" ")[0]) == DIGEST for each in facts.chain)
    assert "chain-disorder" in facts.notes


class Wrapped:
    """A session as it may look elsewhere."""

    def __init__(self, **methods: object) -> None:
        self.__dict__ |= methods


def test_a_session_of_another_python() -> None:
    """From 3.13 on it has the method itself; and what has none shows the server's certificate at least."""
    newer = Wrapped(get_unverified_chain=lambda: [SERVER, MIDDLE])
    assert sent_chain(newer) == (SERVER, MIDDLE)  # type: ignore[arg-type]
    for der, found in ((SERVER, (SERVER,)), (None, ())):
        other = Wrapped(getpeercert=lambda der=der, **_: der)
        assert sent_chain(other) == found  # type: ignore[arg-type]


def test_a_server_without_a_certificate() -> None:
    """Anonymous ciphers: nothing was sent, nothing is said."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("aNULL:@SECLEVEL=0")
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    session = handshaken(server)
    assert sent_chain(session) == ()
    assert tls_facts(session).notes == ()


@pytest.mark.parametrize(
    ("ders", "notes"),
    [
        ((SERVER,), ()),
        ((SERVER, MIDDLE), ()),
        ((SERVER, MIDDLE, UPPER), ()),
        ((SERVER, MIDDLE, UPPER, ROOT), ("chain-root",)),
        ((SERVER, UPPER, MIDDLE), ("chain-disorder",)),
        ((SERVER, MIDDLE, MIDDLE), ("chain-disorder",)),
        ((SERVER, MIDDLE, STRANGER), ("chain-unrelated",)),
        ((SERVER, SERVER), ("chain-unrelated",)),
        ((SERVER, ROOT), ("chain-unrelated", "chain-root")),
        ((ROOT,), ()),
        ((SERVER, *[MIDDLE] * CHAIN), ("chain-disorder", "chain-long")),
        ((SERVER, b"no certificate"), ("chain-unrelated",)),
        ((SERVER, bytes(1 << 17)), ("chain-unrelated",)),
    ],
)
def test_the_order_of_a_chain(ders: Sequence[bytes], notes: tuple[str, ...]) -> None:
    """Each certificate is followed by its issuer's; the last one's may stay at home."""
    facts = read(ders)
    assert facts.notes == notes
    assert len(facts.chain) == min(len(ders), CHAIN) - 1


def test_a_chain_as_openssl_shows_it(tmp_path: Path) -> None:
    """`openssl s_client -showcerts`, of a web server that sends its file as it is; in the row of a scan."""
    files = files_of(tmp_path, key(), SERVER, UPPER, MIDDLE)
    with nginx(files, tmp_path) as port:
        command = (tool("openssl"), "s_client", "-connect", f"{HOST}:{port}", "-showcerts")
        told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False).stdout
        [row] = scan_sync([f"{HOST}:{port}"], ScanConfig(probes=("builtin",), post=("sharing",)))
    theirs = [each.fingerprint(SHA256()).hex() for each in x509.load_pem_x509_certificates(told)]
    assert row.tls is not None
    assert [row.tls.sha256[:DIGEST], *(each[:DIGEST] for each in row.tls.chain)] == [each[:DIGEST] for each in theirs]
    assert "chain-disorder" in row.tls.notes


def test_what_is_out_of_date() -> None:
    """By our clock, on the day of the handshake."""
    assert read([SERVER], now=IN_JANUARY + 30 * DAY_S).notes == ("expired",)
    assert read([SERVER], now=IN_JANUARY - 30 * DAY_S).notes == ("not-yet-valid",)
    assert read([SERVER, signed("middle", "upper", days=3)]).notes == ("chain-expired",)


def test_what_is_weak() -> None:
    """Short keys and broken digests, of the server's own certificate and of those behind it."""
    short = rsa.generate_private_key(65537, 1024)
    assert read([signed("server.test", "middle", own=short)]).notes == ("weak-key",)
    assert read([signed("server.test", "middle", own=ec.generate_private_key(ec.SECP192R1()))]).notes == ("weak-key",)
    assert read([signed("server.test", "middle", own=rsa.generate_private_key(65537, 2048))]).notes == ()
    assert read([SERVER, signed("middle", "upper", own=short)]).notes == ("chain-weak-key",)
    assert read([with_sha1("server.test", "root")]).notes == ("weak-signature",)
    assert read([SERVER, with_sha1("middle", "upper")]).notes == ("chain-weak-signature",)
    assert read([signed("server.test", "root"), with_sha1("root", "root")]).notes == ("chain-root",)  # it says nothing


@pytest.mark.parametrize(
    ("asked", "hosts", "wrong"),
    [
        ("", ["other.test"], False),
        ("a.test", ["other.test", "A.test"], False),
        ("a.test.", ["a.test"], False),
        ("a.b.test", ["*.b.test"], False),
        ("a.a.b.test", ["*.b.test"], True),
        ("b.test", ["*.b.test"], True),
        ("other.test", ["a.test"], True),
        ("server.test", ["a.test"], True),  # the common name counts only where there are no others
        ("server.test", [], False),
        ("other.test", [], True),
        ("other.test", [f"host{number}.{'x' * 50}.test" for number in range(ALTERNATIVES // 50)], False),  # cut
    ],
)
def test_whose_certificate_it_is(asked: str, hosts: list[str], wrong: bool) -> None:
    """RFC 6125: its alternative names, with `*` for the whole of the first label."""
    assert ("name-mismatch" in read([signed("server.test", "middle", hosts=hosts)], asked).notes) is wrong


def test_the_words_are_explained() -> None:
    """Every note that is made here stands in the document."""
    document = (Path(__file__).parent.parent / "docs" / "result.md").read_text()
    for word in ("expired", "not-yet-valid", "weak-key", "weak-signature", "name-mismatch", "long", "root", "disorder"):
        assert f"`{word}`" in document or f"`chain-{word}`" in document


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(EDITS, min_size=1, max_size=CHAIN + 2), name=st.sampled_from(["", "server.test", "é", "*", "."]))
def test_changed_chains(edits: list[list[tuple[float, int, bytes]]], name: str) -> None:
    """Whatever is sent, the facts are text fit to be shown, and not too much of it."""
    given_ = (SERVER, MIDDLE, UPPER, ROOT)
    ders = [edited(given_[at % len(given_)], each) for at, each in enumerate(edits)]
    facts = read(ders, name)
    assert all(part.isprintable() for part in texts(msgspec.to_builtins(facts)))
    assert all(len(each) <= DIGEST + 1 + SUBJECT for each in facts.chain)
    assert len(facts.chain) == min(len(ders), CHAIN) - 1
    msgspec.json.encode(facts)
