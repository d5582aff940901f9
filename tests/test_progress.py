"""What a person sees of a run: the live line, the time that is left, the closing table."""

import io
import math
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from engine.cli.progress import NodeTable, nodes_summary, plain, summary_line, summary_table
from engine.cli.status import Pace, Part, cropped, duration, fit, speed, status, text_of
from engine.pool.runners import NodeStatus
from engine.results import paint
from engine.results.ending import Ending


def run(
    read: int = 0,
    *,
    ended: bool = False,
    behind: int = 0,
    unsettled: int = 0,
    conversations: int = 0,
    nodes: Any = (),
    missing: int = 0,
    preparing: bool = False,
    **tally: int,
) -> Any:
    """A run as far as it can be seen, with one sink; tally names with `__` for `:`."""
    counts = Counter({name.replace("__", ":"): count for name, count in tally.items()})
    rows = sum(count for name, count in counts.items() if name.startswith("verdict:"))
    return SimpleNamespace(
        collector=SimpleNamespace(rows=rows, tally=counts),
        read=read,
        in_flight=read - rows,
        done=rows + unsettled,
        conversations=lambda: [conversations, conversations],
        nodes=lambda: list(nodes),
        input_ended=ended,
        started=time.monotonic(),
        elapsed_s=3.21,
        preparing=preparing,
        ending=lambda: Ending(read=rows + missing, done=rows, not_reached=missing),
        behind=lambda: {"delta:/lake": behind},
    )


def pace(rate: float = 0.0, left_s: float | None = None) -> Pace:
    made = Pace()
    made.rate, made.left_s = rate, left_s
    return made


def line(seen: Any, rate: float = 0.0, left_s: float | None = None, columns: int = 1000) -> str:
    return text_of(fit(status(seen, pace(rate, left_s)), columns))


# --- the line ---------------------------------------------------------------------------------------------------------


def test_while_the_input_goes_on() -> None:
    """No total, no end in sight; and in flight are conversations that are open, not targets that wait."""
    seen = run(5000, conversations=60, verdict__hardmatched=1200, verdict__softmatched=34, verdict__nomatch=66)
    assert line(seen, 987.6) == "1,300 done  988/s  120 in flight  1,234 found"


def test_while_the_database_is_prepared() -> None:
    """That is what goes on, once it lasts longer than a second."""
    seen = run(5, preparing=True)
    assert line(seen) == "preparing the database"
    seen.elapsed_s = 0.9
    assert line(seen).startswith("0 done")


def test_what_is_left_to_deliver() -> None:
    """When everything else is done: a sink that is some segments behind is no news before."""
    done = run(2, ended=True, behind=3, verdict__hardmatched=2)
    assert line(done).endswith("2 found  3 segments left to deliver")
    assert "deliver" not in line(run(3, ended=True, behind=3, verdict__hardmatched=2), 1.0)


SEEN = run(
    3000,
    ended=True,
    conversations=250,
    verdict__hardmatched=1000,
    verdict__incomplete=500,
    reason__timeout=400,
    reason__reset=100,
)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (99, "1,500 done of 3,000  100/s  500 in flight  1,000 found  100 reset  400 timeout  15 s left"),
        (80, "1,500 done of 3,000  100/s  500 in flight  1,000 found  500 failed  15 s left"),
        (70, "1,500 done of 3,000  100/s  500 in flight  1,000 found  15 s left"),
        (58, "1,500 done of 3,000  100/s  500 in flight  15 s left"),
        (50, "1,500 done of 3,000  500 in flight  15 s left"),
        (38, "1,500 done of 3,000  15 s left"),
        (20, "1,500 done of 3,000"),
        (10, "1,500 don…"),
        (1, "…"),
        (0, ""),
        (-2, ""),
    ],
)
def test_a_line_fits(columns: int, said: str) -> None:
    """What matters least goes first; at last what is left is cut."""
    assert line(SEEN, 100.0, 15.0, columns) == said


@given(st.lists(st.builds(Part, st.text(), st.integers(1, 9), st.integers(0, 3))), st.integers(-5, 120))
def test_a_line_is_never_wider_than_the_terminal(parts: list[Part], columns: int) -> None:
    """Also with characters that take two columns, or none."""
    assert cell_len(text_of(fit(parts, columns))) <= max(columns, 0)


def test_wide_characters_are_cut_between_columns() -> None:
    assert cropped("日本語のサービス", 7) == "日本語…"
    assert cropped("日本語のサービス", 6) == "日本…"


def test_colours_take_no_column() -> None:
    """What is seen is the line that fits."""
    parts = fit(status(SEEN, pace(100.0, 15.0)), 58)
    painted = text_of(parts, paint.coloured)
    assert painted != text_of(parts)
    for code in (paint.HEADING, paint.MUTED, "0"):
        painted = painted.replace(f"\x1b[{code}m", "")
    assert painted == text_of(parts)


NODES = [
    NodeStatus("10.0.0.1", "", 2, 4000, 1200, 9000, 0.4, 1024),
    NodeStatus("10.0.0.2", "dmz", 1, 10, 5, 100, 12.0, 1024, 3),
    NodeStatus("10.0.0.3", "", 0, 0, 0, 50, 0.0, 0, 2),
]


def test_what_is_done_on_a_cluster() -> None:
    """Counts before it is committed; nodes that are gone do not count as nodes."""
    seen = run(500, ended=True, unsettled=200, conversations=50, nodes=NODES, verdict__hardmatched=100)
    assert line(seen, 100.0, 2.0) == ("300 done of 500  100/s  100 in flight  100 found  2 nodes, 3 actors  2 s left")
    assert "1 node, 2 actors" in line(run(1, nodes=NODES[:1]))


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


# --- the pace ---------------------------------------------------------------------------------------------------------


def looked(*looks: tuple[float, int, int | None]) -> Pace:
    made = Pace()
    for at, done, left in looks:
        made.look(at, done, left)
    return made


def test_no_rate_no_promise() -> None:
    """Nor while the input goes on, nor before there was something to see."""
    assert line(run(10, ended=True)) == "0 done of 10  0/s  0 in flight  0 found"
    assert looked((0, 0, 100)).left_s is None
    assert looked((0, 0, 100), (1, 10, 90)).left_s is None
    assert looked((0, 0, 100), (60, 0, 100)).left_s is None
    assert looked((0, 0, None), (10, 100, None)).left_s is None


def test_a_steady_run() -> None:
    """Its rate is what it is from the first look on, and the time left is counted down."""
    made = Pace()
    for quarter in range(400):
        made.look(quarter / 4, 5 * quarter, 10_000 - 5 * quarter)
        if quarter >= 12:
            assert made.rate == pytest.approx(20)
            assert made.left_s == pytest.approx((10_000 - 5 * quarter) / 20)


def test_the_time_left_does_not_jump() -> None:
    """Rows come in batches; from one look to the next what is shown moves by no more than a tenth."""
    made, before = Pace(), None
    for quarter in range(400):
        done = 80 * (quarter // 4)
        made.look(quarter / 4, done, 40_000 - done)
        if quarter > 40:
            assert before is not None and made.left_s is not None
            assert abs(made.left_s - before) < 0.1 * before
        before = made.left_s
    assert before == pytest.approx(40_000 / 80 - 100, rel=0.15)


def test_the_time_left_follows_a_rate_that_changes() -> None:
    """Within some seconds it is that of the present rate."""
    made = Pace()
    for quarter in range(200):
        made.look(quarter / 4, 25 * quarter, 50_000)
    done = 25 * 199
    for quarter in range(200, 400):
        done += 5
        made.look(quarter / 4, done, 50_000)
    assert made.rate == pytest.approx(20, rel=0.1)
    assert made.left_s == pytest.approx(2500, rel=0.1)


def test_open_conversations_that_none_ends_have_no_time_left() -> None:
    """A rate from before says nothing of them; where targets wait to be begun, or one ends, it does."""
    made, waiting = Pace(), Pace()
    for quarter in range(40):
        made.look(quarter / 4, 12 * quarter, 568 - 12 * quarter, 100)
        waiting.look(quarter / 4, 12 * quarter, 568 - 12 * quarter, 99)
    assert made.left_s is not None
    for quarter in range(40, 120):
        made.look(quarter / 4, 468, 100, 100)
        waiting.look(quarter / 4, 468, 100, 99)
        assert made.left_s is None or quarter < 48
        assert waiting.left_s is not None
    made.look(30.25, 469, 99, 99)
    assert made.left_s is not None


def test_a_clock_that_stands_still_and_work_that_is_lost() -> None:
    """An actor that dies takes back what it had done: the rate is no less than nothing."""
    made = looked((0, 100, 50), (0, 100, 50), (5, 20, 130))
    assert made.rate == 0.0
    assert made.left_s is None


@given(st.floats(0, 1e9))
def test_a_duration_is_a_few_characters(seconds: float) -> None:
    assert 3 <= len(duration(seconds)) <= 12


def test_durations_and_rates() -> None:
    """No more digits than are known."""
    assert [duration(s) for s in (0.4, 12.3, 89, 90, 300, 3600, 7800, 273_600)] == [
        *("0 s", "12 s", "89 s", "2 min", "5 min", "1 h", "2 h 10 min", "3 d 4 h")
    ]
    assert [speed(rate) for rate in (0, 0.04, 1.25, 9.96, 12.5, 12345.6)] == ["0", "0.0", "1.2", "10", "12", "12,346"]
    assert not math.isnan(Pace().rate)


# --- at the end -------------------------------------------------------------------------------------------------------


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


def test_the_summary_fits_into_60_columns() -> None:
    """Whatever services are called; names are cut, numbers are not."""
    services = {f"service__{'long-' * 12}{number}": 10**6 for number in range(3)}
    console = Console(file=io.StringIO(), width=60)
    console.print(summary_table(run(10**6, verdict__hardmatched=9 * 10**6, reason__unreachable=10**6, **services)))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(cell_len(said.rstrip()) <= 60 for said in lines)
    assert sum("long-" in said and "1,000,000" in said for said in lines) == 3


def test_a_summary_of_a_run_that_was_interrupted() -> None:
    """It says how much is missing, in the words of all the rest."""
    seen = run(22, missing=5, verdict__hardmatched=15, verdict__incomplete=2, reason__timeout=2)
    assert summary_line(seen) == "17 of 22 targets in 3.2 s, 15 found, 2 timeout"
    console = Console(file=io.StringIO(), width=60)
    console.print(summary_table(seen))
    assert console.file.getvalue().startswith("17 of 22 targets in 3.2 s")  # type: ignore[attr-defined]


def test_a_service_that_moves_the_cursor() -> None:
    """Names come from a database, and a terminal does not obey them."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True, no_color=True)
    console.print(summary_table(run(1, verdict__hardmatched=1, **{"service__\x1b[2Ja\u202e": 1})))
    assert "\\x1b[2Ja\\u202e" in console.file.getvalue()  # type: ignore[attr-defined]


def test_summary_of_nothing() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(summary_table(run()))
    assert "0 targets in 3.2 s" in console.file.getvalue()  # type: ignore[attr-defined]
