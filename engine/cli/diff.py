"""`probemill diff`: what is new, gone or otherwise in a scan, compared with one before."""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePath
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import Progress

from engine.cli.diff_table import table
from engine.cli.files import check_outputs, check_place
from engine.cli.help import Command
from engine.cli.reading import COLUMNS, FaultLines, RowsBar
from engine.cli.sets import progress_bar
from engine.errors import ConfigError, OutputError, SinkClosed
from engine.insight.diff import html, markdown, ndjson
from engine.insight.diff.compare import Comparison, compare
from engine.insight.diff.kinds import ALSO, ANY, all_kinds, read_words
from engine.insight.diff.words import counted, remarks
from engine.insight.rows import Workspace, in_workspace
from engine.offline.rows_in import open_inputs
from engine.offline.stream import STDIN
from engine.results.sinks import STDOUT
from engine.results.staged import staged

FORMS = ("table", "md", "ndjson", "html")
SUFFIXES = {".txt": "table", ".md": "md", ".ndjson": "ndjson", ".jsonl": "ndjson", ".html": "html", ".htm": "html"}
LIMIT = 500
FOUND = 3  # the exit code of --fail-on
EXAMPLES = (
    "probemill diff monday.ndjson.zst tuesday.state",
    "probemill diff old.xml new.parquet -o changes.md",
    "probemill diff yesterday today --fail-on new,product",
)
_AT_ONCE = 1000  # lines that are written together


@click.command("diff", cls=Command, examples=EXAMPLES)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "-o", "--output", "outputs", multiple=True, metavar="FILE",
    help="Write to FILE, in the form of its suffix: .txt, .md, .ndjson, .html. Can be repeated.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(FORMS), help="The form, where no suffix tells it.  [default: table]"
)
@click.option("--only", default="", metavar="KINDS", help="Tell these kinds alone, such as `new,gone`.")
@click.option("--ignore", default="", metavar="KINDS", help="Do not tell these kinds.")
@click.option("--also", default="", metavar="FIELDS", help=f"Compare these, too: {', '.join(ALSO)}.")
@click.option("--fail-on", default="", metavar="KINDS", help="Exit with 3 where one of these is told; `any` for all.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=LIMIT, metavar="N", show_default=True,
    help="Rows of each table in md and html; 0 for all.",
)  # fmt: skip
@click.option(
    "--scratch", default="", metavar="DIR", show_default="TMPDIR", help="Where to put what memory does not hold."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
def diff_command(
    *,
    old: str,
    new: str,
    outputs: tuple[str, ...],
    form: str | None,
    only: str,
    ignore: str,
    also: str,
    fail_on: str,
    limit: int,
    scratch: str,
    quiet: bool,
) -> None:
    """Tell how two scans differ, target by target.

    OLD and NEW are what `probemill convert` reads, in any mix: state folders, NDJSON, plain or compressed, Parquet,
    Delta, Nmap's XML.

    \b
    new, gone             answers in one of them alone
    state                 open; closed or filtered in the other
    service, product      another one answers
    version               of the same product
    certificate, renewed  another one, or a later one like it
    tls                   appeared or vanished

    Ports that one of the scans did not reach are counted, and never gone. See docs/diff.md.

    Exit code 3 for what --fail-on names, else 1 when something had to be skipped, 2 when nothing could be compared.
    """
    fields = read_words("--also", also, ALSO)
    known = all_kinds(fields)
    kinds = _kinds(only, ignore, known)
    wanted = read_words("--fail-on", fail_on, (*known, ANY))
    targets = [(path, _form(path, form)) for path in outputs or (STDOUT,)]
    if old == new == STDIN:
        raise ConfigError("OLD and NEW: standard input can be only one of them")
    check_outputs([("-o", path) for path, _ in targets], [])
    for path, _ in targets:
        check_place("-o", path, (old, new))
    began = time.monotonic()
    console = Console(stderr=True)
    faults = FaultLines()
    with ExitStack() as stack:
        files = [(path, chosen, stack.enter_context(_opened(path))) for path, chosen in targets]
        bar = stack.enter_context(progress_bar(console, console.is_terminal and not quiet, *COLUMNS))
        watch = _BothSides(bar, faults)
        watch.expect([part for path in (old, new) for part in open_inputs(path)])

        def job(place: Workspace) -> Comparison:
            comparison = compare(place, old, new, watch, fields)
            watch.end()
            for path, chosen, file in files:
                with suppress(SinkClosed):  # what was found is found, whoever reads it
                    _write(path, _lines(path, chosen, comparison, kinds, limit), file)
            return comparison

        try:
            comparison = in_workspace(scratch, job)
        finally:
            faults.summarise("probemill")
    for remark in remarks(comparison):
        if remark.warning or not quiet:
            click.echo(f"probemill: {remark.text}", err=True)
    if not quiet:
        click.echo(f"probemill: {counted(comparison, kinds)} in {time.monotonic() - began:.1f} s", err=True)
    sys.exit(_code(comparison, kinds if ANY in wanted else set(wanted) & set(kinds), faults.count))


def _kinds(only: str, ignore: str, known: Sequence[str]) -> tuple[str, ...]:
    """What is told. Raises ConfigError."""
    left_out = read_words("--ignore", ignore, known)
    kinds = tuple(kind for kind in read_words("--only", only, known) or known if kind not in left_out)
    if not kinds:
        raise ConfigError("--ignore: leaves nothing to tell")
    return kinds


def _form(path: str, form: str | None) -> str:
    """Raises ConfigError for a name that says nothing."""
    found = form or SUFFIXES.get(PurePath(path).suffix.lower(), "table" if path == STDOUT else "")
    if not found:
        raise ConfigError(f"-o {path}: its suffix tells no form; known are {', '.join(SUFFIXES)}, or say --format")
    return found


def _lines(path: str, form: str, comparison: Comparison, kinds: Sequence[str], limit: int) -> Iterator[str]:
    match form:
        case "md":
            return markdown.lines(comparison, kinds, limit)
        case "html":
            return html.lines(comparison, kinds, limit)
        case "ndjson":
            return ndjson.lines(comparison, kinds)
        case _:
            screen = Console()
            if path != STDOUT or not screen.is_terminal:
                return table(comparison, kinds)
            return table(comparison, kinds, screen.width, screen.color_system is not None and not screen.no_color)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """A file appears when it is whole. Raises OutputError."""
    if path == STDOUT:
        yield sys.stdout.buffer
    else:
        with staged(path) as place, Path(place).open("wb") as file:
            yield file


def _write(path: str, lines: Iterator[str], file: BinaryIO) -> None:
    """Raises OutputError, SinkClosed."""
    try:
        while some := list(islice(lines, _AT_ONCE)):
            file.write("".join(f"{line}\n" for line in some).encode(errors="backslashreplace"))
        file.flush()
    except BrokenPipeError as error:
        raise SinkClosed(path) from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def _code(comparison: Comparison, wanted: Collection[str], faults: int) -> int:
    if any(comparison.counts[kind] for kind in wanted):
        return FOUND
    return 1 if faults else 0


class _BothSides(RowsBar):
    """Of one side, and then of the other: counts that begin anew go on from the last."""

    def __init__(self, bar: Progress, faults: FaultLines) -> None:
        super().__init__(bar, faults)
        self._before = (0, 0)
        self._last = (0, 0)

    def end(self) -> None:
        """The bar makes room for what is printed."""
        if not self._bar.disable:
            self._bar.stop()

    def moved(self, done: int, rows: int) -> None:
        if done < self._last[0] or rows < self._last[1]:
            self._before = (self._before[0] + self._last[0], self._before[1] + self._last[1])
        self._last = (done, rows)
        super().moved(self._before[0] + done, self._before[1] + rows)
