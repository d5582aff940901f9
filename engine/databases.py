"""The databases and the matcher of a run, as options name them: one place for scanning and for offline matching."""

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.services import FILE_NAME, SYSTEM_FILE, ServiceTable
from matcher import Matcher, ProbeDatabase, compile_matcher, find_database, load_databases, nmap_file


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


def open_matcher(probes: Sequence[str], engine: str, progress: Callable[[int, int], None] | None = None) -> Matcher:
    """A matcher with every set ready. Raises MatcherError."""
    gc.disable()  # a database is a hundred thousand objects that stay: looking through them costs a fifth of the start
    try:
        return compile_matcher(open_database(probes), engine, progress=progress)
    finally:
        gc.enable()
        gc.freeze()
