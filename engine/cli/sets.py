"""A database and its compiled sets made ready, with a progress line where that takes time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from engine.cli.kinds import one_of
from engine.databases import open_matcher
from engine.model import field_choices
from matcher import Matcher

ENGINES = field_choices("matcher")
PATIENCE_S = 1.0  # before people are told what they wait for

matcher_option = click.option(
    *("--matcher", "engine"),
    default="auto",
    show_default=True,
    metavar="NAME",
    shell_complete=one_of(ENGINES),
    help=f"What finds the lines: {', '.join(ENGINES)}. All give the same answers.",
)


@contextmanager
def progress_bar(console: Console, shown: bool, *columns: ProgressColumn) -> Iterator[Progress]:
    """A bar that goes away when it is done; one that is not shown can be updated all the same, and prints nothing."""
    bar = Progress(*columns, console=console, transient=True, disable=not shown)
    if shown:
        bar.start()
    try:
        yield bar
    finally:
        if shown:  # stopping a bar that is not on a terminal would print an empty line
            bar.stop()


def ready_matcher(probes: tuple[str, ...], engine: str, console: Console, quiet: bool = False) -> Matcher:
    """The matcher with all its sets compiled or loaded. Raises MatcherError."""
    columns = (
        TextColumn("compiling the sets"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("probes"),
        TimeElapsedColumn(),
    )
    began = time.monotonic()
    told = False
    with progress_bar(console, console.is_terminal and not quiet, *columns) as bar:
        task = bar.add_task("", visible=False)

        def follow(done: int, total: int) -> None:
            nonlocal told
            if quiet or time.monotonic() - began < PATIENCE_S:
                return
            bar.update(task, completed=done, total=total, visible=True)
            if not told and done < total and not console.is_terminal:
                console.print("compiling the sets; the next start will find them ready")
            told = True

        return open_matcher(probes, engine, follow)
