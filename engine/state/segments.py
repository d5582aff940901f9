"""Rows into rotated segments: `part-000001.ndjson.zst`, `part-000002.ndjson.zst`, ... in a state folder.

A segment is closed when it is large or old enough, and committed with the ordinals of its rows (journal.py). So
every target has one row across all segments, whatever happens to the run; what was in the open segment when a run was
killed is scanned again by the one that goes on. Read them all with `zstdcat DIR/part-*.zst`.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable

import msgspec
import zstandard
from msgspec import Struct

from engine.errors import OutputError
from engine.model import Batch, Reason
from engine.results.sinks.base import Summary
from engine.state.delivery import Deliveries
from engine.state.digest import InputDigest
from engine.state.folder import MENDED, Folder, close, staged_name, told, write_all
from engine.state.journal import Journal
from engine.state.ordinals import OrdinalSet
from engine.state.records import Manifest

SEGMENT_SIZE = 64 << 20  # bytes on the disk
SEGMENT_S = 60.0  # so much work at most is done again after a crash
LEVEL = 1  # of zstd: half the time of level 3 on rows like ours, for the same size


class SegmentWriter:
    """One segment, written aside in `folder`. Makes no file until there are rows."""

    def __init__(self, folder: Folder) -> None:
        self.done = OrdinalSet()
        self.rows = 0
        self.size = 0
        self._folder = folder
        self._name = staged_name("ndjson.zst")
        self._descriptor = -1
        self._sha256 = hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()

    def write(self, batch: Batch) -> None:
        """Raises OutputError; then only `discard` is left to do."""
        self.done.update(batch.done)
        self.rows += batch.count
        self._put(self._compressor.compress(batch.rows))

    def finish(self) -> Manifest:
        """Close the file, with everything on the disk. Raises OutputError."""
        done = self.done.encode()
        if not self.rows:
            return Manifest(done)
        self._put(self._compressor.flush())
        with told(self._folder, MENDED):
            os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        return Manifest(done, self.rows, self._name, self.size, self._sha256.hexdigest())

    def discard(self) -> None:
        """Remove what was written, which makes room on a full disk. Never raises."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            close(descriptor)
        with contextlib.suppress(OSError):
            self._folder.remove(self._name)

    def _put(self, data: bytes) -> None:
        if not data:
            return
        with told(self._folder, MENDED):
            if self._descriptor < 0:
                self._descriptor = self._folder.create(self._name)
            write_all(self._descriptor, data)
        self._sha256.update(data)
        self.size += len(data)


class SegmentSink:
    """The sink that commits. digest: over the inputs, fed by their reader. deliveries: who brings the rows on.

    The rows of targets that are cancelled or put off are left out: they have not been scanned, the next run does it.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        deliveries: Deliveries | None = None,
        size: int = SEGMENT_SIZE,
        seconds: float = SEGMENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.journal = journal
        self.deliveries = deliveries
        self.digest = InputDigest(journal.read)
        self._size = size
        self._seconds = seconds
        self._clock = clock
        self._writer: SegmentWriter | None = None
        self._opened = 0.0
        self._failure: OutputError | None = None
        self._put_off = OrdinalSet()

    def put_off(self, ordinals: Iterable[int]) -> None:
        """Whatever the rows of these targets say, they are not done: the next run asks again."""
        self._put_off.update(ordinals)

    def take(self, batch: Batch) -> None:
        """Take rows with their ordinals. Raises OutputError: nothing more can be committed, what was is safe."""
        if self._failure is not None:
            raise self._failure
        if self.deliveries is not None:
            self.deliveries.make_room()
        finished = without_unfinished(batch, self._put_off)
        if finished.count:
            writer = self._open()
            try:
                writer.write(finished)
            except OutputError as error:
                self._fail(error, writer)
                raise
        self.rotate_if_due()

    def pass_over(self, ordinals: Iterable[int]) -> None:
        """These targets will have no row, and need not be looked at again."""
        self._open().done.update(ordinals)

    def rotate_if_due(self) -> None:
        """Commit the open segment if it is large or old enough. Raises OutputError."""
        writer = self._writer
        if writer and (writer.size >= self._size or self._clock() - self._opened >= self._seconds):
            self._rotate(writer)

    def close(self, summary: Summary) -> None:
        """Commit what there is, and see it delivered.

        Raises OutputError if that fails, or an earlier failure that nobody was told of.
        """
        failure = self._failure if not summary.error else None
        try:
            if self._failure is None and self._writer is not None:
                self._rotate(self._writer)
        except OutputError as error:
            failure = error
        try:
            if self.deliveries is not None:
                self.deliveries.finish()
        except OutputError as error:
            if failure is not None:
                raise OutputError(f"{failure}. {error}") from error
            raise
        finally:
            self.journal.close()
        if failure is not None:
            raise failure

    def _open(self) -> SegmentWriter:
        if self._writer is None:
            self._writer = SegmentWriter(self.journal.folder)
            self._opened = self._clock()
        return self._writer

    def _rotate(self, writer: SegmentWriter) -> None:
        self._writer = None
        try:
            manifest = writer.finish()
        except OutputError as error:
            self._fail(error, writer)
            raise
        try:
            first = self.journal.commit(manifest, self.digest.position())
        except OutputError as error:  # whether it is committed is for the next run to find out: its file has to stay
            self._failure = error
            raise
        if not first:
            twice = OutputError(f"{self.journal.folder}: a target was done twice; this is a fault of ours")
            self._fail(twice, writer)
            raise twice
        if self.deliveries is not None:
            self.deliveries.committed()

    def _fail(self, error: OutputError, writer: SegmentWriter) -> None:
        writer.discard()
        self._writer = None
        self._failure = error


class _Ending(Struct):
    reason: str = ""


_ending = msgspec.json.Decoder(_Ending)


def without_unfinished(batch: Batch, put_off: OrdinalSet) -> Batch:
    """The batch without the rows of targets cancelled or put off; the n-th row is that of the n-th ordinal."""
    if not batch.tally.get("reason:" + Reason.CANCELLED.value) and not put_off:
        return batch
    pairs = zip(batch.rows.splitlines(keepends=True), batch.done, strict=True)
    kept = [
        (line, ordinal)
        for line, ordinal in pairs
        if ordinal not in put_off and _ending.decode(line).reason != Reason.CANCELLED.value
    ]
    return Batch(b"".join(line for line, _ in kept), len(kept), [ordinal for _, ordinal in kept], batch.tally)
