"""Servers of UDP services that speak DTLS, on loopback: pyOpenSSL's, with what goes wrong on the way.

    with DtlsServer() as server:
        scan the server.port of HOST
        server.heard

`DATABASE` has the probes for such a server: in the open it says what it wants, in DTLS it is asked and answers.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import TracebackType

from certificates import certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from engine.transports.dtls import datagrams

HOST = "127.0.0.1"
DTLS_1_0 = 0xFEFF
LARGEST = 65536
TURN_S = 0.05  # how long to wait for a datagram before looking who has to be sent something again
CONTENT = range(20, 64)  # first bytes of DTLS
DATABASE = rb"""Probe UDP Hello q|HELLO?|
rarity 1
totalwaitms 400
match dtls m|^DTLS PLEASE|
match dtls m|^\x16\xfe|
Probe UDP Open q|OPEN|
rarity 1
totalwaitms 400
ports 1-65535
match open m|^OPENED|
Probe UDP Ask q|ASK\r\n|
rarity 9
totalwaitms 400
sslports 1-65535
match asked m|^ASKED ([\d.]+)| p/Asked/ v/$1/
"""


@cache
def credentials() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, x509.load_der_x509_certificate(certificate(key, name="dtls.test"))


def certificate_sha256() -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return hashlib.sha256(credentials()[1].public_bytes(Encoding.DER)).hexdigest()


def server_session(
    *, cookies: bool = False, oldest: bool = False, anonymous: bool = False, chain: int = 0
) -> SSL.Connection:
    """One client's session at a server, between memory buffers.

    oldest: DTLS 1.0 is all it knows. anonymous: it has no certificate. chain: it shows so many more.
    """
    context = SSL.Context(SSL.DTLS_METHOD)
    key, shown = credentials()
    if not anonymous:
        context.use_privatekey(key)
        context.use_certificate(shown)
    for _ in range(chain):
        context.add_extra_chain_cert(shown)
    context.set_cipher_list(b"AECDH-AES128-SHA:@SECLEVEL=0" if anonymous else b"ALL:@SECLEVEL=0")
    context.set_options(SSL.OP_NO_QUERY_MTU)
    if oldest:
        context.set_max_proto_version(DTLS_1_0)
    if cookies:
        context.set_options(SSL.OP_COOKIE_EXCHANGE)
        context.set_cookie_generate_callback(lambda session: b"cookie")
        context.set_cookie_verify_callback(lambda session, cookie: cookie == b"cookie")
    session = SSL.Connection(context, None)
    session.set_ciphertext_mtu(1400)
    session.set_accept_state()
    return session


def flight(session: SSL.Connection) -> bytes:
    """What it has to send now."""
    said = b""
    with suppress(SSL.WantReadError):
        while True:
            said += session.bio_read(LARGEST)
    return said


class UdpServer:
    """A thread that answers datagrams. arrived: what came, from whom, when. answers: so many, then it closes."""

    def __init__(self, answer: Callable[[bytes], list[bytes]] = lambda datagram: []) -> None:
        self.answers = 1 << 30
        self.arrived: list[tuple[tuple[str, int], bytes, float]] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._socket.settimeout(TURN_S)
        self.port: int = self._socket.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "UdpServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def hellos(self) -> list[tuple[str, int]]:
        """From where the DTLS came, one entry a datagram."""
        return [peer for peer, datagram, _ in self.arrived if datagram[0] in CONTENT]

    def hear(self, datagram: bytes, peer: tuple[str, int]) -> None:
        for said in self._answer(datagram):
            self.send(said, peer)

    def send(self, datagram: bytes, peer: tuple[str, int]) -> None:
        self._socket.sendto(datagram, peer)

    def rest(self) -> None:
        """A turn without a datagram."""

    def _serve(self) -> None:
        while len(self.arrived) < self.answers:
            try:
                datagram, peer = self._socket.recvfrom(LARGEST)
            except OSError:
                if self._over.is_set():  # and everything that came has been heard
                    break
                self.rest()
                continue
            self.arrived.append((peer, datagram, time.monotonic()))
            self.hear(datagram, peer)
        self._socket.close()


class DtlsServer(UdpServer):
    """heard: what clients have said inside. lost: so many datagrams of DTLS, each way, never arrive."""

    def __init__(
        self,
        answer: Callable[[bytes], list[bytes]] = lambda said: [b"ASKED 2.0\r\n"],
        *,
        cookies: bool = False,
        oldest: bool = False,
        lost: int = 0,
    ) -> None:
        super().__init__()
        self.heard: list[bytes] = []
        self.farewells = 0
        self._reply = answer
        self._cookies = cookies
        self._oldest = oldest
        self._lost_in = self._lost_out = lost
        self._sessions: dict[tuple[str, int], SSL.Connection] = {}

    def hear(self, datagram: bytes, peer: tuple[str, int]) -> None:
        if datagram[0] not in CONTENT:
            self.send(b"DTLS PLEASE", peer)
            return
        if self._lost_in:
            self._lost_in -= 1
            return
        session = self._sessions.get(peer)
        if session is None:
            session = self._sessions[peer] = server_session(cookies=self._cookies, oldest=self._oldest)
        session.bio_write(datagram)
        try:
            session.do_handshake()
            while True:
                said = session.recv(LARGEST)
                self.heard.append(said)
                for answer in self._reply(said):
                    session.send(answer)
        except SSL.ZeroReturnError:
            self.farewells += 1
            del self._sessions[peer]
        except SSL.Error:
            pass
        self._flush(session, peer)

    def rest(self) -> None:
        for peer, session in self._sessions.items():
            with suppress(SSL.Error):
                session.DTLSv1_handle_timeout()
                self._flush(session, peer)

    def _flush(self, session: SSL.Connection, peer: tuple[str, int]) -> None:
        if said := flight(session):
            if self._lost_out:
                self._lost_out -= 1
            else:
                for datagram in datagrams(said):
                    self.send(datagram, peer)
