"""`probemill learn`: match lines proposed for what nobody named."""

import sys
import time

import click
from rich.console import Console

from engine.cli.files import check_place
from engine.cli.help import Command
from engine.cli.kinds import files
from engine.cli.reading import COLUMNS, FaultLines, RowsBar
from engine.cli.sets import matcher_option, progress_bar, ready_matcher, sample_folders
from engine.errors import ConfigError
from engine.insight.learn.making import LEAST, LIMIT, Wish, learn
from engine.insight.learn.writing import check_folder, summary, write
from engine.offline.stream import STDIN
from matcher import builtin_database

EXAMPLES = (
    "probemill learn monday.ndjson.zst scan.state -o proposed",
    "probemill learn banners.ndjson -o proposed --known golden.ndjson.zst",
    "probemill scan -i targets.txt --probes proposed/all.probes,nmap",
)


@click.command("learn", cls=Command, examples=EXAMPLES)
@click.argument("paths", nargs=-1, required=True, metavar="ROWS...", shell_complete=files)
@click.option("-o", "--output", "out", required=True, metavar="DIR", help="The folder for what is proposed.")
@click.option("--force", is_flag=True, help="Replace earlier proposals in DIR; other files stay.")
@click.option(
    "--known", multiple=True, metavar="FILE", shell_complete=files,
    help="Further responses to try lines on: those that the database names, or whose row has `expect`. Repeatable.",
)  # fmt: skip
@click.option(
    "--least", type=click.IntRange(min=1), default=LEAST, metavar="N", show_default=True,
    help="Hosts that must say the same before a line is proposed.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(min=1), default=LIMIT, metavar="N", show_default=True, help="Lines at most."
)
@click.option(
    "--probes",
    multiple=True,
    metavar="FILE",
    shell_complete=files,
    help="The database that knows no name: a file, `nmap`, `builtin`. Repeatable.",
)
@matcher_option
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
def learn_command(
    *,
    paths: tuple[str, ...],
    out: str,
    force: bool,
    known: tuple[str, ...],
    least: int,
    limit: int,
    probes: tuple[str, ...],
    engine: str,
    quiet: bool,
) -> None:
    """Propose match lines for what nobody named.

    ROWS are scans that are done, in all that `probemill convert` reads, and stored responses, in all that `probemill
    match` reads. Responses without a name, or with a softmatch's, are put together by what they say. For the largest
    clusters DIR gets a line with samples, tried on all responses whose names are known, and a fingerprint that can be
    submitted to Nmap. See docs/learn.md.

    Exit code 1 when something had to be skipped, 2 when nothing could be used.
    """
    check_folder(out, force)
    check_place("-o", out, (*paths, *known))
    if (*paths, *known).count(STDIN) > 1:
        raise ConfigError("ROWS: standard input can be only one of them")
    began = time.monotonic()
    console = Console(stderr=True)
    faults = FaultLines()
    wish = Wish(least, limit, known, sample_folders(builtin_database(), False))
    matcher = ready_matcher(probes, engine, console, quiet)
    with progress_bar(console, console.is_terminal and not quiet, *COLUMNS) as bar:
        learned = learn(paths, matcher, wish, RowsBar(bar, faults))
    faults.summarise("probemill")
    if faults.count and not learned.responses:
        sys.exit(2)
    write(out, learned, wish)
    if not quiet:
        for text in summary(learned, wish):
            click.echo(f"probemill: {text}", err=True)
        clean = sum(one.clean for one in learned.proposals)
        lines = f"{len(learned.proposals):,} lines proposed in {out}, {clean:,} of them clean{faults.skipped()}"
        click.echo(f"probemill: {lines}, in {time.monotonic() - began:.1f} s", err=True)
    if faults.count:
        sys.exit(1)
