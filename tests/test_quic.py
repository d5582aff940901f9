"""QUIC: versions, handshake, certificate, parameters and HTTP/3, of real servers; and of those that do not behave."""

import asyncio
import hashlib
import os
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aioquic")

from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent
from certificates import certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from h2_daemons import daemon
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import HOST, dialler, enriched, row, run, udp_peer
from scripted import pem
from test_fuzz_post import EDITS, check_row, edited

from engine.api import scan
from engine.model import ScanConfig, ServiceResult, Verdict
from engine.post import DEFAULT, PostProcessing
from engine.post.quic import ATTEMPTS
from engine.transports import quic
from engine.transports.dial import DialError, Dialler, DialTimeoutError, Stream
from engine.transports.quic_packets import (
    DATAGRAM,
    RESERVED,
    VERSION_1,
    VERSION_2,
    offered_versions,
    parameters,
    version_name,
    version_query,
)

DRAFT_29 = 0xFF00001D
TO, FROM = b"12345678", b"abcdefgh"


def answer(versions: Iterable[int], *, source: bytes = FROM, destination: bytes = TO) -> bytes:
    """What a server says of its versions."""
    head = bytes((len(source),)) + source + bytes((len(destination),)) + destination
    return b"\xca" + bytes(4) + head + b"".join(version.to_bytes(4, "big") for version in versions)


# -- packets


def test_the_query_is_a_first_packet_in_a_version_that_nobody_has() -> None:
    query = version_query(TO, FROM)
    assert len(query) == DATAGRAM == 1200
    assert query[0] & 0xC0 == 0xC0
    assert int.from_bytes(query[1:5], "big") == RESERVED
    assert RESERVED & 0x0F0F0F0F == 0x0A0A0A0A
    assert query[5:23] == b"\x08" + TO + b"\x08" + FROM


def test_the_versions_in_an_answer() -> None:
    """Without those that servers put in so that nobody relies on the list being short."""
    assert offered_versions(answer((VERSION_1, 0x4A5A6A7A, DRAFT_29)), TO, FROM) == (VERSION_1, DRAFT_29)
    assert offered_versions(answer(()), TO, FROM) == ()
    assert len(offered_versions(answer(range(1, 300)), TO, FROM) or ()) == 32


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x80",
        answer((1,))[:-1],
        b"\x4a" + answer((1,))[1:],
        answer((1,), source=b"abcdefgX"),
        answer((1,), destination=b"1234567"),
        b"\xca\0\0\0\1" + answer((1,))[5:],
        version_query(TO, FROM),
    ],
)
def test_what_is_no_answer(datagram: bytes) -> None:
    assert offered_versions(datagram, TO, FROM) is None


def test_names_of_versions() -> None:
    names = [version_name(version) for version in (VERSION_1, VERSION_2, DRAFT_29, 0x51303530, 0x709A50C4, 2)]
    assert names == ["1", "2", "draft-29", "Q050", "0x709a50c4", "0x00000002"]


def test_numbers_of_variable_length() -> None:
    """The examples of RFC 9000, appendix A.1."""
    for written, number in (
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ):
        value = bytes.fromhex(written)
        assert parameters(b"\x04" + bytes((len(value),)) + value) == {"initial_max_data": number}


def test_parameters_in_wire_order_without_those_that_are_random() -> None:
    extension = bytes.fromhex(
        "0008" + "11" * 8 + "0404800f0000" + "0c00" + "1b0155" + "0102 4100" + "7fff 02 abcd" + "6ab200"
    )
    assert list(parameters(extension).items()) == [
        ("initial_max_data", 983040),
        ("disable_active_migration", True),
        ("max_idle_timeout", 256),
        ("0x3fff", "abcd"),
        ("grease_quic_bit", True),
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    offered_versions(answer(()) + data, TO, FROM)
    try:
        found = parameters(data)
    except ValueError:
        return
    assert len(found) <= 64


# -- servers of aioquic's


class Pages(QuicConnectionProtocol):
    """Answers in HTTP/3 where that was agreed on."""

    http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if self.http is None and self._quic.tls.alpn_negotiated == "h3":
            self.http = H3Connection(self._quic)
        for heard in self.http.handle_event(event) if self.http else ():
            if isinstance(heard, HeadersReceived):
                headers = [(b":status", b"200"), (b"server", b"Own/3"), (b"content-type", b"text/html")]
                self.http.send_headers(heard.stream_id, headers)
                self.http.send_data(heard.stream_id, b"<title>A page</title>" + b"x" * 3000, end_stream=True)
                self.transmit()


@cache
def _certified() -> tuple[Any, Any]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return x509.load_pem_x509_certificate(pem()), load_pem_private_key(pem(), None)


def configuration(*alpn: str, versions: Iterable[int] = (VERSION_1, VERSION_2), names: int = 0) -> QuicConfiguration:
    """names: how many stand in the certificate; each takes 40 bytes."""
    shown, key = _certified()
    if names:
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName(f"{number:030}.test") for number in range(names)]
        shown = x509.load_der_x509_certificate(certificate(key, names=alternatives))
    return QuicConfiguration(
        is_client=False,
        alpn_protocols=list(alpn),
        certificate=shown,
        private_key=key,
        supported_versions=list(versions),
    )


@asynccontextmanager
async def server(*alpn: str, retry: bool = False, **options: Any) -> AsyncIterator[int]:
    started = await serve(HOST, 0, configuration=configuration(*alpn, **options), create_protocol=Pages, retry=retry)
    try:
        yield started._transport.get_extra_info("sockname")[1]  # type: ignore[attr-defined]
    finally:
        started.close()


def unanswered(port: int) -> ServiceResult:
    known = row("unknown", port, "udp", verdict=Verdict.NOMATCH)
    from msgspec.structs import replace

    return replace(known, state="open|filtered")


def asked(*alpn: str, modules: tuple[str, ...] = ("quic",), name: str = "", **options: Any) -> ServiceResult:
    async def test() -> ServiceResult:
        async with server(*alpn, **options) as port:
            known = row(name, port, "udp") if name else unanswered(port)
            chosen = PostProcessing(modules)
            assert chosen.wants(known)
            return await chosen.enrich(known, b"", dialler(port))

    return run(test())


def test_http3() -> None:
    result = asked("h3")
    assert (result.name, result.state, result.extrainfo, result.verdict) == ("quic", "open", "h3", Verdict.HARDMATCHED)
    assert result.tls is not None
    assert (result.tls.protocol, result.tls.alpn, result.tls.subject) == ("TLSv1.3", "h3", "CN=scripted.test")
    assert result.tls.cipher.startswith("TLS_")
    assert result.post is not None
    facts = result.post["quic"]
    assert (facts["versions"], facts["version"], facts["alpn"]) == (["1", "2"], "1", "h3")
    assert facts["parameters"]["initial_max_streams_bidi"] == 128
    assert not {"error", "retry"} & set(facts)
    assert result.connections == 0
    check_row(result)


def test_dns_over_quic() -> None:
    result = asked("doq")
    assert (result.name, result.extrainfo, result.tls and result.tls.alpn) == ("quic", "doq", "doq")


def test_a_server_that_wants_a_token_first() -> None:
    result = asked("h3", retry=True)
    assert result.post is not None
    assert (result.post["quic"]["retry"], result.post["quic"]["alpn"]) == (True, "h3")


def test_a_certificate_that_exceeds_what_may_be_sent_unasked() -> None:
    """A server sends three times what it has received, then waits for an acknowledgement."""
    result = asked("h3", names=250)
    assert result.tls is not None
    assert len(result.tls.names) > 100
    assert result.bytes > 3 * 1200 * 2


def test_no_protocol_in_common() -> None:
    result = asked("other")
    assert result.name == "quic"
    assert result.post is not None
    assert result.post["quic"]["error"].startswith("0x178")  # TLS's alert 120, no_application_protocol


def test_only_version_2() -> None:
    result = asked("h3", versions=(VERSION_2,))
    assert result.post is not None
    assert (result.post["quic"]["versions"], result.post["quic"]["version"]) == (["2"], "2")


def test_the_page_over_http3() -> None:
    """`web` asks where `quic` has said that there is something to ask, or the database has."""
    for modules, name in ((("quic", "web"), ""), (("web",), "quic")):
        result = asked("h3", modules=modules, name=name)
        assert (result.name, result.product) == ("quic", "Own/3")
        assert result.post is not None
        assert result.post["http"] == {"status": 200, "server": "Own/3", "title": "A page"}
        assert "qpack_max_table_capacity" in result.post["http3"]["settings"]


def test_no_page_where_something_else_is_spoken() -> None:
    result = asked("doq", modules=("quic", "web"))
    assert result.post is not None
    assert set(result.post) == {"quic"}


# -- what is sent


def counted(
    reply: Callable[[bytes], Iterable[bytes]], modules: tuple[str, ...] = ("quic",)
) -> tuple[ServiceResult, list[bytes]]:
    """The row of a UDP port that answers so, and what reached it."""
    heard: list[bytes] = []

    def said(data: bytes) -> Iterable[bytes]:
        heard.append(data)
        return reply(data)

    async def test() -> ServiceResult:
        async with udp_peer(said) as port:
            return await PostProcessing(modules).enrich(unanswered(port), b"", dialler(port))

    return run(test()), heard


def _versions(*versions: int) -> Callable[[bytes], list[bytes]]:
    return lambda sent: [answer(versions, destination=sent[6:14], source=sent[15:23])]


def test_a_silent_port_costs_two_datagrams() -> None:
    result, heard = counted(lambda _: ())
    assert result.name == "unknown"
    assert result.state == "open|filtered"
    assert result.post is None
    assert [len(data) for data in heard] == [DATAGRAM] * ATTEMPTS


def test_a_server_of_other_versions_is_named_by_one_datagram() -> None:
    result, heard = counted(_versions(DRAFT_29))
    assert (result.name, result.state, result.post) == ("quic", "open", {"quic": {"versions": ["draft-29"]}})
    assert len(heard) == 1


def test_a_server_that_tells_its_versions_and_no_more() -> None:
    result, heard = counted(lambda sent: _versions(VERSION_1)(sent) if sent[1:5] == RESERVED.to_bytes(4, "big") else ())
    assert result.name == "quic"
    assert result.post is not None
    assert result.post["quic"]["error"] == "timed out"
    assert all(len(data) == 1200 for data in heard)
    assert len(heard) < 10


def test_by_default_not_a_datagram_more(tmp_path: Path) -> None:
    probes = tmp_path / "probes"
    probes.write_bytes(b"Probe UDP Ask q|ASK|\nrarity 1\ntotalwaitms 300\nmatch asked m|^ASKED|\n")

    def heard_by(post: tuple[str, ...]) -> tuple[list[ServiceResult], list[bytes]]:
        heard: list[bytes] = []

        def said(data: bytes) -> list[bytes]:
            heard.append(data)
            return []

        async def test() -> list[ServiceResult]:
            async with udp_peer(said) as port:
                config = ScanConfig(probes=(str(probes),), post=post)
                return [result async for result in scan([f"{HOST}:{port}/udp"], config)]

        return run(test()), heard

    assert "quic" not in DEFAULT
    [usual], heard = heard_by(("default",))
    [bare], bare_heard = heard_by(())
    assert (usual.state, bare.state) == ("open|filtered", "open|filtered")
    assert heard == bare_heard == [b"ASK"]
    [_], more = heard_by(("quic",))
    assert len(more) == 1 + ATTEMPTS


def test_a_scan_names_a_port_that_never_answered(tmp_path: Path) -> None:
    probes = tmp_path / "probes"
    probes.write_bytes(b"Probe UDP Ask q|ASK|\nrarity 1\ntotalwaitms 300\nmatch asked m|^ASKED|\n")

    async def test() -> list[ServiceResult]:
        async with server("h3") as port:
            config = ScanConfig(probes=(str(probes),), post=("quic", "web"))
            return [result async for result in scan([f"{HOST}:{port}/udp"], config)]

    [result] = run(test())
    assert (result.name, result.state, result.product, result.extrainfo) == ("quic", "open", "Own/3", "h3")


# -- peers that do not behave


def _flood(sent: bytes) -> list[bytes]:
    return [os.urandom(1200) for _ in range(200)]


def _after_versions(reply: Callable[[bytes], Iterable[bytes]]) -> Callable[[bytes], Iterable[bytes]]:
    return lambda sent: _versions(VERSION_1)(sent) if sent[1:5] == RESERVED.to_bytes(4, "big") else reply(sent)


HOSTILE: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "flood": _flood,
    "flood after versions": _after_versions(_flood),
    "echo": lambda sent: [sent],
    "echo after versions": _after_versions(lambda sent: [sent] * 50),
    "empty": lambda _: [b""],
    "empty after versions": _after_versions(lambda _: [b""] * 300),
    "versions for ever": lambda sent: _versions(VERSION_1)(sent) * 100,
    "other versions then": _after_versions(_versions(DRAFT_29)),
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


# -- real servers


@pytest.mark.parametrize(("name", "product"), [("caddy", "Caddy"), ("hypercorn", "hypercorn-h3")])
def test_real_servers(name: str, product: str, tmp_path: Path) -> None:
    with daemon(name, tmp_path) as ports:
        result = run(enriched("quic", unanswered(ports["quic"])))
        assert (result.name, result.extrainfo, result.tls and result.tls.alpn) == ("quic", "h3", "h3")
        assert result.post is not None
        assert "1" in result.post["quic"]["versions"]
        if name == "hypercorn":  # which shows the same on its TCP port
            der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((HOST, ports["tls"])))
            assert result.tls is not None
            assert result.tls.sha256 == hashlib.sha256(der).hexdigest()
        paged = run(enriched("web", result))
        assert paged.product == product
        assert paged.post is not None
        assert paged.post["http"]["title"] == f"{name} page"
