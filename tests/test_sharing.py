"""Ports that speak both TLS and something in the clear, and those that only say in the clear that they want TLS."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, context_with
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Farm, Visit, config, database_file, scan, second_visit
from peers import enriched, row, run, speak_tls, tcp_peer
from tls_daemons import Files, files_of, nginx, s_server, sslh

from engine.model import ScanConfig, ServiceResult, TlsFacts, Tunnel, Verdict
from engine.post import PostProcessing
from engine.post.sharing import told
from probemill import scan_sync

BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    return files_of(tmp_path_factory.mktemp("tls"), key, certificate(key))


def in_tls(port: int) -> ServiceResult:
    """What `sharing` makes of a web server in TLS, with which the scan has shaken hands."""
    return run(enriched("sharing", row("http", port, tunnel=Tunnel.SSL, tls=TlsFacts(protocol="TLSv1.3"))))


def in_the_clear(port: int, name: str = "http", verdict: Verdict = Verdict.HARDMATCHED) -> ServiceResult:
    return run(enriched("sharing", row(name, port, verdict=verdict)))


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        (b"", {}),
        (b"\x15\x03\x01\0\x02\x02\x46", {"plain": "alert", "alert": 70, "wants_tls": True}),
        (b"\x15\x03\x01", {"plain": "binary"}),
        (b"HTTP/1.0 200 OK\r\n\r\nall of it is https and TLS", {"plain": "http", "status": 200}),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            {"plain": "http", "status": 400, "wants_tls": True},
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\nReason: You're speaking plain HTTP to an SSL-enabled server port.",
            {"plain": "http", "status": 400, "wants_tls": True},
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nno host", {"plain": "http", "status": 400}),
        (
            b"HTTP/1.1 307 Moved\r\nServer: x\r\nLocation: https://a.test/\r\n\r\n",
            {"plain": "http", "status": 307, "wants_tls": True},
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", {"plain": "http", "status": 302}),
        (BANNER, {"plain": "ssh"}),
        (b"220 mail.test ESMTP\r\n221 no\r\n", {"plain": "text", "says": "220 mail.test ESMTP"}),
        (b"\n\n", {"plain": "binary"}),
        (b"\x00\x00\x00\x07", {"plain": "binary"}),
    ],
)
def test_what_an_answer_in_the_clear_is(answer: bytes, facts: dict[str, Any]) -> None:
    """A refusal that speaks of TLS is no service beside it."""
    assert told(answer) == facts


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(b"HTTP/1.1 400 ".__add__)))
def test_any_answer(answer: bytes) -> None:
    facts = told(answer)
    assert (not answer) == (not facts)
    assert facts.get("says", "").isprintable()


# -- real servers


def test_nginx_says_that_it_wants_tls(files: Files, tmp_path: Path) -> None:
    with nginx(files, tmp_path) as port:
        result = in_tls(port)
    assert result.post == {"sharing": {"tls": True, "plain": "http", "status": 400, "wants_tls": True}}
    assert result.connections == 1


def test_a_service_called_tls_by_its_words(files: Files, tmp_path: Path) -> None:
    """Where the scan made no handshake, this makes it; and says so where there is none."""
    with nginx(files, tmp_path) as port:
        result = run(enriched("sharing", row("http", port, tunnel=Tunnel.SSL)))
    assert result.tls is not None
    assert result.tls.key == "ec secp256r1"
    assert result.post == {"sharing": {"tls": True, "plain": "http", "status": 400, "wants_tls": True}}
    assert result.connections == 2
    (tmp_path / "plain").mkdir()
    with nginx(files, tmp_path / "plain", "listen 127.0.0.1:{port}") as port:
        result = run(enriched("sharing", row("http", port, tunnel=Tunnel.SSL)))
    assert result.tls is None
    assert result.post == {"sharing": {"tls": False, "plain": "http", "status": 204}}


def test_openssl_does_not_share(files: Files) -> None:
    """It has no word for who speaks in the clear, or an alert."""
    with s_server(files) as port:
        result = in_tls(port)
    assert result.post is not None
    facts = result.post["sharing"]
    assert facts["tls"] is True
    assert facts.get("plain", "alert") == "alert"


def test_sslh_shares_between_tls_and_http(files: Files, tmp_path: Path) -> None:
    """Found from either side; the certificate is in the row that was in the clear, too."""
    (tmp_path / "plain").mkdir()
    with (
        nginx(files, tmp_path / "plain", "listen 127.0.0.1:{port}") as web,
        s_server(files) as tls,
        sslh(tls=tls, http=web) as port,
    ):
        inside = in_tls(port)
        outside = in_the_clear(port)
    assert inside.post == {"sharing": {"tls": True, "plain": "http", "status": 204}}
    assert outside.post == {"sharing": {"tls": True, "plain": "http"}}
    assert outside.tls is not None
    assert outside.tls.key == "ec secp256r1"
    assert outside.tunnel is Tunnel.NONE


def test_a_scan_of_sslh_with_ssh_behind_it(files: Files) -> None:
    """The scan hears SSH, because it waits; its row tells of TLS, too. One connection more, and none without."""

    async def ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        await reader.read()

    async def test(tls: int) -> list[dict[str, Any]]:
        async with tcp_peer(ssh) as behind:
            return await asyncio.to_thread(through, tls, behind)

    def through(tls: int, behind: int) -> list[dict[str, Any]]:
        with sslh(tls=tls, ssh=behind) as port:
            settings_ = [ScanConfig(probes=("builtin",), post=post) for post in (("default",), ("sharing",))]
            return [row.to_dict() for each in settings_ for row in scan_sync([f"127.0.0.1:{port}"], each)]

    with s_server(files) as tls:
        plain, shared = run(test(tls))
    assert plain["name"] == shared["name"] == "ssh"
    assert "post" not in plain
    assert shared["post"] == {"sharing": {"tls": True, "plain": "ssh"}}
    assert shared["tls"]["key"] == "ec secp256r1"
    assert (plain["connections"], shared["connections"]) == (1, 2)


# -- servers of this process


async def plain_talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HELLO\r\n")


def peer_without_tls(name: str, verdict: Verdict) -> ServiceResult:
    async def test() -> ServiceResult:
        async with tcp_peer(plain_talk) as port:
            return await enriched("sharing", row(name, port, verdict=verdict))

    return run(test())


def test_a_port_without_tls() -> None:
    """It says so; a name that was guessed is no service."""
    assert peer_without_tls("http", Verdict.SOFTMATCHED).post == {"sharing": {"tls": False, "plain": "http"}}
    assert peer_without_tls("http", Verdict.NOMATCH).post == {"sharing": {"tls": False}}


@pytest.mark.parametrize(("alert", "word"), [(40, "ALERT"), (112, "UNRECOGNIZED_NAME")])
def test_a_port_that_refuses_our_hello(alert: int, word: str) -> None:
    """With an alert: it speaks TLS."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"\x15\x03\x03\0\x02\x02" + bytes((alert,)))

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("sharing", row("http", port))

    result = run(test())
    assert result.post is not None
    facts = result.post["sharing"]
    assert (facts["tls"], facts["plain"]) == (True, "http")
    assert word in facts["error"]
    assert result.tls is None


def test_who_says_nothing_in_time_is_not_said_to_speak_no_tls() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> ServiceResult:
        async with tcp_peer(silent) as port:
            return await enriched("sharing", row("http", port), limit_s=0.5)

    assert run(test()).post == {"sharing": {"plain": "http"}}


def test_nobody_is_asked_by_default() -> None:
    wants = PostProcessing(("default",)).wants
    assert not wants(row("http", 443, tunnel=Tunnel.SSL))
    assert not wants(row("ssh", 22))
    assert not PostProcessing(("sharing",)).wants(row("domain", 53, "udp"))


@pytest.mark.parametrize(("post", "visits"), [(("default",), 2), (("sharing",), 3)])
def test_what_a_scan_costs(post: tuple[str, ...], visits: int, tmp_path: Path) -> None:
    """Counted by those who are visited."""
    key = ec.generate_private_key(ec.SECP256R1())
    context = context_with(key, certificate(key))

    async def tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await speak_tls(reader, writer, b"HELLO 2.0\r\n", context)

    with Farm(second_visit(b"TLS PLEASE\r\n", tls)) as farm:
        rows, _ = scan(farm.targets("127.63.3.1", "127.63.3.2"), config(database_file(tmp_path), post=post))
    assert set(farm.per_address.values()) == {visits}
    assert all(each.connections == visits for each in rows)
