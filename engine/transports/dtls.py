"""DTLS over UDP, without sockets of its own: pyOpenSSL between two memory buffers, Python's `ssl` having no DTLS.

Memory buffers know no datagrams. What comes in is given to OpenSSL one datagram at a time; what goes out is cut again
where its records begin. Datagrams get lost: OpenSSL says when a flight is to be sent once more, and the reactor's
deadlines wait for that. Whatever is no record of this conversation is passed over without a word, as RFC 6347 (4.1.2.7)
wants it, so a handshake has an end only by the receiver's deadline, by bytes (MAX_OVERHEAD) or by MAX_FLIGHTS.

The client is as tolerant as that of tls.py, and says goodbye: many servers talk with one client at a time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from struct import Struct
from typing import Literal

from OpenSSL import SSL, crypto

from engine.transports.base import MAX_OVERHEAD, Receiver, TlsError, Transport
from engine.transports.reactor import Reactor, Timed

MTU = 1200  # bytes of a datagram of ours during the handshake; goes through any tunnel
MAX_FLIGHTS = 24  # sent in one handshake: three are needed with a cookie, and OpenSSL repeats each a few times
MAX_NAME = 255  # characters of an SNI
RECORD = 16384  # bytes of data in a record, at most
FLIGHT = 1 << 15  # bytes; no flight of ours, and no record, is longer
HEADER = Struct(">B10xH")  # of a record: content type; version, epoch and number; bytes that follow (RFC 6347, 4.1)


@cache
def client_context() -> SSL.Context:
    """A context that opens old servers too: DTLS 1.0 and 1.2, every cipher the library has, no certificate checked."""
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION | SSL.OP_LEGACY_SERVER_CONNECT)
    return context


def datagrams(records: bytes, mtu: int = MTU) -> Iterator[bytes]:
    """The records of a flight, as many in a datagram as fit; a longer one goes alone."""
    begin = at = 0
    while at < len(records):
        whole = len(records) - at < HEADER.size
        size = len(records) - at if whole else HEADER.size + HEADER.unpack_from(records, at)[1]
        if at > begin and at + size - begin > mtu:
            yield records[begin:at]
            begin = at
        at += size
    if records:
        yield records[begin:]


class DtlsSession:
    """What the handshake has settled, in the words of `ssl.SSLObject`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def version(self) -> str | None:
        return self._connection.get_protocol_version_name()

    def cipher(self) -> tuple[str, str, int] | None:
        connection = self._connection
        name = connection.get_cipher_name()
        if name is None:
            return None
        return name, connection.get_cipher_version() or "", connection.get_cipher_bits() or 0

    def selected_alpn_protocol(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode("latin-1") or None

    def getpeercert(self, binary_form: Literal[True]) -> bytes | None:
        certificate = self._connection.get_peer_certificate()
        return None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    def get_unverified_chain(self) -> list[bytes]:
        chain = self._connection.get_peer_cert_chain() or []
        return [crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain]


class DtlsTransport:
    """A DTLS client; reports `connected` after the handshake, which its construction begins. Raises OSError there.

    open_below: makes the transport below, with this object as its receiver. name: for SNI, or "".
    """

    __slots__ = (
        "_below",
        "_connection",
        "_flights",
        "_handshaking",
        "_overhead",
        "_reactor",
        "_receiver",
        "deadline",
        "slot",
    )

    def __init__(
        self, reactor: Reactor, receiver: Receiver, open_below: Callable[[Receiver], Transport], name: str = ""
    ) -> None:
        self.deadline = 0.0
        self.slot: set[Timed] | None = None
        self._reactor = reactor
        self._receiver = receiver
        self._connection = SSL.Connection(client_context(), None)
        self._connection.set_ciphertext_mtu(MTU)
        self._connection.set_connect_state()
        if name.isascii() and 0 < len(name) <= MAX_NAME:
            self._connection.set_tlsext_host_name(name.encode())
        self._handshaking = True
        self._flights = 0
        self._overhead = 0
        self._below: Transport | None = open_below(self)
        try:
            self._shake(time.monotonic())
        except OSError:
            self.close()
            raise

    @property
    def session(self) -> DtlsSession:
        """What was negotiated; meaningful once connected."""
        return DtlsSession(self._connection)

    @property
    def first(self) -> bytes:
        """Not kept: fingerprints are of TLS."""
        return b""

    def send(self, data: bytes) -> None:
        try:
            self._connection.send(data)
        except SSL.Error as error:
            raise TlsError(_reason(error)) from error
        self._flush()

    def close(self) -> None:
        below, self._below = self._below, None
        if below is None:
            return
        Reactor.disarm(self)
        with suppress(OSError, SSL.Error):
            if not self._handshaking:
                self._connection.shutdown()
        with suppress(OSError, SSL.Error):  # the goodbye, or why we leave
            for datagram in datagrams(self._connection.bio_read(FLIGHT)):
                below.send(datagram)
        below.close()

    # -- reports from below

    def opened(self) -> None:
        """Never told: what is below is not TLS."""

    def dialled(self, now: float) -> None:
        """Never told: no proxy carries UDP."""

    def connected(self, now: float) -> None:
        """Never told: a UDP conversation is ready at once."""

    def received(self, data: bytes, now: float) -> None:
        self._overhead += len(data)
        shaken = False
        try:
            if self._overhead > MAX_OVERHEAD:
                raise TlsError(f"more than {MAX_OVERHEAD} bytes that are no data")
            self._connection.bio_write(data)
            if self._handshaking:
                self._shake(now)
                shaken = not self._handshaking
        except OSError as error:
            self._break(error, now)
            return
        if shaken:
            self._receiver.connected(now)
        if not self._handshaking:
            self._decrypt(now)

    def ended(self, now: float) -> None:
        """An empty datagram, which is no end in here."""

    def broken(self, error: OSError, now: float) -> None:
        self._break(error, now)

    def crashed(self, error: Exception, now: float) -> None:
        self.close()
        self._receiver.crashed(error, now)

    # -- reports of the reactor

    def expired(self, now: float) -> None:
        """Nothing has come for so long: once more."""
        try:
            self._connection.DTLSv1_handle_timeout()
            self._flush()
            self._wait(now)
        except SSL.Error as error:
            self._break(TlsError(_reason(error)), now)
        except OSError as error:
            self._break(error, now)

    def put_off(self, pause_s: float) -> None:
        self.deadline += pause_s

    # -- the layer itself

    def _shake(self, now: float) -> None:
        """A step of the handshake. Raises OSError."""
        try:
            self._connection.do_handshake()
            self._handshaking = False
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            raise TlsError(_reason(error)) from error
        self._flush()
        self._wait(now)

    def _wait(self, now: float) -> None:
        left_s = self._connection.DTLSv1_get_timeout() if self._handshaking else None
        if left_s is None:
            Reactor.disarm(self)
        else:
            self.deadline = now + left_s
            self._reactor.arm(self)

    def _flush(self) -> None:
        """Send what OpenSSL has to say. Raises OSError."""
        try:
            records = self._connection.bio_read(FLIGHT)
        except SSL.WantReadError:
            return
        self._flights += self._handshaking
        if self._flights > MAX_FLIGHTS:
            raise TlsError(f"more than {MAX_FLIGHTS} flights in a handshake")
        for datagram in datagrams(records):
            if self._below is not None:
                self._below.send(datagram)

    def _decrypt(self, now: float) -> None:
        """Report the data of each record that a datagram held."""
        while self._below is not None:
            try:
                data = self._connection.recv(RECORD)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._receiver.ended(now)
                break
            except SSL.Error as error:
                self._break(TlsError(_reason(error)), now)
                break
            self._overhead -= len(data)
            if data:
                self._receiver.received(data, now)
        with suppress(OSError, SSL.Error):
            self._flush()

    def _break(self, error: OSError, now: float) -> None:
        self.close()
        self._receiver.broken(error, now)


def _reason(error: SSL.Error) -> str:
    """OpenSSL's own words for it."""
    queue = error.args[0] if error.args else ()
    return str(queue[-1][-1]) if isinstance(queue, list) and queue else str(error) or type(error).__name__
