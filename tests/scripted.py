"""Scripted servers on loopback: the cases' other side, with real sockets.

    with serve(cases) as servers:
        ... scan servers["B-01"].host and .port ...
        servers["B-01"].sent

Every case gets a server of its own, on a port that no services table knows, or on the registered port that the case
asks for at another 127.x address. Connections are counted and played in the order in which they are accepted, each in
a thread: nothing here is fast, and everything is plain.
"""

import itertools
import os
import random
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cases import Case
from cases.script import HalfClose, Hang, Read, Request, Sleep, StartTls, Write, play

UNREGISTERED = range(61_000, 65_400)  # above the ports that Linux gives to clients, so that no connection sits there
HANDSHAKE_S = 15.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER 1,0
TLS_HANDSHAKE_RECORD = b"\x16\x03"
DTLS_HANDSHAKE_RECORD = b"\x16\xfe"
# Addresses of this process: other test processes play the same ports at the same time, and some close theirs.
LOOPBACK_HOSTS = tuple(f"127.9.{os.getpid() % 250 + 1}.{last}" for last in range(1, 33))


@cache
def pem() -> bytes:
    """A key and its certificate, made for the occasion."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scripted.test")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("scripted.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)


@cache
def tls_context(*alpn: str) -> ssl.SSLContext:
    """A server context; alpn: the application protocols it agrees to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(pem())
        context.load_cert_chain(path)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def _bind(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket bound to `port` on some loopback address, or to any unregistered port where it is 0."""
    places = (
        zip(LOOPBACK_HOSTS, itertools.repeat(port))
        if port
        else ((LOOPBACK_HOSTS[0], one) for one in random.sample(UNREGISTERED, 200))
    )
    for place in places:
        sock = socket.socket(socket.AF_INET, kind)
        try:
            if port and kind is socket.SOCK_STREAM:  # connections of an earlier run may still linger there
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
        except OSError:
            sock.close()
        else:
            return sock
    raise OSError(f"no loopback address has port {port or UNREGISTERED} free")


class ScriptedServer:
    """The server of one case. sent: what it received so far, by connection (udp: by datagram, but for DTLS's)."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._received: list[bytes] = []
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = _bind(socket.SOCK_STREAM if case.proto == "tcp" else socket.SOCK_DGRAM, case.port)
        self.host, self.port = self._listener.getsockname()
        if case.closes_after == 0:
            if case.proto == "udp":
                self._listener.close()  # a bound TCP socket refuses, a bound UDP socket would not
        elif case.proto == "tcp":
            self._listener.listen(16)
            self._spawn(self._accept)
        else:
            self._spawn(self._serve_datagrams)

    @property
    def sent(self) -> list[bytes]:
        if self.case.proto == "udp":
            return [data for data in self._received if not data.startswith(DTLS_HANDSHAKE_RECORD)]
        return [b"" if data.startswith(TLS_HANDSHAKE_RECORD) else data for data in self._received]

    def close(self) -> None:
        self._stopping.set()
        for sock in (self._listener, *tuple(self._open)):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
        for thread in self._threads:
            thread.join(HANDSHAKE_S)
        self._listener.close()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    # -- TCP

    def _accept(self) -> None:
        for index in itertools.count():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if index + 1 == self.case.closes_after:
                self._listener.close()
            self._received.append(b"")
            self._spawn(self._serve_stream, sock, index)
            if index + 1 == self.case.closes_after:
                return

    def _serve_stream(self, sock: socket.socket, index: int) -> None:
        script = play(self.case.server[min(index, len(self.case.server) - 1)])
        self._open.add(sock)
        try:
            request = next(script)
            while not self._stopping.is_set():
                if isinstance(request, StartTls):
                    self._open.discard(sock)
                    sock.settimeout(HANDSHAKE_S)
                    sock = tls_context().wrap_socket(sock, server_side=True)
                    self._open.add(sock)
                    answer = b"shaken"
                else:
                    answer = self._obey(request, sock)
                    self._received[index] += answer
                request = script.send(answer)
        except (OSError, StopIteration):
            pass  # the peer has left, or the script is over
        finally:
            self._open.discard(sock)
            sock.close()

    def _obey(self, request: Request, sock: socket.socket) -> bytes:
        match request:
            case Write(data):
                sock.settimeout(None)
                sock.sendall(data)
            case Sleep(seconds):
                self._stopping.wait(seconds)
            case Read(seconds):
                sock.settimeout(seconds)
                with suppress(TimeoutError):
                    return sock.recv(65536)
            case HalfClose():
                sock.shutdown(socket.SHUT_WR)
            case Hang(reset):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                sock.close()
        return b""

    # -- UDP

    def _serve_datagrams(self) -> None:
        script = play(self.case.server[0])
        peer: tuple[str, int] | None = None
        request = next(script)
        with suppress(OSError, StopIteration):
            while not self._stopping.is_set():
                answer = b""
                if isinstance(request, Write) and peer is not None:
                    self._listener.sendto(request.data, peer)
                elif isinstance(request, Read):
                    answer, peer = self._listener.recvfrom(65536)
                    if not answer:
                        continue  # not what a script waits for, or the socket is shut down
                    self._received.append(answer)
                    if len(self._received) == self.case.closes_after:
                        break
                request = script.send(answer)
        self._listener.close()


@contextmanager
def serve(cases: Iterable[Case]) -> Iterator[dict[str, ScriptedServer]]:
    """A running server per case, by the case's id."""
    with ExitStack() as stack:
        servers = {}
        for case in cases:
            servers[case.id] = server = ScriptedServer(case)
            stack.callback(server.close)
        yield servers
