"""A committed segment, read again: the rows that were committed, or an error."""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import zstandard

from engine.errors import OutputError
from engine.state.folder import Folder, told
from engine.state.records import Record

PACKED = 256 << 10  # bytes of a segment at a time: some MB of rows


def segment_rows(folder: Folder, record: Record) -> Iterator[bytes]:
    """NDJSON, some thousand whole lines at a time.

    Raises OutputError where they are not those that were committed: at the end at the latest, so what was made of them
    before counts only then.
    """
    name = record.name
    with told(folder, name=name):
        descriptor = folder.read(name)
    digest, count, rest = sha256(), 0, b""
    with os.fdopen(descriptor, "rb") as file, told(folder, name=name), suppress(zstandard.ZstdError):
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
        raise OutputError(f"{folder}/{name}: has changed since it was committed; restore it from a copy")
