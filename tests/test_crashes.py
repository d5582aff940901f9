"""A fault of ours, provoked by one stranger, costs one row its verdict: never the row, nor anybody else's answer."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import certificate, context_with, of_version
from cryptography.hazmat.primitives.asymmetric import ec
from loopback import (
    Farm,
    Outcome,
    Talk,
    Visit,
    collect,
    config,
    database_file,
    greeting_after,
    reset,
    second_visit,
    silent,
)
from peers import speak_tls

from engine.conversation.context import scan_context
from engine.conversation.scan import ScanContext, ServiceScan
from engine.model import Reason, ServiceResult, Target, Verdict
from engine.pool.runners.inline import InlineRunner
from engine.pool.worker import Worker, in_batches
from engine.results.sinks.base import decode_rows
from engine.transports import crashes
from engine.transports.tls import TlsTransport
from matcher import Match, Probe

HONEST = 150
HOSTILE = 20


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


@pytest.fixture(autouse=True)
def fresh_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes.report, "_quiet_until", 0.0)
    monkeypatch.setattr(crashes.report, "_untold", 0)


def among_honest(talk: Talk, database: str, spoil: Callable[[ScanContext], None] = lambda context: None) -> Outcome:
    """Scan services of a kind among many honest ones. -> the rows of that kind; the tally"""
    settings = config(database)
    context = scan_context(settings)
    spoil(context)
    with Farm(talk) as farm, Farm(greeting_after(0.05)) as honest:
        targets = honest.targets(*(f"127.61.0.{last}" for last in range(1, HONEST + 1)))
        every = HONEST // HOSTILE
        for number, target in enumerate(farm.targets(*(f"127.62.0.{last}" for last in range(1, HOSTILE + 1)))):
            targets.insert(number * (every + 1), target)
        rows, tally = asyncio.run(collect(targets, InlineRunner(settings, lambda *_: context)))
    assert len(rows) == HONEST + HOSTILE
    spared = [row for row in rows if row.port == honest.port]
    assert {(row.verdict, row.name, row.connections) for row in spared} == {(Verdict.HARDMATCHED, "hello", 1)}
    return [row for row in rows if row.port == farm.port], tally


def outcomes(rows: list[ServiceResult]) -> set[tuple[Verdict, Reason | None]]:
    return {(row.verdict, row.reason) for row in rows}


CRASHED = {(Verdict.INCOMPLETE, Reason.CRASHED)}


def test_a_certificate_of_a_version_that_does_not_exist(database: str) -> None:
    """OpenSSL shakes hands with it, the library for certificates refuses it: the service is known all the same."""
    key = ec.generate_private_key(ec.SECP256R1())
    context = context_with(key, of_version(certificate(key), 6))

    async def in_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await speak_tls(reader, writer, b"HELLO 6.0\r\n", context)

    rows, _ = among_honest(second_visit(b"TLS PLEASE\r\n", in_tls), database)
    assert {(row.name, row.version) for row in rows} == {("hello", "6.0")}
    for row in rows:
        assert row.tls is not None
        assert (len(row.tls.sha256), row.tls.subject, row.tls.key) == (64, "", "")


def test_a_match_that_raises(database: str, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(context: ScanContext) -> None:
        match = context.match

        def failing(probe: Probe, response: bytes) -> Match | None:
            if response.startswith(b"BOO"):
                raise LookupError(response.decode())
            return match(probe, response)

        context.match = failing

    rows, tally = among_honest(greeting_after(0.05, b"BOO\x1b[2J\r\n"), database, spoil)
    assert outcomes(rows) == CRASHED
    assert {(row.state, row.connections) for row in rows} == {("open", 1)}
    assert tally["reason:crashed"] == HOSTILE
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("probemill.worker", logging.ERROR)
    assert record.getMessage().startswith("127.62.0.")
    assert ": LookupError at test_crashes.py:" in record.getMessage()
    assert "BOO" not in record.getMessage()


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    return


async def _resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    reset(writer)


STAGES: list[tuple[str, Talk]] = [
    ("start", silent),
    ("connected", silent),
    ("received", greeting_after(0.05)),
    ("closed", _hangs_up),
    ("failed", _resets),
    ("timed_out", silent),
]


@pytest.mark.parametrize("also", ["", "abort", "_finish"])
@pytest.mark.parametrize(("stage", "talk"), STAGES)
def test_every_stage(database: str, monkeypatch: pytest.MonkeyPatch, stage: str, talk: Talk, also: str) -> None:
    """Wherever it breaks, and though ending in good order breaks, too."""

    def breaks(method: str) -> None:
        plain = getattr(ServiceScan, method)

        def broken(scan: ServiceScan, *arguments: object) -> object:
            if scan.target.host.startswith("127.62."):
                raise ZeroDivisionError
            return plain(scan, *arguments)

        monkeypatch.setattr(ServiceScan, method, broken)

    breaks(stage)
    if also:
        breaks(also)
    rows, _ = among_honest(talk, database)
    assert outcomes(rows) == CRASHED
    assert all(row.started.startswith("20") for row in rows)
    if stage == "start":  # nobody has looked at these ports
        assert {row.state for row in rows if row.reason is Reason.CRASHED} == {""}


@pytest.mark.parametrize("part", ["step", "conclude", "connected"])
def test_a_transport_that_raises(part: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault between socket and conversation ends the conversation above it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        writer.write(b"TLS PLEASE\r\n")
        await reader.read()

    def broken(self: TlsTransport, *arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(TlsTransport, part, broken)
    rows, _ = among_honest(talk, database)
    assert outcomes(rows) == CRASHED
    assert {row.connections for row in rows} == {1 if part == "connected" else 2}  # TLS counts when it is opened


def test_a_name_that_sni_cannot_carry(database: str) -> None:
    """TLS without it is better than none."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if not visited:
            visited.append(visit)
            writer.write(b"TLS PLEASE\r\n")
        else:
            await speak_tls(reader, writer, b"HELLO 1.0\r\n")
        await reader.read()

    visited: list[Visit] = []
    rows: list[ServiceResult] = []

    async def test(port: int) -> None:
        settings = config(database)
        context = scan_context(settings)
        worker = Worker(settings, context, in_batches(settings, context, lambda b: rows.extend(decode_rows(b.rows))))
        worker.submit([Target(0, "127.61.0.1", port, name=".." + "x" * 70)])
        await worker.idle()
        worker.close()

    with Farm(talk) as farm:
        asyncio.run(test(farm.port))
    assert [(row.name, row.verdict) for row in rows] == [("hello", Verdict.HARDMATCHED)]
