"""The SF-Port text: escapes, wrapping, limits, and the same text as Nmap's own for the same responses."""

import contextlib
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.fingerprint import Fingerprint, escape, unwrap
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
    assert fingerprint.servicefp.endswith(r'q\0");')


def test_header() -> None:
    """B-73: the header dates the first item, without padding, and tells tunnel and intensity."""
    fingerprint = make(443, tunnel=Tunnel.SSL, intensity=3)
    fingerprint.add("A", b"hi", NOW)
    fingerprint.add("B", b"ho", NOW + 86_400)
    day = datetime.fromtimestamp(NOW)
    assert fingerprint.servicefp == (
        f"SF-Port443-TCP:V=7.93%T=SSL%I=3%D={day.month}/{day.day}%Time=6B013C55%P=x86_64-pc-linux-gnu"
        '%r(A,2,"hi")%r(B,2,"ho");'
    )


def test_nothing_answered() -> None:
    """B-74: no bytes ever, no text."""
    fingerprint = make()
    fingerprint.add("NULL", b"", NOW)
    assert (fingerprint.text, fingerprint.servicefp) == ("", "")


def test_order_of_items() -> None:
    """B-118: one item for each probe that got an answer, in the order in which they ended."""
    fingerprint = make()
    for probe, response in (("NULL", b"ban"), ("A", b"bana"), ("B", b"b")):
        fingerprint.add(probe, response, NOW)
    assert re.findall(r"%r\((\w+),(\w+),", fingerprint.servicefp) == [("NULL", "3"), ("A", "4"), ("B", "1")]


@pytest.mark.parametrize(
    ("debug", "copied", "probes"), [(False, 900, ["NULL"]), (True, 1300, ["NULL", "A", "B"])], ids=["plain", "debug"]
)
def test_limits(debug: bool, copied: int, probes: list[str]) -> None:
    """M-07: 2,048 bytes that take four characters each, for three probes; the length told is that of the response."""
    fingerprint = make(debug=debug)
    for probe in ("NULL", "A", "B"):
        fingerprint.add(probe, b"\x01" * 2048, NOW)
    items = re.findall(r'%r\((\w+),(\w+),"([^"]*)"\)', fingerprint.servicefp)
    assert items == [(probe, "800", r"\x01" * copied) for probe in probes]


@pytest.mark.parametrize("excess", [0, 1], ids=["at 2,200", "above 2,200"])
def test_an_item_is_refused_once_the_wrapped_text_is_too_long(excess: int) -> None:
    """The limit counts line breaks: 2,200 characters with them still take an item, 2,201 do not."""
    room = next(n for n in range(100, 900) if _length_without_end(n) >= 2200 + excess)
    assert _length_without_end(room) == 2200 + excess
    fingerprint = _filled(room)
    fingerprint.add("C", b"c", NOW)
    assert ("%r(C," in fingerprint.servicefp) is (excess == 0)


def _filled(room: int) -> Fingerprint:
    fingerprint = make()
    fingerprint.add("A", b"\x01" * 300, NOW)
    fingerprint.add("B", b"b" * room, NOW)
    return fingerprint


def _length_without_end(room: int) -> int:
    return len(_filled(room).text) - len(";")


@pytest.mark.parametrize("length", range(200))
def test_wrapping(length: int) -> None:
    """Lines are full at 74 characters; only the last is shorter, or one longer by its semicolon."""
    fingerprint = make()
    fingerprint.add("NULL", b"x" * (length + 1), NOW)
    *full, last = fingerprint.text.split("\n")
    assert {len(line) for line in full} == {74}
    assert all(line.startswith("SF:") for line in [*full[1:], last])
    assert len(last.removesuffix(";")) in range(4, 75)
    assert unwrap(fingerprint.text) == fingerprint.servicefp


# The same text as Nmap's, on loopback.

NMAP = shutil.which("nmap")
NMAP_DATA = next((path for path in map(Path, ("/usr/share/nmap", "/usr/local/share/nmap")) if path.is_dir()), None)

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(servers: list[Serve]) -> Iterator[list[int]]:
    """One loopback port for each server, which gets each connection in a thread of its own."""

    def accept(listener: socket.socket, serve: Serve) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection, serve), daemon=True).start()

    def talk(connection: socket.socket, serve: Serve) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    with contextlib.ExitStack() as stack:
        ports = []
        for serve in servers:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=accept, args=(listener, serve), daemon=True).start()
            ports.append(listener.getsockname()[1])
        yield ports
        for port in ports:  # accept() does not return when another thread closes its socket: wake it up
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()


def speaking(banner: bytes, answers: dict[bytes, bytes]) -> Serve:
    """Send a banner, then an answer to each probe payload, and wait for the other side to close."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(banner)
        while data := connection.recv(4096):
            connection.sendall(answers.get(data, b""))

    return serve


def encrypted(context: ssl.SSLContext, serve: Serve) -> Serve:
    """The same inside TLS."""

    def tunnelled(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            serve(inner)

    return tunnelled


def nmap_fingerprints(folder: Path, database: bytes, ports: list[int], *options: str) -> dict[int, str]:
    """What `nmap -sV` prints for these ports, fingerprints only, from XML (which has them all)."""
    if NMAP is None or NMAP_DATA is None:
        pytest.skip("nmap or its data folder is not installed")
    scripts = folder / "scripts"  # without scripts, which would add connections of their own
    scripts.mkdir()
    (scripts / "script.db").touch()
    for name in ("nmap-services", "nmap-protocols", "nselib", "nse_main.lua"):
        (folder / name).symlink_to(NMAP_DATA / name)
    (folder / "db").write_bytes(database)
    which = ",".join(map(str, ports))
    command = [NMAP, "-n", "-Pn", "-sT", "-sV", "--datadir", folder, "--versiondb", folder / "db", "-p", which, *options]
    done = subprocess.run([*command, "-oX", folder / "out.xml", "127.0.0.1"], capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip(f"nmap does not run here: {done.stderr.decode(errors='replace').strip()[:200]}")
    found = re.findall(r'portid="(\d+)".*?servicefp="([^"]*)"', (folder / "out.xml").read_text())
    return {int(port): _unescape(text) for port, text in found}


def _unescape(text: str) -> str:
    for entity, plain in (("&quot;", '"'), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&#45;", "-"), ("&amp;", "&")):
        text = text.replace(entity, plain)
    return text


def replay(fingerprint: Fingerprint, theirs: str, items: list[tuple[str, bytes]]) -> str:
    """Our text for the same items at the second that their header names."""
    now = int(re.search(r"%Time=([0-9A-F]+)", theirs)[1], 16)  # type: ignore[index]
    for probe, response in items:
        fingerprint.add(probe, response, now)
    return fingerprint.servicefp


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
        *((draw.randbytes(draw.randrange(1, 600)), draw.randbytes(draw.randrange(400)), b"\x00" + b"7" * n) for n in (1, 9, 80)),
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
