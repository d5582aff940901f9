"""The databases and the matcher of a run, as options name them: one place for scanning and for offline matching."""

import gc
from collections.abc import Callable, Iterator, Sequence

from engine.services import ServiceTable
from matcher import Matcher, ProbeDatabase, compile_matcher, load_databases


class _ServiceRows:
    """The services table, read only if a database asks for it."""

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        return ServiceTable.load().rows()


def open_database(probes: Sequence[str]) -> ProbeDatabase:
    """The databases chosen (none: the one that is found), with service names known to Exclude. Raises MatcherError.

    probes: paths, `nmap`, `builtin`; each may name several, separated by commas.
    """
    choices = [choice for option in probes for choice in option.split(",")]
    return load_databases(choices, services=_ServiceRows())


def open_matcher(probes: Sequence[str], engine: str, progress: Callable[[int, int], None] | None = None) -> Matcher:
    """A matcher with every set ready. Raises MatcherError."""
    gc.disable()  # a database is a hundred thousand objects that stay: looking through them costs a fifth of the start
    try:
        return compile_matcher(open_database(probes), engine, progress=progress)
    finally:
        gc.enable()
        gc.freeze()
