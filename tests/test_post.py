"""Post-processing modules against loopback peers that behave, and peers that do not; and how a scan uses them."""

import asyncio
import struct
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from peers import HOST, Talk, dialler, enriched, row, row_of, run, speak_tls, tcp_peer, udp_peer
from scripted import tls_context

from engine import post
from engine.api import make_runner, scan
from engine.conversation.fingerprint import Fingerprint
from engine.errors import ConfigError
from engine.model import Batch, Reason, ScanConfig, ServiceResult, Target, Tunnel, Verdict
from engine.post import ALL, ASKERS, DEFAULT, LICENSED, PostProcessing, module_names
from engine.post.base import title
from engine.post.http import body, favicon, icon_path, mmh3
from engine.post.smb import negotiate, negotiated
from engine.post.snmp import DISCOVERY, engine_facts
from engine.results.sinks.base import decode_rows

PAGE = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nVary: *\r\n\r\n<html><TITLE>\n A page &amp; \xc3\xa9</TITLE>"


def read(result: ServiceResult, response: bytes = b"") -> ServiceResult:
    return PostProcessing(("default",)).read(result, response)


def fingerprint(**responses: bytes) -> str:
    collected = Fingerprint(8000, "tcp", version="0", intensity=7, platform="x")
    for probe, response in responses.items():
        collected.add(probe, response, 0.0)
    return collected.text


# -- which modules


def test_the_modules_are_chosen_by_name_and_group() -> None:
    assert module_names(()) == ()
    assert module_names(("default",)) == DEFAULT
    assert module_names(("ssh", "default", "ssh")) == (*DEFAULT, "ssh")
    assert module_names(("all",)) == ALL
    assert module_names(("all", *LICENSED)) == (*ALL, *LICENSED)  # by their own names alone
    with pytest.raises(ConfigError, match="'shh'"):
        module_names(("default", "shh"))


def test_every_module_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "post.md").read_text(encoding="utf-8")
    table = text.partition("## The modules")[2].partition("\n## ")[0]
    rows = {line.split("`")[1]: "| yes |" in line for line in table.splitlines() if line.startswith("| `")}
    assert rows == {name: name in DEFAULT for name in (*ALL, *LICENSED)}


def test_by_default_nothing_is_asked_of_what_is_common() -> None:
    """Banner farms keep their speed: no further conversation with the services that make up most of a network."""
    modules = PostProcessing(("default",))
    asking = {module.name: module.services for module in ASKERS}
    common = frozenset(("domain", "telnet")).union(*(asking[name] for name in asking if name not in DEFAULT))
    assert {"ssh", "http", "smtp", "imap", "pop3", "ftp", "mysql", "netbios-ssn", "jabber", "ms-wbt-server"} <= common
    common -= asking["rpc"]  # which is the same for rpc-unknown
    assert not [name for name in common if modules.wants(row(name, 1))]
    assert not modules.wants(row("cbt", 7777, verdict=Verdict.NOMATCH))
    assert [name for name in ("rpcbind", "amqp", "murmur") if modules.wants(row(name, 1))] == [
        "rpcbind",
        "amqp",
        "murmur",
    ]
    assert modules.wants(row("snmp", 161, "udp"))
    assert modules.wants(row("murmur", 64738, tunnel=Tunnel.SSL)), "its pings go over UDP"
    for name in ("snmp", "murmur"):
        assert not modules.wants(row(name, 1, "udp", tunnel=Tunnel.SSL)), "they would be asked outside DTLS"
    assert not PostProcessing(()).wants(row("rpcbind", 111))


@pytest.mark.parametrize("verdict", [Verdict.INCOMPLETE, Verdict.TCPWRAPPED, Verdict.EXCLUDED])
def test_a_port_without_a_finished_scan_is_left_alone(verdict: Verdict) -> None:
    modules = PostProcessing(("all",))
    assert not [name for name in ("rpcbind", "ssh", "http") if modules.wants(row(name, 64738, verdict=verdict))]
    guessed = row("x", 64738, verdict=Verdict.NOMATCH)
    assert modules.wants(guessed)
    unanswered = replace(guessed, proto="udp", state="open|filtered")
    assert [name for name in ALL if PostProcessing((name,)).wants(unanswered)] == ["quic"]


# -- what the scan has got already


def test_http_facts_of_a_match() -> None:
    result = read(row("http", 80, product="nginx"), PAGE)
    assert result.post == {"http": {"status": 200, "server": "nginx/1.22.1", "title": "A page &amp; é"}}
    assert result.product == "nginx"


def test_the_server_header_names_a_product_that_no_line_named() -> None:
    result = read(row("http", 80), b"HTTP/1.0 302 Found\r\nserver:  Own\x01Server/2 \r\nLocation: /x\r\n\r\n")
    assert (result.product, result.conf) == ("Own Server/2", 10)
    assert result.post == {"http": {"status": 302, "server": "Own Server/2", "location": "/x"}}


@pytest.mark.parametrize("verdict", [Verdict.SOFTMATCHED, Verdict.HARDMATCHED])
def test_upnp_that_a_line_recognised_keeps_an_empty_product(verdict: Verdict) -> None:
    """As Nmap's http-server-header, which fills it only at a confidence of 3 or less. The facts are noted."""
    answer = b"HTTP/1.0 200 OK\r\nServer: Linux, UPnP/1.0, Own/2\r\n\r\n"
    result = read(row("upnp", 8088, verdict=verdict), answer)
    assert (result.name, result.product, result.verdict) == ("upnp", "", verdict)
    assert result.post == {"http": {"status": 200, "server": "Linux, UPnP/1.0, Own/2"}}
    guessed = row("upnp", 1900, verdict=Verdict.NOMATCH, fingerprint=fingerprint(GetRequest=answer))
    assert read(guessed).product == "Linux, UPnP/1.0, Own/2"


def test_fields_are_printable_and_no_longer_than_nmaps() -> None:
    result = read(row("http", 80), b"HTTP/1.0 200 OK\r\nServer: \xc3\xa9" + b"x" * 200 + b"\r\n\r\n")
    assert result.product == "." + "x" * 78


def test_a_guessed_web_server_is_confirmed_by_its_fingerprint() -> None:
    """As Nmap's http-server-header: the table's name stays, the answer to GetRequest counts before the others."""
    answers = {
        "GenericLines": b"HTTP/1.1 400 Bad\r\n\r\n",
        "GetRequest": b'HTTP/1.1 200 "OK"\r\nServer: gunicorn\r\n\r\n',
    }
    guessed = row("http-alt", 8000, verdict=Verdict.NOMATCH, fingerprint=fingerprint(**answers))
    result = read(guessed, answers["GenericLines"])
    assert (result.name, result.product, result.method, result.conf) == ("http-alt", "gunicorn", "probed", 10)
    assert result.post == {"http": {"status": 200, "server": "gunicorn"}}
    assert result.fingerprint == guessed.fingerprint


def test_http_where_nobody_expects_it_is_noted_and_not_renamed() -> None:
    guessed = row("svcloud", 8404, verdict=Verdict.NOMATCH, fingerprint=fingerprint(GetRequest=PAGE))
    result = read(guessed)
    assert (result.name, result.product, result.method, result.conf) == ("svcloud", "", "table", 3)
    assert result.post is not None
    assert result.post["http"]["title"] == "A page &amp; é"


@pytest.mark.parametrize(
    "response", [b"", b"HTTP", b"HTTP/1.1", b"HTTP/1.1 2", b"\0" * 99, b"SSH-2.0-x", b"HTTP/1.1 \xff\xff\xff\r\n\r\n"]
)
def test_what_is_not_http_leaves_the_row(response: bytes) -> None:
    known = row("http", 80)
    assert read(known, response) is known


@pytest.mark.parametrize("filler", [b"<title", b"<title>", b"a:b\r\n", b"\r\n\r\n", b"\r\n", b":", b"<"])
def test_a_huge_answer_takes_no_time(filler: bytes) -> None:
    began = time.process_time()
    read(row("http", 80), b"HTTP/1.1 200 OK\r\n" + filler * 500_000)
    read(row("http", 80), b"HTTP/1.1 200 OK\r\n\r\n" + filler * 500_000)
    icon_path(filler * 500_000)
    assert time.process_time() - began < 5


def test_titles() -> None:
    assert title(b"<title>a\r\n\t b</title>") == "a b"
    assert title(b"<title lang=en>x</TITLE>") == "x"
    assert title(b"<title>cut off") == ""
    assert title(b"no title") == ""
    assert len(title(b"<title>" + b"x" * 900 + b"</title>")) == 256


SMB1_ANSWER = (
    b"\0\0\0\x80\xffSMB\x72\0\0\0\0" + bytes(23) + b"\x11"
    + struct.pack("<HBHHIIIIQhB", 5, 7, 50, 1, 16644, 65536, 0, 0x0000_F3FD, 132_000_000_000_000_000, 0, 8)
    + struct.pack("<H", 40) + b"8" * 8 + "WORKGROUP\0SRV1\0".encode("utf-16-le")
)  # fmt: skip


def test_smb1_names_and_signing() -> None:
    result = read(row("microsoft-ds", 445), SMB1_ANSWER)
    assert result.post == {
        "smb": {
            "dialect": "NT LM 0.12",
            "signing": "enabled",
            "domain": "WORKGROUP",
            "server": "SRV1",
            "time": "2019-04-17T18:40:00Z",
        }
    }


@pytest.mark.parametrize("size", range(0, len(SMB1_ANSWER), 7))
def test_of_a_cut_smb_answer_remains_what_is_there(size: int) -> None:
    facts, whole = negotiated(SMB1_ANSWER[:size]), negotiated(SMB1_ANSWER)
    assert all(whole[name].startswith(value) for name, value in facts.items())


def smb2_answer(status: int = 0) -> bytes:
    header = struct.pack("<4sHHIHHIIQIIQ16x", b"\xfeSMB", 64, 0, status, 0, 1, 1, 0, 0, 0, 0, 0)
    body = struct.pack("<HHHH16sIIIIQQ", 65, 3, 0x0311, 1, bytes(range(16)), 0, 0, 0, 0, 132_000_000_000_000_000, 0)
    return header + body


# -- hashes


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", 0),
        (b"foo", -156908512),
        (b"hello", 613153351),
        (b"hello, world", 345750399),
        (b"The quick brown fox jumps over the lazy dog", 776992547),
    ],
)
def test_murmur_hash(data: bytes, digest: int) -> None:
    """Published values of MurmurHash3_x86_32 with seed 0, as signed numbers."""
    assert mmh3(data) == digest


KNOWN_ICONS = {  # as the lists of Shodan's favicon hashes have them, of the icons in Debian's packages
    "/usr/share/zabbix/favicon.ico": 892542951,
    "/usr/share/cacti/site/images/favicon.ico": -1797138069,
    "/usr/share/phpmyadmin/favicon.ico": -476231906,
}


@pytest.mark.parametrize("path", KNOWN_ICONS)
def test_published_hashes_of_icons(path: str) -> None:
    if not Path(path).exists():
        pytest.skip("that package is not installed")
    assert favicon("/", Path(path).read_bytes())["mmh3"] == KNOWN_ICONS[path]


@given(data=st.binary(max_size=300))
def test_murmur_hash_beside_another(data: bytes) -> None:
    reference = pytest.importorskip("mmh3")
    assert mmh3(data) == reference.hash(data)


def test_the_favicon_hash_is_over_base64_in_lines() -> None:
    import base64

    icon = bytes(range(256))
    assert favicon("/x", icon)["mmh3"] == mmh3(base64.encodebytes(icon)) != mmh3(base64.b64encode(icon))


@pytest.mark.parametrize(
    ("page", "path"),
    [
        (b'<link rel="icon" href="/i.png">', "/i.png"),
        (b"<LINK href=i.png type=x rel='shortcut icon'>", "/i.png"),
        (b'<link rel="stylesheet" href="/s.css">', "/favicon.ico"),
        (b'<link rel="icon" href="https://cdn.example/i.png">', "/favicon.ico"),
        (b'<link rel="icon" href="//cdn.example/i.png">', "/favicon.ico"),
        (b'<link rel="icon" href="data:image/png;base64,xx">', "/favicon.ico"),
        (b'<link rel="icon" href="/a\r\nX:y">', "/a"),
        (b'<link rel="icon">', "/favicon.ico"),
    ],
)
def test_where_the_icon_is(page: bytes, path: str) -> None:
    """Never on another server, and never with a line break that would write a header."""
    assert icon_path(page) == path


# -- one more conversation


@pytest.mark.parametrize("tunnel", Tunnel)
def test_web_asks_for_the_page_and_its_icon(tunnel: Tunnel) -> None:
    asked: list[bytes] = []

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request)
        if request.startswith(b"GET / "):
            writer.write(b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\n<title>t</title><link rel=icon href=/i>")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: image/png\r\n\r\nICON")
            await reader.read()  # keeps the connection: the length has to do

    async def test() -> ServiceResult:
        async with tcp_peer(talk, tls_context() if tunnel is Tunnel.SSL else None) as port:
            return await enriched("web", row("http", port, tunnel=tunnel, host="www.example.test"))

    result = run(test())
    page = body(b"<title>t</title><link rel=icon href=/i>")
    assert result.post == {
        "http": {"status": 200, "server": "s", "title": "t"} | page,
        "favicon": favicon("/i", b"ICON"),
    }
    assert result.connections == 2
    assert [request.split(b" ")[1] for request in asked] == [b"/", b"/i"]
    assert all(f"\r\nHost: www.example.test:{result.port}\r\n".encode() in request for request in asked)


@pytest.mark.parametrize(
    ("answer", "hashed"),
    [
        (b"Content-Length: 4\r\n\r\npage and more", b"page"),
        (b"\r\npage", b"page"),
        (b"\r\n", b""),
        (b"Content-Length: 9\r\n\r\ncut", None),
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n", None),
    ],
)
def test_only_a_whole_page_is_hashed(answer: bytes, hashed: bytes | None) -> None:
    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 No\r\n" + answer)

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("web", row("http", port))

    assert run(test()).post == {"http": {"status": 404} | ({} if hashed is None else body(hashed))}


def test_a_status_line_that_comes_in_pieces() -> None:
    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (b"HT", b"TP/1.0 ", b"404 No\r\nContent-Length: 4\r\n", b"\r\npage"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("web", row("http", port))

    assert run(test()).post == {"http": {"status": 404} | body(b"page")}


def test_ssh_algorithms() -> None:
    lists = [b"kex1,kex2", b"ssh-ed25519", b"aes1", b"aes1,aes2", b"mac", b"mac", b"none", b"none", b"", b""]
    payload = b"\x14" + bytes(16) + b"".join(struct.pack(">I", len(one)) + one for one in lists) + bytes(5)
    packet = struct.pack(">IB", len(payload) + 5, 4) + payload + bytes(4)

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"Welcome\r\nSSH-2.0-Test\r\n")
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        writer.write(packet)

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("ssh", row("ssh", port))

    result = run(test())
    assert result.post == {
        "ssh": {
            "kex": ["kex1", "kex2"],
            "host_key": ["ssh-ed25519"],
            "ciphers_in": ["aes1"],
            "ciphers": ["aes1", "aes2"],
            "macs": ["mac"],
            "compression": ["none"],
            "hassh": "34552926a4528ddc66913213ba5e493a",
        }
    }


def test_smb2_facts() -> None:
    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        message = await reader.readexactly(size)
        (offset,) = struct.unpack_from("<I", message, 64 + 28)
        assert offset % 8 == 0
        assert struct.unpack_from("<HH", message, offset) == (1, len(message) - offset - 8)
        writer.write(struct.pack(">I", len(smb2_answer())) + smb2_answer())

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("smb2", row("microsoft-ds", port))

    assert len(negotiate()) == 4 + struct.unpack(">I", negotiate()[:4])[0]
    result = run(test())
    assert result.post == {
        "smb": {
            "dialect": "3.1.1",
            "signing": "required",
            "guid": "03020100-0504-0706-0809-0a0b0c0d0e0f",
            "time": "2019-04-17T18:40:00Z",
        }
    }


def table(**entries: str) -> bytes:
    rows = [bytes((len(k),)) + k.encode() + b"S" + struct.pack(">I", len(v)) + v.encode() for k, v in entries.items()]
    rows.insert(1, b"\x0ccapabilitiesF" + struct.pack(">I", 4) + b"\x01xt\x01")
    return b"".join(rows)


async def amqp(reader: StreamReader, writer: StreamWriter) -> None:
    assert await reader.readexactly(8) == b"AMQP\0\0\x09\x01"
    properties = table(product="RabbitMQ", version="3.10.8", platform="Erlang")
    frame = struct.pack(">HHBBI", 10, 10, 0, 9, len(properties)) + properties
    frame += struct.pack(">I", 14) + b"PLAIN AMQPLAIN" + struct.pack(">I", 5) + b"en_US"
    writer.write(struct.pack(">BHI", 1, 0, len(frame)) + frame + b"\xce")


def test_amqp_names_the_broker() -> None:
    async def test() -> ServiceResult:
        async with tcp_peer(amqp) as port:
            return await enriched("amqp", row("amqp", port, product="Advanced Message Queue Protocol"))

    result = run(test())
    assert (result.product, result.version, result.extrainfo) == ("RabbitMQ", "3.10.8", "0-9")
    assert result.post is not None
    assert result.post["amqp"]["mechanisms"] == ["PLAIN", "AMQPLAIN"]


ENGINE = bytes.fromhex("80001f8880d013114f7244016b00000000")
SNMP_REPORT = bytes.fromhex(
    "3064020103301102045072 6f62020300ffe3040100020103042230200411".replace(" ", "")
) + ENGINE + bytes.fromhex("0201010202061204000400040030280411") + ENGINE + bytes.fromhex(
    "0400a811020450726f620201000201003003300104"
)  # fmt: skip


def test_snmp_engine() -> None:
    async def test() -> ServiceResult:
        async with udp_peer(lambda data: [SNMP_REPORT] if data == DISCOVERY else []) as port:
            return await enriched("snmp", row("snmp", port, "udp", product="SNMPv1 server"))

    result = run(test())
    assert result.product == "SNMPv1 server; net-snmp SNMPv3 server"
    assert result.post == {
        "snmp": {"engine_id": ENGINE.hex(), "boots": 1, "uptime_s": 1554, "enterprise": 8072, "vendor": "net-snmp"}
    }


@pytest.mark.parametrize(
    ("engine", "facts"),
    [
        ("80000009030050569a1b2c", {"enterprise": 9, "vendor": "ciscoSystems", "mac": "00:50:56:9a:1b:2c"}),
        ("8000000001c0000207", {"enterprise": 0, "address": "192.0.2.7"}),
        ("8000000004726f7574657231", {"enterprise": 0, "text": "router1"}),
        ("00", {}),
    ],
)
def test_forms_of_an_engine_identifier(engine: str, facts: dict[str, Any]) -> None:
    from engine.post.snmp import OCTETS, _integer, _sequence, _tlv

    identifier = _tlv(OCTETS, bytes.fromhex(engine))
    security = _tlv(OCTETS, _sequence(identifier, _integer(0), _integer(7), *[_tlv(OCTETS, b"")] * 3))
    message = _sequence(_integer(3), _sequence(_integer(0x50726F62)), security, _sequence())
    assert engine_facts(message) == {"engine_id": engine, "boots": 0, "uptime_s": 7} | facts


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_murmur_is_pinged(proto: Any) -> None:
    def pong(ping: bytes) -> list[bytes]:
        return [bytes((0, 1, 3, 4)) + ping[4:] + struct.pack(">3I", 2, 500, 72000)]

    async def test() -> ServiceResult:
        async with udp_peer(pong) as port:
            return await enriched("murmur", row("murmur", port, proto, product="Murmur", version="1.2.X"))

    result = run(test())
    port = "control" if proto == "tcp" else "voice"
    assert (result.product, result.version) == ("Murmur", "1.3.4")
    assert result.extrainfo == f"{port} port; users: 2; max. users: 500; bandwidth: 72000 b/s"


# -- STARTTLS


def line_server(*exchanges: tuple[bytes, bytes], upgrade: bool = True) -> Talk:
    """Says the first answer unasked, then each answer to its question; shakes hands after the last."""

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        for question, answer in exchanges:
            if question:
                assert await reader.readexactly(len(question)) == question
            writer.write(answer)
            await writer.drain()
        if upgrade:
            await speak_tls(reader, writer)
            await writer.drain()
            await reader.read()

    return talk


EHLO = (b"EHLO probemill\r\n", b"250-x\r\n250-STARTTLS\r\n250 y\r\n")
MYSQL_HEAD = b"\x0a8.0\0" + bytes(4) + b"saltsalt\0"
MYSQL = MYSQL_HEAD + b"\xff\xff" + bytes(20)
MYSQL_REQUEST = b"\x20\0\0\x01" + struct.pack("<IIB23x", 0x8A00, 1 << 24, 33)
XMPP_TLS = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
XMPP_HEAD = b"<?xml version='1.0'?><stream:stream from='x' id='1'>"
XMPP_FEATURES = XMPP_HEAD + b"<stream:features>" + XMPP_TLS + b"><required/></starttls></stream:features>"


def opening(kind: str, to: str = HOST) -> bytes:
    return (
        f"<?xml version='1.0'?><stream:stream xmlns='jabber:{kind}' version='1.0'"
        f" xmlns:stream='http://etherx.jabber.org/streams' to='{to}'>".encode()
    )


LDAP = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"

UPGRADING: dict[str, Talk] = {
    "smtp": line_server((b"", b"220-a\r\n220 b\r\n"), EHLO, (b"STARTTLS\r\n", b"220 go\r\n")),
    "imap": line_server((b"", b"* OK hi\r\n"), (b"a STARTTLS\r\n", b"* BYE not yet\r\na OK go\r\n")),
    "pop3": line_server((b"", b"+OK hi\r\n"), (b"STLS\r\n", b"+OK go\r\n")),
    "ftp": line_server((b"", b"220-a\r\n b\r\n220 c\r\n"), (b"AUTH TLS\r\n", b"234 go\r\n")),
    "ldap": line_server((LDAP, bytes.fromhex("300c02010178070a010004000400"))),
    "postgresql": line_server((struct.pack(">II", 8, 80877103), b"S")),
    "lmtp": line_server(
        (b"", b"220 a\r\n"), (b"LHLO probemill\r\n", b"250-x\r\n250 STARTTLS\r\n"), (b"STARTTLS\r\n", b"220 go\r\n")
    ),
    "sieve": line_server(
        (b"", b'"IMPLEMENTATION" "x"\r\n"STARTTLS"\r\nOK\r\n'), (b"STARTTLS\r\n", b'OK "Begin TLS."\r\n')
    ),
    "nntp": line_server((b"", b"200 hi\r\n"), (b"STARTTLS\r\n", b"382 go\r\n")),
    "irc": line_server((b"", b":x NOTICE * :hi\r\n"), (b"STARTTLS\r\n", b"PING :1\r\n:x 670 * :go\r\n")),
    "jabber": line_server((opening("client"), XMPP_FEATURES), (XMPP_TLS + b"/>", b"<proceed xmlns='x'/>")),
    "xmpp-server": line_server((opening("server"), XMPP_FEATURES), (XMPP_TLS + b"/>", b"\n<proceed xmlns='x'/>")),
    "mysql": line_server((b"", len(MYSQL).to_bytes(3, "little") + b"\0" + MYSQL), (MYSQL_REQUEST, b"")),
}
MYSQL_PLAIN = MYSQL_HEAD + b"\xff\xf7" + bytes(20)
REFUSING: dict[str, Talk] = {
    "smtp": line_server((b"", b"220 a\r\n"), EHLO, (b"STARTTLS\r\n", b"502 no\r\n"), upgrade=False),
    "imap": line_server((b"", b"* OK hi\r\n"), (b"a STARTTLS\r\n", b"a BAD no\r\n"), upgrade=False),
    "pop3": line_server((b"", b"+OK hi\r\n"), (b"STLS\r\n", b"-ERR no\r\n"), upgrade=False),
    "ftp": line_server((b"", b"220 c\r\n"), (b"AUTH TLS\r\n", b"530 no\r\n"), upgrade=False),
    "ldap": line_server((LDAP, bytes.fromhex("300c02010178070a010204000400")), upgrade=False),
    "postgresql": line_server((struct.pack(">II", 8, 80877103), b"N"), upgrade=False),
    "lmtp": line_server(
        (b"", b"220 a\r\n"), (b"LHLO probemill\r\n", b"250 x\r\n"), (b"STARTTLS\r\n", b"502 no\r\n"), upgrade=False
    ),
    "sieve": line_server((b"", b'"SIEVE" "x"\r\nOK\r\n'), (b"STARTTLS\r\n", b"NO\r\n"), upgrade=False),
    "nntp": line_server((b"", b"200 hi\r\n"), (b"STARTTLS\r\n", b"580 no\r\n"), upgrade=False),
    "irc": line_server((b"STARTTLS\r\n", b":x 421 * STARTTLS :Unknown command\r\n"), upgrade=False),
    "jabber": line_server((opening("client"), XMPP_HEAD + b"<stream:features/>"), upgrade=False),
    "mysql": line_server((b"", len(MYSQL_PLAIN).to_bytes(3, "little") + b"\0" + MYSQL_PLAIN), upgrade=False),
}


async def _starttls(service: str, talk: Talk) -> ServiceResult:
    async with tcp_peer(talk) as port:
        return await enriched("starttls", row(service, port))


@pytest.mark.parametrize("service", UPGRADING)
def test_starttls_fetches_the_certificate(service: str) -> None:
    result = run(_starttls(service, UPGRADING[service]))
    assert result.post == {"starttls": {"offered": True}}
    assert result.tls is not None
    assert (result.tls.subject, result.tls.names) == ("CN=scripted.test", ("scripted.test",))
    assert result.tunnel is Tunnel.NONE


def test_a_certificate_for_another_host_than_was_asked_for() -> None:
    """Noted as of a service in TLS."""

    async def test(host: str) -> ServiceResult:
        async with tcp_peer(UPGRADING["smtp"]) as port:
            return await enriched("starttls", row("smtp", port, host=host))

    for host, mismatch in (("other.test", True), ("scripted.test", False)):
        tls = run(test(host)).tls
        assert tls is not None
        assert ("name-mismatch" in tls.notes) == mismatch


@pytest.mark.parametrize("service", REFUSING)
def test_starttls_refused(service: str) -> None:
    result = run(_starttls(service, REFUSING[service]))
    assert (result.post, result.tls) == ({"starttls": {"offered": False}}, None)


@pytest.mark.parametrize(
    ("fields", "to"),
    [({}, HOST), ({"hostname": "its.test"}, "its.test"), ({"host": "us.test", "hostname": "x"}, "us.test")],
)
def test_an_xmpp_server_is_asked_for_the_name_that_is_known(fields: dict[str, Any], to: str) -> None:
    """The user's, else the one that the match gave; never with a quote that would write more of the header."""
    talk = line_server((opening("client", to), XMPP_FEATURES), (XMPP_TLS + b"/>", b"<proceed/>"))

    async def test(**fields: Any) -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("starttls", row("xmpp", port, **fields))

    assert run(test(**fields)).tls is not None
    assert run(test(**{name: f"{value}'/>" for name, value in fields.items()})).tls is not None


def test_a_service_that_only_the_port_s_number_names_is_asked_for_starttls() -> None:
    """Many a chat server greets nobody and is recognised by no line; what the number does not name, either, is left."""
    modules = PostProcessing(("starttls",))
    for name, port, wanted in (("xmpp-client", 5222, True), ("irc", 6667, True), ("svcloud", 8404, False)):
        assert modules.wants(row(name, port, verdict=Verdict.NOMATCH)) == wanted

    async def test() -> ServiceResult:
        async with tcp_peer(UPGRADING["jabber"]) as port:
            return await enriched("starttls", row("xmpp-client", port, verdict=Verdict.NOMATCH))

    result = run(test())
    assert (result.name, result.method, result.verdict) == ("xmpp-client", "table", Verdict.NOMATCH)
    assert result.tls is not None


def test_an_xmpp_error_says_nothing_about_tls() -> None:
    error = XMPP_HEAD + b"<stream:error><host-unknown/></stream:error></stream:stream>"
    result = run(_starttls("jabber", line_server((opening("client"), error), upgrade=False)))
    assert (result.post, result.tls) == (None, None)


def test_starttls_that_breaks_in_the_handshake() -> None:
    talk = line_server((b"", b"+OK hi\r\n"), (b"STLS\r\n", b"+OK go\r\nthis is no TLS at all"), upgrade=False)
    result = run(_starttls("pop3", talk))
    assert result.post is not None
    assert result.post["starttls"]["offered"]
    assert result.post["starttls"]["error"]


# -- peers that do not behave


async def _silent(reader: StreamReader, writer: StreamWriter) -> None:
    await asyncio.sleep(60)


async def _trickle(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(b"2")
        await asyncio.sleep(0.01)


async def _endless(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 200 OK\r\nSSH-2.0-x\r\n220-\r\n" * 1000)
        await writer.drain()


async def _binary(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(bytes(range(256)) * 40)
    await asyncio.sleep(60)


async def _zeros(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def _leaves(reader: StreamReader, writer: StreamWriter) -> None:
    return


CONVERSATIONS = [
    (module.name, "ssl" if service == "*" else service)
    for module in ASKERS
    for service in (sorted(module.services) or [""])
]


@pytest.mark.parametrize(
    "talk", [_silent, _trickle, _endless, _binary, _zeros, _leaves], ids=lambda talk: talk.__name__
)
def test_hostile_peers_neither_hold_up_a_row_nor_harm_it(talk: Talk) -> None:
    """Every module against every kind of bad peer, all at once: done when the time is up, the row as before."""

    async def one(module: str, service: str, port: int) -> None:
        known = row_of(module, service, port)
        modules = PostProcessing((module,))
        assert modules.wants(known)
        result = await modules.enrich(known, b"", dialler(port, 0.4))
        assert (result.name, result.product, result.version, result.verdict) == (known.name, "", "", known.verdict)

    async def test() -> None:
        async with tcp_peer(talk) as port:
            await asyncio.gather(*(one(module, service, port) for module, service in CONVERSATIONS))

    began = time.monotonic()
    run(test())
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "reply", [b"", b"\0", bytes(24), b"0" * 24, b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x02\x01\x03", SNMP_REPORT[:50]]
)
@pytest.mark.parametrize(("module", "service"), [("snmp", "snmp"), ("murmur", "murmur"), ("rpc", "rpcbind")])
def test_odd_datagrams(module: str, service: str, reply: bytes) -> None:
    async def test() -> ServiceResult:
        async with udp_peer(lambda _: [reply]) as port:
            modules = PostProcessing((module,))
            return await modules.enrich(row(service, port, "udp"), b"", dialler(port, 0.4))

    result = run(test())
    assert (result.name, result.product, result.version, result.post) == (service, "", "", None)


class Faulty:
    """An Asker that gets stuck, or trips over something."""

    name = "ssh"
    services = frozenset(("ssh",))
    undetermined = False

    def __init__(self, fault: Callable[[], Any]) -> None:
        self._fault = fault

    def applies(self, result: ServiceResult) -> bool:
        return True

    async def ask(self, result: ServiceResult, response: bytes, dial: Any) -> ServiceResult:
        return await self._fault()


@pytest.mark.parametrize("fault", [lambda: asyncio.sleep(60), lambda: 1 / 0, lambda: {}["x"]])
def test_a_faulty_module_costs_no_row(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Any]) -> None:
    monkeypatch.setattr(post, "ASKERS", (Faulty(fault),))

    async def test() -> tuple[ServiceResult, ServiceResult]:
        known = row("ssh", 1, product="x")
        return known, await PostProcessing(("ssh",)).enrich(known, b"", dialler(1, 0.2))

    began = time.monotonic()
    known, result = run(test())
    assert time.monotonic() - began < 30
    assert replace(result, elapsed_ms=0) == known


# -- in a scan


PROBES = """Probe TCP NULL q||
totalwaitms 3000
match amqp m|^broker\\n| p/Something/
match ssh m|^SSH-2| p/Shell/
"""


def banner_first(banner: bytes, then: Talk) -> tuple[Talk, list[int]]:
    """A server that greets its first connection with a banner, and holds the given conversation with all others."""
    connections: list[int] = []

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        connections.append(len(connections))
        if len(connections) == 1:
            writer.write(banner)
            await writer.drain()
            await reader.read()
        else:
            await then(reader, writer)

    return talk, connections


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., ScanConfig]:
    path = tmp_path / "probes"
    path.write_text(PROBES)
    return lambda **options: ScanConfig(probes=(str(path),), matcher="reference", **options)


def test_a_scan_enriches_its_rows(config: Callable[..., ScanConfig]) -> None:
    async def test() -> tuple[list[ServiceResult], list[int]]:
        talk, connections = banner_first(b"broker\n", amqp)
        async with tcp_peer(talk) as port:
            return [found async for found in scan([f"{HOST}:{port}"], config())], connections

    rows, connections = run(test())
    assert [(found.product, found.version, found.connections) for found in rows] == [("RabbitMQ", "3.10.8", 2)]
    assert len(connections) == 2


@pytest.mark.parametrize(
    ("banner", "options"), [(b"broker\n", {"post": ()}), (b"SSH-2.0-x\r\n", {})], ids=["no post", "nothing to ask"]
)
def test_a_scan_asks_nothing_further(config: Callable[..., ScanConfig], banner: bytes, options: dict[str, Any]) -> None:
    async def test() -> tuple[list[ServiceResult], list[int]]:
        talk, connections = banner_first(banner, amqp)
        async with tcp_peer(talk) as port:
            return [found async for found in scan([f"{HOST}:{port}"], config(**options))], connections

    rows, connections = run(test())
    assert [(found.verdict, found.connections) for found in rows] == [(Verdict.HARDMATCHED, 1)]
    assert len(connections) == 1


def test_a_cancelled_scan_gives_the_plain_rows(config: Callable[..., ScanConfig]) -> None:
    """Whoever is in a further conversation is written as the scan left it."""
    rows: list[ServiceResult] = []

    async def deliver(batch: Batch) -> None:
        rows.extend(decode_rows(batch.rows))

    async def test() -> None:
        talking = asyncio.Event()

        async def listens(reader: StreamReader, writer: StreamWriter) -> None:
            assert await reader.read(8)
            talking.set()
            await asyncio.sleep(60)

        talk, _ = banner_first(b"broker\n", listens)
        async with tcp_peer(talk) as port:

            async def source() -> Any:
                yield [Target(0, HOST, port)]

            runner = make_runner(config())
            running = asyncio.create_task(runner.run(source(), deliver))
            await talking.wait()
            began = time.monotonic()
            runner.cancel(Reason.CANCELLED)
            await running
            assert time.monotonic() - began < 4

    run(test())
    assert [(found.product, found.verdict, found.connections) for found in rows] == [
        ("Something", Verdict.HARDMATCHED, 1)
    ]


def test_a_broker_that_falls_silent_costs_no_row(config: Callable[..., ScanConfig]) -> None:
    async def test() -> list[ServiceResult]:
        talk, _ = banner_first(b"broker\n", _silent)
        async with tcp_peer(talk) as port:
            return [found async for found in scan([f"{HOST}:{port}"], config())]

    rows = run(test())
    assert [(found.product, found.version, found.connections) for found in rows] == [("Something", "", 2)]
