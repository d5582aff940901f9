"""What is said of inputs while they are read: the bar, and the first of what could not be read, one line each."""

import click
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.errors import InputError
from engine.offline.faults import KEPT, Faults
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

    def summarise(self, name: str) -> None:
        if self.count > SHOWN_FAULTS:
            click.echo(f"{name}: {self.count - SHOWN_FAULTS:,} more lines could not be read", err=True)
