"""The screen of `probemill top`, by what can be read on it: driven by Textual's pilot, and on a real terminal's end."""

import asyncio
import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from daemons import free_port
from loopback import Farm, Visit, database_file
from msgspec.structs import replace
from test_top import metrics
from watched import Told, endpoint, text, texts_of

pytest.importorskip("textual", reason="needs the extra `top`")

from textual.pilot import Pilot

from bench.screenshots_top import PICTURE, SIZE, VIEW, picture
from engine.cli.top.endpoint import Endpoint, place_of
from engine.cli.top.screen import TopApp
from engine.cli.top.view import Source, UnseenError, View
from engine.cli.top.watch import Watch

HOSTILE = "[red]x[/red]\x1b[31m\u202ey[/]"
Act = Callable[[TopApp, "Pilot[None]"], Awaitable[None]]


def on_screen(source: Source, act: Act, *, first: View = VIEW, size: tuple[int, int] = SIZE) -> None:
    """Do something before the screen of a run."""

    async def show() -> None:
        app = TopApp(Watch(source, first, 0.02))
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await act(app, pilot)

    asyncio.run(show())


async def until(app: TopApp, pilot: "Pilot[None]", seen: Callable[[list[str]], bool]) -> list[str]:
    """The lines of the screen, once they are as wanted; the last ones after a while in any case."""
    for _ in range(600):
        lines = texts_of(app.export_screenshot())
        if seen(lines):
            break
        await pilot.pause(0.05)
    return lines


async def see(app: TopApp, pilot: "Pilot[None]", *parts: str) -> None:
    """All that is on the screen at once, sooner or later."""
    lines = await until(app, pilot, lambda lines: all(has(part)(lines) for part in parts))
    assert [part for part in parts if not has(part)(lines)] == [], lines


def has(part: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(part in line for line in lines)


def test_what_is_on_the_screen() -> None:
    """Rate and flight, verdicts, services, probes, hosts, workers, the log, and the keys."""

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        parts = (
            *("48,210 done of 65,536  812/s  4,812 in flight  21 s left", "targets a second: 812", "in flight: 4,812"),
            *("hardmatched   39,004  81%", "refused    4,410  85%", "http      21,877  55%", "2,410  4,096", "█"),
            *("NULL             45.8 h   3.6 s  13,520  46,102", "203.0.113.77   10.4 min"),
            *("12:00:05 WARNING targets.txt, line 3: host.example:http", "q end  p hold  s sort  ? keys"),
        )
        await see(app, pilot, *parts)

    on_screen(Told(VIEW), act)


def test_numbers_change_while_one_looks() -> None:
    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await see(app, pilot, "50,000 done")

    on_screen(Told(VIEW, replace(VIEW, done=50_000)), act)


def test_holding() -> None:
    """Held numbers stand still, and are the latest ones afterwards."""
    source = Told(VIEW)

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await pilot.press("p")
        source.views = [replace(VIEW, done=50_000)]
        await pilot.pause(0.8)
        lines = await until(app, pilot, has("held: p goes on"))
        assert has("48,210 done")(lines)
        assert has("held: p goes on")(lines)
        await pilot.press("p")
        lines = await until(app, pilot, has("50,000 done"))
        assert has("50,000 done")(lines)
        assert not has("held")(lines)

    on_screen(source, act)


def test_sorting() -> None:
    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        def order(lines: list[str]) -> list[str]:
            return [word for line in lines for word in line.split()[:1] if word in ("domain", "ftp", "http", "ssh")]

        assert order(await until(app, pilot, has("domain"))) == ["http", "ssh", "domain", "ftp"]
        await pilot.press("s")
        by_name = ["domain", "ftp", "http", "ssh"]
        assert order(await until(app, pilot, lambda lines: order(lines) == by_name)) == by_name

    on_screen(Told(VIEW), act)


def test_help_and_the_end() -> None:
    """`?` over the page and away again; q ends."""

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await pilot.press("question_mark")
        await see(app, pilot, "hold the picture")
        await pilot.pause(0.6)  # the page below goes on
        await pilot.press("question_mark")
        gone = await until(app, pilot, lambda lines: not has("hold the picture")(lines))
        assert not has("hold the picture")(gone)
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running

    on_screen(Told(VIEW), act)


def test_a_narrow_terminal() -> None:
    """Nothing is wider than it, and arrows and pages lead to what lies below."""

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        lines = await until(app, pilot, has("812/s"))
        assert max(map(len, lines)) <= 40
        assert has("http://127.0.0.1:9464/metrics")(lines)
        assert not has("203.0.113.77")(lines)
        await pilot.press("end")
        lines = await until(app, pilot, has("12:00:41 WARNING"))
        assert has("12:00:41 WARNING")(lines)
        await pilot.press("home", "down", "down")
        await pilot.resize_terminal(120, 45)
        await see(app, pilot, "203.0.113.77")

    on_screen(Told(VIEW), act, size=(40, 20))


def test_strangers_names_stay_text() -> None:
    """No markup is read in them, and nothing moves a cursor."""
    view = View(
        where=HOSTILE,
        done=1,
        services={HOSTILE: 1},
        verdicts={HOSTILE: 1},
        slow=[(HOSTILE, 5)],
        log=[HOSTILE],
        unknown=HOSTILE,
        ended=HOSTILE,
    )

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        lines = await until(app, pilot, has("[red]x[/red]"))
        assert sum("[red]x[/red] [31m.y[/]" in line for line in lines) >= 5
        assert all(line.isprintable() for line in lines)

    on_screen(Told(view), act, first=view)


@pytest.mark.parametrize(
    ("unseen", "said"),
    [
        (UnseenError("refused", gone=True), "the run has ended: nobody answers any more"),
        (UnseenError("there: no answer within 5 s"), "there: no answer within 5 s; the numbers are "),
    ],
)
def test_a_run_that_is_gone(unseen: UnseenError, said: str) -> None:
    """It is said, and the last numbers stay."""

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await see(app, pilot, said, "48,210 done")

    on_screen(Told(unseen), act)


def test_a_slow_endpoint_does_not_hold_up_the_keys() -> None:
    """A look that does not end leaves the screen as alive as ever."""
    release = asyncio.Event()

    class Stuck:
        where = "stuck"

        def look(self) -> View:
            while not release.is_set():
                time.sleep(0.05)
            raise UnseenError("stuck")

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await pilot.press("s")
        await see(app, pilot, "domain")
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running
        release.set()

    on_screen(Stuck(), act)


def test_a_folder_tells_what_it_cannot_know() -> None:
    view = View(where="run1", done=7, rate=1.0, rates=[1.0] * 7, unknown="a folder does not tell what is in flight")

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        lines = await until(app, pilot, has("not known"))
        assert has("not known: a folder does not tell what is in flight")(lines)
        assert not has("in flight:")(lines)

    on_screen(Told(view), act, first=view)


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR, only shades of grey."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await until(app, pilot, has("812/s"))
        assert not app.ansi_color
        drawn = re.findall(r"fill: #(..)(..)(..)", app.export_screenshot().partition("</style>")[0])
        assert drawn
        assert all(max(at) - min(at) < 12 for at in ([int(part, 16) for part in colour] for colour in drawn))

    on_screen(Told(VIEW), act)


def test_a_real_scan(tmp_path: Path) -> None:
    """From its beginning to its end: what is found appears, and then that the run has ended."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await asyncio.sleep(0.1)
        writer.write(b"HELLO 1.0\r\n")
        visit.received = await reader.read()

    port = free_port()
    options = ["-q", "--probes", database_file(tmp_path), "--no-post", "--workers", "1", "--matcher", "reference"]
    command = [sys.executable, "-m", "probemill", "scan", *options, "-i", "-", "--metrics", str(port)]
    pipe = subprocess.PIPE
    with Farm(talk) as farm, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"127.7.2.{last}:{farm.port}\n" for last in range(1, 31)) + "no target\n")
        process.stdin.flush()
        assert process.stdout.readline()
        source = Endpoint(place_of(str(port)))

        async def act(app: TopApp, pilot: "Pilot[None]") -> None:
            await see(
                app, pilot, "30 done", "hardmatched       30  100%", "hello         30  100%", "standard input:31: "
            )
            process.communicate()
            await see(app, pilot, "30 done", "the run has ended: nobody answers any more")

        on_screen(source, act, first=source.look())
    assert process.returncode == 1  # of the line that is no target


def test_an_endpoint_that_becomes_another() -> None:
    """Garbage where a scan was is said; the numbers stay."""
    answers = {"/metrics": text("what?")}

    async def act(app: TopApp, pilot: "Pilot[None]") -> None:
        await see(app, pilot, "no scan of probemill", "48,210 done")

    with endpoint(answers) as port:
        on_screen(Endpoint(place_of(str(port))), act)


def test_the_picture_in_the_docs() -> None:
    """Says what the screen says now, and needs nothing from elsewhere."""
    drawn = PICTURE.read_text(encoding="utf-8")
    assert texts_of(drawn) == texts_of(asyncio.run(picture()))
    assert "url(http" not in drawn.replace('"', "")
    assert len(drawn) < 100_000


class Terminal:
    """The command on a terminal of its own. wait: for some bytes there, and what came until then."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
        )
        os.close(theirs)
        self.said = b""

    def wait(self, part: bytes) -> None:
        while part not in self.said:
            assert select.select([self._ours], [], [], 60)[0], self.said
            with contextlib.suppress(OSError):  # the end of a terminal that nobody has open any more
                if said := os.read(self._ours, 1 << 16):
                    self.said += said
                    continue
            raise AssertionError(self.said)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """The exit code."""
        with contextlib.suppress(AssertionError):
            self.wait(b"never said")
        os.close(self._ours)
        return self.process.wait(60)


RESTORED = b"\x1b[?1049l"  # the screen that was there before


@pytest.mark.parametrize("ending", [b"q", b"\x03", signal.SIGTERM, signal.SIGHUP])
def test_on_a_terminal(ending: bytes | int) -> None:
    """It is drawn there, and leaves the terminal as it was, by keys and by signals."""
    with endpoint({"/metrics": text(metrics())}) as port:
        terminal = Terminal("-m", "probemill", "top", str(port))
        terminal.wait(b"hardmatched")
        if isinstance(ending, bytes):
            terminal.press(ending)
        else:
            terminal.process.send_signal(ending)
        terminal.wait(RESTORED)
        assert terminal.end() == 0
    assert b"Traceback" not in terminal.said


def test_without_the_extra() -> None:
    """One line says how to have it."""
    script = "import sys; sys.modules['textual'] = None; from engine.cli.start import main; sys.argv[1:] = %r; main()"
    with endpoint({"/metrics": text(metrics())}) as port:
        terminal = Terminal("-c", script % ["top", str(port)])
        assert terminal.end() == 2
    said = terminal.said.decode().strip()
    assert said.endswith("top: needs an extra package (textual.app): pip install 'probemill[top]'")
    assert "\n" not in said
