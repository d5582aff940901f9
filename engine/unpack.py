"""Compressed input as plain bytes, in pieces of bounded size whatever was packed.

Contract: `Unpacker` goes by the first bytes: zstd and gzip (one frame or several on end) are undone, all else passes
through as it is. What a block of input yields is given at once. Raises Damaged behind what could be read. Memory:
zstd's window, at most WINDOW, and a few MiB.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import zstandard

PIECE = 1 << 18  # bytes given out at once
WINDOW = 1 << 27  # bytes; what the zstd command accepts by itself
ZSTD_STEP = 256  # packed bytes unpacked at once: not more than 64 blocks of 128 KiB
GZIP_STEP = 1024  # packed bytes; what is damaged takes no more with it
MAGIC_SIZE = 4
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte from 50 to 5F; what pzstd writes begins so


class Damaged(Exception):  # noqa: N818 - it says what the data is
    """Compressed data that cannot be read further; the text says what is wrong."""


class Unpacker:
    """One input, pushed. What `feed` and `close` return is to be taken in full, before the next call."""

    def __init__(self) -> None:
        self._opening = b""
        self._form: _Form | None = None

    def feed(self, block: bytes) -> Iterable[bytes]:
        """What the next bytes of the input hold, in pieces. Raises Damaged while they are taken."""
        if self._form is None:
            block = self._opening + block
            if len(block) < MAGIC_SIZE and b"\n" not in block:  # a pipe may bring fewer bytes than tell what it is
                self._opening = block
                return ()
            self._form = _form(block)
        return self._form.feed(block)

    def close(self) -> Iterable[bytes]:
        """What was left over when the input ended. Raises Damaged behind it where compressed data ends too early."""
        return self._form.close() if self._form is not None else filter(None, (self._opening,))


def unpacked(blocks: Iterable[bytes], told: Callable[[str], None]) -> Iterator[bytes]:
    """The same over the blocks of an input. told: called where compressed data ends too early. Raises Damaged."""
    unpacker = Unpacker()
    for block in blocks:
        yield from unpacker.feed(block)
    try:
        yield from unpacker.close()
    except Damaged as cut:
        told(str(cut))


class _Form(Protocol):
    """A way to pack, as `Unpacker` describes it."""

    def feed(self, block: bytes) -> Iterable[bytes]: ...

    def close(self) -> Iterable[bytes]: ...


def is_packed(opening: bytes) -> bool:
    """Whether what begins so is undone. opening: MAGIC_SIZE bytes, or all there is."""
    return not isinstance(_form(opening), _Plain)


def _form(opening: bytes) -> _Form:
    if opening.startswith(ZSTD_MAGIC) or (opening[1:4] == ZSTD_SKIPPABLE and opening[0] >> 4 == 5):
        return _Zstd()
    return _Gzip() if opening.startswith(GZIP_MAGIC) else _Plain()


class _Plain:
    def feed(self, block: bytes) -> Iterable[bytes]:
        return (block,)

    def close(self) -> Iterable[bytes]:
        return ()


class _Zstd:
    """Every frame's content. zstandard's own reader passes over a missing end, so frames are told apart here."""

    def __init__(self) -> None:
        self._frame = _zstd_frame()

    def feed(self, block: bytes) -> Iterator[bytes]:
        ready = bytearray()
        for at in range(0, len(block), ZSTD_STEP):
            packed = block[at : at + ZSTD_STEP]
            while packed:
                if self._frame.eof:
                    self._frame = _zstd_frame()
                try:
                    ready += self._frame.decompress(packed)
                except zstandard.ZstdError as error:
                    yield from _cut(ready)
                    raise Damaged(f"damaged zstd data: {error}") from error
                packed = self._frame.unused_data
            if len(ready) >= PIECE:
                yield from _cut(ready)
                ready.clear()
        yield from _cut(ready)

    def close(self) -> Iterable[bytes]:
        if not self._frame.eof:
            raise Damaged("ends in the middle of its zstd data")
        return ()


def _zstd_frame() -> "zstandard.ZstdDecompressionObj":
    return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()


def _cut(ready: bytearray) -> Iterator[bytes]:
    return (bytes(ready[at : at + PIECE]) for at in range(0, len(ready), PIECE))


class _Gzip:
    def __init__(self) -> None:
        self._frame = zlib.decompressobj(wbits=31)

    def feed(self, block: bytes) -> Iterator[bytes]:
        for at in range(0, len(block), GZIP_STEP):
            packed = block[at : at + GZIP_STEP]
            while packed:
                if self._frame.eof:
                    packed = packed.lstrip(b"\0")
                    if not packed:  # files may be padded
                        break
                    self._frame = zlib.decompressobj(wbits=31)
                try:
                    data = self._frame.decompress(packed, PIECE)
                except zlib.error as error:
                    raise Damaged(f"damaged gzip data: {error}") from error
                if data:
                    yield data
                packed = self._frame.unused_data if self._frame.eof else self._frame.unconsumed_tail

    def close(self) -> Iterator[bytes]:
        if not self._frame.eof:
            if rest := self._frame.flush():
                yield rest
            raise Damaged("ends in the middle of its gzip data")
