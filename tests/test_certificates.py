"""Whatever a server shows as its certificate: the facts that can be read, no exception, and text fit to be shown."""

import ipaddress
from functools import cache

import msgspec
from certificates import certificate, of_version
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_fuzz_post import EDITS, SPOOFS, edited, texts

from engine.model import TlsFacts
from engine.transports.certificates import (
    ALTERNATIVE,
    ALTERNATIVES,
    LARGEST,
    NAME,
    REMEMBERED,
    _read,
    certificate_facts,
)


@cache
def _certificates() -> tuple[bytes, ...]:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.DNSName("strange.test"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.RFC822Name("root@strange.test"),
        x509.UniformResourceIdentifier("https://strange.test/"),
        x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])),
    ]
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        certificate(elliptic, names=names, extensions=[constraints, usage]),
        certificate(ed25519.Ed25519PrivateKey.generate(), names=names[:1]),
        certificate(rsa.generate_private_key(65537, 1024), names=names),
        certificate(dsa.generate_private_key(1024)),
    )


def check_certificate(der: bytes) -> TlsFacts:
    facts = certificate_facts(der, TlsFacts(protocol="TLSv1.3"))
    assert facts.protocol == "TLSv1.3"
    assert len(facts.sha256) == 64
    assert all(part.isprintable() for part in texts(msgspec.to_builtins(facts)))
    assert max(len(facts.subject), len(facts.issuer)) <= NAME
    assert sum(map(len, facts.names)) <= ALTERNATIVES + ALTERNATIVE
    msgspec.json.encode(facts)
    return facts


def test_a_strange_name_stands_in_one_line() -> None:
    facts = check_certificate(
        certificate(ec.generate_private_key(ec.SECP256R1()), name="\x85\u202e" + SPOOFS[7:] + "x")
    )
    assert facts.subject.endswith("O=Ünïcode\\, Inc.")
    assert facts.self_signed


def test_versions_that_do_not_exist() -> None:
    der = _certificates()[0]
    assert check_certificate(of_version(der, 3)).key == "ec secp256r1"
    for version in (2, 4, 5, 6, 7, 100):
        check_certificate(of_version(der, version))


def test_a_certificate_of_many_names_and_one_too_long() -> None:
    """The names that fit, and of one that is no certificate of a server any more the hash alone."""

    def named(count: int) -> bytes:
        names = [x509.DNSName(f"host{number}.{'x' * 50}.test") for number in range(count)]
        return certificate(ec.generate_private_key(ec.SECP256R1()), names=names)

    assert 100 < len(check_certificate(named(220)).names) < 220
    assert len(named(260)) > LARGEST
    assert check_certificate(named(260)).subject == ""


def test_a_certificate_that_is_seen_again() -> None:
    """Is remembered by all of its bytes, beside the handshake that showed it; only so many are."""
    elliptic = ec.generate_private_key(ec.SECP256R1())
    one, other = certificate(elliptic), certificate(elliptic, name="other.test")
    first = certificate_facts(one, TlsFacts(protocol="TLSv1.2", cipher="A"))
    second = certificate_facts(one, TlsFacts(protocol="TLSv1.3", alpn="h2"))
    assert (first.protocol, first.cipher, first.alpn) == ("TLSv1.2", "A", "")
    assert (second.protocol, second.cipher, second.alpn) == ("TLSv1.3", "", "h2")
    assert first.sha256 == second.sha256
    assert certificate_facts(other, TlsFacts()).subject.startswith("CN=other.test")
    for number in range(2 * REMEMBERED):
        certificate_facts(b"no certificate, number %d" % number, TlsFacts())
    assert _read.cache_info().currsize == REMEMBERED


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 3), edits=EDITS)
@example(seed=0, edits=[(0.0, 10000, b"")])  # nothing is left of it
def test_changed_certificates(seed: int, edits: list[tuple[float, int, bytes]]) -> None:
    check_certificate(edited(_certificates()[seed], edits))


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 3), where=st.floats(0, 1), byte=st.integers(0, 255), more=st.integers(1, 3))
def test_certificates_of_the_same_length(seed: int, where: float, byte: int, more: int) -> None:
    """Whose structure mostly stays, so that what is wrong is wrong deep inside."""
    der = bytearray(_certificates()[seed])
    at = int(where * (len(der) - 1))
    der[at : at + more] = bytes((byte,)) * len(der[at : at + more])
    check_certificate(bytes(der))
