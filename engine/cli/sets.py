"""A matcher opened for a command, with a word for people where that takes time, and bars for what takes longer."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Timer

import click
from rich.console import Console
from rich.progress import Progress, ProgressColumn

from engine.cli.kinds import one_of
from engine.cli.terminal import PATIENCE_S, PREPARING
from engine.databases import open_matcher
from engine.model import field_choices
from engine.threads import aside
from matcher import Matcher

ENGINES = field_choices("matcher")
PROBES_HELP = "Probe database: a file, `nmap`, `builtin`. Repeatable; merged in order."

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


def ready_matcher(
    probes: tuple[str, ...], engine: str, console: Console, quiet: bool = False, *, compiled: bool = False
) -> Matcher:
    """The matcher; signals are heard meanwhile. compiled: with every set ready. Raises MatcherError."""

    def ready() -> Matcher:
        matcher = open_matcher(probes, engine)
        if compiled:
            matcher.compile_all()
        return matcher

    with nullcontext() if quiet else _patience(console):
        return aside(ready)


@contextmanager
def _patience(console: Console) -> Iterator[None]:
    """Say what people wait for when that lasts: on a terminal until it is over, elsewhere once."""
    waiting = console.status(PREPARING)
    timer = Timer(PATIENCE_S, waiting.start if console.is_terminal else lambda: console.print(PREPARING))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        waiting.stop()


def sample_folders(database: Path, known: bool) -> tuple[Path, ...]:
    """Those that lie beside a database. known: with responses that its own lines need not read."""
    names = ("samples", "known") if known else ("samples",)
    return tuple(folder for name in names if (folder := database.parent / name).is_dir())
