"""Compressed and UTF-16 input as plain bytes, in pieces of bounded size whatever was packed.

Contract: `unpacked(blocks, told)` goes by the first bytes: zstd and gzip (one frame or several on end) and UTF-16 with
a byte order mark are undone, all else passes through as it is. What a block of input yields is passed on at once.
Raises Damaged behind what could be read. Memory: zstd's window, at most WINDOW, and a few MiB.
"""

import codecs
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import zstandard

PIECE = 1 << 18  # bytes given out at once
WINDOW = 1 << 27  # bytes; what the zstd command accepts by itself
ZSTD_STEP = 256  # packed bytes unpacked at once: not more than 64 blocks of 128 KiB
GZIP_STEP = 1024  # packed bytes; what is damaged takes no more with it
MAGIC_SIZE = 4
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte from 50 to 5F; what pzstd writes begins so
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Damaged(Exception):  # noqa: N818 - it says what the data is
    """Compressed data that cannot be read further; the text says what is wrong."""


def unpacked(blocks: Iterable[bytes], told: Callable[[str], None]) -> Iterator[bytes]:
    """blocks: of the input, none empty. told: called where a compressed input ends too early."""
    source = iter(blocks)
    first = b""
    for block in source:
        first += block
        if len(first) >= MAGIC_SIZE or b"\n" in first:  # a pipe may bring fewer bytes than tell what it is
            break
    whole = chain((first,), source) if first else source
    if first.startswith(ZSTD_MAGIC) or (first[1:4] == ZSTD_SKIPPABLE and first[0] >> 4 == 5):
        return _zstd(whole, told)
    if first.startswith(GZIP_MAGIC):
        return _gzip(whole, told)
    if first.startswith(UTF16_MARKS):
        return _utf16(whole)
    return iter(whole)


def _zstd(blocks: Iterable[bytes], told: Callable[[str], None]) -> Iterator[bytes]:
    """Every frame's content. zstandard's own reader passes over a missing end, so frames are told apart here."""
    frame = _zstd_frame()
    ready = bytearray()
    for block in blocks:
        for at in range(0, len(block), ZSTD_STEP):
            packed = block[at : at + ZSTD_STEP]
            while packed:
                if frame.eof:
                    frame = _zstd_frame()
                try:
                    ready += frame.decompress(packed)
                except zstandard.ZstdError as error:
                    yield from _cut(ready)
                    raise Damaged(f"damaged zstd data: {error}") from error
                packed = frame.unused_data
            if len(ready) >= PIECE:
                yield from _cut(ready)
                ready.clear()
        yield from _cut(ready)
        ready.clear()
    if not frame.eof:
        told("ends in the middle of its zstd data")


def _zstd_frame() -> "zstandard.ZstdDecompressionObj":
    return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()


def _cut(ready: bytearray) -> Iterator[bytes]:
    return (bytes(ready[at : at + PIECE]) for at in range(0, len(ready), PIECE))


def _gzip(blocks: Iterable[bytes], told: Callable[[str], None]) -> Iterator[bytes]:
    frame = zlib.decompressobj(wbits=31)
    for block in blocks:
        for at in range(0, len(block), GZIP_STEP):
            packed = block[at : at + GZIP_STEP]
            while packed:
                if frame.eof:
                    packed = packed.lstrip(b"\0")
                    if not packed:  # files may be padded
                        break
                    frame = zlib.decompressobj(wbits=31)
                try:
                    data = frame.decompress(packed, PIECE)
                except zlib.error as error:
                    raise Damaged(f"damaged gzip data: {error}") from error
                if data:
                    yield data
                packed = frame.unused_data if frame.eof else frame.unconsumed_tail
    if not frame.eof:
        if rest := frame.flush():
            yield rest
        told("ends in the middle of its gzip data")


def _utf16(blocks: Iterable[bytes]) -> Iterator[bytes]:
    decode = codecs.getincrementaldecoder("utf-16")("replace").decode
    for block in blocks:
        yield decode(block).encode()
    yield decode(b"", True).encode()
