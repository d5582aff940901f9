"""JARM: the hellos are those of its authors, so are the fingerprints, and it costs what it is said to cost."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from certificates import certificate, context_with
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Farm, Visit, config, database_file, most_at_once, scan, second_visit
from peers import enriched, row, run, speak_tls, tcp_peer
from tls_daemons import Files, files_of, nginx, s_server

from engine.model import ServiceResult, Tunnel
from engine.post import PostProcessing
from engine.post.jarm import SHAPES, Answer, client_hello, fingerprint, server_hello

pytestmark = pytest.mark.real

# SHA-256 of the ten hellos to 127.0.0.1, as the authors' program (jarm.py 1.0) makes them with zeros for everything
# random and 0a0a for GREASE.
HELLOS = (
    *("234e5ad9fff1805b", "9ba4595cbf169418", "e013f39d3f50b1f6", "38e6d9ee649b0cab", "c617162ba4b39666"),
    *("d37c6cd2edb04bf3", "c1ca45077883170f", "b4adb0c693d0ffd1", "111e0410377c81bc", "f934268a95663ffe"),
)

# What google.com answered in January 2021 (pyJARM's recording), and the fingerprint that the authors publish for it.
GOOGLE = """
c02b|0303|h2|0017-ff01-000b-0023-0010
cca9|0303|h2|0017-ff01-000b-0023-0010
cca9|0303|h2|0017-ff01-000b-0023-0010
c02f|0303||0017-ff01-000b-0023
cca9|0303||0017-ff01-000b-0023
c009|0302|h2|0017-ff01-000b-0023-0010
1302|0303||0033-002b
1303|0303||0033-002b
|||
1301|0303||0033-002b
"""
GOOGLES = "27d40d40d29d40d1dc42d43d00041d4689ee210389f4f6b4b5b1b93f92252d"


def answer(told: str) -> Answer:
    cipher, version, alpn, extensions = told.split("|")
    return Answer(bytes.fromhex(cipher), bytes.fromhex(version), alpn, extensions)


def said(answer: Answer) -> bytes:
    """A ServerHello that comes to this answer, with a certificate behind it."""
    extensions = b""
    for name in filter(None, answer.extensions.split("-")):
        value = len(answer.alpn) + 1, len(answer.alpn), answer.alpn.encode()
        data = bytes((0, *value[:2])) + value[2] if name == "0010" else b"\0"
        extensions += bytes.fromhex(name) + len(data).to_bytes(2, "big") + data
    body = answer.version + bytes(32) + b"\x20" + bytes(32) + answer.cipher + b"\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x02\0" + len(body).to_bytes(2, "big") + body + b"\x0b\0\0\0"
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


def test_the_hellos_are_the_authors() -> None:
    """Byte for byte."""
    hellos = [client_hello(shape, "127.0.0.1", bytes) for shape in SHAPES]
    assert tuple(hashlib.sha256(hello).hexdigest()[:16] for hello in hellos) == HELLOS


def test_what_is_random_differs() -> None:
    """From one hello to the next."""
    assert len({client_hello(shape, "a.test") for shape in SHAPES for _ in range(20)}) == 20 * len(SHAPES)


def test_a_published_fingerprint() -> None:
    """From the bytes of the answers."""
    told = [answer(line) for line in GOOGLE.split()]
    assert [server_hello(said(each) if each.cipher else b"\x15\x03\x03\0\x02\x02\x28") for each in told] == told
    assert fingerprint(told) == GOOGLES


def test_a_server_that_refuses_everything() -> None:
    """Zeros, as the authors have it."""
    assert fingerprint([Answer()] * 10) == "0" * 62


def test_a_version_that_there_is_not() -> None:
    """No fingerprint."""
    for version in (b"\x03", b"\x03\x06", b"\x03\xff"):
        with pytest.raises(ValueError, match="version"):
            fingerprint([Answer(b"\0\x05", version)] * 10)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(b"\x16\x03\x03\0\x50\x02".__add__))))
def test_any_answers(answers: list[bytes]) -> None:
    """A fingerprint of its length, or ValueError, and nothing else."""
    told = [server_hello(each) for each in (*answers, *[b""] * 10)][:10]
    try:
        assert len(fingerprint(told)) == 62
    except ValueError:
        assert any(each.version for each in told)


# -- against servers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    key = rsa.generate_private_key(65537, 2048)
    return files_of(tmp_path_factory.mktemp("tls"), key, certificate(key))


async def measured(port: int) -> ServiceResult:
    return await enriched("jarm", row("http", port, tunnel=Tunnel.SSL), 20.0)


SERVERS = {
    "openssl": ("s_server",),
    "openssl 1.2": ("s_server", "-tls1_2"),
    "openssl 1.3": ("s_server", "-tls1_3"),
    "openssl, its own order": ("s_server", "-serverpref", "-cipher", "ALL:@SECLEVEL=0"),
    "openssl, old": ("s_server", "-no_tls1_3", "-cipher", "AES128-SHA:@SECLEVEL=0"),
    "openssl, h2": ("s_server", "-alpn", "h2,http/1.1"),
    "openssl, no tickets": ("s_server", "-no_ticket"),
    "nginx": ("nginx",),
    "nginx, h2": ("nginx", "listen 127.0.0.1:{port} ssl http2"),
    "nginx 1.2": ("nginx", "ssl_protocols TLSv1.2", "ssl_session_tickets off"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_the_fingerprint_is_that_of_another_program(server: str, files: Files, tmp_path: Path) -> None:
    """pyJARM's, where it is installed (`pip install pyjarm`)."""
    scanner = pytest.importorskip("jarm.scanner.scanner").Scanner
    kind, *options = SERVERS[server]
    start: Callable[..., AbstractContextManager[int]] = (
        partial(s_server, files) if kind == "s_server" else partial(nginx, files, tmp_path)
    )
    with start(*options) as port:
        result = run(measured(port))
        theirs, *_ = scanner.scan("127.0.0.1", port, concurrency=1)
    assert result.post == {"jarm": theirs}
    assert theirs.strip("0")


def test_a_server_of_this_process(files: Files) -> None:
    """Ten connections, whose bytes are counted; versions that it does not speak are zeros in the fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificates, files.key)
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await speak_tls(reader, writer, context=context)

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await measured(port)

    result = run(test())
    assert result.connections == 10
    assert result.bytes > 1000
    assert result.post is not None
    [print_] = result.post.values()
    chosen = [print_[at : at + 3] for at in range(0, 30, 3)]
    assert chosen[:6] == ["000"] * 6
    assert "000" not in chosen[6:8]
    assert chosen[8] == "000"


@pytest.mark.parametrize("silent_at", [1, 5, 10])
def test_half_a_fingerprint_is_none(silent_at: int) -> None:
    """Of a server that falls silent, or accepts no more."""
    came = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came == silent_at:
            await asyncio.sleep(60)

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("jarm", row("http", port, tunnel=Tunnel.SSL), 1.0)

    result = run(test())
    assert result.post is None
    assert came == silent_at


def test_only_tls_is_asked() -> None:
    """And by default nobody is."""
    for post, wanted in ((("jarm",), True), (("default",), False)):
        wants = PostProcessing(post).wants
        assert wants(row("http", 443, tunnel=Tunnel.SSL)) is wanted
        assert wants(row("ssl", 443)) is wanted
        assert not wants(row("http", 80))
        assert not wants(row("ssl", 443, "udp"))


@pytest.mark.parametrize(("post", "visits"), [((), 2), (("default",), 2), (("jarm",), 12)])
def test_what_a_scan_costs(post: tuple[str, ...], visits: int, tmp_path: Path) -> None:
    """Counted by those who are visited: ten connections more where it was asked for, one after another."""
    key = rsa.generate_private_key(65537, 2048)
    context = context_with(key, certificate(key))

    async def in_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await speak_tls(reader, writer, b"HELLO 2.0\r\n", context)

    hosts = ("127.63.1.1", "127.63.1.2", "127.63.1.3")
    with Farm(second_visit(b"TLS PLEASE\r\n", in_tls)) as farm:
        rows, _ = scan(farm.targets(*hosts), config(database_file(tmp_path), post=post, per_host=1))
    assert farm.per_address == dict.fromkeys(hosts, visits)
    assert all(row.connections == visits for row in rows)
    assert {len(row.post["jarm"]) if row.post else 0 for row in rows} == {62 if visits > 2 else 0}
    for host in hosts:
        assert most_at_once(visit for visit in farm.visits if visit.address == host) == 1


@pytest.mark.parametrize(("delay_s", "found"), [(0.1, True), (2.5, False)])
def test_the_limits_of_the_scan_are_obeyed(delay_s: float, found: bool, tmp_path: Path) -> None:
    """One connection to a host in so much time; where ten take too long, there is no fingerprint."""
    key = rsa.generate_private_key(65537, 2048)
    context = context_with(key, certificate(key))

    async def in_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await speak_tls(reader, writer, b"HELLO 2.0\r\n", context)

    with Farm(second_visit(b"TLS PLEASE\r\n", in_tls)) as farm:
        [row], _ = scan(
            farm.targets("127.63.1.4"), config(database_file(tmp_path), post=("jarm",), host_delay_s=delay_s)
        )
    times = [visit.at for visit in farm.visits]
    assert times[-1] - times[0] > 0.5 * delay_s * (len(times) - 1)
    assert (len(times) == 12) is found
    assert (row.post is not None) is found
