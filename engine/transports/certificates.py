"""What a finished TLS handshake tells about the server: protocol, cipher, and the facts of its certificates.

Its own certificate comes first, and has its facts. Of those behind it, which should lead to an authority, the row has a
short line each, and notes say what is wrong with any of them: weak, out of date, out of order, for somebody else.
docs/result.md explains the notes; no signature is followed to an authority.

A certificate is a stranger's text in a language with many versions. Each fact is read by itself, and one that cannot be
read - whatever the library says to it, be it by an exception or by a panic of its Rust half - is left out.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from engine.model import TlsFacts
from engine.text import one_line
from engine.transports.base import Session

if TYPE_CHECKING:  # loaded with the first certificate: it is a tenth of the start of a scan
    from cryptography import x509

LARGEST = 1 << 14  # bytes of a certificate that is looked into: 200 names fit, and reading it takes 25 ms at worst
NAME = 1024  # characters of a subject or issuer
REMEMBERED = 256  # certificates; many hosts show the same one. 6 MB at worst
ALTERNATIVE = 256  # characters of one alternative name
ALTERNATIVES = 1 << 13  # characters of all of them
CHAINS = 64  # that are remembered; 6 MB at worst
CHAIN = 10  # certificates that are looked at, the server's own among them; a hundred thousand bytes of them may come
SUBJECT = 256  # characters of the subject of one that stands behind it
DIGEST = 16  # hex digits of its hash
STRONG = 2048  # bits of an RSA or DSA key; NIST SP 800-131A
STRONG_CURVE = 224  # bits
BROKEN = frozenset(("md2", "md4", "md5", "sha1"))
NEVER = "9999-12-31T23:59:59Z"
_DER = 2  # what _ssl calls ENCODING_DER

_COMMON_NAME = re.compile(r"(?:^|[,+])CN=((?:[^,+\\]|\\.)+)")

_Certificate = tuple[Mapping[str, Any], tuple[str, ...]]  # fields of TlsFacts, and words for what is weak
_Given = TypeVar("_Given")
_Read = TypeVar("_Read")


def tls_facts(session: Session, name: str = "") -> TlsFacts:
    """The facts of a handshake. A certificate that cannot be read leaves its fields empty but for the hash.

    name: the host name that was asked for, or "".
    """
    facts, der = handshake(session)
    return with_chain(certificate_facts(der, facts), sent_chain(session), name)


def handshake(session: Session) -> tuple[TlsFacts, bytes | None]:
    """What has to be asked while the session is whole: the facts but for the certificate's, and its DER, or None.

    A microsecond. Once the session has read an end or an error, OpenSSL may deny that there was a handshake.
    """
    cipher = session.cipher()
    facts = TlsFacts(
        protocol=session.version() or "",
        cipher=cipher[0] if cipher else "",
        alpn=one_line(session.selected_alpn_protocol() or "", ALTERNATIVE),
    )
    return facts, session.getpeercert(binary_form=True) or None


def sent_chain(session: Session) -> tuple[bytes, ...]:
    """DER of all certificates that were sent, the server's own first; to be asked for as `handshake` is.

    Python has this from 3.13 on. Before it the same function gives objects, and stands on what `session` wraps; where
    it stands nowhere, the server's own certificate is all there is.
    """
    chain = getattr(session, "get_unverified_chain", None)
    if chain is not None:
        return tuple(chain())
    ask = getattr(getattr(session, "_sslobj", None), "get_unverified_chain", None)
    if ask is None:
        der = session.getpeercert(binary_form=True)
        return (der,) if der else ()
    return tuple(each.public_bytes(_DER) for each in ask() or ())


def certificate_facts(der: bytes | None, facts: TlsFacts) -> TlsFacts:
    """`facts` with what stands in a certificate, if there is one."""
    if der is None:
        return facts
    return TlsFacts(protocol=facts.protocol, cipher=facts.cipher, alpn=facts.alpn, **_known(der)[0])


def with_chain(facts: TlsFacts, ders: Sequence[bytes], name: str = "", now: float | None = None) -> TlsFacts:
    """`facts` of the first of these certificates with those behind it, and with notes on all of them.

    ders: as `sent_chain` gives them. name: as for `tls_facts`. now: seconds since 1970; without it, those of the clock.
    """
    if not ders:
        return facts
    day = _day(int(time.time() if now is None else now))
    notes = list(_known(ders[0])[1])
    if facts.not_after and facts.not_after < day:
        notes.append("expired")
    if facts.not_before > day:
        notes.append("not-yet-valid")
    if name and not _is_for(name, facts):
        notes.append("name-mismatch")
    if len(ders) == 1:
        return replace(facts, notes=tuple(notes)) if notes else facts
    chain, more, until = _behind(facts.issuer, tuple(ders[1:CHAIN]))
    notes += more
    if until < day:
        notes.append("chain-expired")
    if len(ders) > CHAIN:
        notes.append("chain-long")
    return replace(facts, chain=chain, notes=tuple(notes))


@lru_cache(CHAINS)
def _behind(issuer: str, ders: tuple[bytes, ...]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Of what stands behind a certificate by this issuer: the lines, the notes, and when the first of them expires."""
    certificates = [_known(der) for der in ders]
    facts = [known for known, _ in certificates]
    chain = tuple(f"{known['sha256']:.{DIGEST}} {known.get('subject', ''):.{SUBJECT}}".rstrip() for known in facts)
    notes = []
    if [issuer, *(known.get("issuer") for known in facts[:-1])] != [known.get("subject") for known in facts]:
        reached, missing = {issuer}, list(facts)
        while (found := next((known for known in missing if known.get("subject") in reached), None)) is not None:
            missing.remove(found)
            reached.add(found.get("issuer", ""))
        notes.append("chain-unrelated" if missing else "chain-disorder")
    issued = [(known, weak) for known, weak in certificates if not _is_root(known)]
    if len(issued) < len(facts):
        notes.append("chain-root")
    if any("weak-key" in weak for _, weak in certificates):
        notes.append("chain-weak-key")
    if any("weak-signature" in weak for _, weak in issued):
        notes.append("chain-weak-signature")
    return chain, tuple(notes), min(known.get("not_after", NEVER) for known in facts)


@lru_cache(1)
def _day(second: int) -> str:
    return _rfc3339(datetime.fromtimestamp(second, UTC))


def _is_root(known: Mapping[str, Any]) -> bool:
    """By its own word: no library that is up to date follows a signature with SHA-1."""
    return "subject" in known and known["subject"] == known.get("issuer")


def _is_for(name: str, facts: TlsFacts) -> bool:
    """Whether a certificate is for a host, RFC 6125; where its names were not read, or not all of them, it is."""
    names = facts.names or tuple(_COMMON_NAME.findall(facts.subject))
    if not names or sum(map(len, names)) + len(names) >= ALTERNATIVES:
        return True
    asked = name.rstrip(".").lower()
    return not {each.lower() for each in names}.isdisjoint((asked, "*." + asked.partition(".")[2]))


def _known(der: bytes) -> _Certificate:
    return _read(der) if len(der) <= LARGEST else ({"sha256": hashlib.sha256(der).hexdigest()}, ())


def der_of(certificate: "x509.Certificate") -> bytes:
    """For libraries that hand a certificate over read already."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


@lru_cache(REMEMBERED)
def _read(der: bytes) -> _Certificate:
    from cryptography import x509

    known: dict[str, Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    weak: list[str] = []
    if (certificate := _attempt(x509.load_der_x509_certificate, der)) is not None:
        for field, read in _READ.items():
            if (value := _attempt(read, certificate)) is not None:
                known[field] = value
        weak += [word for word, is_weak in _WEAK.items() if _attempt(is_weak, certificate)]
    return known, tuple(weak)


def _attempt(read: Callable[[_Given], _Read], given: _Given) -> _Read | None:
    try:
        return read(given)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic is no Exception
        return None


def _rfc3339(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _is_self_signed(certificate: "x509.Certificate") -> bool:
    if certificate.subject != certificate.issuer:
        return False
    certificate.verify_directly_issued_by(certificate)  # raises where it is not
    return True


def _key(certificate: "x509.Certificate") -> str:
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            return f"rsa {key.key_size}"
        case ec.EllipticCurvePublicKey() as key:
            return f"ec {key.curve.name}"
        case dsa.DSAPublicKey() as key:
            return f"dsa {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ed448.Ed448PublicKey():
            return "ed448"
        case other:
            return type(other).__name__


def _has_weak_key(certificate: "x509.Certificate") -> bool:
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    match certificate.public_key():
        case rsa.RSAPublicKey() | dsa.DSAPublicKey() as key:
            return key.key_size < STRONG
        case ec.EllipticCurvePublicKey() as key:
            return key.curve.key_size < STRONG_CURVE
        case _:
            return False


def _has_weak_signature(certificate: "x509.Certificate") -> bool:
    digest = certificate.signature_hash_algorithm
    return digest is not None and digest.name in BROKEN


def _names(certificate: "x509.Certificate") -> tuple[str, ...]:
    """As many as fit, in the certificate's order."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    kinds = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
    names: list[str] = []
    room = ALTERNATIVES
    for name in extension.value:
        if isinstance(name, kinds):
            names.append(one_line(str(name.value), ALTERNATIVE))
            room -= len(names[-1]) + 1
            if room <= 0:
                break
    return tuple(names)


_READ: Mapping[str, Callable[["x509.Certificate"], object]] = MappingProxyType(
    {
        "subject": lambda certificate: one_line(certificate.subject.rfc4514_string(), NAME),
        "issuer": lambda certificate: one_line(certificate.issuer.rfc4514_string(), NAME),
        "not_before": lambda certificate: _rfc3339(certificate.not_valid_before_utc),
        "not_after": lambda certificate: _rfc3339(certificate.not_valid_after_utc),
        "self_signed": _is_self_signed,
        "key": _key,
        "names": _names,
    }
)

_WEAK: Mapping[str, Callable[["x509.Certificate"], bool]] = MappingProxyType(
    {"weak-key": _has_weak_key, "weak-signature": _has_weak_signature}
)
