"""What inputs hold of responses: rows of scans with their fingerprints, stored responses in every form, one stream.

Contract: `Inputs(paths, watch)` gives each response as a Given, in order, in flat memory. Files and pipes are read as
`probemill match` reads them, which knows rows of scans, too; XML, Parquet, folders, state folders, Delta and stores as
`probemill convert` does. What cannot be used is told to `watch`. Raises InputError and ConfigError for what cannot be
opened at all.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import Raw, Struct, UnsetType

from engine.errors import InputError
from engine.insight.learn.judging import label
from engine.offline.faults import Faults, Texts
from engine.offline.forms.base import Row
from engine.offline.reading import Reading, Watch
from engine.offline.records import LineReader
from engine.offline.rows_in import PARQUET_MAGIC, open_inputs
from engine.offline.stream import STDIN, Source


class Given(Struct):
    """One response. names: of the probe, the first known one counts. ip: empty where nobody says; port: 0 then.

    record: the same number for what one record held. text: the fingerprint it comes from, as it was given, or empty.
    pseudo: a host that answers alike on many ports. expected: whom the record itself names, or empty.
    """

    proto: str
    names: tuple[str, ...]
    foreign: bool
    data: bytes
    ip: str
    port: int
    record: int
    text: str
    pseudo: bool
    expected: str


class _Who(Struct):
    name: str = ""
    product: str = ""


class _Told(Struct):
    """What a record says beside the response."""

    ip: str = ""
    ip_str: str = ""
    host: str = ""
    port: int = 0
    fingerprint: str = ""
    pseudo: Raw | UnsetType = msgspec.UNSET
    expect: _Who | None = None


_decode = msgspec.json.Decoder(_Told).decode


class Inputs:
    """records: how many have been read that held a response, so far."""

    def __init__(self, paths: Sequence[str], watch: Watch) -> None:
        self.faults = False
        self.records = 0
        self._paths = paths
        self._watch = watch
        self._rows = 0
        self._before = 0

    def __iter__(self) -> Iterator[Given]:
        for path in self._paths:
            yield from self._of(path)

    def _of(self, path: str) -> Iterator[Given]:
        if path != STDIN and ("://" in path or not Path(path).exists() or Path(path).is_dir()):
            yield from self._rows_of(path, "")
            return
        with Source(path) as opened:
            blocks = opened.blocks()
            first = b""
            texts = Texts()
            try:
                for block in blocks:
                    first += block
                    if first.strip():
                        break
                if path != STDIN and (form := _table(first)):
                    yield from self._rows_of(path, form)
                    return
                for chunk in opened.lines_of(chain((first,), blocks)):
                    reader = LineReader(chunk.line)
                    yield from self._lines(reader, chunk.data)
                    self._tell(opened.name, reader.faults)
                    self._tell(opened.name, texts.judge(reader.form, reader.texts)[0])
                    self._watch.moved(self._before + chunk.position, self._rows)
            except InputError as error:
                self._damaged(error)
            self._tell(opened.name, texts.close())
            for fault in opened.faults:
                self._damaged(fault)
            self._before += opened.size or 0

    def _rows_of(self, path: str, form: str) -> Iterator[Given]:
        """Of what holds rows of scans and nothing else."""
        parts = open_inputs(path, form)
        reading = Reading(parts, self._watch, before=(self._before, self._rows))
        for rows in reading.rows():
            yield from self._lines(LineReader(), rows.lines())
        self.faults = self.faults or reading.faults
        self._before += sum(part.size or 0 for part in parts)

    def _lines(self, reader: LineReader, data: bytes) -> Iterator[Given]:
        for line in data.split(b"\n"):
            yield from self._counted(reader, line)
        for found in reader.close():
            yield self._given(found, _Told())

    def _counted(self, reader: LineReader, line: bytes) -> Iterator[Given]:
        told = None
        self._rows += bool(line)
        for row in reader.read(line):
            if told is None:
                told = _told(line if line[:1] == b"{" else bytes(row.head) + b"}")
                self.records += 1
            yield self._given(row, told)

    def _given(self, row: Row, told: _Told) -> Given:
        expect = told.expect
        pseudo = told.pseudo is not msgspec.UNSET and bytes(told.pseudo) != b"null"
        return Given(
            row.proto,
            row.probes,
            row.foreign,
            row.data,
            told.ip or told.ip_str or told.host,
            told.port,
            self.records,
            told.fingerprint,
            pseudo,
            label(expect.name, expect.product) if expect else "",
        )

    def _tell(self, name: str, faults: Faults) -> None:
        if faults.count:
            self.faults = True
            self._watch.tell(name, faults)

    def _damaged(self, error: InputError) -> None:
        self.faults = True
        self._watch.damage(error)


def _told(record: bytes) -> _Told:
    try:
        return _decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # an address that is a number, and such
        return _Told()


def _table(first: bytes) -> str:
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(PARQUET_MAGIC):
        return "parquet"
    return "xml" if text.startswith(b"<") else ""
