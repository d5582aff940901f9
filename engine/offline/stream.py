"""A file or pipe of lines as chunks: plain, compressed or UTF-16 (told by its first bytes), cut where no record is cut.

Contract: chunks come in order, hold whole lines, at most LINES of them and about a megabyte (a longer line alone; of
places half a megabyte), and never end inside a wrapped fingerprint. What a pipe has ready is passed on at once.
"""

import codecs
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import BinaryIO, Self

from msgspec import Struct

from engine.errors import InputError, ReadError
from engine.offline.forms.fingerprints import unfinished
from engine.results.sinks import open_output
from engine.unpack import MAGIC_SIZE, Damaged, is_packed, unpacked

READ_SIZE = 1 << 19  # bytes asked of a file at once
MAX_LINE = 16 << 20  # bytes; longer is passed over
LINES = 1 << 14  # of a chunk
FEW = 1 << 8  # lines in a block where they are long
TAIL = 1 << 15  # bytes that are looked through for the end of a record
STDIN = "-"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Chunk(Struct):
    """Whole lines. line: how many lines precede them; position: bytes of the file read so far, compressed or not.

    place: (offset, bytes) of the lines in the file, where they are still to be read; `line` then leaves out the lines
    of such chunks before, which nobody has counted, and so it does in what follows them.
    """

    data: bytes
    line: int
    position: int
    place: tuple[int, int] | None = None


class Input:
    """An open file or pipe. position: bytes read so far, packed or not; faults: long lines, an early end of zstd."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self.faults: list[InputError] = []
        self.position = 0
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def chunks(self) -> Iterator[Chunk]:
        """The lines. Raises InputError for a read error or damaged compression; what came before has been given."""
        return self.lines_of(self.blocks())

    def lines_of(self, blocks: Iterable[bytes], line: int = 0) -> Iterator[Chunk]:
        """The lines of what `blocks` has given. line: how many lines precede them."""
        for data, before in whole_lines(blocks, lambda number, reason: self._complain(line + number, reason)):
            yield Chunk(data, line + before, self.position)

    def blocks(self) -> Iterator[bytes]:
        """What is in the file, unpacked. Raises InputError as `chunks` does."""
        try:
            yield from without_utf16(unpacked(iter(self._read, b""), lambda reason: self._complain(0, reason)))
        except Damaged as damage:
            raise InputError(self.name, 0, str(damage)) from damage

    def _read(self) -> bytes:
        try:
            data = self._file.read1(READ_SIZE)  # type: ignore[attr-defined]  # every file we open is buffered
        except OSError as error:
            raise ReadError(self.name, 0, f"cannot be read: {error.strerror or error}") from error
        self.position += len(data)
        return bytes(data)

    def _complain(self, line: int, reason: str) -> None:
        self.faults.append(InputError(self.name, line, reason))


class Source(Input):
    """One input by its path. size: of a regular file in bytes, else None. Raises InputError where it cannot be opened.

    identity: what tells the file from others, by whatever path. descriptor: of the file.
    """

    def __init__(self, path: str) -> None:
        name = "standard input" if path == STDIN else path
        try:
            file: BinaryIO = (
                os.fdopen(os.dup(sys.stdin.fileno()), "rb") if path == STDIN else open(path, "rb")  # noqa: SIM115, PTH123
            )
        except OSError as error:
            raise ReadError(name, 0, f"cannot be read: {error.strerror}") from error
        super().__init__(name, file)
        self.descriptor = file.fileno()
        status = os.fstat(self.descriptor)
        self.identity = (status.st_dev, status.st_ino)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._begin = os.lseek(self.descriptor, 0, os.SEEK_CUR) if self.size is not None else 0
        self._unsettled = 0  # faults whose lines others have to count

    def is_plain(self) -> bool:
        """Whether others may read the file, too, and find in it just the lines that `chunks` gives."""
        if self.size is None or self.faults:  # what is too long for a line has been passed over
            return False
        try:
            opening = os.pread(self.descriptor, MAGIC_SIZE, self._begin)
        except OSError:
            return False  # who reads it says so
        return not is_packed(opening) and not opening.startswith(UTF16_MARKS)

    def places(self, taken: int, line: int) -> Iterator[Chunk]:
        """What is left behind the first `taken` bytes of a plain file, `line` lines: where it stands, not what.

        Only a few bytes of it are looked at, to find where a record ends; where none is found, all is read from there
        on. Raises InputError as `chunks` does.
        """
        at = self._begin + taken
        while size := _record_end(self.descriptor, at):
            at += size
            self.position = at - self._begin
            yield Chunk(b"", line, self.position, (at - size, size))
        self._file.seek(at)
        self.position = at - self._begin
        known = len(self.faults)
        try:
            yield from self.lines_of(iter(self._read, b""), line)
        finally:
            self._unsettled = len(self.faults) - known

    def settle(self, lines: int) -> None:
        """So many lines stood in places: the faults behind them are so much further on."""
        for at in range(len(self.faults) - self._unsettled, len(self.faults)):
            fault = self.faults[at]
            self.faults[at] = InputError(fault.source, fault.line + lines, fault.reason)
        self._unsettled = 0


def _record_end(descriptor: int, at: int) -> int:
    """How many bytes behind `at`, a few less than READ_SIZE, end in a line that is a record. 0: it cannot be told."""
    try:
        tail = os.pread(descriptor, TAIL, at + READ_SIZE - TAIL)
    except OSError:
        return 0  # who reads on from there meets it, behind what can be read
    if len(tail) < TAIL:
        return 0
    cut = tail.rfind(b"\n") + 1
    while cut > 0:
        begin = tail.rfind(b"\n", 0, cut - 1) + 1
        if begin > 0 and tail.startswith(b"{", begin):
            return READ_SIZE - TAIL + cut
        cut = begin
    return 0


def without_utf16(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """UTF-16 with a byte order mark as UTF-8; all else as it is."""
    source = iter(blocks)
    first = b""
    for block in source:
        first += block
        if len(first) >= len(UTF16_MARKS[0]):
            break
    whole = chain((first,), source) if first else source
    if not first.startswith(UTF16_MARKS):
        yield from whole
        return
    decode = codecs.getincrementaldecoder("utf-16")("replace").decode
    for block in whole:
        yield decode(block).encode()
    yield decode(b"", True).encode()


def whole_lines(blocks: Iterable[bytes], told: Callable[[int, str], None]) -> Iterator[tuple[bytes, int]]:
    """The text of a chunk, and how many lines precede it. told: called with the number of a line that is too long.

    An InputError out of `blocks` comes through behind all that precedes it.
    """
    line = 0
    for text in _texts(blocks):
        if text is None:
            line += 1
            told(line, f"line is longer than {MAX_LINE >> 20} MiB")
            continue
        for lines, count in _few_lines(text):
            yield lines, line
            line += count


def _texts(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Whole lines, cut nowhere in a fingerprint; None for a line that is too long. Raises as `blocks` does."""
    rest = bytearray()
    skipping = False
    try:
        for block in blocks:
            start = 0
            if skipping:
                start = block.find(b"\n") + 1
                if not start:
                    continue
                skipping = False
            first = block.find(b"\n", start)
            if len(rest) + first - start > MAX_LINE and first >= 0:
                lines = rest.rfind(b"\n") + 1  # of a fingerprint that has not ended
                if len(rest) - lines + first - start > MAX_LINE:
                    yield bytes(rest[:lines])
                    yield None
                    rest.clear()
                    start = first + 1
            if end := block.rfind(b"\n", start) + 1:
                text = b"".join((rest, memoryview(block)[start:end]))
                cut = unfinished(text)
                cut = cut if cut >= 0 else len(text)
                yield text[:cut]
                rest = bytearray(text[cut:])
                start = end
            rest += memoryview(block)[start:]
            if len(rest) > MAX_LINE:  # a line, or a fingerprint that goes on in empty lines
                end = rest.rfind(b"\n") + 1
                yield bytes(rest[:end])
                del rest[:end]
            if len(rest) > MAX_LINE:
                yield None
                rest.clear()
                skipping = True
    except InputError:
        yield bytes(rest)
        raise
    yield bytes(rest)


def _few_lines(text: bytes) -> Iterator[tuple[bytes, int]]:
    """The text in pieces of at most LINES lines, and how many each has."""
    count = _lines(text)
    while count > LINES:
        at = 0
        for _ in range(LINES):
            at = text.find(b"\n", at) + 1
        start = unfinished(text[:at])
        cut = start if start > 0 else at
        taken = LINES if cut == at else text.count(b"\n", 0, cut)
        yield text[:cut], taken
        count -= taken
        text = text[cut:]
    if text:
        yield text, count


def _lines(text: bytes) -> int:
    """How many lines end in it. Looking for the ends of long lines is five times as quick as `bytes.count`."""
    at = 0
    for count in range(FEW):
        at = text.find(b"\n", at) + 1
        if not at:
            return count
    return FEW + text.count(b"\n", at)


class Destination:
    """Lines to a file or standard output (`-`), compressed where the name ends in .zst or .gz.

    Refuses to overwrite `source`. Raises OutputError, SinkClosed as sinks.output does, InputError for the former.
    """

    def __init__(self, path: str, source: Source) -> None:
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            if path != STDIN and (status.st_dev, status.st_ino) == source.identity and stat.S_ISREG(status.st_mode):
                raise InputError(path, 0, "is the input, too; write to another file")
        self._output = open_output(path)

    def write(self, lines: bytes) -> None:
        self._output.write(lines)

    def close(self) -> None:
        self._output.close()
