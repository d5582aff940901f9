"""What Windows servers say of themselves by NTLM, and RDP by its negotiation: documented bytes, replayed on loopback.

The same replaying servers are asked by the scripts of an installed Nmap, and by a real xrdp and Dovecot where they are.
"""

import base64
import re
import socket
import struct
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nmap_loopback import NMAP, NMAP_DATA, Serve, encrypted, listening
from peers import HOST, enriched, row, run
from scripted import tls_context

from engine.model import ServiceResult, Tunnel
from engine.post.base_ntlm import NEGOTIATE, challenge_facts
from engine.post.base_rdp import Agreement, agreement
from engine.post.ntlm import TS_REQUEST
from engine.transports.dial import DialError

# [MS-NLMP] 4.2.4.3: the CHALLENGE of its NTLMv2 example.
DOCUMENTED = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef"
    "00000000000000002400240044000000060070170000000f5300650072007600"
    "6500720002000c0044006f006d00610069006e0001000c005300650072007600"
    "6500720000000000"
)
FLAGS = 0xE28A8215


def pair(kind: int, value: bytes | str) -> bytes:
    encoded = value.encode("utf-16-le") if isinstance(value, str) else value
    return struct.pack("<HH", kind, len(encoded)) + encoded


def challenge(target: str, pairs: bytes, flags: int = FLAGS, version: tuple[int, int, int] = (10, 0, 17763)) -> bytes:
    name = target.encode("utf-16-le")
    return (
        struct.pack("<8sIHHII8s8xHHI", b"NTLMSSP\0", 2, len(name), len(name), 56, flags, b"8 bytes!", len(pairs),
                    len(pairs), 56 + len(name))
        + struct.pack("<BBHxxxB", *version, 15) + name + pairs
    )  # fmt: skip


PAIRS = b"".join(
    (
        pair(2, "EXAMPLE"),
        pair(1, "SRV1"),
        pair(4, "example.test"),
        pair(3, "srv1.example.test"),
        pair(5, "forest.test"),
        pair(7, struct.pack("<Q", 132_000_000_000_000_000)),
        pair(0, b""),
    )
)
SERVER = challenge("EXAMPLE", PAIRS)
FACTS = {
    "target": "EXAMPLE",
    "netbios_domain": "EXAMPLE",
    "netbios_computer": "SRV1",
    "dns_domain": "example.test",
    "dns_computer": "srv1.example.test",
    "dns_tree": "forest.test",
    "os_build": "10.0.17763",
    "time": "2019-04-17T18:40:00Z",
}

# -- the message


def test_the_documented_challenge() -> None:
    assert challenge_facts(DOCUMENTED) == {
        "target": "Server",
        "netbios_domain": "Domain",
        "netbios_computer": "Server",
        "os_build": "6.0.6000",
    }


def test_a_challenge_is_found_in_what_wraps_it() -> None:
    assert challenge_facts(b"\x30\x82\x01\x02" + SERVER + b"\xa3\x04") == FACTS
    assert challenge_facts(SERVER.replace(b"\x02\0\0\0", b"\x03\0\0\0", 1)) is None
    assert challenge_facts(b"") is None


def test_without_their_flags_neither_version_nor_unicode_is_believed() -> None:
    facts = challenge_facts(challenge("", b"", FLAGS & ~(1 << 25)))
    assert facts == {}
    oem = bytearray(challenge("\u4142", b"", FLAGS & ~(1 | 1 << 25)))
    assert challenge_facts(bytes(oem)) == {"target": "BA"}


@given(size=st.integers(0, len(SERVER)))
def test_of_a_cut_challenge_remains_what_is_there(size: int) -> None:
    try:
        facts = challenge_facts(SERVER[:size])
    except struct.error:
        assert size < 48
        return
    assert all(FACTS[name].startswith(str(value)) for name, value in (facts or {}).items())


@given(data=st.binary(max_size=300))
def test_any_bytes_behind_the_signature(data: bytes) -> None:
    """Offsets, lengths and kinds may be what they like: facts that a row can hold, or struct.error."""
    try:
        facts = challenge_facts(b"NTLMSSP\0\x02\0\0\0" + data)
    except struct.error:
        return
    assert facts is not None
    assert all(isinstance(value, str) and value.isprintable() for value in facts.values())


def test_our_question_is_a_message_of_type_1_with_nobody_in_it() -> None:
    assert NEGOTIATE[:12] == b"NTLMSSP\0\x01\0\0\0"
    assert len(NEGOTIATE) == 40
    assert NEGOTIATE[16:32] == 2 * struct.pack("<HHI", 0, 0, 40)
    assert TS_REQUEST[1] == len(TS_REQUEST) - 2


# -- servers that replay


def lines(greeting: bytes, *exchanges: tuple[bytes, bytes]) -> Serve:
    """Answers a line by the first pattern that fits."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(greeting)
        with connection.makefile("rb") as reader:
            for line in reader:
                for pattern, answer in exchanges:
                    if re.match(pattern, line, re.IGNORECASE):
                        connection.sendall(answer)
                        break
                else:
                    connection.sendall(b"500 what\r\n")

    return serve


ENCODED = base64.b64encode(SERVER)
TYPE_1 = rb"(AUTHINFO GENERIC )?TlRMTVNTUAAB"
SMTP = lines(
    b"220 mail.example.test ESMTP\r\n",
    (b"EHLO", b"250-mail.example.test\r\n250-AUTH LOGIN NTLM\r\n250\r\n"),  # RFC 5321: the text may be missing
    (b"AUTH NTLM", b"334 ntlm supported\r\n"),
    (TYPE_1, b"334 " + ENCODED + b"\r\n"),
)
LINE_SERVERS: dict[str, Serve] = {
    "smtp": SMTP,
    "imap": lines(
        b"* OK ready\r\n",
        (rb"\w+ AUTHENTICATE NTLM", b"+\r\n"),
        (rb"\w+ CAPABILITY", b"* CAPABILITY IMAP4rev1 AUTH=NTLM\r\nA OK done\r\n"),
        (TYPE_1, b"+ " + ENCODED + b"\r\n"),
    ),
    "pop3": lines(b"+OK ready\r\n", (b"AUTH NTLM", b"+ \r\n"), (TYPE_1, b"+ " + ENCODED + b"\r\n")),
    "nntp": lines(
        b"200 ready\r\n", (b"AUTHINFO GENERIC NTLM", b"381 go\r\n"), (TYPE_1, b"381 " + ENCODED + b"\r\n")
    ),
}  # fmt: skip


def http(scheme: bytes) -> Serve:
    """Wants the one scheme, and speaks it wherever it is asked for it."""

    def serve(connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(4096)):
                return
            data += more
        asked = re.search(rb"Authorization: " + scheme + b" TlRMTVNTUAAB", data, re.IGNORECASE)
        answer = scheme + b" " + ENCODED if asked else scheme
        connection.sendall(
            b"HTTP/1.1 401 Unauthorized\r\nServer: x\r\nWWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: "
            + answer + b"\r\nContent-Length: 0\r\n\r\n"
        )  # fmt: skip

    return serve


def rdp(accepts: set[int], reason: int = 5) -> Serve:
    """An RDP server with these protocols; of several it takes the greatest. NLA ends after the CHALLENGE."""

    def serve(connection: socket.socket) -> None:
        request = connection.recv(4096)
        asked = struct.unpack_from("<I", request, len(request) - 4)[0] if len(request) >= 19 else 0
        chosen = max((protocol for protocol in accepts if protocol & asked or protocol == asked == 0), default=None)
        answer = struct.pack("<BBHI", 3, 0, 8, reason) if chosen is None else struct.pack("<BBHI", 2, 9, 8, chosen)
        connection.sendall(bytes.fromhex("030000130ed00000123400") + answer)
        if not chosen:
            return
        with tls_context().wrap_socket(connection, server_side=True) as inner:
            if chosen == 2 and b"NTLMSSP\0\x01\0\0\0" in inner.recv(4096):
                token = b"\x04\x82" + struct.pack(">H", len(SERVER)) + SERVER
                for tag in (b"\xa0", b"\x30", b"\x30", b"\xa1"):
                    token = tag + b"\x82" + struct.pack(">H", len(token)) + token
                token = b"\xa0\x03\x02\x01\x06" + token
                inner.sendall(b"\x30\x82" + struct.pack(">H", len(token)) + token)
            inner.recv(1)

    return serve


def asked(module: str, name: str, server: Serve, **fields: Any) -> ServiceResult:
    with listening([server]) as [port]:
        return run(enriched(module, row(name, port, **fields)))


@pytest.mark.parametrize("name", LINE_SERVERS)
@pytest.mark.parametrize("tunnel", Tunnel)
def test_mail_and_news(name: str, tunnel: Tunnel) -> None:
    server = LINE_SERVERS[name]
    result = asked(
        "ntlm", name, server if tunnel is Tunnel.NONE else encrypted(tls_context(), server), tunnel=tunnel
    )  # fmt: skip
    assert result.post == {"ntlm": {"offered": True} | FACTS}
    assert result.connections == 1


def test_smtp_that_speaks_of_ntlm_only_inside_tls() -> None:
    """Then the question goes there, and the certificate into the row."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"220 x\r\n")
        assert connection.recv(100).startswith(b"EHLO")
        connection.sendall(b"250-x\r\n250 STARTTLS\r\n")
        assert connection.recv(100) == b"STARTTLS\r\n"
        connection.sendall(b"220 go\r\n")
        with tls_context().wrap_socket(connection, server_side=True) as inner:
            for expected, answer in (
                (b"EHLO", b"250-x\r\n250 AUTH NTLM\r\n"),
                (b"AUTH NTLM", b"334 \r\n"),
                (b"TlRMTVNT", b"334 " + ENCODED + b"\r\n"),
            ):
                assert inner.recv(500).startswith(expected)
                inner.sendall(answer)
            inner.recv(1)

    result = asked("ntlm", "smtp", serve)
    assert result.post == {"ntlm": {"offered": True} | FACTS}
    assert result.tls is not None
    assert result.tls.subject == "CN=scripted.test"


@pytest.mark.parametrize(("scheme", "connections"), [(b"NTLM", 1), (b"Negotiate", 2)])
def test_http(scheme: bytes, connections: int) -> None:
    result = asked("ntlm", "http", http(scheme))
    assert (result.post, result.connections) == ({"ntlm": {"offered": True} | FACTS}, connections)


REFUSING: dict[str, Serve] = {
    "smtp": lines(b"220 x\r\n", (b"EHLO", b"250-x\r\n250 AUTH PLAIN\r\n")),
    "imap": lines(b"* OK x\r\n", (rb"a AUTH", b"* NO such\r\na NO unsupported\r\n")),
    "pop3": lines(b"+OK x\r\n", (b"AUTH", b"-ERR no\r\n")),
    "nntp": lines(b"200 x\r\n", (b"AUTHINFO", b"501 no\r\n")),
    "http": lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n"),
    "ms-wbt-server": rdp({0, 1}),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_server_without_ntlm(name: str) -> None:
    result = asked("ntlm", name, REFUSING[name])
    assert (result.post, result.connections) == ({"ntlm": {"offered": False}}, 1)


def test_a_token_that_is_no_challenge() -> None:
    odd = lines(b"+OK\r\n", (b"AUTH NTLM", b"+\r\n"), (TYPE_1, b"+ eHh4eA==\r\n"))
    assert asked("ntlm", "pop3", odd).post == {"ntlm": {"offered": False}}


# -- RDP


def test_rdp_by_nla() -> None:
    result = asked("ntlm", "ms-wbt-server", rdp({1, 2}))
    assert result.post == {"ntlm": {"offered": True} | FACTS}
    assert result.tls is not None
    assert (result.tls.subject, result.connections) == ("CN=scripted.test", 1)


@pytest.mark.parametrize(
    ("accepts", "reason", "facts"),
    [
        ({0, 1, 2}, 0, {"accepted": ["nla", "tls", "rdp"]}),
        ({2}, 5, {"accepted": ["nla"], "refused": {"tls": "NLA required", "rdp": "NLA required"}}),
        ({0, 1}, 2, {"accepted": ["tls", "rdp"], "refused": {"nla": "TLS not allowed"}}),
        ({1}, 77, {"accepted": ["tls"], "refused": {"nla": "reason 77", "rdp": "reason 77"}}),
        ({0}, 3, {"accepted": ["rdp"], "refused": {"nla": "no certificate", "tls": "no certificate"}}),
    ],
)
def test_rdp_protections(accepts: set[int], reason: int, facts: dict[str, Any]) -> None:
    result = asked("rdp", "ms-wbt-server", rdp(accepts, reason))
    assert (result.post, result.connections) == ({"rdp": facts}, 3)
    assert (result.tls is not None) == bool(accepts & {1, 2})


def test_forms_of_a_confirm() -> None:
    head = bytes.fromhex("06d00000123400")
    assert agreement(head) == Agreement(0), "a server before 2003 knows no choice"
    assert agreement(head + struct.pack("<BBHI", 2, 0x1F, 8, 8)) == Agreement(8, "", 0x1F)
    for other in (b"", b"\x06", b"\x06\xe0" + head[2:], head + struct.pack("<BBHI", 9, 0, 8, 8)):
        with pytest.raises((DialError, struct.error)):
            agreement(other)


# -- beside Nmap's scripts

TOLD = {  # what Nmap's scripts call it
    "Target_Name": "target",
    "NetBIOS_Domain_Name": "netbios_domain",
    "NetBIOS_Computer_Name": "netbios_computer",
    "DNS_Domain_Name": "dns_domain",
    "DNS_Computer_Name": "dns_computer",
    "DNS_Tree_Name": "dns_tree",
    "Product_Version": "os_build",
}
SCRIPTS: dict[str, tuple[str, Serve]] = {
    "rdp-ntlm-info": ("ms-wbt-server", rdp({1, 2})),
    "http-ntlm-info": ("http", http(b"NTLM")),
    **{f"{name}-ntlm-info": (name, server) for name, server in LINE_SERVERS.items()},
}


def nmap_script(script: str, port: int, *options: str) -> str:
    """What an installed Nmap's script says of a port on loopback; skips without it."""
    if NMAP is None or NMAP_DATA is None or not (NMAP_DATA / "scripts" / f"{script}.nse").exists():
        pytest.skip(f"no Nmap with {script} here")
    command = [NMAP, "-n", "-Pn", "-sT", "-p", str(port), "--script", f"+{script}", *options, HOST]
    return subprocess.run(command, capture_output=True, timeout=60, check=True, text=True).stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_nmaps_script_says_the_same(script: str) -> None:
    name, server = SCRIPTS[script]
    with listening([server]) as [port]:
        said = dict(re.findall(r"^\|[ _]+(\w+): ([^\n]+)$", nmap_script(script, port), re.MULTILINE))
        ours = run(enriched("ntlm", row(name, port))).post
    assert ours is not None
    assert {TOLD[key]: value.strip() for key, value in said.items() if key in TOLD} == {
        key: value for key, value in ours["ntlm"].items() if key in TOLD.values()
    }
