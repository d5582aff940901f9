"""`probemill top`: which run, and whether on a screen that goes on or once as text."""

import re
import sys
from pathlib import Path

import click

from engine.cli.kinds import Seconds
from engine.cli.progress import PLAIN_WIDTH, plain
from engine.cli.top.view import Source, UnseenError, View
from engine.errors import ConfigError
from engine.extras import extra
from engine.text import one_line
from engine.threads import aside
from matcher import shown

USUAL = "9464"
LEAST_S = 0.1
LOG_LINES = 10  # of `--once`
LONGEST = 200


@click.command("top")
@click.argument("where", metavar="[PORT|URL|DIR]", default=USUAL)
@click.option("--once", is_flag=True, help="Print what is seen at one look, as text, and end.")
@click.option("--every", type=Seconds(), metavar="TIME", default=1.0, help="From one look to the next; 1s by itself.")
def top_command(where: str, once: bool, every: float) -> None:
    """Watch a running scan: how fast it is, what it finds, what is slow, who does the work, the end of its log.

    \b
    9464, HOST:PORT, http://HOST:PORT/metrics   a scan with --metrics; 9464 is the usual one
    DIR                                         a scan with --state DIR, or one that has ended

    Nothing but the place that is named is contacted. On the screen, ? says which keys there are, and q ends.
    """
    source = open_source(where)
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top: needs a terminal; --once prints one look as text")
    try:
        first = aside(source.look)
    except UnseenError as unseen:
        raise ConfigError(f"top: {shown(str(unseen))}") from unseen
    if once:
        click.echo(text_of(first))
        return
    with extra("top", "top"):
        from engine.cli.top.screen import TopApp
        from engine.cli.top.watch import Watch
    TopApp(Watch(source, first, max(LEAST_S, every))).run()


def open_source(where: str) -> Source:
    """Raises ConfigError."""
    from engine.cli.top.endpoint import Endpoint, place_of
    from engine.cli.top.folder import StateFolder

    if not re.fullmatch("[0-9]{1,5}", where) and "://" not in where and Path(where).is_dir():
        return StateFolder(where)
    return Endpoint(place_of(where))


def text_of(view: View) -> str:
    """A view as lines of text."""
    from engine.cli.top.tables import boards, flowed, status, table_of

    parts = [f"{view.where}\n{flowed(status(view), PLAIN_WIDTH)}"]
    parts += [f"the run has ended: {one_line(view.ended, LONGEST)}"] * bool(view.ended)
    parts += [plain(table_of(board)) for board in boards(view)]
    if view.log:
        parts.append("\n".join(["log", *(one_line(line, PLAIN_WIDTH) for line in view.log[-LOG_LINES:])]))
    parts += [f"not known: {one_line(view.unknown, LONGEST)}"] * bool(view.unknown)
    return "\n\n".join(parts)
