"""The screen of `probemill top`: one page that a narrow terminal scrolls and a wide one sets in columns.

Whatever a view holds is shown as plain text: no markup is read in it. A view that comes late, or not at all, changes
the line under the title; the keys go on working, because looks are made in the thread of a `Watch`.
"""

import asyncio
import signal
from contextlib import suppress
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ItemGrid, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Sparkline, Static

from engine.cli.top.tables import ORDERS, boards, flowed, status, table_of
from engine.cli.top.view import View
from engine.cli.top.watch import Watch
from engine.text import one_line

REFRESH_S = 0.25
BOARDS = ("verdicts", "reasons", "services", "probes", "hosts", "workers", "nodes")
LOG_LINES = 12
LONGEST = 500
HELP = """\
q  Ctrl-C    end; the scan goes on
p            hold the picture, and go on
s            most first, or by name
arrows       up and down, Page Up, Page Down
?            this, and away with it

rate         targets done a second, over five seconds
in flight    conversations that are open
time         of probes: their windows, summed;
             of hosts: their conversations, at least
given        targets that a worker has and has not done
"""


class HelpScreen(ModalScreen[None]):
    """The keys, over the page."""

    BINDINGS: ClassVar[list[BindingType]] = [("question_mark,escape,q", "dismiss", "back")]
    CSS = """
    HelpScreen { align: center middle; }
    #help { width: auto; max-width: 100%; height: auto; padding: 1 2; border: round $primary; background: $surface; }
    """

    def compose(self) -> ComposeResult:
        yield Static(HELP, id="help", markup=False)


class TopApp(App[None]):
    """watch: is started with the screen and closed with it."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "probemill top"
    CSS = """
    #state { color: $warning; }
    Static { height: auto; }
    #boards, #log { margin: 0 0 1 0; }
    #log { text-wrap: nowrap; text-overflow: ellipsis; }
    #unknown { color: $text-muted; }
    .caption { margin: 1 0 0 0; }
    Sparkline { height: 3; margin: 0 0 1 0; }
    Sparkline > .sparkline--min-color, Sparkline > .sparkline--max-color { color: $primary; }
    #boards { height: auto; grid-gutter: 1 3; }
    VerticalScroll { padding: 0 1; }
    .absent { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "end"),
        Binding("ctrl+c", "quit", "end", show=False, priority=True),
        Binding("p", "hold", "hold"),
        Binding("s", "sort", "sort"),
        Binding("question_mark", "keys", "keys", key_display="?"),
    ]

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._page = VerticalScroll()
        self._looks = -1  # of the view that is shown
        self._order = 0
        self._held = False

    def compose(self) -> ComposeResult:
        with self._page:
            yield Static(id="where", markup=False)
            yield Static(id="status", markup=False)
            yield Static(id="state", markup=False, classes="absent")
            for name in ("rate", "open"):
                yield Static(id=f"{name}-caption", markup=False, classes="caption")
                yield Sparkline(id=name)
            with ItemGrid(id="boards", min_column_width=46):
                for name in BOARDS:
                    yield Static(id=name, markup=False, classes="board absent")
            yield Static(id="log", markup=False, classes="absent")
            yield Static(id="unknown", markup=False, classes="absent")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(RuntimeError, ValueError):  # not in the main thread
                loop.add_signal_handler(number, self.exit)
        self._watch.start()
        self.set_interval(REFRESH_S, self.refresh_view)

    def on_resize(self) -> None:
        self.call_after_refresh(self.refresh_view, anew=True)

    def on_unmount(self) -> None:
        self._watch.close()

    def action_hold(self) -> None:
        self._held = not self._held
        self._show_state()
        self.refresh_view()

    def action_sort(self) -> None:
        self._order = (self._order + 1) % len(ORDERS)
        self._show_boards(self._watch.latest)

    def action_keys(self) -> None:
        self.push_screen(HelpScreen())

    def refresh_view(self, *, anew: bool = False) -> None:
        """Show the latest view, where it is not shown yet. anew: also where it is."""
        if self._held or not self._page.query("#state"):  # at the end, what is shown goes before the timer
            return
        self._show_state()
        if self._looks == self._watch.looks and not anew:
            return
        self._looks, view = self._watch.looks, self._watch.latest
        self._put("where", f"{self.TITLE}  {one_line(view.where, LONGEST)}")
        self._put("status", flowed(status(view), max(20, self._page.size.width - 4)))
        now = f"{view.rate:,.0f}" if view.rate is not None else "-"
        self._plot("rate", f"targets a second: {now}", view.rates)
        self._plot("open", f"in flight: {view.in_flight:,}" if view.in_flight is not None else "", view.open)
        self._show_boards(view)
        lines = [one_line(line, LONGEST) for line in view.log[-LOG_LINES:]]
        self._put("log", Text("\n").join([Text("log", "bold"), *map(Text, lines)]) if lines else "")
        self._put("unknown", f"not known: {one_line(view.unknown, LONGEST)}" if view.unknown else "")

    def _show_state(self) -> None:
        state = one_line(self._watch.state(), LONGEST)
        held = "held: p goes on" if self._held else ""
        self._put("state", "; ".join(filter(None, (held, state))))

    def _show_boards(self, view: View) -> None:
        found = {board.name: board for board in boards(view, ORDERS[self._order])}
        room = max(place.size.width for place in self._page.query(".board"))  # all have the same, once they are shown
        for name in BOARDS:
            self._put(name, table_of(found[name], room or self._page.size.width) if name in found else "")
        if found and not room:
            self.call_after_refresh(self.refresh_view, anew=True)

    def _plot(self, name: str, caption: str, values: list[float]) -> None:
        self._put(f"{name}-caption", caption)
        plot = self._page.query_one(f"#{name}", Sparkline)
        width = max(2, plot.size.width)
        latest = values[1 - width :]
        plot.data = [0.0] * (width - len(latest)) + latest  # it ends on the right, and its foot is nought
        plot.set_class(not caption, "absent")

    def _put(self, name: str, said: RenderableType) -> None:
        """Show something, or with an empty text, nothing."""
        place = self._page.query_one(f"#{name}", Static)
        place.set_class(said == "", "absent")
        place.update(said)
