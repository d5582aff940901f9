"""Find, read and check the probe database.

`find_database()` is the one place that knows where a database may be; `load_database()` reads one, and every regular
expression in it has been compiled once before it is handed out. Results say which database and hash they used. A path
stands in errors and results as `shown` writes it, because a file's name may hold anything.
"""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from matcher.database.merge import merge_databases
from matcher.database.parser import parse_database as parse
from matcher.database.ports import ServiceRow
from matcher.errors import DatabaseError, MatcherError
from matcher.model import ProbeDatabase
from matcher.outside import MIB, read_file, shown
from matcher.patterns import bindings, cache
from matcher.patterns.pcre import check_pattern

FILE_NAME = "nmap-service-probes"
MAX_SIZE = 16 * MIB  # of a database; Nmap's is 2.4
_NAMED_EXCLUDE = re.compile(rb"^Exclude .*[a-z*?\[]", re.MULTILINE)
_SOURCES = (
    "database/parser.py",
    "database/ports.py",
    "model.py",
    "regex/translate.py",
    "patterns/pcre.py",
    "patterns/bindings.py",
)  # what a parsed database depends on
ENVIRONMENT = "PROBEMILL_PROBES"
NMAP_FOLDERS = (  # where packages and `make install` put Nmap's data files
    "~/.nmap",
    "/usr/share/nmap",
    "/usr/local/share/nmap",
    "/opt/nmap/share/nmap",
    "/opt/homebrew/share/nmap",
    "/snap/nmap/current/usr/share/nmap",
)


def builtin_database() -> Path:
    """The database that comes with this package: inside the wheel, or in `data/` of a checkout."""
    here = Path(__file__).resolve().parents[1]
    packaged = here / "data" / "service-probes"
    return packaged if packaged.exists() else here.parent / "data" / "service-probes"


def nmap_file(name: str) -> Path | None:
    """A data file of an installed Nmap: in `$NMAPDIR`, else in its usual folders."""
    for folder in (os.environ.get("NMAPDIR"), *NMAP_FOLDERS):
        with suppress(RuntimeError):  # a user without a home directory
            if folder and (path := Path(folder).expanduser() / name).is_file():
                return path
    return None


def nmap_database() -> Path | None:
    """The probe file of an installed Nmap."""
    return nmap_file(FILE_NAME)


def find_database(choice: str | None = None) -> Path:
    """The database to use: `choice`, else $PROBEMILL_PROBES, else an installed Nmap's, else the built-in one.

    choice: a file's path, or the words `nmap` or `builtin`. Raises MatcherError where `nmap` is asked for in vain.
    """
    wanted = choice or os.environ.get(ENVIRONMENT)
    if wanted == "builtin":
        return builtin_database()
    if wanted == "nmap":
        path = nmap_database()
        if path is None:
            where = ", ".join(NMAP_FOLDERS)
            raise MatcherError(f"no installed {FILE_NAME} found in {where}; install Nmap or set NMAPDIR")
        return path
    if wanted:
        return Path(wanted)
    return nmap_database() or builtin_database()


def parse_database(data: bytes, path: str, *, services: Iterable[ServiceRow] = ()) -> ProbeDatabase:
    """Parse a database and compile each of its patterns. Raises DatabaseError at the first fault."""
    return parse(data, shown(path), check=check_pattern, services=services)


def load_database(choice: str | Path | None = None, *, services: Iterable[ServiceRow] = ()) -> ProbeDatabase:
    """Read the database that `find_database` chooses. Raises MatcherError with one line that says what and where.

    A database that was read before comes from the cache, parsed and checked.
    """
    path = find_database(str(choice) if choice is not None else None)
    try:
        data = read_file(path, MAX_SIZE)
    except OSError as error:
        raise DatabaseError(shown(str(path)), 1, 1, f"cannot be read: {error.strerror}") from error
    name = database_name(path)
    rows = list(services) if _NAMED_EXCLUDE.search(data) else []  # only names there depend on the services table
    return cache.kept(
        cache.key("database", name, cache.code(*_SOURCES), bindings.LIBPCRE2, data, repr(rows)),
        lambda: msgspec.msgpack.encode(parse_database(data, name, services=rows)),
        _decode,
    )


def _decode(stored: bytes) -> ProbeDatabase:
    try:
        return msgspec.msgpack.decode(stored, type=ProbeDatabase)
    except msgspec.DecodeError as error:
        raise ValueError("not a parsed database") from error


def load_databases(choices: Sequence[str], *, services: Iterable[ServiceRow] = ()) -> ProbeDatabase:
    """Read several databases and merge them, first to count first; none chosen: the one that is found."""
    return merge_databases([load_database(choice, services=services) for choice in choices or (None,)])


def database_name(path: Path) -> str:
    """How results name a database: `builtin`, or its path as it can be shown."""
    return "builtin" if path == builtin_database() else shown(str(path))
