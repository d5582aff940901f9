"""The journal of a state folder: which segments are committed, and which targets need no scan any more.

A segment is an immutable file of rows, written aside under a `.tmp-` name and made visible by its commit. The order of
things in `Journal.commit` is what makes a run exactly-once:

    1. the staged file is whole and on the disk, and so is its entry in the folder
    2. the journal gets one record, on the disk before we go on: this is the commit
    3. the file is renamed to `part-NNNNNN`, the folder is written

Before 2 the segment does not count and its targets are scanned again; after 2 it counts, and if the machine stopped
before 3, the next `open` renames it. So whatever is called `part-` is whole and final, and may be taken away at once.
Manifests may come from anywhere (this process, a worker on another machine); there is one committer, the holder of the
folder's lock, and the first manifest for a target wins. docs/state.md describes the files.
"""

import fcntl
import os
import stat
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import ConfigError, OutputError
from engine.state.digest import Position
from engine.state.folder import MENDED, STAGED, Folder, close, log, staged_name, told, write_all
from engine.state.ordinals import OrdinalSet
from engine.state.records import (
    FORM,
    PART,
    Header,
    Manifest,
    Plan,
    Record,
    is_staged,
    line_of,
    parse_journal,
    segment_number,
    summed,
)
from matcher import shown

NAME = "journal"
MAX_SIZE = 1 << 30  # bytes of a journal that is read; a million targets take some 20 kB
ORPHAN = ".orphan-"  # how the names of segments begin that the journal does not know


class Journal:
    """An open state folder, locked against other runs. committed: the ordinals that need no scan any more.

    records: of all segments, in the order of their commits. read: how far the inputs had been read by then.
    """

    def __init__(self, folder: Folder, lock: int, header: Header, records: list[Record]) -> None:
        """Use `Journal.open`."""
        self.folder = folder
        self.records = _kept(records)
        self.committed, self.read = summed(header, records)
        self._number = max((segment_number(record.name) for record in self.records), default=0)
        self._lock = lock
        self._plan = header.plan
        self._file = self._rewrite()
        _tidy(folder, {record.name for record in records})

    @classmethod
    def open(cls, folder: str | Path, plan: Plan, *, resume: bool = False) -> "Journal":
        """Begin a run in `folder`, made if need be; or go on with the one that it holds, if that has done anything.

        Raises ConfigError: the folder is in use, holds a run and `resume` was not said, was begun with another plan, or
        strangers have or could have written what it holds. Raises OutputError: the folder cannot be written, or its
        files are damaged.
        """
        path = Path(folder)
        wanted = msgspec.json.decode(msgspec.json.encode(plan))
        with told(path):
            opened = Folder.open(path, make=True)
        lock = -1
        try:
            with told(opened):
                opened.refuse_strangers()
                lock = _lock(opened)
                opened.refuse_foreign(NAME)
                header, records = _read(opened)
                if header is None or (not records and not header.done):  # nothing was done: nothing is bound to a plan
                    if header is None and any(name.startswith(PART) for name in opened.names()):
                        raise ConfigError(f"{opened}: holds segments but no journal; name an empty folder")
                    header = Header(FORM, wanted, OrdinalSet(), Position())
                elif not resume:
                    raise ConfigError(f"{opened}: holds a run; go on with --resume, or name an empty folder")
                _compare(opened, header.plan, wanted)
                return cls(opened, lock, header, _recover(opened, records))
        except BaseException:
            if lock >= 0:
                close(lock)
            opened.close()
            raise

    @property
    def rows(self) -> int:
        return sum(record.rows for record in self.records)

    @property
    def last(self) -> int:
        """The number of the last segment with rows; 0 for none."""
        return segment_number(self.records[-1].name) if self.records else 0

    def commit(self, manifest: Manifest, read: Position) -> bool:
        """Commit a staged segment. read: how far the inputs had been read when its last target was done.

        False if another manifest was first with any of its targets: then nothing was done, and the staged file is the
        caller's to remove. Raises OutputError: then the segment may be committed or not, and the next `open` knows;
        until then nothing more must be committed.
        """
        done = OrdinalSet.decode(manifest.done)
        union = self.committed | done
        if len(union) < len(self.committed) + len(done):
            return False
        if manifest.staged and not is_staged(manifest.staged):
            raise OutputError(f"{self.folder}: a staged segment cannot be named {manifest.staged!r}")
        name = self._next_name(manifest.staged) if manifest.staged else ""
        record = Record(name, manifest.rows, manifest.size, manifest.sha256, manifest.staged, done, read)
        with told(self.folder, MENDED, NAME):
            self.folder.sync()
            self._append(line_of(record))
            if name:
                self.folder.rename(manifest.staged, name)
                self._number += 1
                self.folder.sync()
        self.committed = union
        self.read = read
        self.records += _kept([record])
        return True

    def close(self) -> None:
        """Let go of the folder. Once is enough. Never raises."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                close(descriptor)
        self._file = self._lock = -1
        self.folder.close()

    def _next_name(self, staged: str) -> str:
        return f"{PART}{self._number + 1:06}.{staged.removeprefix(STAGED).partition('.')[2]}"

    def _append(self, line: bytes) -> None:
        end = os.fstat(self._file).st_size
        try:
            write_all(self._file, line)
            os.fsync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, end)
            raise

    def _rewrite(self) -> int:
        """Write the journal anew: one header for all that is done, one short record per segment. -> its descriptor"""
        header = Header(FORM, self._plan, self.committed, self.read)
        staged = staged_name(NAME)
        descriptor = self.folder.create(staged)
        try:
            write_all(descriptor, line_of(header) + b"".join(map(line_of, self.records)))
            os.fsync(descriptor)
            self.folder.rename(staged, NAME)
            self.folder.sync()
        except BaseException as error:
            close(descriptor)
            if isinstance(error, OSError):  # which leaves room for the next attempt
                with suppress(OSError):
                    self.folder.remove(staged)
            raise
        return descriptor


def read_journal(folder: Path) -> tuple[Header | None, list[Record]]:
    """What the journal of a folder says; no header if there is none. Takes no lock, changes nothing.

    Raises OutputError and ConfigError as `parse_journal` does, and where the folder cannot be read.
    """
    with told(folder):
        try:
            opened = Folder.open(folder)
        except FileNotFoundError:
            return None, []
    try:
        with told(opened, name=NAME):
            return _read(opened)
    finally:
        opened.close()


def _read(folder: Folder) -> tuple[Header | None, list[Record]]:
    try:
        descriptor = folder.read(NAME)
    except FileNotFoundError:
        return None, []
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > MAX_SIZE:
            raise OutputError(f"{folder}/{NAME}: is larger than {MAX_SIZE >> 20:,} MiB, and is no journal")
        return parse_journal(file.read(size), f"{folder}/{NAME}")


def _lock(folder: Folder) -> int:
    """The lock goes with the process that holds it, however it ends."""
    descriptor = folder.edit("lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        write_all(descriptor, b"%d\n" % os.getpid())
    except BlockingIOError:
        holder = shown(os.read(descriptor, 20).decode("ascii", "replace").strip())
        close(descriptor)
        raise ConfigError(f"{folder}: is in use by process {holder}; wait for it, or name another folder") from None
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def _compare(folder: Folder, begun: dict[str, Any], wanted: dict[str, Any]) -> None:
    for option in sorted(begun.keys() | wanted.keys()):
        if begun.get(option) != wanted.get(option):
            raise ConfigError(
                f"{folder}: was begun with other {shown(option)}; give the same targets, inputs and ports, "
                "or begin anew in another folder"
            )


def _recover(folder: Folder, records: list[Record]) -> list[Record]:
    """Finish what a sudden end left half done, and check that the segments are those that were committed."""
    kept = []
    missing = 0
    for record in records:
        staged = folder.look(record.staged) if record.staged else None
        part = folder.look(record.name) if record.name else None
        if staged is not None:
            if not stat.S_ISREG(staged.st_mode) or not _is_whole(folder, record):
                log.warning("%s/%s is damaged: its %d rows are scanned again", folder, record.staged, record.rows)
                continue
            folder.rename(record.staged, record.name)
        elif record.name and part is None:
            missing += 1
        elif part is not None and (part.st_size != record.size or not stat.S_ISREG(part.st_mode)):
            raise OutputError(
                f"{folder}/{record.name}: has changed since it was committed; restore it, or move it away"
            )
        kept.append(record)
    if missing:
        log.warning("%s: %d segments are no longer there, and are taken as moved away", folder, missing)
    folder.sync()
    return kept


def _tidy(folder: Folder, known: set[str]) -> None:
    """Remove what never counted. Only after the journal has been written anew, which may have dropped a record."""
    for name in folder.names():
        if name.startswith(STAGED):
            folder.remove(name)
        elif name.startswith(PART) and name not in known:
            log.warning("%s/%s is not in the journal: set aside as %s%s", folder, shown(name), ORPHAN, shown(name))
            folder.rename(name, f"{ORPHAN}{name}")


def _kept(records: list[Record]) -> list[Record]:
    """What is remembered of committed segments."""
    return [Record(record.name, record.rows, record.size, record.sha256) for record in records if record.name]


def _is_whole(folder: Folder, record: Record) -> bool:
    with os.fdopen(folder.read(record.staged), "rb") as file:
        return file_digest(file, "sha256").hexdigest() == record.sha256
