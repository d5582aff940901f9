"""`probemill report`: what scans found, as a page, as Markdown or as CSV."""

import sys
import time

import click
from rich.console import Console

from engine.cli.files import check_outputs, check_place
from engine.cli.help import Command
from engine.cli.reading import COLUMNS, FaultLines, RowsBar
from engine.cli.sets import progress_bar
from engine.errors import ConfigError
from engine.insight.report.making import ROWS, form_of, make_report
from engine.offline.reading import Nothing
from engine.offline.rows_in import open_inputs


@click.command("report", cls=Command)
@click.argument("paths", nargs=-1, required=True, metavar="FILES...")
@click.option(
    *("-o", "--output", "outputs"),
    multiple=True,
    required=True,
    metavar="FILE",
    help="Where the report goes: report.html, report.md or report.csv. Can be repeated.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=ROWS,
    metavar="N",
    show_default=True,
    help="Rows in the page's table; of more, those that were answered. Numbers are always of all.",
)
@click.option(
    "--scratch", default="", metavar="DIR", help="Where to put what memory does not hold.", show_default="TMPDIR"
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
def report_command(paths: tuple[str, ...], outputs: tuple[str, ...], rows: int, scratch: str, quiet: bool) -> None:
    """Make a report of what scans found.

    FILES is all that `probemill convert` reads, in any mix: state folders, NDJSON, plain or compressed, `-` for a pipe,
    Parquet, Delta, Nmap's XML.

    \b
    report.html   one page that needs nothing else: summaries, charts, all rows to search and sort
    report.md     the summaries, for a ticket
    report.csv    a line for each open port, and what is to be said of it

    A file appears when it is whole. See docs/report.md. Exit code 1 when something had to be skipped, 2 when nothing
    could be used.
    """
    for path in outputs:
        form_of(path)
    check_outputs([("-o", path) for path in outputs], [("FILES", path) for path in paths])
    for path in outputs:
        check_place("-o", path, paths)
    if paths.count("-") > 1:
        raise ConfigError("FILES: standard input can be only one of them")
    began = time.monotonic()
    console = Console(stderr=True)
    faults = FaultLines()
    try:
        with progress_bar(console, console.is_terminal and not quiet, *COLUMNS) as bar:
            watch = RowsBar(bar, faults)
            watch.expect([part for path in paths for part in open_inputs(path)])
            report = make_report(paths, outputs, rows, scratch, watch)
    except Nothing:
        faults.summarise("probemill")
        sys.exit(2)
    faults.summarise("probemill")
    if not quiet:
        click.echo(f"probemill: {report.rows:,} rows{faults.skipped()} in {time.monotonic() - began:.1f} s", err=True)
    if faults.count:
        sys.exit(1)
