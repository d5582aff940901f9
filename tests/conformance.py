"""What every implementation of a seam must do, as checks that any test can run.

    check_stream        a Transport for TCP, or for something inside TCP
    check_bare_stream   what only TCP itself can show
    check_tls           a Transport for TLS
    check_datagrams     a Transport for UDP
    check_sink          a Sink: how the rows are cut into blobs does not show

A transport is made by `make(reactor, receiver, host, port)` and talks to scripted servers on loopback. A check fails
with AssertionError; it waits only for things that must happen, or for a moment to see that nothing does.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import ECONNREFUSED, ECONNRESET, EIO
from pathlib import Path

import msgspec
from cases import Case, Expected, Step, Word
from scripted import ScriptedServer, serve

from engine.model import ServiceResult
from engine.results.sinks import Sink, Summary
from engine.transports import Receiver, Transport
from engine.transports.reactor import Reactor
from matcher import Proto

MakeTransport = Callable[[Reactor, Receiver, str, int], Transport]
PATIENCE_S = 5.0  # for what must come
SILENCE_S = 0.1  # to see that nothing comes
BIG = 300_000  # bytes; more than one read takes


class Recorder:
    """A receiver that remembers, and hangs up at the end as the driver does.

    Events: "connected", bytes, "ended", the errno of what broke, or the name of what a report has raised.
    """

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self.events: list[str | bytes | int] = []
        self._hang_up = hang_up

    def opened(self) -> None:
        """What a layer in between reports; the checks are about what comes after it."""

    def connected(self, now: float) -> None:
        self.events.append("connected")

    def received(self, data: bytes, now: float) -> None:
        assert data, "a report of no bytes"
        self.events.append(data)

    def ended(self, now: float) -> None:
        self.events.append("ended")
        self._hang_up()

    def broken(self, error: OSError, now: float) -> None:
        self.events.append(error.errno or 0)

    def crashed(self, error: Exception, now: float) -> None:
        self.events.append(type(error).__name__)

    @property
    def data(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until it has happened; the events so far are in the complaint otherwise."""
        patience = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < patience, f"still waiting after {self.events}"
            await asyncio.sleep(0.002)

    async def stays(self, *events: str | bytes | int) -> None:
        """These were the events, and no other comes."""
        await asyncio.sleep(SILENCE_S)
        assert self.events == list(events)


class Line:
    """A transport under test with its server and its record."""

    def __init__(self, make: MakeTransport, server: ScriptedServer) -> None:
        self.server = server
        self.record = Recorder(self.hang_up)
        self.reactor = Reactor(asyncio.get_running_loop())
        self.transport: Transport | None = None
        try:
            self.transport = make(self.reactor, self.record, server.host, server.port)
        except OSError as error:  # the kernel refused at once, which any of them may do
            self.record.broken(error, time.monotonic())

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.send(data)

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def close(self) -> None:
        self.hang_up()
        self.reactor.close()


@contextmanager
def line(
    make: MakeTransport, *steps: Word | dict[str, object], proto: Proto = "tcp", closes_after: int | None = None
) -> Iterator[tuple[Line, Recorder]]:
    """A transport connected to a server that plays `steps`, given as in a table."""
    script = msgspec.convert([steps], list[list[Step]])
    case = Case("line", "", "", script, Expected(), proto, closes_after=closes_after)
    with serve([case]) as servers:
        made = Line(make, servers[case.id])
        try:
            yield made, made.record
        finally:
            made.close()


async def check_stream(make: MakeTransport, *, before: tuple[Word, ...] = ()) -> None:
    """A stream: connect, data both ways, end, reset, refusal, silence. before: what the server has to do first."""
    with line(make, *before, {"on": {"ping": "pong"}}) as (talk, record):
        await record.until(lambda: record.events == ["connected"])
        talk.send(b"ping")
        await record.until(lambda: record.data == b"pong")
        assert talk.server.sent == [b"ping"]
        await record.stays("connected", b"pong")  # and silence is not reported
        talk.hang_up()
        talk.hang_up()  # harmless

    with line(make, *before, {"send": "bye"}, "close") as (_, record):
        await record.until(lambda: len(record.events) == 3)
        await record.stays("connected", b"bye", "ended")  # the data before the end, the end once

    with line(make, *before, {"recv": PATIENCE_S}, "rst") as (talk, record):
        await record.until(lambda: record.events == ["connected"])
        talk.send(b"x")
        await record.until(lambda: len(record.events) == 2)
        await record.stays("connected", ECONNRESET)

    with line(make, *before, {"send": {"x": BIG}}, "hold") as (talk, record):
        await record.until(lambda: len(record.data) == BIG)
        assert record.events[0] == "connected"

    with line(make, *before, {"send": "a"}, {"recv": PATIENCE_S}, {"send": {"x": BIG}}, "hold") as (talk, record):
        await record.until(lambda: record.data == b"a")
        talk.send(b"go")
        talk.hang_up()
        await record.stays("connected", b"a")  # nothing after close, whatever still arrives

    with line(make, closes_after=0) as (_, record):
        await record.until(lambda: bool(record.events))
        await record.stays(ECONNREFUSED)

    with line(make, *before, {"send": "bye"}, "close") as (_, record):
        record.received = _fail  # type: ignore[method-assign]
        await record.until(lambda: len(record.events) == 2)
        await record.stays("connected", "LookupError")  # who raises is told so, and nothing more


def _fail(data: bytes, now: float) -> None:
    raise LookupError


async def check_bare_stream(make: MakeTransport) -> None:
    """Where the peer's end of the connection is TCP itself: a reset that was there before we looked."""
    with line(make, {"send": "bye"}, "rst") as (_, record):
        time.sleep(SILENCE_S)  # not asyncio's: the loop must not run while the peer connects, speaks and resets
        await record.until(lambda: record.events[-1:] == [ECONNRESET])
        assert record.events == ["connected", b"bye", ECONNRESET]  # Linux keeps what came before the reset


async def check_tls(make: MakeTransport) -> None:
    """A stream inside TLS, and handshakes that fail."""
    await check_stream(make, before=("tls",))

    for steps in (({"send": "HTTP/1.1 400 Bad Request\r\n"}, "hold"), ("close",), ({"recv": PATIENCE_S}, "close")):
        with line(make, *steps) as (_, record):
            await record.until(lambda: bool(record.events))
            assert record.events[0] in (EIO, ECONNRESET)
            await record.stays(*record.events[:1])

    with line(make, "hold") as (_, record):
        await record.stays()  # a handshake without an answer is the driver's to end


async def check_datagrams(make: MakeTransport) -> None:
    """UDP: one report per datagram, an empty one is an end, and nobody there is a refusal. There is no `connected`."""
    with line(make, {"on": {"two": [{"send": "a"}, {"send": "b"}], "none": ""}}, proto="udp") as (talk, record):
        talk.send(b"two")
        await record.until(lambda: len(record.events) == 2)
        assert record.events == [b"a", b"b"]
        talk.send(b"none")
        await record.until(lambda: len(record.events) == 3)
        await record.stays(b"a", b"b", "ended")

    with line(make, proto="udp", closes_after=0) as (talk, record):
        talk.send(b"x")
        await record.until(lambda: bool(record.events))
        assert record.events == [ECONNREFUSED]

    with line(make, {"on": {"two": [{"send": "a"}, {"send": "b"}]}}, proto="udp") as (talk, record):
        record.received = _fail  # type: ignore[method-assign]
        talk.send(b"two")
        await record.until(lambda: bool(record.events))
        await record.stays("LookupError")


def check_sink(make: Callable[[Path], Sink], path: Path, rows: Sequence[ServiceResult]) -> bytes:
    """The rows in one blob and in a blob each give the same file, and that is returned."""
    encoder = msgspec.json.Encoder()
    written = []
    for size in (len(rows), 1):
        sink = make(path)
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            sink.write(encoder.encode_lines(some), len(some))
        sink.close(Summary(finished=1_795_243_101.0))
        written.append(path.read_bytes())
    assert written[0] == written[1]
    return written[0]
