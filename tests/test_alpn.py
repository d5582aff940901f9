"""ALPN: what is offered to whom, what a scan offers by itself, and what rows say of what was chosen."""

import ssl
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2")

from peers import HOST, row, run, tcp_peer
from scripted import tls_context
from test_http2 import NGINX, UNKNOWN, page
from test_post import fingerprint

from engine import post
from engine.api import check_config, scan
from engine.errors import ConfigError
from engine.model import ScanConfig, ServiceResult, Tunnel, Verdict
from engine.post import ALL, DEFAULT, PostProcessing, module_names
from engine.post.http2 import offered
from engine.transports.tls import client_context

# -- what is offered, and when


def test_by_default_nothing_is_asked() -> None:
    assert {"http2", "quic"}.isdisjoint(DEFAULT)
    for known in (UNKNOWN, row("http", 443, tunnel=Tunnel.SSL), row("ssl", 443)):
        assert not PostProcessing(DEFAULT).wants(known)


def test_who_is_asked() -> None:
    """TLS whoever speaks inside; in the clear only who has said nothing, or something that begins as HTTP/2."""
    module = PostProcessing(("http2",))
    assert module.wants(row("http", 443, tunnel=Tunnel.SSL))
    assert module.wants(row("imap", 993, tunnel=Tunnel.SSL))
    assert module.wants(UNKNOWN)
    begun = row("x", 1, verdict=Verdict.NOMATCH, fingerprint=fingerprint(GetRequest=NGINX))
    other = row("x", 1, verdict=Verdict.NOMATCH, fingerprint=fingerprint(GetRequest=b"what?\r\n"))
    assert module.wants(begun)
    assert not module.wants(other)
    assert not module.wants(row("http", 80))
    assert not module.wants(row("x", 1, "udp", verdict=Verdict.NOMATCH))


def test_the_port_suggests_what_is_offered() -> None:
    def names(name: str, port: int) -> tuple[str, ...]:
        return offered(row(name, port, tunnel=Tunnel.SSL))

    assert names("http", 993) == ("h2", "http/1.1")
    assert names("imap", 1) == names("unknown", 993) == ("imap", "h2", "http/1.1")
    assert names("unknown", 853) == ("dot", "h2", "http/1.1")
    assert names("unknown", 5223) == ("xmpp-client", "h2", "http/1.1")
    assert names("jabber", 1) == ("xmpp-client", "xmpp-server", "h2", "http/1.1")
    assert names("mqtt", 8883) == ("mqtt", "h2", "http/1.1")


def test_a_module_without_its_library_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """`all` are those that can run here."""
    monkeypatch.setitem(post.EXTRA, "http2", "no_such_library")
    with pytest.raises(ConfigError) as error:
        module_names(("http2",))
    assert str(error.value) == "--post http2: needs an extra package (no_such_library): pip install 'probemill[deep]'"
    assert module_names(("all",)) == tuple(name for name in ALL if name != "http2")


# -- the scan's own tunnel


def scanned(talk: Any, config: ScanConfig, tls: ssl.SSLContext) -> tuple[list[ServiceResult], list[str | None]]:
    """The rows of a scan, and which protocol was agreed on in each connection that shook hands."""
    chosen: list[str | None] = []

    async def counted(reader: StreamReader, writer: StreamWriter) -> None:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await talk(reader, writer)

    async def test() -> list[ServiceResult]:
        async with tcp_peer(counted, tls) as port:
            return [result async for result in scan([f"{HOST}:{port}"], config)]

    return run(test()), chosen


def hello() -> bytes:
    """What a client begins with, as a probe of the database."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return "".join(f"\\x{byte:02x}" for byte in out.read()).encode()


DATABASE = rb"""Probe TCP NULL q||
totalwaitms 300
Probe TCP Hello q|HELLO|
rarity 1
totalwaitms 300
match ssl m|^\x16\x03|
Probe TCP Get q|GET / HTTP/1.0\r\n\r\n|
rarity 1
totalwaitms 300
match http m|^HTTP/1|
"""


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "probes"
    path.write_bytes(DATABASE.replace(b"HELLO", hello()))
    return str(path)


async def either(reader: StreamReader, writer: StreamWriter) -> None:
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
        await page(reader, writer)
    elif await reader.read(4096):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_scan_offers_nothing_by_default(database: str) -> None:
    """As Nmap: a server that prefers h2 goes on speaking HTTP/1.0, and no connection is added."""
    [result], chosen = scanned(either, ScanConfig(probes=(database,)), tls_context("h2", "http/1.1"))
    assert (result.name, result.tunnel, result.post) == ("http", Tunnel.SSL, {"http": {"status": 200}})
    assert set(chosen) == {None}
    [_], without = scanned(either, ScanConfig(probes=(database,), post=()), tls_context("h2", "http/1.1"))
    assert len(chosen) == len(without)


def test_a_scan_offers_what_it_is_told_to(database: str) -> None:
    config = ScanConfig(probes=(database,), alpn=("http/1.1", "h2"))
    [result], chosen = scanned(either, config, tls_context("http/1.1", "h2"))
    assert (result.name, result.tunnel, set(chosen)) == ("http", Tunnel.SSL, {"http/1.1"})
    assert result.tls is not None
    assert result.tls.alpn == "http/1.1"


def test_where_h2_was_chosen_the_row_is_named_by_how_the_server_begins(database: str) -> None:
    [result], chosen = scanned(either, ScanConfig(probes=(database,), alpn=("h2",)), tls_context("h2"))
    assert set(chosen) == {"h2"}
    assert (result.name, result.product, result.extrainfo) == ("http", "Python h2", "HTTP/2")
    assert result.tls is not None
    assert result.tls.alpn == "h2"
    assert result.post is not None
    assert "status" not in result.post["http2"]  # nothing more was asked


@pytest.mark.parametrize("name", ["", "x" * 256, "é", "a\nb"])
def test_names_that_no_handshake_can_carry(name: str) -> None:
    with pytest.raises(ConfigError, match="alpn"):
        check_config(ScanConfig(alpn=(name,)))


def test_more_than_a_hello_can_hold_is_refused() -> None:
    """OpenSSL takes the list, and then no handshake succeeds."""
    check_config(ScanConfig(alpn=("x" * 250,) * 32))
    with pytest.raises(ConfigError, match="alpn: more than 8192 bytes of names"):
        check_config(ScanConfig(alpn=("x" * 250,) * 33))
