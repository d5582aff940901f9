"""Identify stored responses: a stream of lines in, the same rows with a `match` out, in order, on many cores.

Contract: `identify(...)` yields `Answer`s in the order of the input. Memory is flat: a bounded number of chunks, and of
bytes, is on its way at any time. The first bytes are answered by the calling process, so that a small input never waits
for others to start, and a large one loses no time to that.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from engine.databases import open_matcher
from engine.errors import EngineError, InputError, ReadError
from engine.model import Also
from engine.offline.answers import Answers, MatchRow
from engine.offline.faults import Faults, Texts
from engine.offline.forms.base import Row
from engine.offline.records import LineReader
from engine.offline.stream import Chunk, Source
from engine.offline.workers import Crew, Unable, serve
from matcher import Matcher, MatcherError

if TYPE_CHECKING:  # loaded where it is asked for
    from engine.offline.opinion import StoredOpinion

INLINE_BYTES = 16 << 20  # of lines, before workers are started
CLOSING = b"}\n"
NO_MATCH = b',"match":null' + CLOSING


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

    texts, form: as LineReader has them, until they are judged. lines: of a chunk that stood in a place, how many it
    had. damage: why the rest of that could not be read.
    """

    out: bytes
    tally: Tally
    faults: Faults
    texts: Faults = field(default_factory=Faults)
    form: str = ""
    position: int = 0
    lines: int = 0
    damage: str = ""


class _Told(Struct, frozen=True):
    """An answer: as the end of a row, and what a second one is compared with. also: as a second one is written."""

    end: bytes
    said: tuple[str, str, str] | None = None
    also: bytes = b""


class Identifier:
    """Answers chunks with one matcher. second: whose answers are written beside, where they are other ones.

    opinion: on what the matcher's lines left open.
    """

    def __init__(self, matcher: Matcher, second: Matcher | None = None, opinion: "StoredOpinion | None" = None) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._answers = Answers(matcher.database, matcher.match, self._written)
        self._opinion = opinion
        self._matches: Answers[tuple[MatchRow | None]] = Answers(matcher.database, matcher.match, lambda row: (row,))
        self._second = None
        if second is not None:
            self._name = second.database.name
            self._second = Answers(second.database, second.match, self._beside)

    def answer(self, chunk: Chunk) -> Answer:
        reader = LineReader(chunk.line)
        tally = Tally()
        pieces: list[bytes | memoryview] = []
        for row in chain(reader.read_lines(chunk.data), reader.close()):
            pieces += (row.head, self._end(row, tally))
        tally.silent, tally.derived = reader.silent, reader.derived
        lines = reader.line - chunk.line if chunk.place else 0
        return Answer(b"".join(pieces), tally, reader.faults, reader.texts, reader.form, chunk.position, lines)

    def _end(self, row: Row, tally: Tally) -> bytes:
        """The end of an output row."""
        tally.rows += 1
        told = self._told(row)
        beside = self._second and self._second.of(row.proto, row.probes, row.foreign, row.data)
        also = beside.also if beside and (told is None or beside.said != told.said) else b""
        if told is None:
            tally.unknown += 1
            reason = f"no {row.proto.upper()} probe is named {row.probes[0]}"
            return b',"match":null,"error":%b%b}\n' % (self._encode(reason), also)
        tally.matched += told.said is not None
        return told.end[:-2] + also + CLOSING if also else told.end

    def _told(self, row: Row) -> _Told | None:
        if self._opinion is None:
            return self._answers.of(row.proto, row.probes, row.foreign, row.data)
        found = self._matches.of(row.proto, row.probes, row.foreign, row.data)
        return None if found is None else self._written(self._opinion.on(found[0], row.proto, row.data))

    def _written(self, row: MatchRow | None) -> _Told:
        if row is None:
            return _Told(NO_MATCH)
        return _Told(b',"match":%b}\n' % self._encode(row), (row.name, row.product, row.version))

    def _beside(self, row: MatchRow | None) -> _Told:
        if row is None:
            return _Told(b"")
        database = row.file or self._name
        also = Also(name=row.name, product=row.product, version=row.version, line=row.line, database=database)
        return _Told(b"", (row.name, row.product, row.version), b',"also":%b' % self._encode(also))


def identify(
    chunks: Iterable[Chunk],
    matcher: Matcher,
    probes: Sequence[str],
    workers: int,
    second: str = "",
    *,
    recog: str = "",
    file: Source | None = None,
) -> Generator[Answer, None, None]:
    """Answer every chunk, in order. second: a database whose answers are written beside, where they are other ones.

    file: where the chunks come from; if it is plain, workers read it themselves, and the rest of `chunks` is left.
    matcher: ready to be asked, answers the first chunks, and all of them where `workers` is 1. probes: the choice that
    the workers open again; where one finds other databases than the matcher's, or none, the matcher goes on alone.
    recog: a folder of fingerprints, for a second opinion. Raises EngineError when a worker dies, MatcherError for a
    folder without fingerprints; what `chunks` raises passes through.
    """
    texts = Texts()
    position = uncounted = 0
    damage = None
    try:
        with closing(
            _answers(iter(chunks), matcher, probes, workers, second=second, recog=recog, file=file)
        ) as answers:
            del matcher  # the workers have their own
            for answer in answers:
                answer.faults.move(uncounted)
                answer.texts.move(uncounted)
                uncounted += answer.lines
                faults, meaningless = texts.judge(answer.form, answer.texts)
                answer.faults.extend(faults)
                answer.tally.text += meaningless
                position = answer.position
                yield answer
                if answer.damage and file:
                    raise ReadError(file.name, 0, f"cannot be read: {answer.damage}")
    except InputError as error:
        damage = error
    if file is not None:
        file.settle(uncounted)
    undecided = texts.close()
    if undecided.count:
        yield Answer(b"", Tally(), undecided, position=position)
    if damage is not None:
        raise damage


def _answers(
    source: Iterator[Chunk],
    matcher: Matcher,
    probes: Sequence[str],
    workers: int,
    *,
    second: str,
    recog: str,
    file: Source | None,
) -> Generator[Answer, None, None]:
    """While workers start, the caller's process answers on."""
    shared = [file.descriptor] if file and workers > 1 and file.is_plain() else []
    setup = msgspec.msgpack.encode((probes, matcher.engine, matcher.database.sha256, second, recog, shared))
    identifier = Identifier(matcher, *_others(second, recog, matcher.engine))
    answered = 0
    with ExitStack() as stack:
        crew = None
        for chunk in source:
            yield identifier.answer(chunk)
            answered += len(chunk.data)
            if workers > 1 and answered >= INLINE_BYTES:
                crew = crew or stack.enter_context(
                    closing(Crew("engine.offline.identify:work", setup, workers, shared))
                )
                try:
                    if crew.is_ready():
                        break
                except Unable:
                    workers = 1
                    stack.close()
        else:
            return
        del matcher, identifier
        if shared and file and file.is_plain():
            source = file.places(answered, chunk.line + chunk.data.count(b"\n"))
        for note, text in crew.run(_tasks(source)):
            answer = _read_answer(note)
            answer.out = text
            yield answer


def _others(second: str, recog: str, engine: str) -> "tuple[Matcher | None, StoredOpinion | None]":
    """Whom else to ask."""
    other = open_matcher((second,), engine) if second else None
    if not recog:
        return other, None
    from engine.offline.opinion import StoredOpinion

    return other, StoredOpinion(recog)


def _tasks(source: Iterator[Chunk]) -> Iterator[tuple[bytes, bytes]]:
    for chunk in source:
        yield _write(Chunk(b"", chunk.line, chunk.position, chunk.place)), chunk.data


def work(descriptor: int) -> None:
    """The whole life of a worker."""
    serve(descriptor, _opened)


def _opened(setup: bytes) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    probes, engine, sha256, second, recog, shared = msgspec.msgpack.decode(
        setup, type=tuple[tuple[str, ...], str, str, str, str, list[int]]
    )
    try:
        matcher = open_matcher(probes, engine)
        others = _others(second, recog, engine)
    except (EngineError, MatcherError) as error:
        raise Unable(str(error)) from error
    if matcher.database.sha256 != sha256:
        raise Unable("the databases have changed")
    identifier = Identifier(matcher, *others)

    def answered(note: bytes, text: bytes) -> tuple[bytes, bytes]:
        chunk = _read_chunk(note)
        chunk.data, damage = _read(shared[0], *chunk.place) if chunk.place else (text, "")
        answer = identifier.answer(chunk)
        answer.damage = damage
        out, answer.out = answer.out, b""
        return _write(answer), out

    return answered


def _read(descriptor: int, at: int, size: int) -> tuple[bytes, str]:
    """So many bytes of a file, or fewer and why there are no more."""
    pieces: list[bytes] = []
    try:
        while size and (piece := os.pread(descriptor, size, at)):
            pieces.append(piece)
            at += len(piece)
            size -= len(piece)
    except OSError as error:
        return b"".join(pieces), error.strerror or str(error)
    return b"".join(pieces), "it has become shorter" if size else ""


_write = msgspec.msgpack.Encoder().encode
_read_chunk = msgspec.msgpack.Decoder(Chunk).decode
_read_answer = msgspec.msgpack.Decoder(Answer).decode
