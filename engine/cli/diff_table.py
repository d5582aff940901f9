"""Findings as people read them on a terminal: host by host, one line a change, in order of address and port.

    192.0.2.7 (a.example)
      + 22/tcp     new          ssh OpenSSH 9.2p1
      ~ 80/tcp     version      nginx 1.18.0 → nginx 1.24.0
      - 8080/tcp   gone         http

All findings are printed, as they come. What does not fit the width goes on in the next line, in its column.
"""

from collections.abc import Callable, Iterator, Sequence

import click
from rich.cells import cell_len, chop_cells

from engine.insight.diff.compare import Comparison, Finding
from engine.insight.diff.words import Change, changes_of, place_of

_PORT = 10  # columns
_KIND = 12
_LEFT = 2 + 2 + _PORT + 1 + _KIND + 1
_LEAST = 16  # columns for what changed, however narrow the terminal
_ARROW = " → "
_COLOURS = {"+": "green", "-": "red", "~": "yellow"}


def table(comparison: Comparison, kinds: Sequence[str], width: int = 0, colour: bool = False) -> Iterator[str]:
    """Lines. width: in columns, 0 for no bound. colour: whether to colour them, in ANSI's way."""
    paint: Callable[..., str] = click.style if colour else _plain
    host: tuple[str, str] | None = None
    for finding in comparison.findings(kinds):
        if (finding.ip, finding.host) != host:
            host = (finding.ip, finding.host)
            yield from (paint(piece, bold=True) for piece in _chopped(place_of(finding), width))
        yield from _lines(finding, width, paint)


def _lines(finding: Finding, width: int, paint: Callable[..., str]) -> Iterator[str]:
    port = f"{finding.port}/{finding.proto}"
    room = max(width - _LEFT, _LEAST) if width else 0
    for change in changes_of(finding):
        head = paint(f"  {change.sign} {port:<{_PORT}} {change.kind:<{_KIND}} ", fg=_COLOURS[change.sign])
        for line in _told(change, finding.doubtful, room):
            yield (head + line).rstrip()
            head = " " * _LEFT
        port = ""


def _told(change: Change, doubtful: bool, room: int) -> list[str]:
    """What was and what is, in one line where there is room."""
    text = change.before or change.after
    if change.sign == "~":
        text = f"{change.before}{_ARROW}{change.after}"
    if doubtful:
        text += " (doubtful)"
    if not room or cell_len(text) <= room:
        return [text]
    if change.sign != "~":
        return _chopped(text, room)
    return _chopped(change.before, room) + _chopped(_ARROW.lstrip() + change.after, room)


def _chopped(text: str, width: int) -> list[str]:
    return chop_cells(text, width) if width and text else [text]


def _plain(text: str, **_: object) -> str:
    return text
