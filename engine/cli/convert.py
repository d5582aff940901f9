"""`probemill convert`: rows of scans that are done, from whatever holds them, into a file or a sink."""

import sys
import time
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from engine import __version__
from engine.cli.files import check_place
from engine.cli.help import Command
from engine.cli.kinds import files
from engine.cli.reading import COLUMNS, FaultLines, RowsBar
from engine.cli.sets import progress_bar
from engine.errors import ConfigError, ReadError
from engine.offline.into_file import into_file
from engine.offline.into_lake import Goal, into_lake, state_into_lake
from engine.offline.reading import Nothing
from engine.offline.rows_in import FORMS, is_state, open_inputs
from engine.results.lake import LAKES
from engine.results.sinks import STDOUT, Run, SinkClosed
from engine.results.suffixes import FORMS as SUFFIXES
from engine.results.suffixes import PACKINGS, read_name


@click.command("convert", cls=Command)
@click.argument("paths", nargs=-1, required=True, metavar="IN... OUT", shell_complete=files)
@click.option(
    "--rows",
    type=click.Choice(["lean", "full"]),
    default="lean",
    help="NDJSON rows without what is absent, or with every field.",
)
@click.option(
    "--scan-name",
    default="",
    metavar="NAME",
    help="The scan's name at a sink.",
    show_default="what the input says, or a time",
)
@click.option("--from", "form", type=click.Choice(FORMS), default=None, help="What IN is, where its looks do not tell.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
def convert_command(paths: tuple[str, ...], rows: str, scan_name: str, form: str | None, quiet: bool) -> None:
    """Bring the rows of scans that are done into another form.

    \b
    IN   a state folder; NDJSON, plain or compressed, `-` for a pipe; Parquet files or folders of them;
         delta:PATH; Nmap's XML
    OUT  a file by its suffix, as `-o` of a scan: rows.parquet, rows.ndjson.zst, rows.csv, rows.xml, ...;
         or a sink, as `--sink` of a scan: parquet:PATH, delta:PATH, ...

    A file appears when it is whole. A sink gets each row once, however often the same command is said; see
    docs/convert.md. Exit code 1 when something had to be skipped, 2 when nothing could be used.
    """
    *inputs, out = paths
    if not inputs:
        raise ConfigError("convert: name what to read and, last, what to write")
    to_lake = out.partition(":")[0] in LAKES
    if scan_name and not to_lake:
        raise ConfigError("--scan-name is for sinks; a file holds no scan's name")
    check_place("OUT", out, inputs)
    began = time.monotonic()
    console = Console(stderr=True)
    faults = FaultLines()
    code = 0
    count = 0
    with progress_bar(console, console.is_terminal and not quiet, *COLUMNS) as bar:
        watch = RowsBar(bar, faults)
        try:
            if to_lake:
                count = _into_lake(inputs, form or "", Goal(out, scan_name, rows == "full"), watch)
            else:
                parts = [part for path in inputs for part in open_inputs(path, form or "")]
                watch.expect(parts)
                facts = Run(__version__, " ".join(sys.argv), time.time(), full=rows == "full")
                with suppress(SinkClosed):
                    count = into_file(parts, out, _form(out), facts, watch)
        except Nothing:
            code = 2
    faults.summarise("probemill")
    if not quiet and not code:
        click.echo(f"probemill: {count:,} rows{faults.skipped()} in {time.monotonic() - began:.1f} s", err=True)
    if faults.count or code:
        sys.exit(code or 1)


def _into_lake(inputs: list[str], form: str, goal: Goal, watch: RowsBar) -> int:
    """State folders by themselves, all other inputs as one."""
    states = [path for path in inputs if form == "state" or (not form and is_state(path))]
    parts = [part for path in inputs if path not in states for part in open_inputs(path, form)]
    watch.expect([*(part for path in states for part in open_inputs(path, "state")), *parts])
    count = 0
    for path in states:
        count += state_into_lake(path, goal, watch, (watch.done, count))
    try:
        return count + (into_lake(parts, goal, watch, (watch.done, count)) if parts else 0)
    except ReadError as error:
        watch.damage(error)
        click.echo("probemill: the same command goes on from there, once that can be read", err=True)
        return count


def _form(path: str) -> str:
    """Raises ConfigError for a name that says nothing."""
    if path == STDOUT:
        return "ndjson"
    name = read_name(path)
    if not name.form:
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            return "ndjson"
        known = f"known are {', '.join(SUFFIXES)}, with {' or '.join(PACKINGS)} behind them to compress"
        raise ConfigError(f"{path}: its suffix tells no form; {known}; or a sink: {', '.join(LAKES)}")
    return name.form
