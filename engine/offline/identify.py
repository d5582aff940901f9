"""Identify stored responses: a stream of lines in, the same rows with a `match` out, in order, on many cores.

Contract: `identify(...)` yields `Answer`s in the order of the input. Memory is flat: a bounded number of chunks, and of
bytes, is on its way at any time. The first bytes are answered by the calling process, so that a small input never waits
for others to start. Workers are isolated processes that hold one link to their parent, and end when it closes.
"""

import signal
import subprocess
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import cast

import msgspec
from msgspec import Struct, field

from engine.databases import open_matcher
from engine.errors import EngineError, InputError
from engine.isolated import command
from engine.offline.answers import Answers, MatchRow
from engine.offline.faults import Faults, Texts
from engine.offline.forms.base import Row
from engine.offline.records import LineReader
from engine.offline.stream import Chunk
from engine.signals import held_back
from matcher import Matcher

INLINE_BYTES = 16 << 20  # of lines, before workers are started
NO_MATCH = b',"match":null}\n'
CHUNKS_PER_WORKER = 4  # read but not yet written; a slow chunk holds up the others no sooner than that
HELD_BYTES = 64 << 20  # of chunks and answers; beyond it only one chunk more is on its way


class Tally(Struct):
    """rows: responses read; of these matched, and unknown: to a probe that the database does not have.

    silent, derived: records, or parts of them, that hold no response, and that hold only what a tool made of one. text:
    lines of a report around its fingerprints.
    """

    rows: int = 0
    matched: int = 0
    unknown: int = 0
    silent: int = 0
    derived: int = 0
    text: int = 0

    def add(self, other: "Tally") -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Answer(Struct):
    """What came of a chunk. out: whole lines; position: bytes of input read so far.

    texts, form: as LineReader has them, until they are judged.
    """

    out: bytes
    tally: Tally
    faults: Faults
    texts: Faults = field(default_factory=Faults)
    form: str = ""
    position: int = 0


class Identifier:
    """Answers chunks with one matcher."""

    def __init__(self, matcher: Matcher) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._answers = Answers(matcher.database, matcher.match, self._written)

    def answer(self, chunk: Chunk) -> Answer:
        reader = LineReader(chunk.line)
        tally = Tally()
        pieces: list[bytes | memoryview] = []
        for row in chain(reader.read_lines(chunk.data), reader.close()):
            pieces += (row.head, self._end(row, tally))
        tally.silent, tally.derived = reader.silent, reader.derived
        return Answer(b"".join(pieces), tally, reader.faults, reader.texts, reader.form, chunk.position)

    def _end(self, row: Row, tally: Tally) -> bytes:
        """The end of an output row."""
        tally.rows += 1
        end = self._answers.of(row.proto, row.probes, row.foreign, row.data)
        if end is None:
            tally.unknown += 1
            reason = f"no {row.proto.upper()} probe is named {row.probes[0]}"
            return b',"match":null,"error":%b}\n' % self._encode(reason)
        tally.matched += end is not NO_MATCH
        return end

    def _written(self, row: MatchRow | None) -> bytes:
        return NO_MATCH if row is None else b',"match":%b}\n' % self._encode(row)


def identify(
    chunks: Iterable[Chunk], matcher: Matcher, probes: Sequence[str], workers: int
) -> Generator[Answer, None, None]:
    """Answer every chunk, in order.

    matcher: ready to be asked, answers the first chunks, and all of them where `workers` is 1. probes: the choice that
    the workers open again. Raises EngineError when a worker dies; what `chunks` raises passes through.
    """
    texts = Texts()
    position = 0
    damage = None
    try:
        for answer in _answers(iter(chunks), matcher, probes, workers):
            faults, meaningless = texts.judge(answer.form, answer.texts)
            answer.faults.extend(faults)
            answer.tally.text += meaningless
            position = answer.position
            yield answer
    except InputError as error:
        damage = error
    undecided = texts.close()
    if undecided.count:
        yield Answer(b"", Tally(), undecided, position=position)
    if damage is not None:
        raise damage


def _answers(source: Iterator[Chunk], matcher: Matcher, probes: Sequence[str], workers: int) -> Iterator[Answer]:
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
    """Workers that are given one chunk at a time. A chunk goes only to one that waits for it, so no link can block."""

    def __init__(self, probes: Sequence[str], engine: str, workers: int) -> None:
        self._setup = (tuple(probes), engine)
        self._workers: dict[Connection, subprocess.Popen[bytes]] = {}
        for _ in range(workers):
            ours, theirs = Pipe()
            with theirs, held_back(signal.SIGINT):  # the terminal's ^C is the parent's affair; they end with their link
                descriptor = theirs.fileno()
                self._workers[ours] = subprocess.Popen(
                    command("engine.offline.identify:work", descriptor),
                    pass_fds=[descriptor],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )

    def run(self, source: Iterator[Chunk]) -> Iterator[Answer]:
        try:
            for link in self._workers:
                self._send(link, self._setup)
            yield from self._run(source)
        finally:
            for link in self._workers:
                link.close()
            for process in self._workers.values():
                process.wait()

    def _run(self, source: Iterator[Chunk]) -> Iterator[Answer]:
        idle = list(self._workers)
        busy: dict[Connection, int] = {}  # link -> number of its chunk
        done: dict[int, Answer] = {}
        sizes: dict[int, int] = {}  # number of a chunk not yet written -> bytes of it, or of its answer
        given = written = 0
        window = CHUNKS_PER_WORKER * len(idle)
        chunk = next(source, None)
        while busy or chunk is not None:
            while idle and chunk is not None and given - written < window and sum(sizes.values()) < HELD_BYTES:
                link = idle.pop()
                busy[link] = given
                sizes[given] = len(chunk.data)
                self._send(link, chunk)
                given += 1
                chunk = next(source, None)
            for link in cast(list[Connection], wait(list(busy))):
                number = busy.pop(link)
                done[number] = self._receive(link)
                sizes[number] = len(done[number].out)
                idle.append(link)
            while written in done:
                del sizes[written]
                yield done.pop(written)
                written += 1

    def _send(self, link: Connection, message: object) -> None:
        try:
            link.send(message)
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
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        return EngineError(f"a worker (pid {process.pid}) died with status {process.returncode}")


def work(descriptor: int) -> None:
    """The whole life of a worker."""
    with Connection(descriptor) as link, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        probes, engine = link.recv()
        identifier = Identifier(open_matcher(probes, engine))
        while True:
            link.send(identifier.answer(link.recv()))
