"""A loopback farm of web servers inside TLS: `python -m bench.tls_farm PORT [CERTIFICATES]`.

It ends when its standard input does. With more than one certificate the addresses show them in turn.
"""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parent.parent
AUTHORITIES = 8  # that have signed all certificates: those that servers show beside their own are few
PAGE = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nhi\n"


@contextlib.contextmanager
def tls_farm(port: int, certificates: int = 1) -> Iterator[None]:
    """The farm in a process of its own, as long as the block."""
    command = [sys.executable, "-m", "bench.tls_farm", str(port), str(certificates)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()
            process.wait()


@lru_cache
def authority(number: int) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """One that signs certificates: its key, and its own certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {number}")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, today, today + timedelta(days=90))
    return key, builder.sign(key, hashes.SHA256())


def chain(number: int) -> bytes:
    """PEM of a key, its certificate with a few names, and the authority that signed it: what a web server shows."""
    signer, signed = authority(number % AUTHORITIES)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www.example")])
    today = datetime.now(UTC)
    shown = [x509.DNSName(f"{label}.example") for label in ("www", "mail", "static", "api")]
    builder = x509.CertificateBuilder(signed.subject, name, key.public_key(), 7, today, today + timedelta(days=90))
    builder = builder.add_extension(x509.SubjectAlternativeName(shown), critical=False)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for certificate in (builder.sign(signer, hashes.SHA256()), signed):
        pem += certificate.public_bytes(serialization.Encoding.PEM)
    return pem


class TlsService(asyncio.Protocol):
    """HTTP in TLS. Unlike asyncio's own layer it tells a client by an alert what it does not like, as servers do."""

    def __init__(self, contexts: Sequence[ssl.SSLContext]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._contexts = contexts
        self._shaken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        address = int.from_bytes(socket.inet_aton(transport.get_extra_info("sockname")[0]))
        context = self._contexts[address % len(self._contexts)]
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        over = False
        try:
            if not self._shaken:
                self._session.do_handshake()
                self._shaken = True
            if self._session.read(4096):
                self._session.write(PAGE)
                over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            over = True
        self._transport.write(self._outgoing.read())
        if over:
            self._transport.close()


def server_context(number: int) -> ssl.SSLContext:
    """With a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(chain(number))
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def serve(port: int, certificates: int = 1) -> None:
    """On every address, until standard input ends."""
    contexts = [server_context(number) for number in range(certificates)]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    listener.bind(("", port))
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: TlsService(contexts), sock=listener, backlog=4096)
    print(port, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
