"""What a person sees of a run: the live line and the closing table."""

import asyncio
import io
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from engine.cli.progress import LiveLine, NodeTable, nodes_summary, plain, rate, status_line, summary_table
from engine.cli.stderr import Stderr
from engine.pool.runners import NodeStatus


def run(
    read: int = 0, *, ended: bool = False, behind: int = 0, unsettled: int = 0, nodes: Any = (), **tally: int
) -> Any:
    """A run as far as it can be seen, with one sink; tally names with `__` for `:`."""
    counts = Counter({name.replace("__", ":"): count for name, count in tally.items()})
    rows = sum(count for name, count in counts.items() if name.startswith("verdict:"))
    collector = SimpleNamespace(rows=rows, tally=counts)
    return SimpleNamespace(
        collector=collector,
        read=read,
        in_flight=read - rows,
        done=rows + unsettled,
        nodes=lambda: list(nodes),
        input_ended=ended,
        started=time.monotonic(),
        behind=lambda: {"delta:/lake": behind},
    )


def test_while_the_input_goes_on() -> None:
    """No total, no end in sight."""
    seen = run(5000, verdict__hardmatched=1200, verdict__softmatched=34, verdict__nomatch=66)
    assert status_line(seen, 987.6) == "1,300 done  988/s  3,700 in flight  1,234 identified"


def test_what_is_left_to_deliver() -> None:
    """When everything else is done: a sink that is some segments behind is no news before."""
    done = run(2, ended=True, behind=3, verdict__hardmatched=2)
    assert status_line(done, 0.0).endswith("2 identified  3 segments left to deliver")
    assert "deliver" not in status_line(run(3, ended=True, behind=3, verdict__hardmatched=2), 1.0)


def test_once_the_input_has_ended() -> None:
    seen = run(
        3000, ended=True, verdict__hardmatched=1000, verdict__incomplete=500, reason__timeout=400, reason__reset=100
    )
    line = status_line(seen, 100.0)
    assert line == "1,500 done of 3,000  100/s  1,500 in flight  1,000 identified  100 reset  400 timeout  15 s left"


NODES = [
    NodeStatus("10.0.0.1", "", 2, 4000, 1200, 9000, 0.4, 1024),
    NodeStatus("10.0.0.2", "dmz", 1, 10, 5, 100, 12.0, 1024, 3),
    NodeStatus("10.0.0.3", "", 0, 0, 0, 50, 0.0, 0, 2),
]


def test_what_is_done_on_a_cluster() -> None:
    """Counts before it is committed; nodes that are gone do not count as nodes."""
    seen = run(500, ended=True, unsettled=200, nodes=NODES, verdict__hardmatched=100)
    line = status_line(seen, 100.0)
    assert line == "300 done of 500  100/s  200 in flight  100 identified  2 nodes, 3 actors  2 s left"
    assert "1 node, 2 actors" in status_line(run(1, nodes=NODES[:1]), 0.0)


def test_a_table_of_nodes() -> None:
    """A line for each node, with its speed since the last look."""
    seen = run(1, nodes=NODES)
    seen.started = time.monotonic() - 100.0
    looks = NodeTable(seen)
    first = [line.split() for line in plain(looks.look()).splitlines()]  # type: ignore[arg-type]
    assert first[0] == ["node", "zones", "actors", "given", "in", "flight", "done", "per", "second", "silent", "lost"]
    assert first[1] == ["10.0.0.1", "2", "4,000", "1,200", "9,000", "90", "0.4", "s", "0"]
    assert first[2] == ["10.0.0.2", "dmz", "1", "10", "5", "100", "1", "12.0", "s", "3"]
    again = [line.split() for line in plain(looks.look()).splitlines()]  # type: ignore[arg-type]
    assert [line[-4] for line in again[1:]] == ["0", "0", "0"]


def test_no_cluster_no_table() -> None:
    assert NodeTable(run(1)).look() is None
    assert nodes_summary(run(1)) is None


def test_a_summary_of_nodes() -> None:
    """What each has done, those too that are gone."""
    lines = [line.split() for line in plain(nodes_summary(run(1, nodes=NODES))).splitlines()]  # type: ignore[arg-type]
    assert lines[0] == ["3", "nodes"]
    assert lines[2:] == [["10.0.0.1", "9,000", "0"], ["10.0.0.2", "dmz", "100", "3"], ["10.0.0.3", "50", "2"]]


def test_no_rate_no_promise() -> None:
    assert status_line(run(10, ended=True), 0.0) == "0 done of 10  0/s  10 in flight  0 identified"


def test_rate() -> None:
    assert rate([(1.0, 100)]) == 0.0
    assert rate([(1.0, 100), (2.0, 9_999), (3.0, 300)]) == 100.0


def test_summary() -> None:
    """Outcomes on the left, services on the right, most first, at most twenty of them."""
    services = {f"service__s{number:02}": number + 1 for number in range(30)}
    seen = run(1000, verdict__nomatch=5, verdict__hardmatched=1995, verdict__incomplete=7, reason__reset=7, **services)
    console = Console(file=io.StringIO(), width=100)
    console.print(summary_table(seen))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("2,007 targets in ")
    table = [line.split() for line in lines[2:]]
    assert table[0] == ["hardmatched", "1,995", "s29", "30"]
    assert [row[0] for row in table[:4]] == ["hardmatched", "incomplete", "nomatch", "reset"]
    assert len(table) == 20


def test_a_service_with_brackets_in_its_name() -> None:
    """Names come from a database, and are no markup."""
    console = Console(file=io.StringIO(), width=100)
    console.print(summary_table(run(1, verdict__hardmatched=1, **{"service__[/x][red]a": 1})))
    assert "[/x][red]a" in console.file.getvalue()  # type: ignore[attr-defined]


def test_summary_of_nothing() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(summary_table(run()))
    assert "0 targets in 0.0 s" in console.file.getvalue()  # type: ignore[attr-defined]


def follow(console: Console) -> str:
    async def for_a_moment() -> None:
        stderr = Stderr()
        stderr.console = console
        following = asyncio.create_task(LiveLine(stderr).follow(run(7, verdict__hardmatched=2)))
        await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        stderr.settle()

    asyncio.run(for_a_moment())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_live_line_is_for_terminals_only() -> None:
    assert follow(Console(file=io.StringIO(), width=100)) == ""
    assert "5 in flight" in follow(Console(file=io.StringIO(), width=100, force_terminal=True))
