"""Rows of scans that are done, read from whatever holds them: one file or part of a table after the other.

    a state folder            its committed segments, as the journal names them
    a file, or `-`            NDJSON, lean or full, or Nmap's XML: plain, zstd or gzip; or Parquet
    a folder, s3:// and such  Parquet files and `.ndjson.zst` and `.xml` files and their like, in order of their names
    parquet:, ndjson+zstd:    the same, as sinks are named
    delta:                    a Delta table at its present version

What a file is, its first bytes tell. `open_inputs` finds the parts of an input; each `Part` gives its rows in pieces,
checked: what a piece holds, every form of output can take. A row that is none is a fault, counted and told by its line.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ConfigError, InputError, OutputError, ReadError
from engine.extras import extra
from engine.model import ServiceResult
from engine.offline.checked import checked
from engine.offline.faults import Faults
from engine.offline.nmap_rows import NmapRows
from engine.offline.stream import STDIN, Input, Source
from engine.results.lake import Unavailable
from engine.results.lake.base_place import STORES, Found, Place, open_place
from engine.results.rows import Rows, TextRows
from engine.state.elsewhere import Elsewhere
from engine.state.folder import Folder, told
from engine.state.journal import NAME as JOURNAL
from engine.state.journal import read_journal
from engine.state.reading import segment_rows
from engine.state.records import Record

FORMS = ("state", "ndjson", "xml", "parquet", "delta")
SCHEMES = {"delta", "parquet", "ndjson+zstd"}
PARQUET_MAGIC = b"PAR1"
_SUFFIXES = re.compile(r".+\.(?:parquet|(?:ndjson|jsonl|xml)(?:\.zst|\.gz)?)", re.IGNORECASE)
_FOR_PEOPLE = (b"# Nmap", b"# probemill", b"Starting Nmap", b"Nmap scan report", b"Scan report for", b"ip,port,proto")
_XML_ROWS = 1 << 12  # of a piece


class Piece(Struct):
    """Some rows. position: bytes of the part that have been read; faults: since the last piece."""

    rows: Rows
    position: int
    faults: Faults


class Part(Struct):
    """What is read in one go. name: as people may see it. size: in bytes, None for a pipe.

    scan: the scan's name, where the place tells it. told: what tells it from any other, None for a pipe. read: its
    pieces, the same each time; raises InputError behind what could be read. changed: when, in nanoseconds since the
    epoch, 0 where nobody knows.
    """

    name: str
    size: int | None
    scan: str
    told: tuple[str | int, ...] | None
    read: Callable[[], Iterator[Piece]]
    changed: int = 0


class _Read(Protocol):
    """What results/tables.py reads."""

    rows: Rows
    share: float
    faults: list[tuple[int, str]]


def is_state(path: str) -> bool:
    """Whether a path leads to a state folder."""
    return Path(path, JOURNAL).is_file()


def open_inputs(path: str, form: str = "") -> list[Part]:
    """The parts of one input. form: one of FORMS, where its looks do not tell.

    Raises ConfigError for what no input can be, InputError for one that cannot be read or holds nothing.
    """
    scheme, _, rest = path.partition(":")
    if form == "delta" or scheme == "delta":
        return _delta(rest if scheme == "delta" else path)
    path = rest if scheme in SCHEMES else path
    if path == STDIN:
        return [Part("standard input", None, "", None, lambda: _read_input(Source(STDIN), form))]
    store, is_url, _ = path.partition("://")
    if is_url and store == "file":
        path, is_url = unquote(urlsplit(path).path), ""
    if is_url and store not in STORES:
        raise ConfigError(f"{path}: cannot be read from; name a file, a folder, delta:PATH or a store")
    if not is_url:
        if form == "state" or (not form and is_state(path)):
            return _segments(Path(path))
        if not form and Path(path, "_delta_log").is_dir():
            return _delta(path)
        if not Path(path).is_dir():
            return [_file_part(path, form)]
    return _folder(path, form)


def _file_part(path: str, form: str) -> Part:
    file = Path(path)
    try:
        facts = file.stat()
    except OSError as error:
        raise ReadError(path, 0, f"cannot be read: {error.strerror}") from error
    if not file.is_file():
        return Part(path, None, "", None, lambda: _read_input(Source(path), form))
    told = (str(file.resolve()), facts.st_size, facts.st_mtime_ns)
    place = open_place(str(file.parent))
    found = Found(file.name, facts.st_size, facts.st_mtime_ns)
    return Part(path, facts.st_size, "", told, _reader(place, found, path, form), found.changed)


def _folder(where: str, form: str) -> list[Part]:
    """The files of a folder or of a store's prefix, those that readers pass over left out."""
    place = open_place(where)
    try:
        files = sorted(place.files())
    except OutputError as error:
        raise InputError(where, 0, str(error)) from error
    parts = []
    if not files and "://" in where:  # an object by its own name
        head, _, name = where.rstrip("/").rpartition("/")
        place = open_place(head)
        files = [found for found in place.files() if found.name == name]
    for found in files:
        segments = found.name.split("/")
        if any(segment.startswith(("_", ".")) for segment in segments) or not _SUFFIXES.fullmatch(segments[-1]):
            continue
        name = f"{place.name.rstrip('/')}/{found.name}"
        told = (name, found.size, found.changed)
        scan = _partition(found.name).get("scan", "")
        parts.append(Part(name, found.size, scan, told, _reader(place, found, name, form), found.changed))
    if not parts:
        raise InputError(where, 0, "holds no rows: no state, no Parquet, NDJSON or XML files")
    return parts


def _reader(place: Place, found: Found, name: str, form: str) -> Callable[[], Iterator[Piece]]:
    return lambda: _read_file(place, found, name, form)


def _partition(name: str) -> dict[str, str]:
    """What Hive's folders say: `scan=x/date=y/part.parquet`."""
    pairs = (segment.partition("=") for segment in name.split("/")[:-1])
    return {key: unquote(value) for key, equals, value in pairs if equals and value != "__HIVE_DEFAULT_PARTITION__"}


def _read_file(place: Place, found: Found, name: str, form: str) -> Iterator[Piece]:
    try:
        file = place.open(found.name)
        magic = file.read(len(PARQUET_MAGIC))
        file.seek(0)
    except OSError as error:
        raise ReadError(name, 0, f"cannot be read: {error.strerror or error}") from error
    if form == "parquet" or (not form and (magic == PARQUET_MAGIC or found.name.endswith(".parquet"))):
        with file:
            yield from _table_pieces(_tables(name).read_parquet(file, name, _partition(found.name)), found.size)
    else:
        yield from _read_input(Input(name, file), form)


def _delta(url: str) -> list[Part]:
    version, parts = _tables(f"delta:{url}").delta_parts(url)
    return [
        Part(
            part.name,
            part.size,
            str(part.partition.get("scan") or ""),
            (part.name, part.size, version),
            _delta_reader(part),
        )
        for part in parts
    ]


def _delta_reader(part: "_DeltaPart") -> Callable[[], Iterator[Piece]]:
    return lambda: _table_pieces(part.read(), part.size)


class _DeltaPart(Protocol):
    name: str
    size: int

    def read(self) -> Iterator[_Read]: ...


def _tables(name: str) -> ModuleType:
    """What reads tables. Raises ConfigError where its libraries are not installed."""
    with extra(name):
        return import_module("engine.results.tables")


def _table_pieces(reads: Iterator[_Read], size: int) -> Iterator[Piece]:
    for read in reads:
        yield Piece(read.rows, int(size * read.share), _faults(read.faults))


def _faults(found: list[tuple[int, str]]) -> Faults:
    faults = Faults()
    for line, reason in found:
        faults.add(line, reason)
    return faults


def _segments(folder: Path) -> list[Part]:
    """Of a run that goes on, too: what is committed by now. Raises OutputError where its place is none any more."""
    header, records = read_journal(folder)
    if header is None:
        raise InputError(str(folder), 0, "holds no run")
    elsewhere = Elsewhere(header.segments, header.run) if header.segments else None
    parts = []
    for record in filter(lambda record: record.name, records):
        own = record.key and elsewhere is not None
        name = f"{elsewhere}/{record.key}" if own else f"{folder}/{record.name}"
        place = name if own else str((folder / record.name).resolve())
        told = (place, record.size, record.sha256)
        parts.append(Part(name, record.size, "", told, _segment_reader(folder, name, record, elsewhere)))
    return parts


def _segment_reader(
    path: Path, name: str, record: Record, elsewhere: Elsewhere | None
) -> Callable[[], Iterator[Piece]]:
    return lambda: _read_segment(path, name, record, elsewhere)


def _read_segment(path: Path, name: str, record: Record, elsewhere: Elsewhere | None) -> Iterator[Piece]:
    """Rows that a scan has committed are rows: they are passed on as they are, if they still are what was committed.

    A run that was killed between committing a segment and renaming it has it under its other name. Raises InputError;
    Unavailable for a place that would not give the other segments either.
    """
    count = 0
    try:
        with told(path):
            folder = Folder.open(path)
        with closing(folder):
            if record.staged and folder.look(record.name) is None and folder.look(record.staged) is not None:
                record, name = replace(record, name=record.staged), f"{path}/{record.staged}"
            for rows in segment_rows(folder, record, elsewhere):
                here = rows.count(b"\n")
                count += here
                yield Piece(TextRows(rows, here), record.size * count // max(record.rows, 1), Faults())
    except Unavailable:
        raise
    except OutputError as error:
        raise InputError(name, 0, str(error).removeprefix(f"{name}: ")) from error


def _read_input(opened: Input, form: str) -> Iterator[Piece]:
    with opened:
        blocks = opened.blocks()
        first = b""
        for block in blocks:
            first += block
            if first.strip():
                break
        whole = chain((first,), blocks)
        text = first.removeprefix(b"\xef\xbb\xbf").lstrip()
        if form == "xml" or (not form and text.startswith(b"<")):
            yield from _xml_pieces(opened, whole)
        elif text.startswith(PARQUET_MAGIC):
            raise InputError(opened.name, 0, "Parquet cannot be read from a pipe; name the file")
        elif not form and text.startswith(_FOR_PEOPLE):
            raise InputError(opened.name, 0, "is a table for people or grepable output; name the scan's NDJSON or XML")
        else:
            yield from _line_pieces(opened, whole)
        yield _last_piece(opened)


def _last_piece(opened: Input) -> Piece:
    """No rows, and what only the end of an input tells."""
    faults = _faults([(fault.line, fault.reason) for fault in opened.faults])
    return Piece(TextRows(b"", 0), opened.position, faults)


def _xml_pieces(opened: Input, blocks: Iterable[bytes]) -> Iterator[Piece]:
    rows: list[ServiceResult] = []
    report = NmapRows(opened.name)

    def piece() -> Piece:
        count = len(rows)
        made = Piece(TextRows(_encode(rows), count), opened.position, report.faults)
        rows.clear()
        report.faults = Faults()
        return made

    try:
        for block in blocks:
            rows += report.feed(block)
            if len(rows) >= _XML_ROWS or report.faults.count:
                yield piece()
        report.close()
    except InputError:
        rows += report.given()
        yield piece()
        raise
    yield piece()


def _line_pieces(opened: Input, blocks: Iterable[bytes]) -> Iterator[Piece]:
    for chunk in opened.lines_of(blocks):
        rows, faults = checked(chunk.data, chunk.line)
        yield Piece(rows, chunk.position, faults)


_encode = msgspec.json.Encoder().encode_lines
