"""A state folder, held open: every file of a run is made, read, renamed and removed through its descriptor.

Contract: nothing that somebody else has put there is followed or waited for: names are looked up in this folder only,
no link is followed (the folder itself is none), and only regular files are opened. Nothing is created over something
that is there. Every method raises OSError; `told` turns it into the one line that people see.
"""

import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import ConfigError, OutputError
from matcher import shown

log = logging.getLogger("probemill.state")

STAGED = ".tmp-"  # how the names of files begin that do not count (yet)
FILE_MODE, FOLDER_MODE = 0o664, 0o775  # of what is made, less the umask; never for everybody to write
MENDED = "; what is committed is safe: mend this and go on with --resume"

_OPENING = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Folder:
    """An open folder. `str` is its path as it can be shown."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Use `Folder.open`."""
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, make: bool = False) -> "Folder":
        """make: the folder, and its parents, if need be. Raises ConfigError for a link."""
        try:
            if make:
                path.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError:
            if path.is_symlink():
                raise ConfigError(f"{shown(str(path))}: is a link; name the folder that it leads to") from None
            raise

    def __str__(self) -> str:
        return shown(str(self.path))

    def close(self) -> None:
        """Once is enough. Never raises."""
        if self._descriptor >= 0:
            close(self._descriptor)
        self._descriptor = -1

    def names(self) -> list[str]:
        with os.scandir(self._descriptor) as entries:
            return sorted(entry.name for entry in entries)

    def look(self, name: str) -> os.stat_result | None:
        """What is there under a name, a link as itself; None for nothing."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> int:
        """A descriptor of a file, for reading."""
        return self._regular(name, os.O_RDONLY)

    def edit(self, name: str) -> int:
        """A descriptor of a file that has no other name elsewhere, for reading and writing; made if need be."""
        descriptor = self._regular(name, os.O_RDWR | os.O_CREAT)
        if os.fstat(descriptor).st_nlink != 1:
            close(descriptor)
            raise OSError(errno.EMLINK, "has another name, too (a hard link)", name)
        return descriptor

    def create(self, name: str) -> int:
        """A descriptor of a new file, for writing at its end."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _OPENING
        return os.open(name, flags, FILE_MODE, dir_fd=self._descriptor)

    def rename(self, name: str, to: str) -> None:
        os.rename(name, to, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make what was created in or renamed within the folder survive a power cut."""
        os.fsync(self._descriptor)

    def refuse_strangers(self) -> None:
        """Raises ConfigError for another user's folder that anybody may write. One of a group is the group's affair."""
        facts = os.fstat(self._descriptor)
        if facts.st_mode & stat.S_IWOTH:
            if not self._is_ours(facts.st_uid):
                raise ConfigError(
                    f"{self}: belongs to {_user(facts.st_uid)}, and anybody may write to it; name a folder of your own"
                )
            log.warning("%s: anybody may write to this folder; chmod o-w keeps the run yours", self)

    def refuse_foreign(self, name: str) -> None:
        """Raises ConfigError for a file that another user made, or that has another name elsewhere."""
        facts = self.look(name)
        if facts is None or not stat.S_ISREG(facts.st_mode):
            return
        if facts.st_nlink != 1:
            raise ConfigError(f"{self}/{name}: has another name, too (a hard link); put a copy in its place")
        if facts.st_uid != 0 and not self._is_ours(facts.st_uid):
            raise ConfigError(
                f"{self}/{name}: belongs to {_user(facts.st_uid)}; let that user go on with the run, or name another"
            )
        if facts.st_mode & stat.S_IWOTH:
            log.warning("%s/%s: anybody could write to this file; it is trusted all the same", self, name)

    def _is_ours(self, user: int) -> bool:
        """Whether a file's user is us. On a network file system our files may belong to somebody else than we are."""
        if user == os.geteuid():
            return True
        name = staged_name("owner")
        descriptor = self.create(name)
        try:
            return os.fstat(descriptor).st_uid == user
        finally:
            close(descriptor)
            self.remove(name)

    def _regular(self, name: str, flags: int) -> int:
        try:
            descriptor = os.open(name, flags | _OPENING, FILE_MODE, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "is a link", name) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            close(descriptor)
            raise OSError(errno.EINVAL, "is no regular file", name)
        return descriptor


def staged_name(suffix: str) -> str:
    """A name that nobody has used, for a file that does not count yet."""
    return f"{STAGED}{secrets.token_hex(8)}.{suffix}"


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, however small the pieces that the system takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def close(descriptor: int) -> None:
    """Close what is synced, or does not count: what can fail then has no meaning any more."""
    with suppress(OSError):
        os.close(descriptor)


@contextmanager
def told(place: Folder | Path, advice: str = "", name: str = "") -> Iterator[None]:
    """The system's errors as ours. name: of the file that is meant, where the error does not say it."""
    try:
        yield
    except OSError as error:
        file = error.filename if isinstance(place, Folder) and isinstance(error.filename, str) else name
        where = "/".join(filter(None, (shown(str(place)), shown(file))))
        raise OutputError(f"{where}: {error.strerror or error}{advice}") from error


def _user(number: int) -> str:
    return "root" if number == 0 else f"another user ({number})"
