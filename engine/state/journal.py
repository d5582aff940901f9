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
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.errors import ConfigError, OutputError
from engine.state.digest import Position
from engine.state.ordinals import OrdinalSet

log = logging.getLogger("probemill.state")

FORM = 1  # of the journal; a change that older programs would misread gets the next number
STAGED = ".tmp-"  # how the names of files begin that do not count (yet)
ORPHAN = ".orphan-"  # and of segments that the journal does not know
PART = "part-"

Plan = Mapping[str, Any]
"""What decides which target has which ordinal, apart from the bytes of the inputs: JSON values by option."""


class Manifest(Struct, frozen=True):
    """A segment offered for commit. staged: its file in the folder, `.tmp-*.SUFFIX`; none if there are no rows.

    size and sha256: of the file. done: the ordinals, as `OrdinalSet.encode` packs them: one for every row, and those of
    targets that were passed over and have no row.
    """

    done: bytes
    rows: int = 0
    staged: str = ""
    size: int = 0
    sha256: str = ""


class Record(Struct, frozen=True, omit_defaults=True):
    """A committed segment. name: of its file, empty if it has none.

    staged, done and read are there until the journal is written anew: then the file bears its name for certain, and
    the header has taken over the rest.
    """

    name: str = ""
    rows: int = 0
    size: int = 0
    sha256: str = ""
    staged: str = ""
    done: bytes = b""
    read: Position = Position()


class Header(Struct, frozen=True):
    """The first record of a journal. done and read: the sum of the records that have none of their own."""

    form: int
    plan: dict[str, Any]
    done: bytes
    read: Position


class Journal:
    """An open state folder, locked against other runs. committed: the ordinals that need no scan any more.

    records: of all segments, in the order of their commits. read: how far the inputs had been read by then.
    """

    def __init__(self, folder: Path, lock: int, header: Header, records: list[Record]) -> None:
        """Use `Journal.open`."""
        self.folder = folder
        self.records = _kept(records)
        self.committed, self.read = summed(header, records)
        self._lock = lock
        self._plan = header.plan
        self._file = self._rewrite()
        _tidy(folder, {record.name for record in records})

    @classmethod
    def open(cls, folder: str | Path, plan: Plan, *, resume: bool = False) -> "Journal":
        """Begin a run in `folder`, made if need be; or go on with the one that it holds.

        Raises ConfigError: the folder is in use, holds a run and `resume` was not said, or was begun with another
        plan. Raises OutputError: the folder cannot be written, or its files are damaged.
        """
        folder = Path(folder)
        wanted = msgspec.json.decode(msgspec.json.encode(plan))
        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder)
            try:
                header, records = read_journal(folder)
                if header is None:
                    header = Header(FORM, wanted, OrdinalSet().encode(), Position())
                    if any(folder.glob(f"{PART}*")):
                        raise ConfigError(f"{folder}: holds segments but no journal; name an empty folder")
                elif not resume:
                    raise ConfigError(f"{folder}: holds a run; go on with --resume, or name an empty folder")
                _compare(folder, header.plan, wanted)
                return cls(folder, lock, header, _recover(folder, records))
            except BaseException:
                os.close(lock)
                raise

    @property
    def rows(self) -> int:
        return sum(record.rows for record in self.records)

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
        name = self._next_name(manifest.staged) if manifest.staged else ""
        record = Record(name, manifest.rows, manifest.size, manifest.sha256, manifest.staged, manifest.done, read)
        with told(self.folder / "journal", MENDED):
            sync_folder(self.folder)
            self._append(_line(record))
            if name:
                (self.folder / manifest.staged).rename(self.folder / name)
                sync_folder(self.folder)
        self.committed = union
        self.read = read
        self.records += _kept([record])
        return True

    def close(self) -> None:
        """Let go of the folder. Once is enough."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _next_name(self, staged: str) -> str:
        last = self.records[-1].name.removeprefix(PART).partition(".")[0] if self.records else "0"
        return f"{PART}{int(last) + 1:06}.{staged.removeprefix(STAGED).partition('.')[2]}"

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
        header = Header(FORM, self._plan, self.committed.encode(), self.read)
        staged = self.folder / f"{STAGED}journal"
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            write_all(descriptor, _line(header) + b"".join(map(_line, self.records)))
            os.fsync(descriptor)
            staged.rename(self.folder / "journal")
            sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def read_journal(folder: Path) -> tuple[Header | None, list[Record]]:
    """What the journal of a folder says; no header if there is none. Takes no lock, changes nothing.

    A record that was not written to its end, which only the last one can be, is left out. Raises OutputError when
    others are damaged.
    """
    path = folder / "journal"
    if not path.exists():
        return None, []
    with told(path):
        lines = path.read_bytes().split(b"\n")
    bodies = [_body(line) for line in lines[:-1]]  # behind the last line end is nothing, or half a record
    while bodies and bodies[-1] is None:
        bodies.pop()
    if not bodies or None in bodies:
        raise OutputError(f"{path}: line {bodies.index(None) + 1 if bodies else 1} is damaged; restore it from a copy")
    form = msgspec.json.decode(bodies[0] or b"")["form"]
    if form != FORM:
        raise ConfigError(f"{path}: has form {form}, and this program knows form {FORM}; use the program that wrote it")
    header = msgspec.json.decode(bodies[0] or b"", type=Header)
    return header, [msgspec.json.decode(body or b"", type=Record) for body in bodies[1:]]


def summed(header: Header, records: list[Record]) -> tuple[OrdinalSet, Position]:
    """All that is done, and how far the inputs were read."""
    done = OrdinalSet.decode(header.done)
    read = header.read
    for record in records:
        if record.done:
            done |= OrdinalSet.decode(record.done)
            read = max(read, record.read, key=lambda position: position.bytes)
    return done, read


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, however small the pieces that the system takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make what was created in or renamed within the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


MENDED = "; what is committed is safe: mend this and go on with --resume"


@contextmanager
def told(path: Path, advice: str = "") -> Iterator[None]:
    """The system's errors as ours."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}{advice}") from error


def _line(record: Header | Record) -> bytes:
    body = msgspec.json.encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _body(line: bytes) -> bytes | None:
    """The JSON of a record's line, None if its checksum is wrong."""
    checksum, _, body = line.partition(b" ")
    return body if checksum == b"%08x" % zlib.crc32(body) else None


def _lock(folder: Path) -> int:
    """The lock goes with the process that holds it, however it ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        write_all(descriptor, b"%d\n" % os.getpid())
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise ConfigError(f"{folder}: is in use by process {holder}; wait for it, or name another folder") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _compare(folder: Path, begun: dict[str, Any], wanted: dict[str, Any]) -> None:
    for option in sorted(begun.keys() | wanted.keys()):
        if begun.get(option) != wanted.get(option):
            raise ConfigError(
                f"{folder}: was begun with other {option}; give the same targets, inputs and ports, "
                "or begin anew in another folder"
            )


def _recover(folder: Path, records: list[Record]) -> list[Record]:
    """Finish what a sudden end left half done, and check that the segments are those that were committed."""
    kept = []
    missing = 0
    for record in records:
        staged, part = folder / record.staged, folder / record.name
        if record.staged and staged.exists():
            if not _is_whole(staged, record):
                log.warning("%s is damaged: its %d rows are scanned again", staged, record.rows)
                continue
            staged.rename(part)
        elif record.name and not part.exists():
            missing += 1
        elif record.name and part.stat().st_size != record.size:
            raise OutputError(f"{part}: has changed since it was committed; restore it, or move it away")
        kept.append(record)
    if missing:
        log.warning("%s: %d segments are no longer there, and are taken as moved away", folder, missing)
    sync_folder(folder)
    return kept


def _tidy(folder: Path, known: set[str]) -> None:
    """Remove what never counted. Only after the journal has been written anew, which may have dropped a record."""
    for path in folder.glob(f"{STAGED}*"):
        path.unlink()
    for path in folder.glob(f"{PART}*"):
        if path.name not in known:
            log.warning("%s is not in the journal: set aside as %s%s", path, ORPHAN, path.name)
            path.rename(folder / f"{ORPHAN}{path.name}")


def _kept(records: list[Record]) -> list[Record]:
    """What is remembered of committed segments."""
    return [Record(record.name, record.rows, record.size, record.sha256) for record in records if record.name]


def _is_whole(path: Path, record: Record) -> bool:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest() == record.sha256
