"""A report from what `convert` reads, into its outputs: the one way in for the command line.

Contract: the rows are read and counted once, whatever the number of outputs; an output appears whole or not at all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from engine.errors import ConfigError, OutputError
from engine.insight.report.blob import blob_of
from engine.insight.report.gather import gather
from engine.insight.report.markdown import markdown
from engine.insight.report.page import check_extras, page
from engine.insight.report.tickets import tickets
from engine.insight.report.told import Report, Source
from engine.insight.rows import Given, Workspace, in_workspace, load_rows
from engine.offline.reading import Nothing, Watch
from engine.results.staged import staged
from engine.state.journal import read_journal
from engine.state.records import ended

ROWS = 1_000_000  # of the page's table


def make_report(inputs: Sequence[str], outputs: Sequence[str], rows: int, scratch: str, watch: Watch) -> Report:
    """outputs: files, whose suffixes tell their forms. rows: at most in the page's table. scratch: as `in_workspace`.

    Raises ConfigError, InputError, OutputError; Nothing, where no row and only faults were found.
    """
    writers = [(path, form_of(path)) for path in outputs]
    if any(write is _page for _, write in writers):
        check_extras()

    def job(place: Workspace) -> Report:
        loaded = load_rows(place, "rows", inputs, watch)
        if not loaded.rows and not loaded.whole:
            raise Nothing
        report = gather(place.connection, map(_source, loaded.sources))
        report.notes[:0] = _notes(report, loaded.sources)
        for path, write in writers:
            with staged(path) as staging:
                try:
                    with Path(staging).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                        write(place, report, rows, file)
                except OSError as error:
                    raise OutputError(f"{path}: {error.strerror or error}") from error
        return report

    return in_workspace(scratch, job)


Write = Callable[[Workspace, Report, int, TextIO], None]


def form_of(path: str) -> Write:
    """What writes an output. Raises ConfigError for a suffix that tells none."""
    for suffix, write in _FORMS.items():
        if path.lower().endswith(suffix):
            return write
    raise ConfigError(f"{path}: its suffix tells no form of a report; known are {', '.join(_FORMS)}")


def _page(place: Workspace, report: Report, rows: int, file: TextIO) -> None:
    file.writelines(page(report, blob_of(place.connection, rows)))


def _markdown(_place: Workspace, report: Report, _rows: int, file: TextIO) -> None:
    file.write(markdown(report))


def _csv(place: Workspace, _report: Report, _rows: int, file: TextIO) -> None:
    tickets(place.connection, file)


_FORMS: dict[str, Write] = {".html": _page, ".md": _markdown, ".csv": _csv}


def _source(given: Given) -> Source:
    if not given.state:
        return Source(given.name, "file or table", given.rows)
    end = ended(read_journal(Path(given.name))[1])
    words = "not yet, or was killed" if end is None else end.words() or "done"
    return Source(given.name, "state folder", given.rows, words, whole=end is not None and not end.words())


def _notes(report: Report, sources: Sequence[Given]) -> list[str]:
    """What a reader must know before the numbers."""
    notes = [f"Not all of {given.name} could be read; what could is counted." for given in sources if not given.whole]
    stopped = [source for source in report.sources if not source.whole]
    notes += [f"The run in {source.name} did not go to its end: {source.ended}." for source in stopped]
    if report.cancelled and not stopped:
        ports = "port was" if report.cancelled == 1 else "ports were"
        notes.append(f"{report.cancelled:,} {ports} not reached: the run was stopped first.")
    return notes
