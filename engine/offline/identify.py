"""Identify stored responses: a stream of lines in, the same rows with a `match` out, in order, on many cores.

Contract: `identify(...)` yields `Answer`s in the order of the input. Memory is flat: a bounded number of chunks is on
its way at any time. The first bytes are answered by the calling process, so that a small input never waits for others
to start. Workers are spawned, hold one pipe to their parent, and end when it closes.
"""

import multiprocessing
import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import cast

import msgspec
from msgspec import Struct

from engine.databases import open_matcher
from engine.errors import EngineError
from engine.offline.records import LineReader, Row
from engine.offline.stream import Chunk
from engine.signals import held_back
from matcher import Match, Matcher, Probe

INLINE_BYTES = 16 << 20  # of lines, before workers are started
REMEMBERED = 16_384  # answers to short responses; whole networks greet with the same few banners
SHORT = 512  # bytes
NO_MATCH = b',"match":null}\n'
CHUNKS_PER_WORKER = 4  # read but not yet written; a slow chunk holds up the others no sooner than that


class MatchRow(Struct, kw_only=True, omit_defaults=True):
    """What `match` holds in an output row. probe, line: of the match line that won; file: where several were merged."""

    name: str
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    cpe: tuple[str, ...] = ()
    soft: bool = False
    probe: str
    line: int
    file: str = ""


class Tally(Struct):
    """rows: responses read; of these matched, and unknown: to a probe that the database does not have."""

    rows: int = 0
    matched: int = 0
    unknown: int = 0

    def add(self, other: "Tally") -> None:
        self.rows += other.rows
        self.matched += other.matched
        self.unknown += other.unknown


class Answer(Struct):
    """What came of a chunk. out: whole lines; faults: (line number, reason); position: bytes of input read so far."""

    out: bytes
    tally: Tally
    faults: list[tuple[int, str]]
    position: int = 0


class Identifier:
    """Answers chunks with one matcher."""

    def __init__(self, matcher: Matcher) -> None:
        self._match = matcher.match
        self._database = matcher.database.name
        self._probes: dict[tuple[str, str], Probe] = {}
        for probe in matcher.database.probes:
            self._probes.setdefault((probe.proto, probe.name), probe)
        self._encode = msgspec.json.Encoder().encode
        self._remembered: dict[tuple[int, bytes], bytes] = {}  # (index of the probe, response) -> end of the row

    def answer(self, chunk: Chunk) -> Answer:
        reader = LineReader(chunk.line, chunk.nmap_text)
        tally = Tally()
        pieces: list[bytes] = []
        for line in chunk.data.split(b"\n"):
            for row in reader.read(line):
                pieces += (row.head, self._end(row, tally))
        for row in reader.close():
            pieces += (row.head, self._end(row, tally))
        return Answer(b"".join(pieces), tally, reader.faults, chunk.position)

    def _end(self, row: Row, tally: Tally) -> bytes:
        """The end of an output row."""
        tally.rows += 1
        known = (self._probes.get((row.proto, name)) for name in row.probes)
        probe = next(filter(None, known), None)
        if probe is None:
            tally.unknown += 1
            reason = f"no {row.proto.upper()} probe is named {row.probes[0]}"
            return b',"match":null,"error":%b}\n' % self._encode(reason)
        key = (probe.index, row.data)
        end = self._remembered.get(key)
        if end is None:
            end = self._matched(probe, row.data)
            if len(row.data) <= SHORT:
                if len(self._remembered) >= REMEMBERED:
                    self._remembered.clear()
                self._remembered[key] = end
        tally.matched += end is not NO_MATCH
        return end

    def _matched(self, probe: Probe, response: bytes) -> bytes:
        match = self._match(probe, response)
        if match is None:
            return NO_MATCH
        return b',"match":%b}\n' % self._encode(match_row(match, self._database))


def match_row(match: Match, database: str) -> MatchRow:
    """database: the name that goes without saying."""
    signature, info = match.signature, match.info
    return MatchRow(
        name=signature.service,
        product=info.product,
        version=info.version,
        extrainfo=info.extrainfo,
        hostname=info.hostname,
        ostype=info.ostype,
        devicetype=info.devicetype,
        cpe=info.cpe,
        soft=signature.soft,
        probe=match.probe.name,
        line=signature.line,
        file=signature.file if signature.file != database else "",
    )


def identify(
    chunks: Iterable[Chunk], matcher: Matcher, probes: Sequence[str], workers: int
) -> Generator[Answer, None, None]:
    """Answer every chunk, in order.

    matcher: ready to be asked, answers the first chunks, and all of them where `workers` is 1. probes: the choice that
    the workers open again. Raises EngineError when a worker dies; what `chunks` raises passes through.
    """
    source = iter(chunks)
    engine = matcher.engine
    identifier = Identifier(matcher)
    answered = 0
    for chunk in source:
        yield identifier.answer(chunk)
        answered += len(chunk.data)
        if workers > 1 and answered >= INLINE_BYTES:
            break
    else:
        return
    del matcher, identifier
    yield from _Pool(probes, engine, workers).run(source)


class _Pool:
    """Workers that are given one chunk at a time. A chunk goes only to one that waits for it, so no pipe can block."""

    def __init__(self, probes: Sequence[str], engine: str, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers = {}
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, probes, engine), daemon=True)
            with held_back(signal.SIGINT):  # the terminal's ^C is the parent's affair; they end with their link
                process.start()
            theirs.close()
            self._workers[ours] = process

    def run(self, source: Iterator[Chunk]) -> Iterator[Answer]:
        try:
            yield from self._run(source)
        finally:
            for link in self._workers:
                link.close()
            for process in self._workers.values():
                process.join()

    def _run(self, source: Iterator[Chunk]) -> Iterator[Answer]:
        idle = list(self._workers)
        busy: dict[Connection, int] = {}  # link -> number of its chunk
        done: dict[int, Answer] = {}
        given = written = 0
        window = CHUNKS_PER_WORKER * len(idle)
        chunk = next(source, None)
        while busy or chunk is not None:
            while idle and chunk is not None and given - written < window:
                link = idle.pop()
                busy[link] = given
                self._send(link, chunk)
                given += 1
                chunk = next(source, None)
            for link in cast(list[Connection], wait(list(busy))):
                done[busy.pop(link)] = self._receive(link)
                idle.append(link)
            while written in done:
                yield done.pop(written)
                written += 1

    def _send(self, link: Connection, chunk: Chunk) -> None:
        try:
            link.send(chunk)
        except OSError:
            raise self._death(link) from None

    def _receive(self, link: Connection) -> Answer:
        try:
            message = link.recv()
        except (EOFError, OSError):
            raise self._death(link) from None
        return cast(Answer, message)

    def _death(self, link: Connection) -> EngineError:
        process = self._workers[link]
        process.join(timeout=5)
        return EngineError(f"a worker (pid {process.pid}) died with status {process.exitcode}")


def work(link: Connection, probes: Sequence[str], engine: str) -> None:
    """The whole life of a worker."""
    identifier = Identifier(open_matcher(probes, engine))
    try:
        while True:
            link.send(identifier.answer(link.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
