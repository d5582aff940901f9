"""Keep what was dear to compute on disk: compiled sets and parsed databases.

Contract: `read` gives exactly what `write` was given under the same key, or None; a damaged, cut or foreign file is
None. Files appear in one step, so processes that start together only do the work twice. A folder that cannot be
written is no error: the cache is then simply empty. The caller puts everything the content depends on into the key.
Source: XDG Base Directory Specification for the place.
"""

import fcntl
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

Loaded = TypeVar("Loaded")

FORMAT = b"probemill-1\n"  # changes with the layout of the files
DIGEST_BYTES = 32


def folder() -> Path:
    """$XDG_CACHE_HOME/probemill, else ~/.cache/probemill."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "probemill"


@lru_cache(maxsize=1)
def cpu_features() -> str:
    """What compiled code may depend on: the machine, and on Linux the CPU's flags."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("latin-1").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return f"{platform.machine()} {value.strip()}"
    return f"{platform.machine()} {platform.processor()}"


def key(*parts: str | bytes) -> str:
    """A file name for content that depends on exactly these parts."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:%b" % (len(data), data))
    return digest.hexdigest()


@lru_cache(maxsize=16)
def code(*files: str) -> str:
    """A digest of source files of this package (paths inside it): what other code made must not be read."""
    package = Path(__file__).resolve().parents[1]
    return key(*((package / file).read_bytes() for file in files))


def kept(name: str, make: Callable[[], bytes], load: Callable[[bytes], Loaded]) -> Loaded:
    """`load` of what is stored under `name`; where that is missing or refused (ValueError), it is made and stored."""
    stored = read(name)
    if stored is not None:
        with suppress(ValueError):
            return load(stored)
    made = make()
    write(name, made)
    return load(made)


def read(name: str) -> bytes | None:
    """What is stored under `name`, a result of `key`."""
    try:
        data = (folder() / name).read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    start = len(FORMAT) + DIGEST_BYTES
    content = data[start:]
    if data[:start] != FORMAT + hashlib.sha256(content).digest():
        return None
    return content


def holds(name: str) -> bool:
    """Whether something is stored under `name`, sound or not."""
    with suppress(OSError, RuntimeError):
        return (folder() / name).exists()
    return False


@contextmanager
def alone() -> Iterator[None]:
    """Wait for other processes that fill the cache: of those that start together one compiles, the others load."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, RuntimeError):
        yield  # no cache, nothing to wait for
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(name: str, content: bytes) -> bool:
    """Store `content` under `name`; False where that is not possible."""
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=place, prefix=f".{name}.")
    except (OSError, RuntimeError):
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(FORMAT + hashlib.sha256(content).digest() + content)
        Path(temporary).replace(place / name)
    except OSError:
        with suppress(OSError):
            Path(temporary).unlink()
        return False
    return True
