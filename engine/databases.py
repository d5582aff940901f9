"""The databases and the matcher of a run, as options name them: one place for scanning and for offline matching."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock

from engine.services import FILE_NAME, SYSTEM_FILE, ServiceTable
from matcher import Match, Matcher, MatcherError, Probe, ProbeDatabase, find_database, load_databases, nmap_file

USUAL = ((), "auto")  # the databases and the engine of who chooses none
_opened_ahead: list[Matcher] = []


class _ServiceRows:
    """The services table of a choice of databases, read only if one of them asks for it."""

    def __init__(self, probes: Sequence[str]) -> None:
        self._probes = probes

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        return service_table(self._probes).rows()


def choices(probes: Sequence[str]) -> list[str]:
    """Every database named: paths, `nmap`, `builtin`; one option may name several, separated by commas."""
    return [choice for option in probes for choice in option.split(",")]


def service_table(probes: Sequence[str]) -> ServiceTable:
    """What ports are called; a table beside the first database counts first."""
    chosen = choices(probes)
    return ServiceTable.load(find_database(chosen[0] if chosen else None))


def database_files(probes: Sequence[str]) -> list[Path]:
    """The files that the databases chosen, and the table of services beside them, are read from."""
    chosen = choices(probes)
    files = [find_database(choice) for choice in chosen] if chosen else [find_database()]
    return [*files, *(path for path in (nmap_file(FILE_NAME), SYSTEM_FILE) if path is not None)]


def open_database(probes: Sequence[str]) -> ProbeDatabase:
    """The databases chosen (none: the one that is found), with service names known to Exclude. Raises MatcherError."""
    return load_databases(choices(probes), services=_ServiceRows(probes))


def open_matcher(probes: Sequence[str], engine: str) -> Matcher:
    """A matcher, whose sets are made ready when they are needed, or when it is told to. Raises MatcherError."""
    if (tuple(probes), engine) == USUAL and _opened_ahead:
        return _opened_ahead.pop()
    gc.disable()  # a database is a hundred thousand objects that stay: looking through them costs a fifth of the start
    try:
        return Matcher(open_database(probes), engine)
    finally:
        gc.enable()
        gc.freeze()


def open_ahead() -> None:
    """Open what most scans ask for, before it is known whether this one does. What is wrong with it is told then."""
    with suppress(MatcherError):
        matcher = open_matcher(*USUAL)
        matcher.preload()
        _opened_ahead.append(matcher)


class SharedMatcher:
    """A matcher that several threads may ask; by itself it answers one at a time."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self._alone = Lock()

    def match(self, probe: Probe, response: bytes) -> Match | None:
        with self._alone:
            return self.matcher.match(probe, response)


_opening = Lock()


def shared_matcher(probes: tuple[str, ...], engine: str) -> SharedMatcher:
    """The process's own: the first call with a choice compiles it, the others use it. Raises MatcherError.

    A database whose file has changed since is not read again.
    """
    with _opening:
        return _shared(probes, engine)


@lru_cache(maxsize=4)
def _shared(probes: tuple[str, ...], engine: str) -> SharedMatcher:
    return SharedMatcher(open_matcher(probes, engine))
