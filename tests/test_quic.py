"""QUIC: versions, handshake, certificate, parameters and HTTP/3, of real servers; and of those that do not behave."""

import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
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
from aioquic.quic.events import QuicEvent
from certificates import certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from h2_daemons import daemon
from msgspec.structs import replace
from peers import HOST, dialler, enriched, row, run, udp_peer
from scripted import pem
from test_fuzz_post import check_row
from test_quic_packets import DRAFT_29, answer

from engine.api import scan
from engine.model import ScanConfig, ServiceResult, Verdict
from engine.post import DEFAULT, PostProcessing
from engine.post.quic import ATTEMPTS
from engine.transports.quic_packets import (
    DATAGRAM,
    RESERVED,
    VERSION_1,
    VERSION_2,
)

pytestmark = pytest.mark.real

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


def configuration(
    *alpn: str,
    versions: Iterable[int] = (VERSION_1, VERSION_2),
    names: int = 0,
    chain: Sequence[x509.Certificate] = (),
) -> QuicConfiguration:
    """names: how many stand in the certificate; each takes 40 bytes. chain: what is shown behind it."""
    shown, key = _certified()
    if names:
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName(f"{number:030}.test") for number in range(names)]
        shown = x509.load_der_x509_certificate(certificate(key, names=alternatives))
    return QuicConfiguration(
        is_client=False,
        alpn_protocols=list(alpn),
        certificate=shown,
        certificate_chain=list(chain),
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
    return replace(known, state="open|filtered")


def asked(
    *alpn: str, modules: tuple[str, ...] = ("quic",), name: str = "", host: str = "", **options: Any
) -> ServiceResult:
    async def test() -> ServiceResult:
        async with server(*alpn, **options) as port:
            known = replace(row(name, port, "udp") if name else unanswered(port), host=host)
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


def test_the_certificates_are_noted_upon_as_those_of_tls_are() -> None:
    """Those behind the server's own, too, and the name that the target was given with."""
    old = x509.load_der_x509_certificate(certificate(ec.generate_private_key(ec.SECP256R1()), name="root.test"))
    result = asked("h3", host="other.test", chain=[old])
    assert result.tls is not None
    assert [line.partition(" ")[2].startswith("CN=root.test") for line in result.tls.chain] == [True]
    assert result.tls.notes[0] == "name-mismatch"
    assert "chain-unrelated" in result.tls.notes
    result = asked("h3", host="scripted.test")
    assert result.tls is not None
    assert (result.tls.chain, result.tls.notes) == ((), ())


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
    result = asked("h3", versions=(VERSION_2,), modules=("quic", "web"))
    assert result.post is not None
    assert (result.post["quic"]["versions"], result.post["quic"]["version"]) == (["2"], "2")
    assert result.product == "Own/3"


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


def telling(*versions: int) -> Callable[[bytes], list[bytes]]:
    return lambda sent: [answer(versions, destination=sent[6:14], source=sent[15:23])]


def test_a_silent_port_costs_two_datagrams() -> None:
    result, heard = counted(lambda _: ())
    assert result.name == "unknown"
    assert result.state == "open|filtered"
    assert result.post is None
    assert [len(data) for data in heard] == [DATAGRAM] * ATTEMPTS


def test_a_server_of_other_versions_is_named_by_one_datagram() -> None:
    result, heard = counted(telling(DRAFT_29))
    assert (result.name, result.state, result.post) == ("quic", "open", {"quic": {"versions": ["draft-29"]}})
    assert len(heard) == 1


def test_a_server_that_tells_its_versions_and_no_more() -> None:
    result, heard = counted(lambda sent: telling(VERSION_1)(sent) if sent[1:5] == RESERVED.to_bytes(4, "big") else ())
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
