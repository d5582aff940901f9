"""Certificates as no honest authority writes them, and servers that show them."""

import base64
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey
VERSION_3 = bytes.fromhex("a003020102")  # [0] INTEGER 2, which is how version 3 is written


def certificate(
    key: Key,
    *,
    name: str = "strange.test",
    names: Sequence[x509.GeneralName] = (),
    extensions: Sequence[x509.ExtensionType] = (),
    issuer: str = "",
    signer: Key | None = None,
    days: int = 30,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    """DER, signed with its own key, or by an `issuer` with the key of a `signer`; valid for `days` of 2026."""
    today = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(
        issuer_name=_named(issuer or name),
        subject_name=_named(name),
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=today,
        not_valid_after=today + timedelta(days=days),
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = signer or key
    signing = None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(signer, signing).public_bytes(serialization.Encoding.DER)


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Ünïcode, Inc."),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
        ]
    )


def of_version(der: bytes, version: int) -> bytes:
    """The certificate with another version number; its signature is none any more."""
    assert VERSION_3 in der
    return der.replace(VERSION_3, VERSION_3[:-1] + bytes((version - 1,)), 1)


def context_with(key: Key, *chain: bytes) -> ssl.SSLContext:
    """A server's, that shows these certificates, its own first."""
    pem = b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n" for der in chain
    )
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context
