"""What a finished TLS handshake tells about the server: protocol, cipher, and the facts of its certificate.

A certificate is a stranger's text in a language with many versions. Each fact is read by itself, and one that cannot be
read - whatever the library says to it, be it by an exception or by a panic of its Rust half - is left out.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

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

_Given = TypeVar("_Given")
_Read = TypeVar("_Read")


def tls_facts(session: Session) -> TlsFacts:
    """The facts of a handshake. A certificate that cannot be read leaves its fields empty but for the hash."""
    facts, der = handshake(session)
    return certificate_facts(der, facts)


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


def certificate_facts(der: bytes | None, facts: TlsFacts) -> TlsFacts:
    """`facts` with what stands in a certificate, if there is one."""
    if der is None:
        return facts
    known = _read(der) if len(der) <= LARGEST else {"sha256": hashlib.sha256(der).hexdigest()}
    return TlsFacts(protocol=facts.protocol, cipher=facts.cipher, alpn=facts.alpn, **known)  # type: ignore[arg-type]


def der_of(certificate: "x509.Certificate") -> bytes:
    """For libraries that hand a certificate over read already."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


@lru_cache(REMEMBERED)
def _read(der: bytes) -> Mapping[str, object]:
    from cryptography import x509

    known: dict[str, object] = {"sha256": hashlib.sha256(der).hexdigest()}
    if (certificate := _attempt(x509.load_der_x509_certificate, der)) is not None:
        for field, read in _READ.items():
            if (value := _attempt(read, certificate)) is not None:
                known[field] = value
    return known


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
