"""A short conversation in QUIC, over a datagram stream of dial.py: the handshake, and one request in HTTP/3.

aioquic keeps the protocol, without sockets: retransmission, Retry, acknowledgements (without which a server that obeys
the amplification limit stops within its certificate). How many datagrams it sends and is given, and for how long, is
bounded here; no certificate is checked. Nothing is sent but to the port that was asked, whatever address the server
prefers.

Source: RFC 9000, 9001, 9114. Needs the extra `deep`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ssl import CERT_NONE
from types import MappingProxyType
from typing import NamedTuple, ParamSpec, TypeVar

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionAdapter
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamReset
from pylsqpack import Decoder

from engine.model import Json, TlsFacts
from engine.text import first_line, one_line
from engine.transports.base import LONGEST_ALPN
from engine.transports.base_http import Answer
from engine.transports.certificates import certificate_facts, der_of, with_chain
from engine.transports.dial import DialError, Dialler, DialTimeoutError, Stream
from engine.transports.quic_packets import VERSION_1, VERSION_2, parameters

SUPPORTED = (VERSION_1, VERSION_2)
RECEIVED = 128  # datagrams of a conversation
HANDSHAKE = 196_608  # bytes of one; chains of 100 kB fit
PAGE = 65_536  # bytes of what follows; a byte may stand for a header of HTTP/3
SENT = 64  # datagrams
DATA = 65536  # bytes of all streams that a server may send
RTT_S = 0.3  # taken for granted at first; what is lost is sent again after three times as long
PATIENCE_S = 2.5  # for a handshake, and again for an answer
PARAMETERS_EXTENSION = 0x39
HTTP3 = "h3"

PEER = ("", 0)  # the only address there is
_unheard = logging.getLogger("probemill.quic")  # what aioquic has to say of strangers' packets is nothing for people
_unheard.disabled = True

_Given = ParamSpec("_Given")
_T = TypeVar("_T")


class Shaken(NamedTuple):
    """What a handshake told, as far as it came. error: with which the peer, or we, ended it, and the words to it."""

    version: int = 0
    alpn: str = ""
    parameters: Mapping[str, Json] = MappingProxyType({})
    retried: bool = False
    tls: TlsFacts | None = None
    error: tuple[int, str] | None = None


class Conversation:
    """One connection: `shake` first, `close` in the end."""

    def __init__(
        self, stream: Stream, dial: Dialler, versions: Sequence[int], alpn: Sequence[str], name: str = ""
    ) -> None:
        """versions: of SUPPORTED, the best first. name: for SNI, or ""."""
        self._stream = stream
        self._dial = dial
        self._name = name
        self._events: list[QuicEvent] = []
        self._received = 0
        self._left = HANDSHAKE
        self._sent = 0
        self._over: ConnectionTerminated | None = None
        self._quic = QuicConnection(
            configuration=QuicConfiguration(
                alpn_protocols=list(alpn),
                supported_versions=list(versions),
                original_version=versions[0],
                server_name=name or None,
                verify_mode=CERT_NONE,
                initial_rtt=RTT_S,
                max_data=DATA,
                max_stream_data=DATA,
            )
        )
        self._quic._logger = QuicConnectionAdapter(_unheard, {})

    async def shake(self) -> Shaken:
        """Raises DialError where the peer is silent, refuses, or does not speak QUIC."""
        _tried(self._quic.connect, PEER, self._dial.time())
        until = self._dial.until(PATIENCE_S)
        while self._over is None and not any(isinstance(event, HandshakeCompleted) for event in self._events):
            await self._turn(until)
        tls = self._quic.tls
        extensions = dict(tls.received_extensions or ())
        known: dict[str, Json] = {}
        with suppress(ValueError):
            known = parameters(extensions.get(PARAMETERS_EXTENSION, b""))
        return Shaken(
            version=self._quic._version or 0,
            alpn=tls.alpn_negotiated or "",
            parameters=known,
            retried=self._quic._retry_count > 0,
            tls=self._facts(),
            error=(self._over.error_code, self._over.reason_phrase) if self._over else None,
        )

    async def get(self, authority: str, agent: str) -> tuple[Answer, dict[int, int]]:
        """The answer to a request in HTTP/3 for `/`, as far as it came, and the server's settings. Raises DialError."""
        h3 = _tried(_Http3, self._quic)
        self._left = PAGE
        names = (b":method", b":scheme", b":authority", b":path", b"user-agent", b"accept")
        values = ("GET", "https", authority, "/", agent, "*/*")
        number = self._quic.get_next_available_stream_id()
        headers = list(zip(names, (value.encode("ascii", "replace") for value in values), strict=True))
        _tried(h3.send_headers, number, headers, end_stream=True)
        answer, ended = Answer(), False
        until = self._dial.until(PATIENCE_S)
        with suppress(DialError):  # what came until then counts
            while not ended:
                events, self._events = self._events, []
                for event in events:
                    ended = ended or (isinstance(event, StreamReset) and event.stream_id == number)
                    for heard in _tried(h3.handle_event, event):
                        if isinstance(heard, HeadersReceived | DataReceived) and heard.stream_id == number:
                            if isinstance(heard, HeadersReceived):
                                answer = answer.with_headers(heard.headers)
                            else:
                                answer = answer.with_body(heard.data)
                            ended = ended or heard.stream_ended or answer.is_enough
                if self._over is not None:
                    break
                if not ended:
                    await self._turn(until)
        return answer, dict(h3.received_settings or {})

    async def close(self) -> None:
        """Tell a peer that has answered, which would wait otherwise. Whether it hears it is its own affair."""
        if not self._received:
            return
        with suppress(DialError):
            _tried(self._quic.close)
            await self._send()

    # -- below

    def _facts(self) -> TlsFacts | None:
        tls = self._quic.tls
        certificate = tls._peer_certificate
        if certificate is None:
            return None
        cipher = f"TLS_{tls.key_schedule.cipher_suite.name}" if tls.key_schedule else ""
        facts = TlsFacts(protocol="TLSv1.3", cipher=cipher, alpn=one_line(tls.alpn_negotiated or "", LONGEST_ALPN))
        ders = [der_of(shown) for shown in (certificate, *tls._peer_certificate_chain)]
        return with_chain(certificate_facts(ders[0], facts), ders, self._name)

    async def _turn(self, until: float) -> None:
        """Send what is due, then take in the next datagram, or what follows from there being none. Raises DialError."""
        await self._send()
        now = self._dial.time()
        if now >= until:
            raise DialTimeoutError("timed out")
        timer = self._quic.get_timer()
        wait_s = (until if timer is None else min(until, timer)) - now
        try:
            data = await self._stream.recv(timeout_s=max(wait_s, 0.001))
        except DialTimeoutError:
            now = self._dial.time()
            if timer is not None and now >= timer:
                _tried(self._quic.handle_timer, now)
        else:
            self._received += 1
            self._left -= len(data)
            if self._received > RECEIVED or self._left < 0:
                raise DialError("too much for a handshake and a page")
            _tried(self._quic.receive_datagram, data, PEER, self._dial.time())
        while (event := _tried(self._quic.next_event)) is not None:
            self._events.append(event)
            if isinstance(event, ConnectionTerminated):
                self._over = event

    async def _send(self) -> None:
        for data, address in _tried(self._quic.datagrams_to_send, self._dial.time()):
            if address != PEER:  # one that the server would prefer: nobody has asked for it to be contacted
                continue
            self._sent += 1
            if self._sent > SENT:
                raise DialError(f"more than {SENT} datagrams to send")
            await self._stream.send(data)


class _Http3(H3Connection):
    """Without a table of headers: one entry of it, named again by each byte, would grow four thousand times."""

    def _init_connection(self) -> None:
        self._max_table_capacity = self._blocked_streams = 0
        self._decoder = Decoder(self._max_table_capacity, self._blocked_streams)
        super()._init_connection()


def _tried(step: Callable[_Given, _T], *given: _Given.args, **named: _Given.kwargs) -> _T:
    """A step of aioquic's, whose every failure over a stranger's bytes is one kind of error. Raises DialError."""
    try:
        return step(*given, **named)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the certificates' reader is no Exception
        raise DialError(f"QUIC: {first_line(error)}") from error
