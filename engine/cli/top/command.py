"""`probemill top`: which run, and whether on a screen that goes on or once as text."""

import re
import sys
from pathlib import Path

import click

from engine.cli.help import Command
from engine.cli.kinds import Seconds
from engine.cli.progress import PLAIN_WIDTH, plain
from engine.cli.top.endpoint import Endpoint, place_of
from engine.cli.top.folder import StateFolder
from engine.cli.top.tables import boards, flowed, status, table_of
from engine.cli.top.view import Source, UnseenError, View
from engine.cli.top.watch import Watch
from engine.errors import ConfigError
from engine.extras import extra
from engine.text import one_line
from engine.threads import aside
from matcher import shown

USUAL = "9464"
LEAST_S = 0.1
LOG_LINES = 10  # of `--once`
LONGEST = 200


@click.command(
    "top",
    cls=Command,
    examples=("probemill scan -i targets.txt --metrics 9464", "probemill top 9464", "probemill top run1 --once"),
)
@click.argument("where", metavar="[PORT|URL|DIR]", default=USUAL)
@click.option("--once", is_flag=True, help="Print what is seen at one look, as text, and end.")
@click.option(
    "--every", type=Seconds(), metavar="TIME", default=1.0, show_default="1s", help="From one look to the next."
)
def top_command(where: str, once: bool, every: float) -> None:
    """Watch a running scan from another terminal.

    It shows how fast the scan is, what it finds, which probes and hosts are slow, who does the work, and the end of its
    log.

    \b
    PORT, HOST:PORT, http://HOST:PORT/metrics
        a scan with --metrics
    DIR
        a scan with --state DIR, ended or not

    Without any, it is port 9464 of this machine. Nothing but the place that is named is contacted. On the screen, ?
    says which keys there are, and q ends.
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
    TopApp(Watch(source, first, max(LEAST_S, every))).run()


def open_source(where: str) -> Source:
    """Raises ConfigError."""
    if not re.fullmatch("[0-9]{1,5}", where) and "://" not in where and Path(where).is_dir():
        return StateFolder(where)
    return Endpoint(place_of(where))


def text_of(view: View) -> str:
    """A view as lines of text."""
    parts = [f"{view.where}\n{flowed(status(view), PLAIN_WIDTH)}"]
    parts += [f"the run has ended: {one_line(view.ended, LONGEST)}"] * bool(view.ended)
    parts += [plain(table_of(board, PLAIN_WIDTH)) for board in boards(view)]
    if view.log:
        parts.append("\n".join(["log", *(one_line(line, PLAIN_WIDTH) for line in view.log[-LOG_LINES:])]))
    parts += [f"not known: {one_line(view.unknown, LONGEST)}"] * bool(view.unknown)
    return "\n\n".join(parts)
