"""A forecast, told to people: amounts with their units in words, and below them how each was computed, to the digit."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from engine.forecast.forecast import Figure, Forecast

_LARGE = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SPANS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_UNITS = {  # of figures, in words behind the number
    "bytes a machine": "on each machine",
    "core hours": "hours of one core",
    "slot s": "seconds of open connections",
    "targets/s": "targets a second",
    "a machine": "on each machine",
    "machine hours": "hours of one machine",
}


def show(answer: Forecast, assumed: str, notes: Iterable[str]) -> None:
    """Print it. assumed: what decides more than all else, in front of the figures."""
    console = Console(highlight=False)
    say = Console(highlight=False, soft_wrap=True, markup=False).print
    say(assumed)
    say("")
    table = Table(box=None, show_header=False)
    for figure in answer.figures:
        table.add_row(figure.name, told(figure))
    console.print(table)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("what limits it", "targets a second", "time by this alone", ""):
        table.add_column(name, justify="right" if name.startswith("t") else "left")
    for bound in sorted(answer.bounds, key=lambda bound: -bound.seconds):
        decides = "decides" * (bound.name == answer.binding)
        table.add_row(bound.name, f"{bound.targets_per_s:,.0f}", span(bound.seconds), decides)
    console.print(table)
    say("How it was computed:")
    for figure in answer.figures:
        say(f"  {figure.name} = {exact(figure.value)} {figure.unit}".rstrip() + f": {figure.formula} [{figure.source}]")
    for bound in answer.bounds:
        say(f"  {bound.name}: {bound.formula} [{bound.source}]")
    say("")
    for note in notes:
        say(note)


def told(figure: Figure) -> str:
    """A figure's value and unit: `138 million`, `105 GB`, `4 h 11 min`."""
    if figure.unit == "h":
        return span(figure.value * 3600)
    scales = _BYTES if figure.unit.startswith("bytes") else _LARGE
    number = exact(figure.value)
    for size, name in scales:
        if figure.value >= size:
            number = f"{figure.value / size:.3g} {name}" if figure.value < 1000 * size else f"{number} {figure.unit}"
            break
    else:
        number += " bytes" * (scales is _BYTES)
    return f"{number} {_UNITS.get(figure.unit, '')}".rstrip()


def span(seconds: float) -> str:
    """A time to two units: `2 d 3 h`, `4 h 11 min`, `12 s`, `under 1 s`."""
    for size, unit, part, smaller in _SPANS:
        if (parts := round(seconds / part)) * part >= size:
            many, rest = divmod(parts, size // part)
            return f"{many:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{round(seconds)} s" if seconds >= 1 else "under 1 s" if seconds else "0 s"


def exact(value: float) -> str:
    """Whole, or to four digits where it is small."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.4g}"
