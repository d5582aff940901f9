"""The journal of a state folder: which segments are committed, and which targets need no scan any more.

A segment is an immutable file of rows, written aside under a `.tmp-` name and made visible by its commit. The order of
things in `Journal.commit` is what makes a run exactly-once:

    1. the staged file is whole and on the disk, and so is its entry in the folder
    2. the journal gets one record, on the disk before we go on: this is the commit
    3. the file is renamed to `part-NNNNNN`, the folder is written

Before 2 the segment does not count and its targets are scanned again; after 2 it counts, and if the machine stopped
before 3, the next `open` renames it. So whatever is called `part-` is whole and final, and may be taken away at once.
A segment that was put elsewhere (attempt.py) is whole there and keeps its name: for it, 2 is all.
Manifests may come from anywhere (this process, a worker on another machine); there is one committer, the holder of the
folder's lock, and the first manifest for a target wins. docs/state.md describes the files.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.errors import ConfigError, OutputError
from engine.results.lake import Unavailable
from engine.state.attempt import Staging
from engine.state.digest import Position
from engine.state.elsewhere import Elsewhere, chosen_place, listed_once
from engine.state.folder import MENDED, STAGED, Folder, close, staged_name, told, write_all
from engine.state.mending import recover, remove_unknown, tidy
from engine.state.ordinals import OrdinalSet
from engine.state.reading import segment_rows
from engine.state.records import (
    PART,
    End,
    Header,
    Manifest,
    Plan,
    Record,
    ended,
    is_attempt,
    is_staged,
    line_of,
    parse_journal,
    segment_number,
    summed,
)
from matcher import shown

NAME = "journal"
MAX_SIZE = 1 << 30  # bytes of a journal that is read; a million targets take some 20 kB
MAX_APPENDED = 32 << 20  # bytes behind which the journal is written anew
LOOKS_S = (0.0, 0.1, 1.0, 3.0)  # before each look for what another machine has put: its folder may show it late


class Journal:
    """An open state folder, locked against other runs. committed: the ordinals that need no scan any more.

    records: of all segments, in the order of their commits. read: how far the inputs had been read by then.
    ended: how the run before ended, while none goes on with it.
    """

    def __init__(
        self, folder: Folder, lock: int, header: Header, records: list[Record], elsewhere: Elsewhere | None = None
    ) -> None:
        """Use `Journal.open`."""
        self.folder = folder
        self.elsewhere = elsewhere
        listed = listed_once(elsewhere) if elsewhere is not None else {}
        self.ended = ended(records)
        records = recover(folder, records, elsewhere, listed)
        self.records = _kept(records)
        self.committed, self.read = summed(header, records)
        self._number = max((segment_number(record.name) for record in self.records), default=0)
        self._lock = lock
        self._header = header
        self._path = os.path.realpath(folder.path)
        self._appended = 0
        self._file = self._rewrite()
        tidy(folder, {record.name for record in records if not record.key})
        if elsewhere is not None:
            remove_unknown(elsewhere, listed, self._keys())

    @classmethod
    def open(cls, folder: str | Path, plan: Plan, *, resume: bool = False, segments: str = "") -> "Journal":
        """Begin a run in `folder`, made if need be; or go on with the one that it holds, if that has done anything.

        segments: the place where those who scan put theirs, another folder or an object store; empty for this folder,
        or for the place that the run was begun with.

        Raises ConfigError: the folder is in use, holds a run and `resume` was not said, was begun with another plan or
        place, or strangers have or could have written what it holds. Raises OutputError: the folder cannot be written,
        the place not be reached, or files are damaged.
        """
        path = Path(folder)
        wanted = msgspec.json.decode(msgspec.json.encode(plan))
        place = chosen_place(segments, path) if segments else ""
        with told(path):
            opened = Folder.open(path, make=True)
        lock = -1
        try:
            with told(opened):
                opened.refuse_strangers()
                lock = _lock(opened)
                opened.refuse_foreign(NAME)
                header, records = _read(opened)
                if header is None or not (header.done or any(record.done for record in records)):
                    # nothing was done: nothing is bound to a plan
                    records = []
                    if header is None and any(name.startswith(PART) for name in opened.names()):
                        raise ConfigError(f"{opened}: holds segments but no journal; name an empty folder")
                    header = _begun(header, wanted, place, resume)
                elif not resume:
                    raise ConfigError(f"{opened}: holds a run; go on with --resume, or name an empty folder")
                _compare(opened, header.plan, wanted)
                _compare_place(opened, header.segments, place)
                elsewhere = Elsewhere(header.segments, header.run) if header.segments else None
                return cls(opened, lock, header, records, elsewhere)
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

    @property
    def staging(self) -> Staging:
        """Where those who scan put their attempts."""
        if self.elsewhere is None:
            return Staging(self._path)
        return Staging(self.elsewhere.where, self.elsewhere.run)

    def rows_of(self, record: Record) -> Iterator[bytes]:
        """The rows of a committed segment, wherever it lies: see `segment_rows`."""
        return segment_rows(self.folder, record, self.elsewhere)

    def commit(self, manifest: Manifest, read: Position) -> bool:
        """Commit a staged segment. read: how far the inputs had been read when its last target was done.

        False if another manifest was first with any of its targets: then nothing was done, and what was staged is the
        caller's to remove. Raises OutputError: then the segment may be committed or not, and the next `open` knows;
        until then nothing more must be committed.
        """
        done = OrdinalSet.decode(manifest.done)
        union = self.committed | done
        if len(union) < len(self.committed) + len(done):
            return False
        self._refuse_odd(manifest, len(done))
        staged, key = manifest.staged, manifest.key
        name = self._next_name(staged.removeprefix(STAGED) or key) if staged or key else ""
        record = Record(name, manifest.rows, manifest.size, manifest.sha256, staged, done, read, key)
        with told(self.folder, MENDED, NAME):
            self._refuse_absent(manifest)
            if self._appended > MAX_APPENDED:
                grown, self._file = self._file, self._rewrite()
                close(grown)
            self.folder.sync()
            self._append(line_of(record))
            self.ended = None
            if staged:
                self.folder.rename(staged, name)
                self.folder.sync()
        self._number += bool(name)
        self.committed = union
        self.read = read
        self.records += _kept([record])
        return True

    def go_on(self) -> None:
        """A run begins: how the one before ended is history. Raises OutputError."""
        if self.ended is not None:
            self._note(Record())

    def end(self, end: End) -> None:
        """Say how the run ended. Raises OutputError: then it is as if it had been killed here."""
        self._note(Record(end=end))

    def _note(self, record: Record) -> None:
        with told(self.folder, MENDED, NAME):
            self._append(line_of(record))
        self.ended = record.end

    def discard(self, manifest: Manifest) -> None:
        """Remove what an attempt has put that is not committed, and never will be. Never raises."""
        key = manifest.key
        with suppress(OSError, OutputError):
            if is_staged(manifest.staged):
                self.folder.remove(manifest.staged)
            if self.elsewhere is not None and self.elsewhere.owns(key) and key not in self._keys():
                self.elsewhere.remove([key])

    def discard_attempts(self) -> None:
        """Remove whatever attempts have put that is not committed: nobody scans any more. Never raises."""
        with suppress(OSError):
            for name in filter(is_attempt, self.folder.names()):
                self.folder.remove(name)
        if self.elsewhere is not None:
            with suppress(OutputError):
                remove_unknown(self.elsewhere, self.elsewhere.listed(), self._keys())

    def close(self) -> None:
        """Let go of the folder. Once is enough. Never raises."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                close(descriptor)
        self._file = self._lock = -1
        self.folder.close()

    def _next_name(self, name: str) -> str:
        return f"{PART}{self._number + 1:06}.{name.partition('.')[2]}"

    def _keys(self) -> set[str]:
        return {record.key for record in self.records if record.key}

    def _refuse_odd(self, manifest: Manifest, targets: int) -> None:
        """Raises OutputError for a manifest that no attempt makes."""
        staged, key = manifest.staged, manifest.key
        if staged and not is_staged(staged):
            raise OutputError(f"{self.folder}: a staged segment cannot be named {staged!r}")
        if key and (self.elsewhere is None or not self.elsewhere.owns(key)):
            raise OutputError(f"{self.elsewhere or self.folder}: a segment of this run cannot be named {key!r}")
        if bool(staged) + bool(key) != bool(manifest.rows) or manifest.rows > targets:
            raise OutputError(f"{self.folder}: {staged or key or 'a manifest'} is at odds with its own rows")

    def _refuse_absent(self, manifest: Manifest) -> None:
        """Raises OutputError where the segment is not to be seen from here, whole: its rows would be lost.

        A place that cannot be asked now has said before that it has the object: that will do.
        """
        size: int | None = manifest.size
        for pause in LOOKS_S:
            time.sleep(pause)
            try:
                size = self._size(manifest)
            except Unavailable:
                return
            if size == manifest.size:
                return
        where = f"{self.elsewhere}/{manifest.key}" if manifest.key else f"{self.folder}/{manifest.staged}"
        found = "is not there" if size is None else f"has {size:,} bytes, not the {manifest.size:,} that were written"
        raise OutputError(f"{where}: {found}; see that every machine means the same place by this name{MENDED}")

    def _size(self, manifest: Manifest) -> int | None:
        if manifest.key:
            return self.elsewhere.size(manifest.key) if self.elsewhere is not None else None
        facts = self.folder.look(manifest.staged) if manifest.staged else None
        if facts is None:
            return None if manifest.staged else 0
        return facts.st_size if stat.S_ISREG(facts.st_mode) else None

    def _append(self, line: bytes) -> None:
        end = os.fstat(self._file).st_size
        try:
            write_all(self._file, line)
            os.fsync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, end)
            raise
        self._appended += len(line)

    def _rewrite(self) -> int:
        """Write the journal anew: one header for all that is done, one short record per segment. -> its descriptor"""
        header = replace(self._header, done=self.committed, read=self.read)
        staged = staged_name(NAME)
        descriptor = self.folder.create(staged)
        try:
            end = [Record(end=self.ended)] if self.ended is not None else []
            write_all(descriptor, line_of(header) + b"".join(map(line_of, self.records + end)))
            os.fsync(descriptor)
            self.folder.rename(staged, NAME)
            self.folder.sync()
        except BaseException as error:
            close(descriptor)
            if isinstance(error, OSError):  # which leaves room for the next attempt
                with suppress(OSError):
                    self.folder.remove(staged)
            raise
        self._appended = 0
        return descriptor


def read_journal(folder: Path) -> tuple[Header | None, list[Record]]:
    """What the journal of a folder says; no header if there is none. Takes no lock, changes nothing.

    `records.ended` tells of the records how the run ended.

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


def _begun(header: Header | None, plan: dict[str, Any], place: str, resume: bool) -> Header:
    """A new run, which takes over what one before it, that has done nothing, may have left elsewhere."""
    before = header.segments if header is not None else ""
    segments = place or (before if resume else "")
    return Header.begun(plan, segments, header.run if header is not None and segments == before else "")


def _compare_place(folder: Folder, begun: str, wanted: str) -> None:
    if wanted and wanted != begun:
        there = f"in {shown(begun)}" if begun else "in this folder"
        raise ConfigError(f"{folder}: its segments lie {there}; leave --segments out, or begin anew in another folder")


def _kept(records: list[Record]) -> list[Record]:
    """What is remembered of committed segments."""
    return [Record(made.name, made.rows, made.size, made.sha256, key=made.key) for made in records if made.name]
