"""Servers of QUIC that do not behave: floods, answers cut and changed, headers that grow."""

import asyncio
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable

import pytest

pytest.importorskip("aioquic")

from aioquic.h3.connection import H3Connection
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import HOST, dialler, run
from test_fuzz_post import EDITS, check_row, edited
from test_quic import DRAFT_29, Pages, asked, configuration, counted, telling

from engine.transports import quic
from engine.transports.dial import DialError, Dialler, DialTimeoutError, Stream
from engine.transports.quic_packets import (
    RESERVED,
    VERSION_1,
)

pytestmark = pytest.mark.real

# -- peers that do not behave


def _flood(sent: bytes) -> list[bytes]:
    return [os.urandom(1200) for _ in range(200)]


def _after_versions(reply: Callable[[bytes], Iterable[bytes]]) -> Callable[[bytes], Iterable[bytes]]:
    return lambda sent: telling(VERSION_1)(sent) if sent[1:5] == RESERVED.to_bytes(4, "big") else reply(sent)


HOSTILE: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "flood": _flood,
    "flood after versions": _after_versions(_flood),
    "echo": lambda sent: [sent],
    "echo after versions": _after_versions(lambda sent: [sent] * 50),
    "empty": lambda _: [b""],
    "empty after versions": _after_versions(lambda _: [b""] * 300),
    "versions for ever": lambda sent: telling(VERSION_1)(sent) * 100,
    "other versions then": _after_versions(telling(DRAFT_29)),
    "retry for ever": _after_versions(
        lambda sent: [b"\xf0\0\0\0\1\x08" + sent[15:23] + b"\x08" + os.urandom(8) + os.urandom(60)] * 20
    ),
    "reset": _after_versions(lambda _: [b"\x40" + os.urandom(60)] * 20),
    "short": _after_versions(lambda sent: [sent[:size] for size in range(60)]),
}


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_hostile_servers(reply: Callable[[bytes], Iterable[bytes]]) -> None:
    """Over in time, with few datagrams sent, and a row that can be written."""
    began = time.monotonic()
    result, heard = counted(reply)
    check_row(result)
    assert len(heard) < 12
    assert result.name in ("unknown", "quic")
    assert time.monotonic() - began < 30


def _integer(first: int, bits: int, value: int) -> bytes:
    """As HPACK and QPACK write one behind the leading bits of its byte."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    value, written = value - most, bytearray((first | most,))
    while value >= 128:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes((*written, value))


TABLE = _integer(0x20, 5, 4096) + _integer(0x40, 5, 1) + b"a" + _integer(0, 7, 3900) + b"x" * 3900
BOMBS = {
    "one entry of the table, again and again": (TABLE, b"\x02\0" + b"\x80" * 50_000),
    "what everybody's table has, again and again": (b"", b"\0\0\xd9" + b"\xff\x16" * 25_000),
    "no headers": (b"", b"\0\0"),
    "garbage": (b"\xff" * 100, b"\xff" * 1000),
}


@pytest.mark.parametrize(("table", "headers"), BOMBS.values(), ids=BOMBS)
def test_headers_that_grow(table: bytes, headers: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither memory nor time: what an answer unpacks to stays in proportion to what was sent."""

    def received(self: Pages, event: QuicEvent) -> None:
        if self.http is None and self._quic.tls.alpn_negotiated == "h3":
            self.http = H3Connection(self._quic)
        if getattr(event, "stream_id", None) == 0:
            if table:
                assert self.http is not None
                self._quic.send_stream_data(self.http._local_encoder_stream_id or 0, table)
            self._quic.send_stream_data(0, b"\x01" + (0x80000000 | len(headers)).to_bytes(4, "big") + headers)
            self.transmit()

    monkeypatch.setattr(Pages, "quic_event_received", received)
    tracemalloc.start()
    try:
        result = asked("h3", modules=("web",), name="quic")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    check_row(result)
    assert peak < 40_000_000


class Wire(Stream):
    """A stream whose peer is a server of aioquic's in the same process, whose datagrams arrive changed."""

    def __init__(self, dial: Dialler, edits: list[list[tuple[float, int, bytes]]]) -> None:
        super().__init__(None, dial)  # type: ignore[arg-type]
        self._server: QuicConnection | None = None
        self._edits = iter(edits)
        self._coming: list[bytes] = []

    async def _write(self, data: bytes, until: float) -> None:
        now = self._dialler.time()
        if self._server is None:
            size = data[5]
            self._server = QuicConnection(
                configuration=configuration("h3"), original_destination_connection_id=data[6 : 6 + size]
            )
        self._server.receive_datagram(data, ("client", 1), now)
        while self._server.next_event() is not None:
            pass
        sent = self._server.datagrams_to_send(now)
        self._coming += [edited(datagram, next(self._edits, [])) for datagram, _ in sent]

    async def _more(self, until: float) -> bytes:
        if not self._coming:
            raise DialTimeoutError("timed out")
        return self._coming.pop(0)


@settings(max_examples=40, deadline=None)
@given(st.lists(EDITS, max_size=6))
def test_changed_datagrams(edits: list[list[tuple[float, int, bytes]]]) -> None:
    """A handshake that comes about, or one kind of error."""

    async def test() -> None:
        dial = Dialler(HOST, 1, None, asyncio.get_running_loop().time() + 0.1)  # type: ignore[arg-type]
        talk = quic.Conversation(Wire(dial, edits), dial, (VERSION_1,), ("h3",))
        try:
            shaken = await talk.shake()
        except DialError:
            return
        assert shaken.error is not None or shaken.alpn == "h3"
        await talk.close()

    run(test())


def test_unchanged_datagrams() -> None:
    """Without this the other would say little."""

    async def test() -> None:
        dial = dialler(1)
        shaken = await quic.Conversation(Wire(dial, []), dial, (VERSION_1,), ("h3",)).shake()
        assert (shaken.version, shaken.alpn, shaken.error) == (VERSION_1, "h3", None)
        assert shaken.tls is not None

    run(test())
