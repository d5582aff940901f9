r"""Stored responses, line by line: NDJSON rows, and in `forms` those of other programs -> Row.

    {"proto": "tcp", "probe": "NULL", "banner": "SSH-2.0-x\r\n"}      `banner`: text, one character per byte (Latin-1)
    {"proto": "tcp", "probe": "GetRequest", "data": "SFRUUC8xLjEg"}   `data`: base64; it wins over `banner`

`proto` may be left out (tcp), `probe` too (NULL); every other key is carried along. A banner with a character above
U+00FF was text and not bytes: it is read as UTF-8. What a record is shows in its keys, so that one reader serves all:

    zgrab2    `data` is an object of modules
    masscan   `rec_type` and `data` (-oD), or `ports` (-oJ)
    Shodan    `_shodan` or `ip_str`
    SF-Port   the text of a fingerprint, in whatever text it was pasted, or as `fingerprint` of a result row

Contract: `LineReader.read(line)` gives the rows that a line completes, `read_lines(text)` those of whole lines. Every
line that is not empty, a comment or the punctuation of an array either gives rows, or belongs to a fingerprint that
does, or is counted: as a fault, as text, or by what it holds instead of a response. Never raises. No I/O.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from engine.offline.faults import KEPT, RECORDS, REPORT, Faults
from engine.offline.forms import fingerprints, masscan, shodan, zgrab2
from engine.offline.forms.base import Item, Nothing, Record, Row, latin1_bytes
from engine.targets import Unreadable

MOST_ROWS = 1 << 16  # of one record
ROOM = 1 << 16  # bytes that the rows of one line may take together, and ROOM_FACTOR times the line
ROOM_FACTOR = 8
_HEADING = re.compile(
    rb"\W*(?:Nmap \d|Starting Nmap|Nmap scan report|Nmap done|Scan report for|PORT +STATE +SERVICE|<nmaprun|={5,}NEXT)"
)
_PUNCTUATION = frozenset((b"", b"[", b"]", b'{"finished":1}', b"{finished:1}"))  # masscan ends its arrays so
_BRACE, _CLOSING = b"{}"
_AROUND = b", \t\r\f\v"
_MARK = b"\xef\xbb\xbf"  # of UTF-8, at the beginning of files
_ANSWERED = frozenset((b'"hardmatched"', b'"softmatched"'))
_FAILED = re.compile(rb'"[a-z-]*(?:refused|timeout|closed|error)"')  # zgrab2's names for how a scan ended
_NOTHING = Record(b"{}", True)


class _Keys(Struct):
    """The keys that matter to us; msgspec passes over the others without making objects of them."""

    proto: str = "tcp"
    probe: str | None = None
    data: bytes | dict[str, Raw] | None = None
    banner: str | None = None
    fingerprint: str = ""
    rec_type: Raw | UnsetType = UNSET
    ports: Raw | UnsetType = UNSET
    match: Raw | UnsetType = UNSET
    verdict: Raw | UnsetType = UNSET
    shodan: Raw | UnsetType = msgspec.field(name="_shodan", default=UNSET)
    ip_str: Raw | UnsetType = UNSET
    domain: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    status: Raw | UnsetType = UNSET


class LineReader:
    """Reads the lines of one input in order, the first of which is number `line` + 1. line: of the last one read.

    faults: what was refused. texts: lines that are neither records nor fingerprints. form: RECORDS or REPORT, what the
    first line says that tells it. silent, derived: how often there was Nothing of that kind.
    """

    def __init__(self, line: int = 0) -> None:
        self.faults = Faults()
        self.texts = Faults()
        self.form = ""
        self.silent = 0
        self.derived = 0
        self.line = line
        self._decode = msgspec.json.Decoder(_Keys).decode
        self._block: fingerprints.Block | None = None  # a fingerprint that has not ended yet
        self._began = 0

    def read_lines(self, text: bytes) -> Iterator[Row]:
        """The rows that these whole lines complete. Of a plain record nothing is copied."""
        source = memoryview(text) if text.isascii() else text
        at, size = 0, len(text)
        while at < size:
            end = text.find(b"\n", at)
            if end < 0:
                end = size
            yield from self.read(source[at:end])
            at = end + 1

    def read(self, line: bytes | memoryview) -> Iterable[Row]:
        """The rows that this line completes; to be taken before the next line is read. A view holds only ASCII."""
        self.line += 1
        if line and line[0] == _BRACE and self._block is None:
            return self._record(line)
        return self._other(bytes(line)) if line or self._block is not None else ()

    def close(self) -> Iterator[Row]:
        """The rows of the fingerprint that has been read so far."""
        block, self._block = self._block, None
        if block is not None:
            yield from self._rows(fingerprints.rows(block.text, _NOTHING), self._began, len(block.text))

    def _other(self, line: bytes) -> Iterator[Row]:
        if self._block is not None and self._block.takes(line):
            if self._block.done:
                yield from self.close()
            return
        yield from self.close()
        if fingerprints.RECORD.match(line):
            yield from self._record(_bare(line))
        elif blocks := fingerprints.begun(line):
            self.form = self.form or REPORT
            for block in blocks:
                yield from self.close()
                self._block, self._began = block, self.line
            if blocks[-1].done:
                yield from self.close()
        elif reason := fingerprints.is_damaged(line):
            self.faults.add(self.line, reason)
        else:
            self._text(_bare(line))

    def _text(self, line: bytes) -> None:
        if line in _PUNCTUATION:
            return
        if _HEADING.match(line):
            self.form = self.form or REPORT
        elif line[:1] == b"#":
            return
        self.texts.add(self.line, self._refusal(line) if self.texts.count < KEPT else "")

    def _refusal(self, line: bytes) -> str:
        try:
            self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _reason(error, line)
        return "not a response record"

    def _record(self, line: bytes | memoryview) -> Iterable[Row]:
        if line[-1] != _CLOSING:
            line = bytes(line).rstrip(_AROUND)
        try:
            if isinstance(line, bytes) and not line.isascii():
                line.decode()  # msgspec does not look into what it passes over
            keys = self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._refused(bytes(line), error)
        self.form = self.form or RECORDS
        data = keys.data
        if data is None and keys.banner is not None:
            data = latin1_bytes(keys.banner)
        if isinstance(data, bytes) and keys.match is keys.shodan is keys.ip_str is UNSET:
            return (Row(keys.proto.lower(), (keys.probe or "NULL",), data, line[:-1], False),)
        return self._rows(_items(keys, data, bytes(line)), self.line, len(line))

    def _refused(self, line: bytes, error: Exception) -> Iterable[Row]:
        if line.replace(b" ", b"") in _PUNCTUATION:
            return ()
        if isinstance(error, msgspec.ValidationError):
            items = shodan.rows(line)
            if items is not None:
                self.form = self.form or RECORDS
                return self._rows(items, self.line, len(line))
        self.faults.add(self.line, _reason(error, line))
        return ()

    def _rows(self, items: Iterable[Item], number: int, size: int) -> Iterator[Row]:
        """The rows among the items of a record; what else there is, is counted. size: of its text in bytes."""
        room, left = ROOM + ROOM_FACTOR * size, MOST_ROWS
        fault = ""
        try:
            for item in items:
                if isinstance(item, Row):
                    room -= len(item.head)
                    left -= 1
                    if room < 0 or left < 0:
                        raise Unreadable("too many responses in one record; the further ones are left out")
                    yield item
                elif item is Nothing.SILENT:
                    self.silent += 1
                elif item is Nothing.DERIVED:
                    self.derived += 1
                else:
                    fault = fault or str(item)
        except (Unreadable, RecursionError) as reason:
            fault = fault or str(reason)
        if fault:
            self.faults.add(number, fault)


def _items(keys: _Keys, data: bytes | dict[str, Raw] | None, line: bytes) -> Iterator[Item]:
    """What is in a record that is not a plain row of ours."""
    record = Record(line, keys.match is not UNSET)
    if keys.shodan is not UNSET or keys.ip_str is not UNSET:
        yield from shodan.rows(line) or (Unreadable("a record of Shodan's without a text in 'data'"),)
    elif isinstance(data, bytes):
        yield Row(keys.proto.lower(), (keys.probe or "NULL",), data, record.head(), False)
    elif data is not None and keys.rec_type is UNSET:
        yield from zgrab2.rows(record, data)
    elif data is not None:
        yield from masscan.banner_rows(record, keys.proto, data)
    elif keys.ports is not UNSET:
        yield from masscan.port_rows(record, keys.ports)
    elif keys.fingerprint:
        yield from fingerprints.rows(keys.fingerprint.encode(), record)
    elif keys.verdict is not UNSET:
        yield Nothing.DERIVED if bytes(keys.verdict) in _ANSWERED else Nothing.SILENT
    elif keys.rec_type is not UNSET or keys.domain is not UNSET or keys.error is not UNSET:
        yield Nothing.SILENT  # a port that said nothing, a host that could not be reached
    elif keys.status is not UNSET and _FAILED.fullmatch(keys.status):
        yield Nothing.SILENT
    elif line.replace(b" ", b"") not in _PUNCTUATION:
        raise Unreadable("neither 'data' nor 'banner' in the record")


def _bare(line: bytes) -> bytes:
    """Without what may stand around a record: blanks, the commas of an array, the mark of UTF-8."""
    return line.strip(_AROUND).removeprefix(_MARK).strip(_AROUND)


def _reason(error: Exception, line: bytes) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"not a response record: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return f"not JSON ({error}): {line[:60].decode('latin-1')!r}"
