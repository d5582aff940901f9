"""What a sudden end has left half done, put in order when a state folder is opened."""

import os
import stat
from collections.abc import Iterable, Mapping, Set
from hashlib import file_digest

from engine.errors import OutputError
from engine.state.elsewhere import Elsewhere
from engine.state.folder import STAGED, Folder, log
from engine.state.records import PART, Record
from matcher import shown

ORPHAN = ".orphan-"  # how the names of segments begin that the journal does not know


def recover(
    folder: Folder, records: list[Record], elsewhere: Elsewhere | None, listed: Mapping[str, int]
) -> list[Record]:
    """Finish what a sudden end left half done, and check that the segments are those that were committed.

    listed: the sizes of what there is elsewhere. Raises OutputError, OSError.
    """
    kept = []
    missing = 0
    for record in records:
        if record.key:
            if listed.get(record.key, record.size) != record.size:
                raise _changed(f"{elsewhere}/{record.key}")
            missing += record.key not in listed
            kept.append(record)
            continue
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
            raise _changed(f"{folder}/{record.name}")
        kept.append(record)
    if missing:
        log.warning("%s: %d segments are no longer there, and are taken as moved away", folder, missing)
    folder.sync()
    return kept


def tidy(folder: Folder, known: set[str]) -> None:
    """Remove what never counted. Only after the journal has been written anew, which may have dropped a record."""
    for name in folder.names():
        if name.startswith(STAGED):
            folder.remove(name)
        elif name.startswith(PART) and name not in known:
            log.warning("%s/%s is not in the journal: set aside as %s%s", folder, shown(name), ORPHAN, shown(name))
            folder.rename(name, f"{ORPHAN}{name}")


def remove_unknown(elsewhere: Elsewhere, listed: Iterable[str], known: Set[str]) -> None:
    """Remove objects of the run that never counted. Where that fails they are in nobody's way."""
    try:
        elsewhere.remove(sorted(set(listed) - known))
    except OutputError as error:
        log.warning("%s; segments that do not count stay there until the next run", error)


def _changed(where: str) -> OutputError:
    return OutputError(f"{where}: has changed since it was committed; restore it, or move it away")


def _is_whole(folder: Folder, record: Record) -> bool:
    with os.fdopen(folder.read(record.staged), "rb") as file:
        return file_digest(file, "sha256").hexdigest() == record.sha256
