"""The SF-Port text: escapes, wrapping, limits, and the same text as Nmap's own for the same responses."""

import contextlib
import html
import os
import random
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nmap_loopback import encrypted, listening, run_nmap, speaking

from engine.conversation.fingerprint import Fingerprint, escape, unwrap
from engine.model import Tunnel

NOW = 1_795_243_093.9  # 2026-11-21


def make(port: int = 23, **changes: Any) -> Fingerprint:
    return Fingerprint(port, "tcp", **{"version": "7.93", "intensity": 7, "platform": "x86_64-pc-linux-gnu"} | changes)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"aZ09", "aZ09"),
        (b" ", r"\x20"),
        (b"\r\n\t", r"\r\n\t"),
        (b"\x01\x1f\x7f\x80\xff", r"\x01\x1f\x7f\x80\xff"),
        (b'\\?"[]().*+$^|', r"\\\?\"\[\]\(\)\.\*\+\$\^\|"),
        (b"!#%&',-/:;<=>@_`{}~", "!#%&',-/:;<=>@_`{}~"),
        (b"\0a\0", r"\0a\0"),
        (b"\x001", r"\x001"),
        (b"\0\x009", r"\0\x009"),
        (b"\\01", r"\\01"),
    ],
)
def test_escapes(data: bytes, text: str) -> None:
    """B-70, B-94: a NUL is short unless a digit follows; a backslash of the data is no NUL."""
    assert escape(data) == text


def test_nul_at_the_cut_looks_only_at_copied_bytes() -> None:
    """Byte 901 is not copied, so the digit there does not lengthen the NUL before it."""
    fingerprint = make()
    fingerprint.add("NULL", b"q" * 899 + b"\x001", NOW)
    assert unwrap(fingerprint.text).endswith(r'q\0");')


def test_header() -> None:
    """B-73: the header dates the first item, without padding, and tells tunnel and intensity."""
    fingerprint = make(443, tunnel=Tunnel.SSL, intensity=3)
    fingerprint.add("A", b"hi", NOW)
    fingerprint.add("B", b"ho", NOW + 86_400)
    day = datetime.fromtimestamp(NOW)
    assert unwrap(fingerprint.text) == (
        f"SF-Port443-TCP:V=7.93%T=SSL%I=3%D={day.month}/{day.day}%Time=6B013C55%P=x86_64-pc-linux-gnu"
        '%r(A,2,"hi")%r(B,2,"ho");'
    )


def test_nothing_answered() -> None:
    """B-74: no bytes ever, no text."""
    fingerprint = make()
    fingerprint.add("NULL", b"", NOW)
    assert (fingerprint.text, unwrap(fingerprint.text)) == ("", "")


def test_order_of_items() -> None:
    """B-118: one item for each probe that got an answer, in the order in which they ended."""
    fingerprint = make()
    for probe, response in (("NULL", b"ban"), ("A", b"bana"), ("B", b"b")):
        fingerprint.add(probe, response, NOW)
    assert re.findall(r"%r\((\w+),(\w+),", unwrap(fingerprint.text)) == [("NULL", "3"), ("A", "4"), ("B", "1")]


@pytest.mark.parametrize(
    ("debug", "copied", "probes"), [(False, 900, ["NULL"]), (True, 1300, ["NULL", "A", "B"])], ids=["plain", "debug"]
)
def test_limits(debug: bool, copied: int, probes: list[str]) -> None:
    """M-07: 2,048 bytes that take three characters each, for three probes; the length told is that of the response."""
    response = (b"\x01\x01q\n" * 512, r"\x01\x01q\n" * (copied // 4))
    fingerprint = make(debug=debug)
    for probe in ("NULL", "A", "B"):
        fingerprint.add(probe, response[0], NOW)
    items = re.findall(r'%r\((\w+),(\w+),"([^"]*)"\)', unwrap(fingerprint.text))
    assert items == [(probe, "800", response[1]) for probe in probes]


@pytest.mark.parametrize("excess", [0, 1], ids=["at 2,200", "above 2,200"])
def test_an_item_is_refused_once_the_wrapped_text_is_too_long(excess: int) -> None:
    """The limit counts line breaks: 2,200 characters with them still take an item, 2,201 do not."""
    room = next(n for n in range(100, 900) if _length_without_end(n) >= 2200 + excess)
    assert _length_without_end(room) == 2200 + excess
    fingerprint = _filled(room)
    fingerprint.add("C", b"c", NOW)
    assert ("%r(C," in unwrap(fingerprint.text)) is (excess == 0)


def _filled(room: int) -> Fingerprint:
    fingerprint = make()
    fingerprint.add("A", b"\x01" * 300, NOW)
    fingerprint.add("B", b"b" * room, NOW)
    return fingerprint


def _length_without_end(room: int) -> int:
    return len(_filled(room).text) - len(";")


def test_wrapping() -> None:
    """Lines are full at 74 characters; only the last is shorter, or one longer by its semicolon."""
    for length in range(1, 200):
        fingerprint = make()
        fingerprint.add("NULL", b"x" * length, NOW)
        *full, last = fingerprint.text.split("\n")
        assert {len(line) for line in full} == {74}, length
        assert all(line.startswith("SF:") for line in [*full[1:], last]), length
        assert len(last.removesuffix(";")) in range(4, 75), length
        assert unwrap(fingerprint.text).endswith(f'%r(NULL,{length:X},"{"x" * length}");'), length


# The same text as Nmap's, on loopback.


def nmap_fingerprints(folder: Path, database: bytes, ports: list[int], *options: str) -> dict[int, str]:
    """What `nmap -sV` has for these ports, fingerprints only, from XML (which has them all)."""
    run_nmap(folder, database, ports, *options)
    found = re.findall(r'portid="(\d+)".*?servicefp="([^"]*)"', (folder / "out.xml").read_text())
    return {int(port): html.unescape(text) for port, text in found}


def replay(fingerprint: Fingerprint, theirs: str, items: list[tuple[str, bytes]]) -> str:
    """Our text for the same items at the second that their header names."""
    now = int(re.search(r"%Time=([0-9A-F]+)", theirs)[1], 16)  # type: ignore[index]
    for probe, response in items:
        fingerprint.add(probe, response, now)
    return unwrap(fingerprint.text)


DATABASE = b"""\
Probe TCP NULL q||
totalwaitms 300
match never m|^(?!)x|
Probe TCP A q|AAA|
ports 1-65535
totalwaitms 300
match never m|^(?!)x|
Probe TCP a-longer_name.of-a-probe q|BBB|
ports 1-65535
totalwaitms 300
match never m|^(?!)x|
"""


def responses(seed: int) -> list[tuple[bytes, bytes, bytes]]:
    """Banner and two answers for each of ten services: short, long, every byte, NULs before digits, nothing at all."""
    print(f"seed {seed}")
    draw = random.Random(seed)
    return [
        (b"unk", b"a", b"b"),
        (bytes(range(256)), b"", b"\0" * 5),
        (b"\x001\0a\0", b"2", b""),
        (b"", b"only A\r\n", b""),
        (b"", b"", b'"quoted" \\ -- <&>\''),
        (b"q" * 1500, b"A", b"B"),
        (b"\x01" * 2048, b"A" * 900, b"B"),
        *(
            (draw.randbytes(draw.randrange(1, 600)), draw.randbytes(draw.randrange(400)), b"\x00" + b"7" * n)
            for n in (1, 9, 80)
        ),
    ]


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_ten_unknown_services_read_as_with_nmap(tmp_path: Path, debug: bool) -> None:
    """The text of ten services that nothing recognises equals Nmap's. The time is theirs, so even the date agrees."""
    services = responses(seed=int.from_bytes(os.urandom(4)))
    servers = [speaking(banner, {b"AAA": to_a, b"BBB": to_b}) for banner, to_a, to_b in services]
    with listening(servers) as ports:
        theirs = nmap_fingerprints(tmp_path, DATABASE, ports, *["-d"] * debug)
    assert sorted(theirs) == sorted(ports)
    for port, (banner, to_a, to_b) in zip(ports, services, strict=True):
        header = re.match(r"SF-Port\d+-TCP:V=(.*?)%I=7%D=.*?%Time=.*?%P=(.*?)%r", theirs[port])
        assert header is not None
        version, platform = header.groups()
        ours = Fingerprint(port, "tcp", version=version, intensity=7, platform=platform, debug=debug)
        # A shares the banner's connection and keeps what came before; the third probe has a connection of its own.
        items = [("NULL", banner), ("A", banner + to_a), ("a-longer_name.of-a-probe", banner + to_b)]
        assert replay(ours, theirs[port], items) == theirs[port]


def client_hello() -> str:
    """The first flight of a TLS client, as a probe string; short, because Nmap 7.93 reads 2,047 bytes a line."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return "".join(f"\\x{byte:02x}" for byte in out.read())


def server_context(folder: Path) -> ssl.SSLContext:
    """A TLS server with a certificate made on the spot."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    start = datetime.now(UTC) - timedelta(days=1)
    certificate = builder.not_valid_before(start).not_valid_after(start + timedelta(days=9)).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "pem").write_bytes(private + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem")
    return context


def test_an_unknown_service_inside_tls_reads_as_with_nmap(tmp_path: Path) -> None:
    """What came back before the tunnel is forgotten; the header says SSL."""
    database = (
        "Probe TCP NULL q||\ntotalwaitms 300\nmatch never m|^(?!)x|\n"
        f"Probe TCP Hello q|{client_hello()}|\nports 1-65535\ntotalwaitms 1000\nmatch ssl m|^\\x16\\x03|s\n"
        "Probe TCP A q|AAA|\nsslports 1-65535\ntotalwaitms 300\nmatch never m|^(?!)x|\n"
    )
    server = encrypted(server_context(tmp_path), speaking(b"inner", {b"AAA": b"\0answer"}))
    with listening([server]) as (port,):
        theirs = nmap_fingerprints(tmp_path, database.encode(), [port])[port]
    header = re.match(r"SF-Port\d+-TCP:V=(.*?)%T=SSL%I=7%D=.*?%P=(.*?)%r", theirs)
    assert header is not None
    version, platform = header.groups()
    ours = Fingerprint(port, "tcp", version=version, intensity=7, platform=platform, tunnel=Tunnel.SSL)
    items = [("NULL", b"inner"), ("A", b"inner\0answer"), ("Hello", b"inner")]
    assert replay(ours, theirs, items) == theirs
