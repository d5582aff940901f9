"""`probemill compact`: the small files that sinks have written, made into larger ones."""

import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn

from engine.cli.help import Command
from engine.cli.kinds import Bytes, folders
from engine.cli.sets import progress_bar
from engine.errors import InputError
from engine.results.compact import opened
from engine.results.lake import Delivery

COLUMNS = (TextColumn("{task.fields[folder]}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
SIZE = Delivery("", "", "").size


@click.command("compact", cls=Command)
@click.argument("path", shell_complete=folders)
@click.option("--size", type=Bytes(), default=SIZE, metavar="SIZE", show_default="128M", help="Of the files, about.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
def compact_command(path: str, size: int, dry_run: bool, quiet: bool) -> None:
    """Merge the small files that sinks have written.

    That is those in the folder of a `parquet:` or `ndjson+zstd:` sink, partition by partition. PATH is a folder, s3://,
    gs:// or az://. A scan may go on delivering to it: only batches that are delivered whole are touched. On a local
    disk readers see a partition before or after; in a store they may, for the moment in which the old files are
    removed, see rows twice. Killed, it is put in order by the next one. See docs/convert.md.
    """
    began = time.monotonic()
    console = Console(stderr=True)
    failed = merged = made = 0
    with opened(path, look_only=dry_run) as compaction:
        plan = compaction.plan(size)
        total = sum(each.size for merges in plan.merges.values() for each in merges)
        with progress_bar(console, console.is_terminal and not quiet and not dry_run, *COLUMNS) as bar:
            task = bar.add_task("compact", total=total, folder="")
            for folder, merges in plan.merges.items():
                files = sum(len(each.sources) for each in merges)
                size_here = sum(each.size for each in merges)
                if dry_run:
                    click.echo(f"{folder}: {files:,} files, {size_here:,} bytes, into {len(merges):,}")
                    continue
                bar.update(task, folder=folder)
                try:
                    compaction.run(merges)
                    merged, made = merged + files, made + len(merges)
                except InputError as error:
                    failed += 1
                    click.echo(str(error), err=True)
                bar.update(task, advance=size_here)
    if not quiet and not dry_run:
        kept = f", {plan.left:,} left as they are" if plan.left else ""
        kept += f", {plan.unfinished:,} of batches that are not delivered whole" if plan.unfinished else ""
        click.echo(f"probemill: {merged:,} files into {made:,}{kept} in {time.monotonic() - began:.1f} s", err=True)
    if failed:
        sys.exit(1)
