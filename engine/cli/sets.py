"""A database and its compiled sets made ready, with a progress line where that takes time."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.offline import open_matcher
from matcher import Matcher

PATIENCE_S = 1.0  # before people are told what they wait for


def ready_matcher(probes: tuple[str, ...], engine: str, console: Console, quiet: bool = False) -> Matcher:
    """The matcher with all its sets compiled or loaded. Raises MatcherError."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("probes"),
        TimeElapsedColumn(),
    )
    began = time.monotonic()
    told = False
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = None

        def follow(done: int, total: int) -> None:
            nonlocal task, told
            if quiet or time.monotonic() - began < PATIENCE_S:
                return
            if console.is_terminal:
                if task is None:
                    task = bar.add_task("compiling the sets", total=total)
                bar.update(task, completed=done, refresh=True)
            elif not told and done < total:
                told = True
                console.print("compiling the sets; the next start will find them ready")

        return open_matcher(probes, engine, follow)
