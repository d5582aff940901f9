"""Rows into rotated segments: `part-000001.ndjson.zst`, `part-000002.ndjson.zst`, ... in a state folder.

A segment is closed when it is large or old enough, and committed with the ordinals of its rows (journal.py). So
every target has one row across all segments, whatever happens to the run; what was in the open segment when a run was
killed is scanned again by the one that goes on. Read them all with `zstdcat DIR/part-*.zst`.

Who scans elsewhere makes whole segments (attempt.py); `SegmentSink.take_segment` commits each as it comes.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from engine.errors import OutputError
from engine.model import NOT_SCANNED, Batch
from engine.results.sinks.base import Summary
from engine.state.delivery import Deliveries
from engine.state.digest import InputDigest
from engine.state.folder import MENDED, Folder, close, staged_name, told, write_all
from engine.state.frame import SUFFIX, Frame
from engine.state.journal import Journal
from engine.state.ordinals import OrdinalSet
from engine.state.records import End, Manifest, Record

SEGMENT_SIZE = 64 << 20  # bytes on the disk
SEGMENT_S = 60.0  # so much work at most is done again after a crash
WHY_WIDTH = 500  # characters


class SegmentWriter:
    """One segment, written aside in `folder`. Makes no file until there are rows."""

    def __init__(self, folder: Folder) -> None:
        self.done = OrdinalSet()
        self.rows = 0
        self._folder = folder
        self._name = staged_name(SUFFIX)
        self._descriptor = -1
        self._frame = Frame()

    @property
    def size(self) -> int:
        """In bytes, on the disk."""
        return self._frame.size

    def write(self, batch: Batch) -> None:
        """Raises OutputError; then only `discard` is left to do."""
        self.done.update(batch.done)
        self.rows += batch.count
        self._put(self._frame.pack(batch.rows))

    def finish(self) -> Manifest:
        """Close the file, with everything on the disk. Raises OutputError."""
        done = self.done.encode()
        if not self.rows:
            return Manifest(done)
        self._put(self._frame.end())
        with told(self._folder, MENDED):
            os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        return Manifest(done, self.rows, self._name, self.size, self._frame.sha256)

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


class SegmentSink:
    """The sink that commits, and tells the journal when a run begins and how it ended.

    digest: over the inputs, fed by their reader. deliveries: who brings the rows on.

    The rows of targets that were not scanned, or are put off, are left out: the next run scans them.
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
        """Raises OutputError; then the journal is closed."""
        self.journal = journal
        self.deliveries = deliveries
        self.digest = InputDigest(journal.read)
        self._size = size
        self._seconds = seconds
        self._clock = clock
        self._writer: SegmentWriter | None = None
        self._opened = 0.0
        self._failure: OutputError | None = None
        self._attempts = False  # whether others put segments for us to commit
        self._put_off = OrdinalSet()
        self._rows_before = journal.rows
        try:
            journal.go_on()
        except OutputError:
            journal.close()
            raise

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

    def take_segment(self, manifest: Manifest) -> Record | None:
        """Commit at once what somebody has put whole. -> its record, by which `Journal.rows_of` reads the rows

        None where another was first with one of its targets, or one of them was put off: then nothing was done, and
        what was put is removed. Who makes attempts leaves out the rows of targets that were not scanned or are put
        off. Raises OutputError as `take` does.
        """
        if self._failure is not None:
            raise self._failure
        if self.deliveries is not None:
            self.deliveries.make_room()
        self._attempts = True
        if self._is_put_off(manifest) or not self._commit(manifest):
            self.journal.discard(manifest)
            return None
        return self.journal.records[-1] if manifest.rows else Record()

    def pass_over(self, ordinals: Iterable[int]) -> None:
        """These targets will have no row, and need not be looked at again."""
        self._open().done.update(ordinals)

    def rotate_if_due(self) -> None:
        """Commit the open segment if it is large or old enough. Raises OutputError."""
        writer = self._writer
        if writer and (writer.size >= self._size or self._clock() - self._opened >= self._seconds):
            self._rotate(writer)

    def close(self, summary: Summary) -> None:
        """Commit what there is, and see it delivered. Nobody may put attempts any more: what is left of them goes.

        Raises OutputError if that fails, or an earlier failure that nobody was told of.
        """
        failure = self._failure if not summary.error else None
        try:
            if self._failure is None and self._writer is not None:
                self._rotate(self._writer)
            if self._failure is None and self._attempts:
                self.journal.discard_attempts()
            if self._failure is None:
                self.journal.end(self._end(summary))
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

    def _end(self, summary: Summary) -> End:
        """Of all runs on this folder together. Rows that do not count are targets that were not reached."""
        ending, done = summary.ending, self.journal.rows
        read = max(self._rows_before + ending.read, done)
        at = datetime.fromtimestamp(int(summary.finished), UTC).isoformat().replace("+00:00", "Z")
        return End(
            why=(summary.error or ending.why)[:WHY_WIDTH],
            read=read,
            done=done,
            not_reached=read - done,
            cut=ending.cut,
            names=ending.names,
            unread=ending.unread,
            at=at,
        )

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
        if not self._commit(manifest):
            twice = OutputError(f"{self.journal.folder}: a target was done twice; this is a fault of ours")
            self._fail(twice, writer)
            raise twice

    def _commit(self, manifest: Manifest) -> bool:
        """Whether it was first with all of its targets. Raises OutputError."""
        try:
            first = self.journal.commit(manifest, self.digest.position())
        except OutputError as error:  # whether it is committed is for the next run to find out: its file has to stay
            self._failure = error
            raise
        if first and self.deliveries is not None:
            self.deliveries.committed()
        return first

    def _is_put_off(self, manifest: Manifest) -> bool:
        if not self._put_off:
            return False
        done = OrdinalSet.decode(manifest.done)
        return len(done | self._put_off) < len(done) + len(self._put_off)

    def _fail(self, error: OutputError, writer: SegmentWriter) -> None:
        writer.discard()
        self._writer = None
        self._failure = error


class _Ending(Struct):
    reason: str = ""


_UNFINISHED = frozenset(reason.value for reason in NOT_SCANNED)
_ending = msgspec.json.Decoder(_Ending)


def without_unfinished(batch: Batch, put_off: OrdinalSet) -> Batch:
    """The batch without the rows of targets not scanned or put off; the n-th row is that of the n-th ordinal."""
    if not put_off and not any(batch.tally.get("reason:" + reason) for reason in _UNFINISHED):
        return batch
    pairs = zip(batch.rows.splitlines(keepends=True), batch.done, strict=True)
    kept = [
        (line, ordinal)
        for line, ordinal in pairs
        if ordinal not in put_off and _ending.decode(line).reason not in _UNFINISHED
    ]
    return Batch(b"".join(line for line, _ in kept), len(kept), [ordinal for _, ordinal in kept], batch.tally)
