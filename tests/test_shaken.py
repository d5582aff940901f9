"""Facts of handshakes, read after the turn: no row goes without them, and none is read twice."""

import asyncio
import ssl
from pathlib import Path

import pytest
from certificates import certificate, context_with
from cryptography.hazmat.primitives.asymmetric import ec
from loopback import Farm, Outcome, Visit, collect, config, database_file, silent
from peers import speak_tls

from engine.conversation.context import scan_context
from engine.model import Reason, TlsFacts
from engine.pool import shaken
from engine.pool.runners.inline import InlineRunner
from engine.transports.certificates import tls_facts

HOSTS = tuple(f"127.63.0.{last}" for last in range(1, 31))


def scanned(folder: Path, version: ssl.TLSVersion, said: bytes) -> Outcome:
    """Rows of services that say so in TLS, the one of 1.2 in the segment that ends the handshake."""
    key = ec.generate_private_key(ec.SECP256R1())
    context = context_with(key, certificate(key))
    context.maximum_version = version
    seen: set[str] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address not in seen:
            seen.add(visit.address)
            writer.write(b"TLS PLEASE\r\n")
        else:
            await speak_tls(reader, writer, said, context)
        await silent(reader, writer, visit)

    settings = config(database_file(folder))
    with Farm(talk) as farm:
        return asyncio.run(collect(farm.targets(*HOSTS), InlineRunner(settings, lambda *_: scan_context(settings))))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_row_has_its_facts(tmp_path: Path, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that end with their handshake, too; and each handshake is read once."""
    read: list[ssl.SSLObject] = []

    def counting(session: ssl.SSLObject) -> TlsFacts:
        read.append(session)
        return tls_facts(session)

    monkeypatch.setattr(shaken, "tls_facts", counting)
    rows, _ = scanned(tmp_path, version, b"HELLO 2.0\r\n")
    assert {(row.name, row.version) for row in rows} == {("hello", "2.0")}
    assert {row.tls.key for row in rows if row.tls} == {"ec secp256r1"}
    assert all(row.tls is not None and row.tls.subject for row in rows)
    assert len(read) == len({id(session) for session in read}) == len(HOSTS)


def test_facts_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours costs those that it concerns their verdict, and nobody else's."""
    calls = 0

    def failing(session: ssl.SSLObject) -> TlsFacts:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise LookupError("strange")
        return tls_facts(session)

    monkeypatch.setattr(shaken, "tls_facts", failing)
    rows, _ = scanned(tmp_path, ssl.TLSVersion.TLSv1_3, b"")
    assert len(rows) == len(HOSTS)
    crashed = [row for row in rows if row.reason is Reason.CRASHED]
    assert len(crashed) == len(HOSTS) // 3
    assert all(row.tls is None for row in crashed)
    assert all(row.tls is not None and row.tls.key for row in rows if row not in crashed)
