"""One segment made in memory by whoever scans, on any machine, and put whole where the committer finds it.

An attempt at a piece of work becomes a file or an object of its own, under a name that no other attempt has, and a
`Manifest` for the committer (journal.py). It may be lost, late or doubled: only what is committed counts.

    staging                       under                                   which becomes
    the state folder, no run      .tmp-<16 hex>.ndjson.zst                part-NNNNNN.ndjson.zst, when it is committed
    another folder, a store       segment-<run>-<16 hex>.ndjson.zst       nothing else: it stays

In a folder that is not the run's own a file bears its name once it is whole and on the disk; before, a dot stands in
front of it. The state folder is written as everything in it is (folder.py): no link is followed.
"""

import os
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex

from msgspec import Struct

from engine.results.lake.base_place import Place, open_place
from engine.state.folder import MENDED, STAGED, Folder, close, told, write_all
from engine.state.frame import SUFFIX, Frame
from engine.state.ordinals import OrdinalSet
from engine.state.records import UNFINISHED, Manifest, key_of


class Staging(Struct, frozen=True):
    """Where attempts are put: what a driver gives to those who scan.

    where: canonical, a folder's path or the URL of an object store. run: whose segments stay there for good; empty
    where it is the state folder itself.
    """

    where: str
    run: str = ""

    def open(self) -> "Stage":
        """Once for each process. Raises ConfigError, OutputError."""
        return Stage(self)


class Attempt:
    """Rows with their ordinals on the way into a segment. done: of all targets; size: in bytes, packed, so far."""

    def __init__(self) -> None:
        self.done = OrdinalSet()
        self.rows = 0
        self.token = token_hex(8)
        self.manifest: Manifest | None = None  # once it has been put
        self._frame = Frame()
        self._packed: list[bytes] = []
        self._ended = False

    @property
    def size(self) -> int:
        return self._frame.size

    def write(self, rows: bytes, count: int, done: Iterable[int]) -> None:
        """rows: whole lines of NDJSON. done: an ordinal for each, and those of targets that get no row."""
        self.done.update(done)
        self.rows += count
        self._packed.append(self._frame.pack(rows))

    def put(self, where: Staging) -> Manifest:
        """As `Stage.put`, for who puts one attempt only. Raises ConfigError, too."""
        if self.manifest is None:
            with closing(where.open()) as stage:
                stage.put(self)
        assert self.manifest is not None
        return self.manifest

    def packed(self) -> tuple[bytes, str]:
        """All of the segment, and its SHA-256. Nothing can be written afterwards."""
        if not self._ended:
            self._packed.append(self._frame.end())
            self._ended = True
        self._packed = [b"".join(self._packed)]
        return self._packed[0], self._frame.sha256


class Stage:
    """A staging that is open."""

    def __init__(self, staging: Staging) -> None:
        """Use `Staging.open`."""
        self._run = staging.run
        self._place: Place | None = None
        self._folder: Folder | None = None
        if "://" in staging.where:
            self._place = open_place(staging.where)
            return
        path = Path(staging.where)
        with told(path):  # made by the driver: where it is not there, another folder is to be seen here
            self._folder = Folder.open(path)

    def put(self, attempt: Attempt) -> Manifest:
        """Put it, whole and on the disk; nothing, where it has no rows. -> what there is to commit

        Raises OutputError, Unavailable. Then it may be put again, here or there, and gets the same name. What has been
        put is not put twice.
        """
        if attempt.manifest is None:
            attempt.manifest = self._put(attempt)
        return attempt.manifest

    def close(self) -> None:
        """Once is enough. Never raises."""
        if self._folder is not None:
            self._folder.close()

    def _put(self, attempt: Attempt) -> Manifest:
        done = attempt.done.encode()
        if not attempt.rows:
            return Manifest(done)
        data, sha256 = attempt.packed()
        key = key_of(self._run, attempt.token) if self._run else ""
        staged = "" if key else f"{STAGED}{attempt.token}.{SUFFIX}"
        if self._place is not None:
            self._place.put_bytes(data, key)
        elif self._folder is not None:
            _write(self._folder, data, staged or UNFINISHED + key, staged or key)
        return Manifest(done, attempt.rows, staged, len(data), sha256, key)


def _write(folder: Folder, data: bytes, staged: str, name: str) -> None:
    """A file with these bytes, on the disk. staged: its name before. Raises OutputError, and leaves no part of it."""
    with told(folder, MENDED, staged):
        with suppress(FileNotFoundError):  # what an attempt before this one has left
            folder.remove(staged)
        try:
            descriptor = folder.create(staged)
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                close(descriptor)
            if name != staged:
                folder.rename(staged, name)
            folder.sync()
        except OSError:
            with suppress(OSError):
                folder.remove(staged)
            raise
