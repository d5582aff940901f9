"""HTTP/2 and ALPN: what is offered, what is chosen, how servers begin and answer; real ones, and hostile ones."""

import asyncio
import ssl
import struct
from asyncio import StreamReader, StreamWriter
from typing import Any

import pytest

pytest.importorskip("h2")

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import HOST, dialler, row, run, tcp_peer
from scripted import tls_context
from test_fuzz_post import check_row

from engine.model import ServiceResult, TlsFacts, Tunnel, Verdict
from engine.post import PostProcessing
from engine.transports.h2_dialogue import EVENTS, LIMIT, Conversation
from engine.transports.h2_frames import Opening, opening


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


NGINX = frame(4, 0, 0, bytes.fromhex("000300000080 000400010000 000500ffffff")) + frame(
    8, 0, 0, b"\x7f\xff\0\0"
)  # as nginx 1.22 sends them
UNKNOWN = row("unknown", 1, verdict=Verdict.NOMATCH)


# -- frames


def test_how_a_server_begins() -> None:
    began = opening(NGINX + frame(7, 0, 0, bytes(7) + b"\x01no preface"))
    assert began == Opening(((3, 128), (4, 65536), (5, 16777215)), 2147418112, (), (1, b"no preface"))
    assert began.fingerprint() == "3:128;4:65536;5:16777215|2147418112|0"


def test_the_fingerprint_has_akamais_form() -> None:
    """Numbers in wire order, `00` where the window stays, `0` where no priorities are sent, weights from 1 to 256."""
    priorities = frame(2, 0, 3, b"\x80\0\0\x01\xc8") + frame(2, 0, 5, b"\0\0\0\0\x64")
    settings_frame = frame(4, 0, 0, bytes.fromhex("000600000001 000100001000"))
    assert opening(settings_frame).fingerprint() == "6:1;1:4096|00|0"  # type: ignore[union-attr]
    assert opening(settings_frame + priorities).fingerprint() == "6:1;1:4096|00|3:1:1:201,5:0:0:101"  # type: ignore[union-attr]
    assert opening(frame(4, 0, 0)).fingerprint() == "|00|0"  # type: ignore[union-attr]


def test_a_published_fingerprint() -> None:
    """What is widely told of Firefox, less the order of its headers, from the frames that Firefox sends."""
    said = frame(4, 0, 0, struct.pack(">HIHIHI", 1, 65536, 4, 131072, 5, 16384))
    said += frame(8, 0, 0, struct.pack(">I", 12517377))
    for stream, dependency, weight in ((3, 0, 201), (5, 0, 101), (7, 0, 1), (9, 7, 1), (11, 3, 1), (13, 0, 241)):
        said += frame(2, 0, stream, struct.pack(">IB", dependency, weight - 1))
    began = opening(said + frame(1, 5, 15, b"\x82"))
    assert began is not None
    assert began.fingerprint() == (
        "1:65536;4:131072;5:16384|12517377|3:0:0:201,5:0:0:101,7:0:0:1,9:0:7:1,11:0:3:1,13:0:0:241"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(40),
        NGINX[:20],
        frame(4, 1, 0),  # an acknowledgement
        frame(4, 0, 1),
        frame(4, 0, 0, bytes(5)),
        frame(4, 0, 0, bytes(6 * 33)),
        b"\xff\xff\xff\x04\0\0\0\0\0" + bytes(100),
        frame(7, 0, 0, bytes(8)),
    ],
)
def test_what_is_no_beginning(data: bytes) -> None:
    assert opening(data) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read(data: bytes, begun: bool) -> None:
    began = opening(NGINX * begun + data)
    assert began is not None or not begun
    if began is not None:
        assert began.fingerprint().count("|") == 2


# -- peers


async def speak(
    reader: StreamReader, writer: StreamWriter, *, headers: tuple[tuple[str, str], ...] = (), grpc: bool = False
) -> None:
    """A server of nothing but HTTP/2."""
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    while data := await reader.read(4096):
        try:
            events = connection.receive_data(data)
        except Exception:
            writer.write(connection.data_to_send())
            return
        for event in events:
            if not isinstance(event, RequestReceived):
                continue
            path = dict(event.headers)[":path"]
            if not grpc:
                connection.send_headers(event.stream_id, [(":status", "200"), *headers])
                connection.send_data(event.stream_id, b"<title>A page</title>", end_stream=True)
            elif path == "/":
                connection.reset_stream(event.stream_id, 8)
            else:
                trailers = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")]
                connection.send_headers(event.stream_id, trailers, end_stream=True)
        writer.write(connection.data_to_send())


async def page(reader: StreamReader, writer: StreamWriter) -> None:
    await speak(reader, writer, headers=(("server", "Own/2"), ("server", "second")))


async def nameless(reader: StreamReader, writer: StreamWriter) -> None:
    await speak(reader, writer)


async def grpc_only(reader: StreamReader, writer: StreamWriter) -> None:
    await speak(reader, writer, grpc=True)


def asked(talk: Any, known: ServiceResult, tls: ssl.SSLContext | None = None, **options: Any) -> ServiceResult:
    async def test() -> ServiceResult:
        async with tcp_peer(talk, tls) as port:
            modules = PostProcessing(("http2",))
            return await modules.enrich(known, b"", dialler(port, **options))

    return run(test())


def test_prior_knowledge_in_the_clear() -> None:
    result = asked(page, UNKNOWN)
    assert (result.name, result.product, result.extrainfo, result.verdict) == (
        "http",
        "Own/2",
        "HTTP/2",
        Verdict.HARDMATCHED,
    )
    assert result.post is not None
    facts = result.post["http2"]
    assert (facts["status"], facts["server"], facts["title"]) == (200, "Own/2", "A page")
    assert facts["settings"]["max_concurrent_streams"] == 100
    assert result.connections == 1


def test_who_speaks_only_http2_is_not_asked_for_a_page_in_another() -> None:
    """The module's own request has told what `web` would."""

    async def test() -> ServiceResult:
        async with tcp_peer(page) as port:
            return await PostProcessing(("http2", "web")).enrich(UNKNOWN, b"", dialler(port))

    assert run(test()).connections == 1


def test_a_server_without_a_name_is_known_by_how_it_begins() -> None:
    assert asked(nameless, UNKNOWN).product == "Python h2"


def test_grpc_is_called_by_its_name() -> None:
    result = asked(grpc_only, UNKNOWN)
    assert (result.name, result.product, result.conf) == ("grpc", "Python h2", 10)
    assert result.post is not None
    assert result.post["http2"]["grpc_status"] == 12
    assert result.connections == 1


@pytest.mark.parametrize(("talk", "named"), [(page, ("http", "Own/2")), (grpc_only, ("grpc", "Python h2"))])
def test_a_match_that_says_http2_alone_is_named_further(talk: Any, named: tuple[str, str]) -> None:
    result = asked(talk, row("http2", 1, extrainfo="HTTP/2 without upgrade"))
    assert (result.name, result.product, result.extrainfo) == (*named, "HTTP/2")


def test_h2_chosen_inside_tls() -> None:
    """The row keeps its name and product, and says what was agreed upon."""
    known = row("http", 1, tunnel=Tunnel.SSL, product="Known", tls=TlsFacts(protocol="TLSv1.3", sha256="ab"))
    result = asked(page, known, tls_context("h2", "http/1.1"))
    assert (result.name, result.product, result.extrainfo) == ("http", "Known", "")
    assert result.tls == TlsFacts(protocol="TLSv1.3", sha256="ab", alpn="h2")
    assert result.post is not None
    assert result.post["alpn"] == {"offered": ["h2", "http/1.1"], "chosen": "h2"}
    assert result.post["http2"]["server"] == "Own/2"
    assert result.connections == 1


@pytest.mark.parametrize("names", [("http/1.1",), ()])
def test_nothing_is_asked_where_h2_was_not_chosen(names: tuple[str, ...]) -> None:
    heard = []

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        heard.append(await reader.read())

    known = row("http", 1, tunnel=Tunnel.SSL)
    result = asked(talk, known, tls_context(*names))
    assert result.post is not None
    assert result.post["alpn"].get("chosen", "") == "".join(names)
    assert set(result.post) == {"alpn"}
    assert result.tls is not None
    assert result.tls.alpn == "".join(names)
    assert heard in ([b""], [])


def test_a_service_agrees_to_its_own_protocol() -> None:
    result = asked(nameless, row("imap", 1, tunnel=Tunnel.SSL), tls_context("imap"))
    assert result.tls is not None
    assert (result.name, result.tls.alpn) == ("imap", "imap")


def test_a_port_that_is_silent_without_alpn_is_asked_inside_tls() -> None:
    result = asked(page, UNKNOWN, tls_context("h2"))
    assert (result.name, result.tunnel, result.product) == ("http", Tunnel.SSL, "Own/2")
    assert result.tls is not None
    assert result.tls.subject == "CN=scripted.test"


# -- peers that do not behave

BEGUN = frame(4, 0, 0)
LITERAL = b"\0\x01a\x7f\x80\x01" + b"x" * 255  # a header of 255 bytes, not compressed
HUGE = b"\x40\x01a\x7f\xe0\x1e" + b"x" * 3999  # put into the table, then named again and again by one byte each
HOSTILE: dict[str, bytes] = {
    "settings without end": frame(4, 0, 0, b"\0\x03\0\0\0\x64") * 50_000,
    "empty settings": BEGUN * 100_000,
    "pings": BEGUN + frame(6, 0, 0, bytes(8)) * 50_000,
    "continuations": BEGUN + frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 100_000,
    "headers that grow": BEGUN + frame(1, 4, 1, b"\x88" + HUGE + b"\xbe" * 12_000),
    "headers without end": BEGUN + frame(1, 0, 1, LITERAL * 60) + frame(9, 0, 1, LITERAL * 60) * 50,
    "pages without end": BEGUN + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"x" * 16_000) * 60,
    "empty pages": BEGUN + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"") * 100_000,
    "unknown frames": BEGUN + frame(0x50, 0, 0, b"") * 100_000,
    "windows": BEGUN + frame(8, 0, 0, b"\0\0\0\x01") * 100_000,
    "pushes": BEGUN + frame(5, 4, 1, b"\0\0\0\x02\x82") * 100,
    "resets": BEGUN + frame(3, 0, 1, bytes(4)) * 1000,
    "a long frame": BEGUN + b"\xff\xff\xff\x00\0\0\0\0\x01" + bytes(100_000),
    "goodbye": BEGUN + frame(7, 0, 0, bytes(8) + b"x" * 10_000),
    "no http2": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "half a frame": BEGUN + b"\0\0\x10\x01",
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_hostile_servers(said: bytes) -> None:
    """Over soon, with no more bytes and frames looked at than allowed, and a row that can be written."""
    looked_at = []

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        await asyncio.sleep(60)

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            dial = dialler(port, 0.6)
            with await dial.open("tcp") as stream:
                conversation = Conversation(stream)
                looked_at.append(conversation)
                if said.startswith(BEGUN[:3]):
                    answer = await conversation.request(
                        [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", HOST)]
                    )
                    assert sum(len(value) for value in answer.headers.values()) <= 16384
            return await PostProcessing(("http2",)).enrich(UNKNOWN, b"", dialler(port, 0.6))

    check_row(run(test()))
    assert looked_at[0]._left >= 0
    assert LIMIT - looked_at[0]._left <= LIMIT
    assert looked_at[0]._events <= EVENTS + 1024 // 9
