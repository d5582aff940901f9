"""How a run that goes on is followed, and its last words: what was found, how fast, what failed, and where."""

import asyncio
import io
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from engine.cli.status import Pace, duration, fit, found, left_of, status, text_of
from engine.cli.stderr import NAME, Stderr
from engine.run import Run
from engine.text import counted
from matcher import shown

if TYPE_CHECKING:  # loaded where there is a table: most of a scan, and above all its start, does without
    from rich.table import Table

REFRESH_S = 0.25
PLAIN_S = 10.0  # from one plain line to the next
PLAIN_WIDTH = 200  # of a table where there is no terminal
NAME_WIDTH = 20  # of a service in the summary; longer ones are cut
SERVICES = 20  # in the summary


async def follow(run: Run, stderr: Stderr) -> None:
    """Say how it gets on, as the mode of `stderr` is; until cancelled."""
    if stderr.mode == "none":
        return
    pace = Pace()
    due = time.monotonic() + PLAIN_S
    try:
        while True:
            now = time.monotonic()
            pace.look(now, run.done, left_of(run), sum(run.conversations()))
            if stderr.mode == "live" and not len(stderr.desk):  # a terminal that stands still is not filled up
                stderr.desk.post(_line(run, pace, stderr))
            elif stderr.mode == "plain" and now >= due:
                due = now + PLAIN_S
                stderr.say(f"{NAME} {text_of(fit(status(run, pace), PLAIN_WIDTH))}")
            await asyncio.sleep(REFRESH_S)
    finally:
        stderr.desk.post(stderr.terminal.clear)


def _line(run: Run, pace: Pace, stderr: Stderr) -> Callable[[], None]:
    parts = status(run, pace)
    return partial(stderr.terminal.show, lambda columns: text_of(fit(parts, columns), stderr.paint))


def summarise(run: Run, stderr: Stderr) -> None:
    """Tables for people at a terminal. A line for whoever follows lines, or a cluster, where silence says nothing."""
    if stderr.hushed:
        return
    if stderr.is_terminal and stderr.mode != "plain":
        stderr.print(summary_table(run))
        if (nodes := nodes_summary(run)) is not None:
            stderr.print(nodes)
    elif stderr.mode == "plain" or run.nodes():
        stderr.say(f"{NAME} {summary_line(run)}")


def summary_line(run: Run) -> str:
    """`17 of 22 targets in 3.2 s, 15 found, 5 cancelled`: the same as the table, for whoever reads lines."""
    tally = run.collector.tally
    failed = sorted(((name[7:], n) for name, n in tally.items() if name[:7] == "reason:"), key=lambda item: -item[1])
    return ", ".join([_title(run), f"{found(tally):,} found", *(f"{n:,} {shown(reason)}" for reason, n in failed)])


def _title(run: Run) -> str:
    ending = run.ending()
    of = f"{ending.done:,} of {ending.read:,}" if ending.not_reached else f"{ending.done:,}"
    elapsed = run.elapsed_s
    took = f"{elapsed:.1f} s" if elapsed < 60 else duration(elapsed)
    return f"{of} target{'s' * (ending.read != 1)} in {took}"


def summary_table(run: Run) -> "Table":
    """What was found, by service, and how the conversations ended, most first. It fits into 60 columns."""
    from rich.table import Table
    from rich.text import Text

    tally = run.collector.tally
    table = Table(title=_title(run), title_justify="left", title_style="bold", box=None)
    table.add_column("outcome", no_wrap=True)
    table.add_column("targets", justify="right", no_wrap=True)
    table.add_column("service", style="bold cyan", no_wrap=True, max_width=NAME_WIDTH, overflow="ellipsis")
    table.add_column("targets", justify="right", no_wrap=True)
    outcomes = _most([(name[8:], n) for name, n in tally.items() if name[:8] == "verdict:"])
    outcomes += _most([(f"  {name[7:]}", n) for name, n in tally.items() if name[:7] == "reason:"])
    services = _most([(name[8:], n) for name, n in tally.items() if name[:8] == "service:"])[:SERVICES]
    for row in range(max(len(outcomes), len(services))):
        left = outcomes[row] if row < len(outcomes) else ("", "")
        right = services[row] if row < len(services) else ("", "")
        table.add_row(*map(Text, map(shown, (*left, *right))))  # no markup, and nothing that a terminal obeys
    return table


class NodeTable:
    """What goes on at the nodes of a cluster. Remembers what it has shown, for speeds since then."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: dict[str, int] = {}
        self._seen_at = run.started

    def look(self) -> "Table | None":
        """A line for each node; None where there is none."""
        from rich.table import Table
        from rich.text import Text

        nodes, now = self._run.nodes(), time.monotonic()
        if not nodes:
            return None
        table = Table(box=None)
        table.add_column("node")
        table.add_column("zones")
        for column in ("actors", "given", "in flight", "done", "per second", "silent", "lost"):
            table.add_column(column, justify="right")
        for node in nodes:
            done = node.done - self._seen.get(node.node, 0)
            speed = max(0.0, done / (now - self._seen_at)) if now > self._seen_at else 0.0
            numbers = [f"{n:,}" for n in (node.actors, node.given, node.inflight, node.done)]
            said = (node.node, node.zones, *numbers, f"{speed:,.0f}", f"{node.silent_s:.1f} s", f"{node.lost:,}")
            table.add_row(*map(Text, map(shown, said)))
        self._seen = {node.node: node.done for node in nodes}
        self._seen_at = now
        return table


def nodes_summary(run: Run) -> "Table | None":
    """What each node has done; None where there is none."""
    from rich.table import Table
    from rich.text import Text

    nodes = run.nodes()
    if not nodes:
        return None
    table = Table(title=counted(len(nodes), "node"), title_justify="left", box=None)
    for column in ("node", "zones", "targets", "actors lost"):
        table.add_column(column, justify="left" if column in {"node", "zones"} else "right")
    for node in nodes:
        table.add_row(*map(Text, (node.node, node.zones, f"{node.done:,}", f"{node.lost:,}")))
    return table


def plain(table: "Table") -> str:
    """A table as lines of text, for whoever is no terminal."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _most(counts: list[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(name, f"{n:,}") for name, n in sorted(counts, key=lambda item: (-item[1], item[0]))]
