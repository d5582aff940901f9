"""A committed segment, read again: the rows that were committed, or an error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import BinaryIO

import zstandard

from engine.errors import OutputError
from engine.state.elsewhere import Elsewhere
from engine.state.folder import Folder, told
from engine.state.records import Record

PACKED = 256 << 10  # bytes of a segment at a time: some MB of rows


def segment_rows(folder: Folder, record: Record, elsewhere: Elsewhere | None = None) -> Iterator[bytes]:
    """NDJSON, some thousand whole lines at a time. elsewhere: of the run, for segments that lie there.

    Raises OutputError where they are not those that were committed: at the end at the latest, so what was made of them
    before counts only then. Raises Unavailable where they cannot be had now, and may later.
    """
    digest, count, rest = sha256(), 0, b""
    if record.key and elsewhere is not None:
        name, opening = f"{elsewhere}/{record.key}", elsewhere.opened(record.key)
    else:
        name, opening = f"{folder}/{record.name}", _opened(folder, record.name)
    with opening as file, suppress(zstandard.ZstdError):
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        while packed := file.read(PACKED):
            digest.update(packed)
            block = rest + unpacker.decompress(packed)
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if cut:
                count += block.count(b"\n")
                yield block[:cut]
    if rest or count != record.rows or (record.sha256 and digest.hexdigest() != record.sha256):
        raise OutputError(f"{name}: has changed since it was committed; restore it from a copy")


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[BinaryIO]:
    with told(folder, name=name), os.fdopen(folder.read(name), "rb") as file:
        yield file
