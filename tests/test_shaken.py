"""Facts of handshakes, read after the turn: no row goes without them, and none is read twice."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from certificates import certificate, context_with
from cryptography.hazmat.primitives.asymmetric import ec
from loopback import Farm, Outcome, Visit, collect, config, database_file, reset, second_visit
from peers import speak_tls

from engine.conversation.context import scan_context
from engine.model import Reason, TlsFacts, Verdict
from engine.pool import shaken
from engine.pool.runners.inline import InlineRunner
from engine.transports.certificates import certificate_facts

HOSTS = tuple(f"127.63.0.{last}" for last in range(1, 31))


async def stay(writer: asyncio.StreamWriter) -> None:
    """Until the other side leaves."""


def scanned(
    folder: Path,
    version: ssl.TLSVersion,
    said: bytes,
    leave: Callable[[asyncio.StreamWriter], Awaitable[None]] = stay,
    **options: object,
) -> Outcome:
    """Rows of services that say so in TLS, the one of 1.2 in the segment that ends the handshake, and then leave."""
    key = ec.generate_private_key(ec.SECP256R1())
    context = context_with(key, certificate(key))
    context.maximum_version = version

    async def in_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await speak_tls(reader, writer, said, context)
        await leave(writer)

    settings = config(database_file(folder), **options)
    with Farm(second_visit(b"TLS PLEASE\r\n", in_tls)) as farm:
        return asyncio.run(collect(farm.targets(*HOSTS), InlineRunner(settings, lambda *_: scan_context(settings))))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_row_has_its_facts(tmp_path: Path, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that end with their handshake, too; and each handshake is read once."""
    read: list[TlsFacts] = []

    def counting(der: bytes, facts: TlsFacts) -> TlsFacts:
        read.append(facts)
        return certificate_facts(der, facts)

    monkeypatch.setattr(shaken, "certificate_facts", counting)
    rows, _ = scanned(tmp_path, version, b"HELLO 2.0\r\n")
    assert {(row.name, row.version) for row in rows} == {("hello", "2.0")}
    assert {row.tls.key for row in rows if row.tls} == {"ec secp256r1"}
    assert all(row.tls is not None and row.tls.subject for row in rows)
    assert len(read) == len({id(facts) for facts in read}) == len(HOSTS)


@pytest.mark.parametrize("said", [b"", b"HELLO 2.0\r\n"])
def test_a_certificate_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """A fault of ours costs those that it concerns what stands in their certificate, and nobody anything else."""
    calls = 0

    def failing(der: bytes, facts: TlsFacts) -> TlsFacts:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise LookupError("strange")
        return certificate_facts(der, facts)

    monkeypatch.setattr(shaken, "certificate_facts", failing)
    rows, _ = scanned(tmp_path, ssl.TLSVersion.TLSv1_2, said)
    assert len(rows) == len(HOSTS)
    assert {row.verdict for row in rows} == {Verdict.HARDMATCHED if said else Verdict.NOMATCH}
    assert {row.tls.protocol for row in rows if row.tls} == {"TLSv1.2"}
    assert sum(row.tls is not None and not row.tls.key for row in rows) == len(HOSTS) // 3
    assert sum(row.tls is not None and bool(row.tls.key) for row in rows) == len(HOSTS) - len(HOSTS) // 3


def test_a_session_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves a row without facts."""

    def failing(session: ssl.SSLObject) -> tuple[TlsFacts, bytes]:
        raise ValueError("handshake not done yet")

    monkeypatch.setattr(shaken, "handshake", failing)
    rows, _ = scanned(tmp_path, ssl.TLSVersion.TLSv1_2, b"HELLO 2.0\r\n")
    assert len(rows) == len(HOSTS)
    assert {(row.name, row.version, row.tls) for row in rows} == {("hello", "2.0", None)}


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hang_up_rudely(writer: asyncio.StreamWriter) -> None:
    reset(writer)


@pytest.mark.parametrize("timing", ["adaptive", "nmap"])
@pytest.mark.parametrize(
    ("leave", "outcomes"),
    [
        (hang_up, {(Verdict.NOMATCH, None)}),
        (hang_up_rudely, {(Verdict.INCOMPLETE, Reason.RESET), (Verdict.NOMATCH, None)}),
    ],
)
def test_a_peer_that_leaves_with_its_handshake(
    tmp_path: Path,
    timing: str,
    leave: Callable[[asyncio.StreamWriter], Awaitable[None]],
    outcomes: set[tuple[Verdict, Reason | None]],
) -> None:
    """Its end, seen in the same turn, takes no facts away and is no fault of ours."""
    rows, _ = scanned(tmp_path, ssl.TLSVersion.TLSv1_2, b"", leave, timing=timing)
    assert len(rows) == len(HOSTS)
    assert {(row.verdict, row.reason) for row in rows} <= outcomes
    assert all(row.tls is not None and row.tls.key for row in rows)
