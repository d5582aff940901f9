"""The live line on a terminal, and its last words: what was found, how fast, what failed; on a cluster, where."""

import asyncio
import io
import time
from functools import partial

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.cli.stderr import Stderr
from engine.run import Run

REFRESH_S = 0.25
FOUND = ("hardmatched", "softmatched")
PLAIN_WIDTH = 200  # of a table where there is no terminal


class LiveLine:
    """Redraws one line on stderr while the run goes on; on anything but a terminal it is silent."""

    def __init__(self, stderr: Stderr) -> None:
        self._console = stderr.console
        self._desk = stderr.desk

    async def follow(self, run: Run) -> None:
        """Until cancelled."""
        if not self._console.is_terminal:
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            seen: list[tuple[float, int]] = []
            while True:
                now = time.monotonic()
                seen = [*seen, (now, run.done)][-20:]
                if not len(self._desk):  # a terminal that stands still is not filled up
                    self._desk.post(partial(live.update, Text(status_line(run, rate(seen))), refresh=True))
                await asyncio.sleep(REFRESH_S)


def rate(seen: list[tuple[float, int]]) -> float:
    """Targets per second between the first and the last observation."""
    (t0, n0), (t1, n1) = seen[0], seen[-1]
    return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


def status_line(run: Run, per_second: float) -> str:
    tally = run.collector.tally
    identified = sum(tally["verdict:" + verdict] for verdict in FOUND)
    failed = sorted((name[7:], count) for name, count in tally.items() if name[:7] == "reason:")
    left = max(0, run.read - run.done)
    parts = [
        f"{run.done:,} done" + (f" of {run.read:,}" if run.input_ended else ""),
        f"{per_second:,.0f}/s",
        f"{left:,} in flight",
        f"{identified:,} identified",
    ]
    if nodes := [node for node in run.nodes() if node.actors]:
        parts.append(f"{_counted(len(nodes), 'node')}, {_counted(sum(node.actors for node in nodes), 'actor')}")
    parts += [f"{count:,} {reason}" for reason, count in failed]
    if run.input_ended and not run.in_flight and (behind := max(run.behind().values(), default=0)):
        parts.append(f"{behind:,} segments left to deliver")
    elif run.input_ended and per_second > 0:
        parts.append(f"{left / per_second:,.0f} s left")
    return "  ".join(parts)


def summary_table(run: Run) -> Table:
    """What was found, by service, and how the conversations ended, most first."""
    tally = run.collector.tally
    elapsed = time.monotonic() - run.started
    table = Table(title=f"{run.collector.rows:,} targets in {elapsed:.1f} s", title_justify="left", box=None)
    table.add_column("outcome")
    table.add_column("targets", justify="right")
    table.add_column("service")
    table.add_column("targets", justify="right")
    outcomes = _most([(name[8:], n) for name, n in tally.items() if name[:8] == "verdict:"])
    outcomes += _most([(f"  {name[7:]}", n) for name, n in tally.items() if name[:7] == "reason:"])
    services = _most([(name[8:], n) for name, n in tally.items() if name[:8] == "service:"])[:20]
    for row in range(max(len(outcomes), len(services))):
        left = outcomes[row] if row < len(outcomes) else ("", "")
        right = services[row] if row < len(services) else ("", "")
        table.add_row(*map(Text, (*left, *right)))  # names are no markup, whatever brackets they hold
    return table


class NodeTable:
    """What goes on at the nodes of a cluster. Remembers what it has shown, for speeds since then."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: dict[str, int] = {}
        self._seen_at = run.started

    def look(self) -> Table | None:
        """A line for each node; None where there is none."""
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
            table.add_row(*map(Text, said))
        self._seen = {node.node: node.done for node in nodes}
        self._seen_at = now
        return table


def nodes_summary(run: Run) -> Table | None:
    """What each node has done; None where there is none."""
    nodes = run.nodes()
    if not nodes:
        return None
    table = Table(title=_counted(len(nodes), "node"), title_justify="left", box=None)
    for column in ("node", "zones", "targets", "actors lost"):
        table.add_column(column, justify="left" if column in {"node", "zones"} else "right")
    for node in nodes:
        table.add_row(*map(Text, (node.node, node.zones, f"{node.done:,}", f"{node.lost:,}")))
    return table


def plain(table: Table) -> str:
    """A table as lines of text, for whoever is no terminal."""
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _most(counts: list[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(name, f"{n:,}") for name, n in sorted(counts, key=lambda item: (-item[1], item[0]))]
