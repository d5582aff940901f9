"""Peers that mean harm: each conversation ends within its budget, with a row that says why, and costs little memory."""

import asyncio
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import certificate, context_with
from cryptography.hazmat.primitives.asymmetric import ec
from loopback import DATABASE, Farm, Talk, Visit, config, database_file, greeting_after, reset, scan, silent
from peers import speak_tls

from engine.model import Reason, ServiceResult, Tunnel, Verdict
from engine.transports.tls import MAX_OVERHEAD

ROWS = 5  # of each kind
LIMIT_S = 20.0  # for what takes two seconds on a quiet machine
LARGE = 8000  # bytes of a probe that does not fit into the smallest socket buffers
SLACK_MS = 10_000


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


def attack(talk: Talk, database: str, receive_buffer: int = 0, **options: object) -> tuple[ServiceResult, Farm]:
    """Scan some services of a kind beside an honest one. -> the row, which is the same for all of the kind; the farm"""
    with Farm(talk, receive_buffer) as farm, Farm(greeting_after(0.0)) as honest:
        targets = [*farm.targets(*(f"127.6.0.{last}" for last in range(1, ROWS + 1))), *honest.targets("127.6.0.1")]
        rows, _ = scan(targets, config(database, **options), LIMIT_S)
    assert len(rows) == ROWS + 1
    assert [row.name for row in rows if row.port == honest.port] == ["hello"]
    hostile = [row for row in rows if row.port == farm.port]
    outcomes = {(row.verdict, row.reason, row.name, row.tunnel) for row in hostile}
    assert len(outcomes) == 1, outcomes
    return max(hostile, key=lambda row: row.elapsed_ms), farm


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    while True:
        writer.write(b"." * 65536)
        await writer.drain()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    while True:
        writer.write(b".")
        await asyncio.sleep(0.05)


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)


def test_tarpit(database: str) -> None:
    """Accepts, and says nothing: two windows, then a third on a connection of its own."""
    row, farm = attack(silent, database)
    assert (row.verdict, row.state) == (Verdict.NOMATCH, "open")
    assert len(farm.visits) == ROWS * 2
    assert {visit.received for visit in farm.visits} == {b"ASK\r\n", b"MORE\r\n"}
    assert 1200 <= row.elapsed_ms < SLACK_MS


def test_tarpit_of_many_probes(tmp_path: Path) -> None:
    """Where the probes do not end either, the service's budget does."""
    probes = b"".join(b"Probe TCP P%d q|P%d|\nrarity 1\ntotalwaitms 300\n" % (n, n) for n in range(100))
    row, _ = attack(silent, database_file(tmp_path, DATABASE + probes), service_timeout_s=1.5)
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.BUDGET)
    assert 1500 <= row.elapsed_ms < SLACK_MS


def test_endless_sender(database: str) -> None:
    """4096 bytes that no line fits end a window; and what is read beyond is bounded by one read each."""
    row, farm = attack(flood, database)
    assert row.verdict is Verdict.NOMATCH
    assert row.fingerprint
    assert row.bytes < 3 * 700_000
    assert len(farm.visits) == ROWS * 2


def test_endless_sender_of_something_known(tmp_path: Path) -> None:
    """A soft match makes nobody listen longer, and what is kept is bounded."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        writer.write(b"MAYBE ")
        await flood(reader, writer, visit)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row, _ = attack(talk, database_file(tmp_path), max_bytes=1 << 20)
    assert row.name == "maybe"
    assert row.verdict in (Verdict.SOFTMATCHED, Verdict.INCOMPLETE)
    assert row.bytes < (1 << 20) + 700_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_drip(database: str) -> None:
    """A byte now and then moves no deadline."""
    row, _ = attack(drip, database)
    assert row.verdict is Verdict.NOMATCH
    assert row.fingerprint
    assert 1200 <= row.elapsed_ms < SLACK_MS


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own sockets hold as little unsent as the system allows."""

    class Small(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    monkeypatch.setattr(socket, "SocketType", Small)


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("timing", ["nmap", "adaptive"])
def test_peer_that_never_reads(tmp_path: Path, timing: str) -> None:
    """A small probe fits into the peer's buffers; a large one does not, and its window ends all the same."""
    row, _ = attack(deaf, database_file(tmp_path), receive_buffer=1024, timing=timing)
    assert row.verdict is Verdict.NOMATCH
    large = DATABASE.replace(b"ASK", b"A" * LARGE)
    row, _ = attack(deaf, database_file(tmp_path, large), receive_buffer=1024, timing=timing)
    assert row.verdict is Verdict.NOMATCH
    assert row.elapsed_ms < SLACK_MS


@pytest.mark.usefixtures("small_buffers")
def test_a_large_probe_arrives_whole(tmp_path: Path) -> None:
    """At a peer that takes its time, before and between."""

    async def slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await asyncio.sleep(0.6)  # the window of the NULL probe, and time for the buffers to fill
        visit.received = await reader.readexactly(LARGE + 2)
        writer.write(b"ASKED 3.1")
        await reader.read()

    text = DATABASE.replace(b"ASK\\r", b"A" * LARGE + b"\\r")
    text = text.replace(b"totalwaitms 400\nmatch a", b"totalwaitms 15000\nmatch a")
    row, farm = attack(slow_reader, database_file(tmp_path, text), receive_buffer=1024)
    assert (row.name, row.version) == ("asked", "3.1")
    assert {visit.received for visit in farm.visits} == {b"A" * LARGE + b"\r\n"}


# -- resets


async def _at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    reset(writer)


async def _when_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await reader.read(100)
    reset(writer)


async def _after_a_word(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    writer.write(b"some word")
    await asyncio.sleep(0.1)
    reset(writer)


async def _after_a_soft_match(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    writer.write(b"MAYBE")
    await asyncio.sleep(0.1)
    reset(writer)


async def _with_the_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await reader.read(100)
    writer.write(b"ASKED 2.0")
    await asyncio.sleep(0.05)
    reset(writer)


@pytest.mark.parametrize(
    ("talk", "verdict", "name", "visits"),
    [
        (_at_once, Verdict.TCPWRAPPED, "tcpwrapped", 1),
        (_when_asked, Verdict.NOMATCH, "", 2),
        (_after_a_word, Verdict.NOMATCH, "", 3),
        (_after_a_soft_match, Verdict.SOFTMATCHED, "maybe", 1),
        (_with_the_answer, Verdict.HARDMATCHED, "asked", 1),
    ],
)
def test_reset(database: str, talk: Talk, verdict: Verdict, name: str, visits: int) -> None:
    """At every stage: after accepting, on a question, within an answer, after it."""
    row, farm = attack(talk, database)
    assert (row.verdict, row.name) == (verdict, name)
    assert len(farm.visits) == ROWS * visits


# -- TLS


def tls_peer(
    shake: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], *, reads_hello: bool = True
) -> Talk:
    """The first connection to an address asks for TLS, the others are `shake`, which is to spoil it."""
    seen: set[str] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address not in seen:
            seen.add(visit.address)
            writer.write(b"TLS PLEASE\r\n")
            await reader.read()
        else:
            if reads_hello:
                await reader.read(65536)
            await shake(reader, writer)  # type: ignore[misc]

    return talk


def record(kind: int, body: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 10)
    await reader.read()


async def a_byte_at_a_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The head of a long record that never becomes whole."""
    for byte in record(22, b"\2\0\x3f\0" + bytes(16000)):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.02)


async def endless_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Handshake messages without end, of a length that says so."""
    writer.write(record(22, b"\2\xff\xff\xff" + bytes(1000)))
    while True:
        writer.write(record(22, bytes(16000)) * 4)
        await writer.drain()


async def endless_warnings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(record(21, b"\1\x70") * 1000)
        await writer.drain()
        await asyncio.sleep(0.001)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes on the ClientHello."""


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


@pytest.mark.parametrize(
    ("shake", "reason"),
    [
        (never, Reason.TIMEOUT),
        (garbage, Reason.TLS),
        (a_byte_at_a_time, Reason.TIMEOUT),
        (endless_handshake, Reason.TLS),
        (endless_warnings, Reason.TLS),
        (hangs_up, Reason.TLS),
        (resets, Reason.RESET),
    ],
)
def test_handshake(database: str, shake: Callable[..., object], reason: Reason) -> None:
    row, _ = attack(tls_peer(shake), database, tls_timeout_s=0.8)
    assert (row.verdict, row.reason, row.tunnel) == (Verdict.INCOMPLETE, reason, Tunnel.SSL)
    assert row.elapsed_ms < SLACK_MS


def test_endless_sender_inside_tls(database: str) -> None:
    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await speak_tls(reader, writer, b"." * 3_000_000)
        await reader.read()

    row, farm = attack(tls_peer(shake, reads_hello=False), database)
    assert (row.verdict, row.tunnel) == (Verdict.NOMATCH, Tunnel.SSL)
    assert row.bytes < 3 * 700_000
    assert row.tls is not None
    assert len(farm.visits) == ROWS * 3


@pytest.mark.parametrize(("tickets", "heard"), [(100, True), (MAX_OVERHEAD // 150, False)])
def test_session_tickets(database: str, tickets: int, heard: bool) -> None:
    """A server may send some before it speaks; whoever sends more than bytes of any use is hung up on."""
    key = ec.generate_private_key(ec.SECP256R1())
    context = context_with(key, certificate(key))
    context.num_tickets = tickets

    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await speak_tls(reader, writer, b"HELLO 1.0\r\n", context)
        await reader.read()

    row, _ = attack(tls_peer(shake, reads_hello=False), database)
    assert (row.evidence is not None, row.tunnel) == (heard, Tunnel.SSL)  # else it has the port's usual name
    assert row.bytes < 100
    assert row.elapsed_ms < SLACK_MS


def test_a_chain_of_certificates_without_end(database: str) -> None:
    """OpenSSL takes 100 kB of them."""
    key = ec.generate_private_key(ec.SECP256R1())
    one = certificate(key)
    context = context_with(key, one, *[one] * (MAX_OVERHEAD // len(one)))

    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await speak_tls(reader, writer, b"HELLO 1.0\r\n", context)
        await reader.read()

    row, _ = attack(tls_peer(shake, reads_hello=False), database)
    assert (row.verdict, row.reason, row.tls) == (Verdict.INCOMPLETE, Reason.TLS, None)
