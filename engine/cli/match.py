"""`probemill match`: stored responses in, the same rows with a `match` out."""

import os
import sys
import time
from contextlib import closing, suppress

import click
from rich.console import Console

from engine.cli.files import check_outputs
from engine.cli.help import Command
from engine.cli.kinds import files, folders
from engine.cli.reading import COLUMNS, FaultLines
from engine.cli.sets import matcher_option, progress_bar, ready_matcher
from engine.databases import database_files
from engine.errors import InputError, SinkClosed
from engine.offline.identify import Tally, identify
from engine.offline.stream import Destination, Source


@click.command("match", cls=Command)
@click.option(
    "-i",
    "--input",
    "source",
    default="-",
    metavar="FILE",
    shell_complete=files,
    help="Rows to identify.",
    show_default="standard input",
)
@click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE",
    shell_complete=files,
    help="Where to write; `.zst` and `.gz` at the end of the name compress.",
    show_default="standard output",
)
@click.option(
    "--probes",
    multiple=True,
    metavar="FILE",
    shell_complete=files,
    help="Probe database: a file, `nmap`, `builtin`. Repeatable.",
)
@click.option(
    "--second-opinion",
    "second",
    default="",
    metavar="FILE",
    shell_complete=files,
    help="A second database, a file, `nmap` or `builtin`: where it says something else, that is `also`.",
)
@click.option(
    "--recog",
    default="",
    metavar="DIR",
    shell_complete=folders,
    help="Folder of Recog's XML fingerprints, for a second opinion on what the database left open.",
)
@matcher_option
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes.", show_default="one a core")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
def match_command(  # noqa: PLR0917 - click passes them by name
    source: str,
    output: str,
    probes: tuple[str, ...],
    second: str,
    recog: str,
    engine: str,
    workers: int | None,
    quiet: bool,
) -> None:
    """Identify stored responses again, without touching a host.

    \b
    Rows are NDJSON, plain, zstd or gzip:
      {"proto": "tcp", "probe": "GetRequest", "data": BASE64}
      {"proto": "tcp", "probe": "NULL", "banner": "SSH-2.0-..."}
    Read too: zgrab2 JSON lines, masscan JSON with banners, Shodan's banners, Nmap's SF-Port fingerprints in any text.

    Each row is written with a `match` object, or `match: null`. Exit code 1 when something had to be skipped, 2 when
    nothing could be used.
    """
    used = [*database_files(probes), *(database_files((second,)) if second else ())]
    databases = [("--probes", str(path)) for path in used]
    check_outputs([("-o", output)], [("-i", source), *databases, *(("--recog", path) for path in (recog,) if path)])
    console = Console(stderr=True)
    began = time.monotonic()
    tally = Tally()
    with Source(source) as opened:
        faults = FaultLines()
        destination = Destination(output, opened)
        matcher = ready_matcher(probes, engine, console, quiet)
        answers = identify(
            *(opened.chunks(), matcher, probes, workers or len(os.sched_getaffinity(0)), second),
            recog=recog,
            file=opened,
        )
        del matcher  # the workers have their own
        shown = console.is_terminal and not quiet
        with suppress(SinkClosed), closing(answers), progress_bar(console, shown, *COLUMNS) as bar:
            task = bar.add_task("match", total=opened.size, rows=0)
            try:
                for answer in answers:
                    destination.write(answer.out)
                    tally.add(answer.tally)
                    faults.report_lines(opened.name, answer.faults)
                    bar.update(task, completed=answer.position, rows=tally.rows)
            except InputError as damage:
                faults.report(damage)
            destination.close()
    for error in opened.faults:
        faults.report(error)
    faults.summarise(opened.name)
    if not quiet:
        _summary(tally, faults.count, time.monotonic() - began)
    if faults.count or (tally.derived and not tally.rows):
        sys.exit(1 if tally.rows else 2)


def _summary(tally: Tally, faults: int, seconds: float) -> None:
    parts = [f"{tally.rows:,} rows", f"{tally.matched:,} matched"]
    if tally.unknown:
        parts.append(f"{tally.unknown:,} to probes the database does not have")
    if tally.silent or tally.derived:
        parts.append(f"{tally.silent + tally.derived:,} without a response")
    if tally.derived:
        parts.append(f"{tally.derived:,} of these with only what a tool made of it")
    if tally.text:
        parts.append(f"{tally.text:,} lines of text passed over")
    if faults:
        parts.append(f"{faults:,} lines skipped")
    click.echo(f"probemill: {', '.join(parts)} in {seconds:.1f} s", err=True)
