"""What a finished TLS handshake tells about the server: protocol, cipher, and the facts of its certificate."""

import hashlib
import ssl
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from engine.model import TlsFacts


def tls_facts(session: ssl.SSLObject) -> TlsFacts:
    """The facts of a handshake. A certificate that cannot be read leaves its fields empty but for the hash."""
    cipher = session.cipher()
    facts = TlsFacts(
        protocol=session.version() or "",
        cipher=cipher[0] if cipher else "",
        alpn=session.selected_alpn_protocol() or "",
    )
    der = session.getpeercert(binary_form=True)
    return certificate_facts(der, facts) if der else facts


def certificate_facts(der: bytes, facts: TlsFacts) -> TlsFacts:
    """`facts` with what stands in a certificate."""
    known: dict[str, object] = {"sha256": hashlib.sha256(der).hexdigest()}
    try:
        certificate = x509.load_der_x509_certificate(der)
        known |= {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "not_before": _rfc3339(certificate.not_valid_before_utc),
            "not_after": _rfc3339(certificate.not_valid_after_utc),
        }
        known["self_signed"] = _is_self_signed(certificate)
        known["key"] = _key(certificate)
        known["names"] = _names(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        pass  # whatever was read before the fault is kept
    return TlsFacts(protocol=facts.protocol, cipher=facts.cipher, alpn=facts.alpn, **known)  # type: ignore[arg-type]


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_self_signed(certificate: x509.Certificate) -> bool:
    if certificate.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _key(certificate: x509.Certificate) -> str:
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


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    kinds = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
    return tuple(str(name.value) for name in extension.value if isinstance(name, kinds))
