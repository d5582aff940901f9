"""Where files appear whole or not at all: a local folder, or a prefix of an object store (extra `lake`).

A place is also where files are found and read again, and from which they are removed.

Contract: a name that is there is never written over, because it can only be an earlier attempt at the same file; a
local file is staged beside its place, synced and renamed, an object is created on condition that it does not exist.
Credentials and endpoints of object stores come from the environment, as their own tools read them (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, ...).
"""

import errno
import importlib
import io
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from engine.disk import sync
from engine.errors import ConfigError, OutputError
from engine.extras import extra
from engine.results.lake.base_trouble import trouble
from engine.text import first_line

STORES = {"s3", "gs", "gcs", "az", "abfs", "abfss", "azure"}
NO_STORES = {"file", "http", "https", "ftp", "sftp", "hdfs", "s3a", "s3n"}
ASKED_S = 30.0  # for a request without data
SLOWEST = 250_000  # bytes per second; what is slower than that does not keep up with a scan
STAGED = ".probemill-"  # how the names of files begin that do not count yet
ENDING = ".tmp"
LISTINGS = 5  # attempts to list a folder while its files are replaced


class Found(Struct, frozen=True, order=True):
    """A file of a place. name: below it, with `/`. size: in bytes; changed: in nanoseconds since the epoch."""

    name: str
    size: int
    changed: int


class Place(Protocol):
    """name: as people may see it, the same however it was written."""

    name: str

    def has(self, name: str) -> bool:
        """Whether a file is there. Raises OutputError, Unavailable; so do all."""

    def put(self, file: Path, name: str) -> None:
        """Make a local file appear under a name, which may lead through folders. The file is used up."""

    def put_bytes(self, data: bytes, name: str) -> None:
        """Make a small file."""

    def staging(self, owner: str, aside: Path) -> Path:
        """A local folder for the files of `owner`, where `put` has the least to do. aside: one that is theirs, too."""

    def files(self, under: str = "") -> Iterator[Found]:
        """All files below a folder of the place, in no order; none where it is not there."""

    def open(self, name: str) -> BinaryIO:
        """A file for reading, with `read1` and `seek`, whose errors are the system's (OSError)."""

    def remove(self, names: Iterable[str]) -> None:
        """Files that may be there or not."""


def open_place(where: str) -> Place:
    """A path, `file://`, or the URL of an object store. Raises ConfigError, OutputError."""
    where = canonical(where)
    return ObjectPlace(where) if "://" in where else LocalPlace(Path(where))


def canonical(where: str) -> str:
    """One spelling for each place: an absolute path without links, or a URL. Raises ConfigError for neither."""
    scheme, colon, _ = where.partition(":")
    if colon and scheme.lower() in STORES | NO_STORES:
        url = urlsplit(where)
        if "@" in where:
            raise ConfigError(f"{scheme}://...@{where.rpartition('@')[2]}: credentials belong in the environment")
        if url.scheme not in STORES | {"file"}:
            raise ConfigError(f"{where}: no store is known by {scheme}:; write a path, s3://, gs:// or az://")
        if url.query or url.fragment:
            raise ConfigError(f"{where}: nothing may follow the path; settings belong in the environment")
        if url.scheme == "file" and url.netloc in {"", "localhost"}:
            return os.path.realpath(unquote(url.path))
        if url.scheme == "file" or not url.netloc or "://" not in where:
            raise ConfigError(f"{where}: write {url.scheme}://{'/PATH' if url.scheme == 'file' else 'BUCKET/PATH'}")
        return f"{url.scheme}://{url.netloc}/{'/'.join(filter(None, url.path.split('/')))}".rstrip("/")
    return os.path.realpath(Path(where).expanduser())


def endpoint() -> str:
    """The address of the S3 API that the environment names; empty for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


class LocalPlace:
    """A folder, made when the first file comes."""

    def __init__(self, root: Path) -> None:
        """Raises OutputError where there is something else than a folder."""
        self.name = str(root)
        self._root = root
        if root.exists() and not root.is_dir():
            raise OutputError(f"{root}: is a file; name a folder")

    def has(self, name: str) -> bool:
        return (self._root / name).exists()

    def put(self, file: Path, name: str) -> None:
        place = self._root / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                file.unlink()
                return
            if file.stat().st_dev != place.parent.stat().st_dev:
                file = _moved(file, place.parent)
            file.rename(place)
            self._sync(place.parent)
        except OSError as error:
            raise self._error(error, name) from error

    def put_bytes(self, data: bytes, name: str) -> None:
        place = self._root / name
        staged = place.parent / _staged_name("bytes")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                staged.unlink()
            raise self._error(error, name) from error
        self.put(staged, name)

    def staging(self, owner: str, aside: Path) -> Path:
        """A hidden folder in this one. What an earlier process of the owner left in it is removed."""
        folder = self._root / f"{STAGED}{owner}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.iterdir():
                left.unlink()
        except OSError as error:
            raise self._error(error, "") from error
        return folder

    def files(self, under: str = "") -> Iterator[Found]:
        top = self._root / under
        for attempt in range(LISTINGS):
            try:
                yield from list(self._listed(top))
                return
            except OSError as error:
                if not isinstance(error, FileNotFoundError) or attempt + 1 == LISTINGS:
                    raise self._error(error, under) from error
                if not top.exists():
                    return

    def _listed(self, top: Path) -> Iterator[Found]:
        """Raises FileNotFoundError where something goes while we look: other files may have come for it."""
        for folder, _, names in os.walk(top, onerror=_raised):
            for name in names:
                path = Path(folder, name)
                if path.is_symlink() and not path.exists():
                    continue  # it leads nowhere
                facts = path.stat()
                if not stat.S_ISREG(facts.st_mode):
                    continue  # a pipe would wait for somebody who writes
                yield Found(path.relative_to(self._root).as_posix(), facts.st_size, facts.st_mtime_ns)

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def remove(self, names: Iterable[str]) -> None:
        folders = set()
        for name in names:
            path = self._root / name
            folders.add(path.parent)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise self._error(error, name) from error
        for folder in folders:
            with suppress(FileNotFoundError):
                self._sync(folder)

    def _sync(self, folder: Path) -> None:
        """It, and those between it and the root, which may be new."""
        while True:
            sync(folder)
            if folder in {self._root, folder.parent}:
                return
            folder = folder.parent

    def _error(self, error: OSError, name: str) -> OutputError:
        return OutputError(f"{Path(self.name, name)}: {error.strerror or error}")


class ObjectPlace:
    """A prefix of a bucket."""

    def __init__(self, url: str) -> None:
        self.name = url
        with extra(url):
            self._obstore = importlib.import_module("obstore")
            self._stores = importlib.import_module("obstore.store")
            self._exists = importlib.import_module("obstore.exceptions").AlreadyExistsError
        try:
            self._asked = self._store(ASKED_S)
        except Exception as error:
            raise ConfigError(f"{url}: cannot be used: {first_line(error)}") from error
        self._refuse_no_bucket()

    def has(self, name: str) -> bool:
        with trouble(self.name):
            try:
                self._obstore.head(self._asked, name)
            except FileNotFoundError:
                return False
            return True

    def put(self, file: Path, name: str) -> None:
        self._create(file, name, ASKED_S + file.stat().st_size / SLOWEST)
        with suppress(OSError):
            file.unlink()

    def put_bytes(self, data: bytes, name: str) -> None:
        self._create(data, name, ASKED_S)

    def staging(self, owner: str, aside: Path) -> Path:
        return aside

    def files(self, under: str = "") -> Iterator[Found]:
        with trouble(self.name):
            for page in self._obstore.list(self._asked, f"{under}/" if under else None):
                for found in page:
                    changed = int(found["last_modified"].timestamp() * 1e9)
                    yield Found(found["path"], found["size"], changed)

    def open(self, name: str) -> BinaryIO:
        try:
            reader = self._obstore.open_reader(self._asked, name)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise OSError(errno.EIO, first_line(error)) from error
        return io.BufferedReader(_Object(reader), 1 << 20)

    def remove(self, names: Iterable[str]) -> None:
        if gone := list(names):
            with trouble(self.name), suppress(FileNotFoundError):
                self._obstore.delete(self._asked, gone)

    def _create(self, content: Path | bytes, name: str, limit_s: float) -> None:
        with trouble(self.name), suppress(self._exists):
            self._obstore.put(self._store(limit_s), name, content, mode="create")

    def _store(self, limit_s: float) -> Any:
        """limit_s: for one request, with its data."""
        client = {"allow_http": True} if endpoint().startswith("http://") else {}
        return self._stores.from_url(
            self.name,
            client_options={**client, "timeout": timedelta(seconds=limit_s), "connect_timeout": timedelta(seconds=10)},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
        )

    def _refuse_no_bucket(self) -> None:
        """Only a listing tells of it before something is written. Raises OutputError."""
        try:
            for _ in self._obstore.list(self._asked, chunk_size=1):
                return
        except Exception as error:  # what else is wrong, or not allowed, is for the first real request to say
            if "NoSuchBucket" in str(error) or isinstance(error, FileNotFoundError):
                raise OutputError(f"{self.name}: there is no such bucket") from error


class _Object(io.RawIOBase):
    """An object as Python's files are. The store's errors become OSError."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = bytes(self._reader.read(len(buffer)))
        except Exception as error:
            raise OSError(errno.EIO, first_line(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())


def _raised(error: OSError) -> None:
    raise error


def _staged_name(suffix: str) -> str:
    return f"{STAGED}{secrets.token_hex(8)}.{suffix}{ENDING}"


def _moved(file: Path, folder: Path) -> Path:
    """A copy on the folder's own disk, synced."""
    staged = folder / _staged_name("copy")
    try:
        with file.open("rb") as source, staged.open("xb") as target:
            while data := source.read(1 << 20):
                target.write(data)
            target.flush()
            os.fsync(target.fileno())
    except OSError:
        with suppress(OSError):
            staged.unlink()
        raise
    file.unlink()
    return staged
