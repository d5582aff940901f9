"""A file or pipe of lines as chunks: plain or zstd (told by its first bytes), cut where no record is cut.

Contract: chunks come in order, are at most about a megabyte, hold whole lines, and never end inside a wrapped
fingerprint. What a pipe has ready is passed on at once.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import zstandard
from msgspec import Struct

from engine.errors import InputError
from engine.offline.records import NMAP_TEXT
from engine.results.sinks.output import Output

READ_SIZE = 1 << 18  # bytes asked of a file at once
MAX_LINE = 16 << 20  # bytes; longer is passed over
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_PIECE = 4096  # compressed bytes unpacked at once; even nothing but zeros is not more than 128 MiB then
STDIN = "-"


class Chunk(Struct):
    """Whole lines. line: how many lines precede them; position: bytes of the file read so far, compressed or not."""

    data: bytes
    line: int
    position: int
    nmap_text: bool = False


class Source:
    """One input. size: of a regular file in bytes, else None. Raises InputError where it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STDIN else path
        self.faults: list[InputError] = []  # lines too long, an end inside a zstd frame
        self._position = 0
        try:
            self._file: BinaryIO = (
                os.fdopen(os.dup(sys.stdin.fileno()), "rb") if path == STDIN else open(path, "rb")  # noqa: SIM115, PTH123
            )
        except OSError as error:
            raise InputError(self.name, 0, f"cannot be read: {error.strerror}") from error
        status = os.fstat(self._file.fileno())
        self.identity = (status.st_dev, status.st_ino)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def chunks(self) -> Iterator[Chunk]:
        """The lines. Raises InputError for a read error or damaged compression; what came before has been given."""
        rest = bytearray()
        line = 0
        nmap_text: bool | None = None
        skipping = False
        for block in self._blocks():
            rest += block
            if skipping:
                end = rest.find(b"\n") + 1
                del rest[: end or len(rest)]
                if not end:
                    continue
                skipping = False
                line += 1
            if nmap_text is None and rest.strip():
                nmap_text = NMAP_TEXT.match(rest) is not None
            if cut := _cut(rest):
                yield Chunk(bytes(rest[:cut]), line, self._position, bool(nmap_text))
                line += rest.count(b"\n", 0, cut)
                del rest[:cut]
            elif len(rest) > MAX_LINE:
                self.faults.append(InputError(self.name, line + 1, f"line is longer than {MAX_LINE >> 20} MiB"))
                rest.clear()
                skipping = True
        if rest:
            yield Chunk(bytes(rest), line, self._position, bool(nmap_text))

    def _blocks(self) -> Iterator[bytes]:
        first = self._read()
        if first.startswith(ZSTD_MAGIC):
            yield from self._unpacked(first)
            return
        while first:
            yield first
            first = self._read()

    def _read(self) -> bytes:
        try:
            data = self._file.read1(READ_SIZE)  # type: ignore[attr-defined]  # both kinds of file are buffered
        except OSError as error:
            raise InputError(self.name, 0, f"cannot be read: {error.strerror}") from error
        self._position += len(data)
        return bytes(data)

    def _unpacked(self, packed: bytes) -> Iterator[bytes]:
        """Every frame's content. zstandard's own reader passes over a missing end, so frames are told apart here."""
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        ready = bytearray()
        while packed:
            for at in range(0, len(packed), ZSTD_PIECE):
                piece = packed[at : at + ZSTD_PIECE]
                while piece:
                    if unpacker.eof:
                        unpacker = zstandard.ZstdDecompressor().decompressobj()
                    try:
                        ready += unpacker.decompress(piece)
                    except zstandard.ZstdError as error:
                        yield bytes(ready)
                        raise InputError(self.name, 0, f"damaged zstd data: {error}") from error
                    piece = unpacker.unused_data
                if len(ready) >= READ_SIZE:
                    yield bytes(ready)
                    ready.clear()
            packed = self._read()
        yield bytes(ready)
        if not unpacker.eof:
            self.faults.append(InputError(self.name, 0, "ends in the middle of its zstd data"))


def _cut(text: bytearray) -> int:
    """Where the last line ends that is no part of an unfinished fingerprint; 0 where there is none."""
    end = text.rfind(b"\n")
    while end >= 0:
        start = text.rfind(b"\n", 0, end) + 1
        if not text.startswith(b"SF", start) or text[start:end].rstrip().endswith(b'");'):
            return end + 1
        if text.startswith(b"SF-Port", start):
            return start
        end = start - 1
    return 0


class Destination:
    """Lines to a file or standard output (`-`), compressed where the name ends in .zst.

    Refuses to overwrite `source`. Raises OutputError, SinkClosed as sinks.output does, InputError for the former.
    """

    def __init__(self, path: str, source: Source) -> None:
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            if path != STDIN and (status.st_dev, status.st_ino) == source.identity and stat.S_ISREG(status.st_mode):
                raise InputError(path, 0, "is the input, too; write to another file")
        self._output = Output(path)
        self._packer = zstandard.ZstdCompressor().compressobj() if path.endswith(".zst") else None

    def write(self, lines: bytes) -> None:
        packed = self._packer.compress(lines) if self._packer else lines
        if packed:
            self._output.write(packed)

    def close(self) -> None:
        if self._packer:
            self._output.write(self._packer.flush())
        self._output.close()
