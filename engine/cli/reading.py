"""What is said of inputs while they are read: the bar, and the first of what could not be read, one line each."""

from collections.abc import Sequence

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.errors import InputError
from engine.offline.faults import KEPT, Faults
from engine.offline.rows_in import Part
from engine.text import counted
from matcher import shown

SHOWN_FAULTS = KEPT  # printed one by one; the rest is counted
COLUMNS = (
    TextColumn("{task.fields[rows]:,} rows"),
    BarColumn(),
    DownloadColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class FaultLines:
    """Prints the first faults as they come, and counts all."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, error: InputError) -> None:
        self.count += 1
        if self.count <= SHOWN_FAULTS:
            click.echo(shown(str(error)), err=True)

    def report_lines(self, name: str, faults: Faults) -> None:
        """name: of the input."""
        for number, reason in faults.first:
            self.report(InputError(name, number, reason))
        self.count += faults.count - len(faults.first)

    def skipped(self) -> str:
        """What a summary adds: `, 3 lines skipped`; empty for none."""
        return f", {counted(self.count, 'line')} skipped" if self.count else ""

    def summarise(self, name: str) -> None:
        if self.count > SHOWN_FAULTS:
            click.echo(f"{name}: {self.count - SHOWN_FAULTS:,} more lines could not be read", err=True)


class RowsBar:
    """What reads rows tells it: the bar moves, what could not be used is a line. done: bytes that have been read."""

    def __init__(self, bar: Progress, faults: FaultLines) -> None:
        self.done = 0
        self.tell = faults.report_lines
        self.damage = faults.report
        self._bar = bar
        self._task = bar.add_task("rows", total=None, rows=0)

    def expect(self, parts: Sequence[Part]) -> None:
        """What will be read; the end is unknown where one of them is a pipe."""
        sizes = [part.size for part in parts]
        if None not in sizes:
            self._bar.update(self._task, total=sum(size or 0 for size in sizes))

    def moved(self, done: int, rows: int) -> None:
        self.done = done
        self._bar.update(self._task, completed=done, rows=rows)
