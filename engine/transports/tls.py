"""TLS over any stream transport, without sockets of its own: OpenSSL between two memory buffers.

The client is as tolerant as OpenSSL can be made: no certificate is checked, every protocol version and cipher the
library still has is offered, at security level 0 and with legacy renegotiation allowed, because the task is to talk to
whatever answers, not to trust it.
"""

import ssl
from collections.abc import Callable, Sequence

from engine.errors import ConfigError
from engine.transports.base import LONGEST_ALPN, MAX_OVERHEAD, Receiver, TlsError, Transport
from engine.transports.reactor import Reactor
from matcher import shown

RECORD = 16384  # bytes; TLS's largest record
FIRST = 2048  # bytes, about: of what a server says first, kept for who asks how it greets
OP_LEGACY_SERVER_CONNECT = 0x4
ALL_ALPN = 8192  # bytes of all, with one more for each: a hello that is longer than a record is understood by few


def client_context(alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A context that opens old servers too; measured against TLS 1.0 to 1.3, RSA-1024, NULL and anonymous ciphers.

    alpn: the application protocols that are offered, the best first; without them there is no such extension.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.options |= OP_LEGACY_SERVER_CONNECT
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def check_alpn(names: Sequence[str]) -> None:
    """Raises ConfigError for what is no name of an application protocol (RFC 7301), and for too many of them."""
    for name in names:
        if not name.isascii() or not name.isprintable() or not 1 <= len(name) <= LONGEST_ALPN:
            raise ConfigError(f"alpn: {shown(name) or repr(name)}: no name of an application protocol")
    if sum(map(len, names)) + len(names) > ALL_ALPN:
        raise ConfigError(f"alpn: more than {ALL_ALPN} bytes of names")


class Steps:
    """Steps of handshakes that wait for the end of a turn, so that they are done together.

    OpenSSL's part of a handshake is half a millisecond that sweeps the processor's caches. First comes all of it, then
    what follows from it in Python: 50 us less for each. Whoever has the reactor calls `take` after each of its turns.
    """

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: list[tuple[TlsTransport, float]] = []

    def add(self, transport: "TlsTransport", now: float) -> None:
        self._due.append((transport, now))

    def take(self) -> None:
        """What is due. One that raises is told so, and the others get their turn."""
        due, self._due = self._due, []
        for part in (TlsTransport.step, TlsTransport.conclude):
            for transport, now in due:
                try:
                    part(transport, now)
                except Exception as error:
                    Reactor.crash(transport, error, now)


class TlsTransport:
    """A TLS client that begins when the transport below is connected; reports `connected` after the handshake.

    open_below: makes the transport below, with this object as its receiver. name: for SNI, or "".
    """

    __slots__ = (
        "_below",
        "_due",
        "_failure",
        "_first",
        "_handshaking",
        "_incoming",
        "_object",
        "_outgoing",
        "_overhead",
        "_receiver",
        "_stepped",
        "_steps",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        receiver: Receiver,
        open_below: Callable[[Receiver], Transport],
        steps: Steps,
        name: str = "",
    ) -> None:
        self._receiver = receiver
        self._steps = steps
        self._due = False  # a step of the handshake waits for the end of the turn
        self._stepped = False  # and is half done
        self._failure: TlsError | None = None  # of the handshake
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name or None)
        except ValueError:  # a name that SNI cannot carry
            self._object = context.wrap_bio(self._incoming, self._outgoing)
        self._handshaking = True
        self._first = b""
        self._overhead = 0
        self._below: Transport | None = open_below(self)

    @property
    def session(self) -> ssl.SSLObject:
        """What was negotiated; meaningful once connected."""
        return self._object

    @property
    def first(self) -> bytes:
        """What the server said first, its ServerHello at least; there until `connected` has been told."""
        return self._first

    def send(self, data: bytes) -> None:
        try:
            self._object.write(data)
        except ssl.SSLError as error:
            raise TlsError(error.reason or str(error)) from error
        self._flush()

    def close(self) -> None:
        if self._below is not None:
            self._below.close()
            self._below = None

    # -- reports from below

    def opened(self) -> None:
        """Never told: what is below is not TLS."""

    def dialled(self, now: float) -> None:
        self._receiver.dialled(now)

    def connected(self, now: float) -> None:
        self._receiver.opened()
        self._wait(now)

    def received(self, data: bytes, now: float) -> None:
        if self._handshaking and self._overhead < FIRST:
            self._first += data[:FIRST]
        if self._handshaking and not self._due and len(data) <= RECORD and self._overhead <= MAX_OVERHEAD:
            self._incoming.write(data)
            self._overhead += len(data)
            self._wait(now)
        elif self._caught_up(now):
            self._take_in(data, now)

    def ended(self, now: float) -> None:
        if not self._caught_up(now):
            return
        self._incoming.write_eof()
        if self._handshaking:
            self._break(TlsError("connection closed during the handshake"), now)
        else:
            said: list[bytes] = []
            end = self._decrypt(said)
            self._report(said, end, now)

    def broken(self, error: OSError, now: float) -> None:
        if self._caught_up(now):
            self._break(error, now)

    def crashed(self, error: Exception, now: float) -> None:
        self.close()
        self._receiver.crashed(error, now)

    # -- a step of the handshake, in two parts

    def step(self, now: float) -> None:
        """OpenSSL's part."""
        if not self._due or self._stepped or self._below is None:
            return
        self._stepped = True
        try:
            self._object.do_handshake()
            self._handshaking = False
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, ValueError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else ""
            self._failure = TlsError(reason or str(error))

    def conclude(self, now: float) -> None:
        """What follows from it."""
        if not self._due or self._below is None:
            return
        self._due = self._stepped = False
        if self._failure is not None:
            self._break(self._failure, now)
        elif self._flush_or_break(now) and not self._handshaking:
            self._receiver.connected(now)
            self._first = b""
            if self._below is not None and self._incoming.pending:  # said in one breath with the handshake's end
                said: list[bytes] = []
                end = self._decrypt(said)
                self._report(said, end, now)

    def _wait(self, now: float) -> None:
        self._due = True
        self._steps.add(self, now)

    def _caught_up(self, now: float) -> bool:
        """Do the step that is due, before what comes after it. -> whether the connection still stands"""
        self.step(now)
        self.conclude(now)
        return self._below is not None

    # -- the layer itself

    def _take_in(self, data: bytes, now: float) -> None:
        said: list[bytes] = []
        for at in range(0, len(data), RECORD):
            if self._overhead > MAX_OVERHEAD:
                self._report(said, TlsError(f"more than {MAX_OVERHEAD} bytes that are no data"), now)
                return
            piece = data[at : at + RECORD]
            self._incoming.write(piece)
            self._overhead += len(piece)
            if self._handshaking:
                self._due = True
                if not self._caught_up(now):
                    return
            elif (end := self._decrypt(said)) is not None:
                self._report(said, end, now)
                return
        self._report(said, None, now)

    def _decrypt(self, said: list[bytes]) -> TlsError | EOFError | None:
        """Add to `said` what can be read now. -> why no more will come, if so"""
        while True:
            try:
                chunk = self._object.read(RECORD)
            except ssl.SSLWantReadError:
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return EOFError()
            except ssl.SSLError as error:
                return TlsError(error.reason or str(error))
            if not chunk:
                return EOFError()
            said.append(chunk)
            self._overhead -= len(chunk)

    def _report(self, said: list[bytes], end: TlsError | EOFError | None, now: float) -> None:
        if not self._flush_or_break(now):
            return
        if said:
            self._receiver.received(b"".join(said), now)
            if self._below is None:
                return
        if isinstance(end, TlsError):
            self._break(end, now)
        elif end is not None:
            self._receiver.ended(now)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._below is not None:
            self._below.send(data)

    def _flush_or_break(self, now: float) -> bool:
        try:
            self._flush()
        except OSError as error:
            self._break(error, now)
            return False
        return True

    def _break(self, error: OSError, now: float) -> None:
        self.close()
        self._receiver.broken(error, now)
