"""The history of the figures, drawn: one small chart a figure, from bench/record. Made by `make docs`.

Contract: pure, from lines of a record to texts (SVG that reads on light and dark pages, a table in Markdown); the same
lines give the same text. A band shows the runs of a line, a dot their median; the dashes are the goal.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from bench.recorded import Recorded

COLUMNS = 3
WIDTH, HEIGHT = 250, 92  # of a chart with its title, in pixels
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 8, 34, 180, 46  # of the plot in it; the last value is written to its right
PER_MACHINE = 24  # lines a chart shows
COLOURS = ("a", "b", "c")  # of machines, in the style
DRAWN = ("cold", "unseen")  # last words of figures that are drawn, beside those that have a goal
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; } .title { font-weight: 600; } .small { font-size: 9.5px; fill: #59636e; }
.axis { stroke: #d1d9e0; fill: none; } .goal { stroke: #9a6700; stroke-dasharray: 3 3; }
.a { stroke: #0969da; fill: #0969da; } .b { stroke: #bf3989; fill: #bf3989; } .c { stroke: #1a7f37; fill: #1a7f37; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .page { fill: #0d1117; } .small { fill: #9198a1; }
  .axis { stroke: #3d444d; } .goal { stroke: #d29922; }
  .a { stroke: #58a6ff; fill: #58a6ff; } .b { stroke: #f778ba; fill: #f778ba; } .c { stroke: #56d364; fill: #56d364; }
}
.band { opacity: .22; stroke: none; } .line.line { fill: none; stroke-width: 1.6; }
"""


def chart(records: Mapping[str, Sequence[Recorded]]) -> str:
    """The whole drawing. records: machine name -> lines, oldest first."""
    series = _series(records)
    machines = [name for name in records if records[name]]
    rows = -(-len(series) // COLUMNS)
    width, height = COLUMNS * WIDTH + 2 * LEFT, rows * HEIGHT + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Figures of the benchmarks over time">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for at, name in enumerate(machines):
        x = 2 * LEFT + at * 200
        parts.append(f'<circle class="{_colour(at)}" cx="{x}" cy="16" r="4"/>')
        parts.append(f'<text x="{x + 9}" y="20">{escape(name)}</text>')
    if not series:
        parts.append(f'<text x="{2 * LEFT}" y="20">no record yet</text>')
    for at, (name, lines) in enumerate(series.items()):
        x, y = LEFT + at % COLUMNS * WIDTH, 32 + at // COLUMNS * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _panel(name, lines, machines)
        parts.append("</g>")
    parts.append("</svg>\n")
    return "\n".join(parts)


def _series(records: Mapping[str, Sequence[Recorded]]) -> dict[str, dict[str, list[Recorded]]]:
    """figure -> machine -> its newest lines."""
    series: dict[str, dict[str, list[Recorded]]] = {}
    for machine, lines in records.items():
        for line in lines:
            if line.figure.goal or line.figure.name.rpartition(".")[2] in DRAWN:
                series.setdefault(line.figure.name, {}).setdefault(machine, []).append(line)
    return {
        name: {machine: lines[-PER_MACHINE:] for machine, lines in by_machine.items()}
        for name, by_machine in sorted(series.items())
    }


def _panel(name: str, by_machine: Mapping[str, Sequence[Recorded]], machines: Sequence[str]) -> Iterator[str]:
    newest = max((lines[-1] for lines in by_machine.values()), key=lambda line: line.run.time)
    goal = newest.figure.goal
    lines = [line for some in by_machine.values() for line in some]
    top = max([goal, *(shown(line, end) for line in lines for end in (line.low, line.high))]) or 1.0
    unit = "x reference" if newest.figure.reference else newest.figure.unit
    lower = "" if newest.figure.reference or newest.figure.better == "more" else ", lower is better"
    aim = f", goal {_number(goal)}" if goal else ""
    yield f'<text class="title" x="{LEFT}" y="12">{escape(name)}</text>'
    yield f'<text class="small" x="{LEFT}" y="25">{escape(unit)}{lower}, 0 to {_number(top)}{aim}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{TOP + PLOT_HEIGHT}H{LEFT + PLOT_WIDTH}"/>'
    if goal:
        yield f'<path class="goal" d="M{LEFT} {_y(goal, top)}H{LEFT + PLOT_WIDTH}"/>'
    for machine, some in by_machine.items():
        yield from _line(some, _colour(machines.index(machine)), top)
    at = float(_y(shown(newest, newest.good), top)) + 4
    yield f'<text x="{LEFT + PLOT_WIDTH + 6}" y="{at:g}">{_number(shown(newest, newest.good))}</text>'


def _line(lines: Sequence[Recorded], colour: str, top: float) -> Iterator[str]:
    """One machine's: the band of its runs, and their medians."""
    places = [_x(at, len(lines)) for at in range(len(lines))]
    low, middle, high = (
        [f"{x:g},{_y(shown(line, getattr(line, end)), top)}" for x, line in zip(places, lines, strict=True)]
        for end in ("low", "good", "high")
    )
    if len(lines) == 1:
        yield f'<path class="line {colour}" d="M{low[0]}L{high[0]}"/>'
    else:
        yield f'<polygon class="band {colour}" points="{" ".join(high + low[::-1])}"/>'
        yield f'<polyline class="line {colour}" points="{" ".join(middle)}"/>'
    for place, line in zip(middle, lines, strict=True):
        x, y = place.split(",")
        low_end, high_end = sorted(shown(line, end) for end in (line.low, line.high))
        said = f"{_number(shown(line, line.good))} ({_number(low_end)} to {_number(high_end)})"
        title = f"<title>{escape(line.run.commit or line.run.time)}: {said}</title>"
        yield f'<circle class="{colour}" cx="{x}" cy="{y}" r="2">{title}</circle>'


def shown(line: Recorded, good: float) -> float:
    """How good a run was, as people read it: a ratio, or the value."""
    if line.figure.reference or line.figure.better == "more":
        return good
    return 1 / good if good else 0.0


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _x(at: int, count: int) -> float:
    """The newest is at the right, whatever the number."""
    step = PLOT_WIDTH / max(count, 2)
    return round(LEFT + PLOT_WIDTH - step * (count - at - 0.5), 1)


def _y(value: float, top: float) -> str:
    return f"{TOP + PLOT_HEIGHT * (1 - value / top):.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(records: Mapping[str, Sequence[Recorded]]) -> Iterator[str]:
    """The last record of each figure on each machine, as a Markdown table a machine."""
    for machine, lines in records.items():
        last = {line.figure.name: line for line in lines}
        newest = max(last.values(), key=lambda line: line.run.time)
        libraries = ", ".join(f"{name} {number}" for name, number in newest.run.versions.items())
        yield f"{machine}: {newest.run.machine}; {libraries}; last at {newest.run.commit}."
        yield ""
        yield "| figure | value | x reference | runs from, to | goal |"
        yield "|---|---:|---:|---:|---:|"
        for name, line in sorted(last.items()):
            figure = line.figure
            low, high = sorted(shown(line, end) for end in (line.low, line.high))
            ratio = _number(figure.ratio) if figure.reference else ""
            goal = f"{_number(figure.goal)}{'' if figure.met else ', missed'}" if figure.goal else ""
            value = f"{_number(figure.value)} {figure.unit}"
            yield f"| `{name}` | {value} | {ratio} | {_number(low)}, {_number(high)} | {goal} |"
        yield ""
    if not records:
        yield "There is no record yet."
