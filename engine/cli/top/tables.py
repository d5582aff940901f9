"""What a view says, in lines and tables: the same for the screen and for `--once`. Strangers' names are plain text."""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from engine.cli.top.view import Asked, Load, View
from engine.text import one_line

SHOWN = 20  # rows of a table
LONGEST = 60  # characters of a name
GAP = 2  # between columns
ORDERS = ("most first", "by name")

_Row = tuple[str, ...]


class Board(Struct):
    """A table of a view. name: by which a screen knows it. rows: cells, the first of each a name.

    columns: the most important first; where there is no room for all, the last ones are left out.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[_Row]


def status(view: View) -> list[str]:
    """The run in some words, the most important first."""
    of = f" of {view.read:,}" if view.read is not None and view.input_ended else ""
    parts = [f"{view.done:,} done{of}"]
    if view.rate is not None:
        parts.append(f"{view.rate:,.0f}/s")
    if view.in_flight is not None:
        parts.append(f"{view.in_flight:,} in flight")
    if view.left_s is not None:
        parts.append(f"{duration(view.left_s)} left")
    if view.elapsed_s is not None:
        parts.append(f"{duration(view.elapsed_s)} so far")
    parts += [f"{what}: {count:,}" for what, count in view.trouble.items()]
    return parts


def flowed(parts: Iterable[str], width: int) -> str:
    """Set in lines that are no wider, none of the parts torn if it can be helped."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if cell_len(longer) > width and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def boards(view: View, order: str = ORDERS[0]) -> list[Board]:
    """All that there is something to say in. order: one of ORDERS."""
    found = [
        _counts("verdicts", "verdicts", "verdict", view.verdicts, order),
        _counts("reasons", "incomplete", "reason", view.reasons, order),
        _counts("services", "services", "service", view.services, order),
        _probes(view.probes, order),
        Board(
            "hosts",
            "slowest hosts",
            ("host", "time"),
            [(name, duration(ms / 1000)) for name, ms in _ordered(view.slow, order)],
        ),
        _loads("workers", "workers", "worker", view.workers),
        _loads("nodes", "nodes", "node", view.nodes),
    ]
    return [board for board in found if board.rows]


def table_of(board: Board, width: int) -> Table:
    """For a console or a screen that has so much room."""
    table = Table(title=board.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    count = _fitting(board, width)
    for at, column in enumerate(board.columns[:count]):
        table.add_column(column, justify="right" if at else "left", no_wrap=True, overflow="ellipsis")
    for row in board.rows[:SHOWN]:
        table.add_row(*(Text(one_line(cell, LONGEST)) for cell in row[:count]))
    if (more := len(board.rows) - SHOWN) > 0:
        table.add_row(Text(f"{more:,} more", "dim"))
    return table


def _fitting(board: Board, width: int) -> int:
    """How many columns have room; two at least."""
    shown = [board.columns, *board.rows[:SHOWN]]
    left = width + GAP
    for at in range(len(board.columns)):
        left -= GAP + max(cell_len(row[at][:LONGEST]) for row in shown)
        if left < 0:
            return max(2, at)
    return len(board.columns)


def duration(seconds: float) -> str:
    """`40 ms`, `1.4 s`, `12 s`, `3.5 min`, `26.1 h`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _counts(name: str, title: str, column: str, counts: dict[str, int], order: str) -> Board:
    total = sum(counts.values()) or 1
    rows = [(label, f"{count:,}", f"{count / total:.0%}") for label, count in _ordered(counts.items(), order)]
    return Board(name, title, (column, "targets", ""), rows)


def _probes(probes: dict[str, Asked], order: str) -> Board:
    """By the time that they took, or where nobody knows that, by what they found."""
    if all(asked.ms is None for asked in probes.values()):
        hits = _ordered(((name, asked.hits) for name, asked in probes.items()), order)
        return Board("probes", "probes", ("probe", "hits"), [(name, f"{count:,}") for name, count in hits])
    spent_on = {name: asked.ms or 0 for name, asked in probes.items()}
    rows = []
    for name, _ in _ordered(spent_on.items(), order):
        asked = probes[name]
        mean = duration(asked.ms / 1000 / asked.windows) if asked.ms is not None and asked.windows else "-"
        spent = duration(asked.ms / 1000) if asked.ms is not None else "-"
        times = f"{asked.windows:,}" if asked.windows is not None else "-"
        rows.append((name, spent, mean, f"{asked.hits:,}", times))
    return Board("probes", "slowest probes", ("probe", "time", "mean", "hits", "asked"), rows)


def _loads(name: str, title: str, column: str, loads: list[Load]) -> Board:
    columns = tuple(loads[0].numbers) if loads else ()
    return Board(name, title, (column, *columns), [(load.name, *load.numbers.values()) for load in loads])


def _ordered(counts: Iterable[tuple[str, int]], order: str) -> list[tuple[str, int]]:
    if order == ORDERS[0]:
        return sorted(counts, key=lambda item: (-item[1], item[0]))
    return sorted(counts)
