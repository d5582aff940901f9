"""`probemill top` without its screen: what the sources see, whatever they meet, and what is made of it."""

import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from daemons import free_port
from loopback import Farm, database_file, greeting_after
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from test_metrics import COUNTS, collector, run
from watched import Told, endpoint, text

from engine.cli.main import cli
from engine.cli.metrics import RunMetrics
from engine.cli.top import endpoint as endpoint_module
from engine.cli.top.command import text_of
from engine.cli.top.endpoint import Endpoint, place_of
from engine.cli.top.folder import StateFolder
from engine.cli.top.tables import ORDERS, SHOWN, boards, flowed, status, table_of
from engine.cli.top.view import Asked, History, Load, UnseenError, View, closed
from engine.cli.top.watch import GONE, Watch
from engine.errors import ConfigError

HOSTILE = "\x1b[31m[red]<b>\u202e\r\nx" + "y" * 500


def metrics(**changed: object) -> str:
    """What the endpoint of a run says."""
    registry = CollectorRegistry()
    registry.register(RunMetrics(run(**changed)))
    return generate_latest(registry).decode()


def look(port: int) -> View:
    return Endpoint(place_of(str(port))).look()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("9464", "http://127.0.0.1:9464/metrics"),
        ("scanner.example:9464", "http://scanner.example:9464/metrics"),
        ("[::1]:9464", "http://[::1]:9464/metrics"),
        ("http://[::1]:9464/", "http://[::1]:9464/metrics"),
        ("http://192.0.2.7:9464/metrics", "http://192.0.2.7:9464/metrics"),
        ("https://scans.example/one/metrics", "https://scans.example:443/one/metrics"),
    ],
)
def test_places(said: str, meant: str) -> None:
    assert str(place_of(said)) == meant


@pytest.mark.parametrize(
    "bad",
    [
        *("0", "65536", "nowhere", "host:", ":9464", "host:port", "ftp://host:1/", "file:///etc/passwd", "http://"),
        *("http://a:b@host:1/metrics", "host:1/a b", "host:1/\r\nX: y", "[::g]:1", "host:99999", "\x1b[31m:1", ""),
    ],
)
def test_what_is_no_place(bad: str) -> None:
    """One line, without what could move a cursor."""
    with pytest.raises(ConfigError, match="is no PORT, HOST:PORT") as raised:
        place_of(bad)
    assert str(raised.value).isprintable()


def test_a_run_is_seen_whole() -> None:
    """Everything that a run tells Prometheus which somebody who looks wants to know, and its log."""
    log = f"12:00:00 WARNING one\n12:00:01 WARNING {HOSTILE}\n"
    with endpoint({"/metrics": text(metrics()), "/log": text(log)}) as port:
        view = look(port)
    assert (view.done, view.read, view.input_ended, view.elapsed_s) == (9, 20, True, 2.0)
    assert view.in_flight == sum(run().conversations())
    assert view.rate == 4.5
    assert view.left_s == pytest.approx(11 / 4.5)
    assert view.verdicts == {"hardmatched": 7, "incomplete": 2}
    assert view.reasons == {"timeout": 2}
    assert view.services == {"ssh": 7}
    assert view.probes == {"GetRequest": Asked(2, 450, 0), "NULL": Asked(None, None, 7)}
    assert view.slow == [("10.0.0.9", 65_000)]
    assert [load.name for load in view.workers] == ["0", "1"]
    assert [(load.name, load.numbers["done"]) for load in view.nodes] == [("10.0.0.1", "500"), ("10.0.0.2", "7")]
    assert view.trouble == {
        **{"worker restarts": 1, "starved of sockets": 4, "engine fallbacks": 1},
        "segments that sinks lack": 2,
    }
    assert view.log[0] == "12:00:00 WARNING one"


def test_without_a_log_the_numbers_are_seen() -> None:
    with endpoint({"/metrics": text(metrics())}) as port:
        assert look(port).log == []


@pytest.mark.parametrize(
    "answer",
    [
        *(text(""), text("<html>Hello</html>"), text("\0\xff" * 1000), text(b"\xff\xfe"), text("x" * (3 << 20))),
        *(text("probemill_targets_done_total NaN\n"), text("probemill_targets_done_total 1\n"), text("{" * 10_000)),
        *(text(metrics().replace("done_total 9.0", "done_total 1e400")), text("no", 500), text("who", 401)),
        text(metrics().replace("elapsed_seconds 2.0", "elapsed_seconds two")),
    ],
)
def test_what_is_no_scan(answer: object) -> None:
    """One line says so, whatever answers there."""
    with endpoint({"/metrics": answer}) as port, pytest.raises(UnseenError, match="no scan of probemill") as raised:
        look(port)
    assert not raised.value.gone
    assert str(raised.value).isprintable()


def test_nobody_is_led_elsewhere() -> None:
    """A redirect is an answer like others: not followed."""
    seen = []

    def elsewhere(asked: BaseHTTPRequestHandler) -> None:
        seen.append(asked.path)
        text(metrics())(asked)

    with endpoint({"/there": elsewhere}) as other:
        moved = text("", 302, Location=f"http://127.0.0.1:{other}/there")
        with endpoint({"/metrics": moved}) as port, pytest.raises(UnseenError, match="answers 302"):
            look(port)
    assert not seen


def test_nobody_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one who says nothing nor one who says a byte at a time."""
    monkeypatch.setattr(endpoint_module, "LIMIT_S", 0.3)

    def silent(asked: BaseHTTPRequestHandler) -> None:
        time.sleep(1.5)

    def dripping(asked: BaseHTTPRequestHandler) -> None:
        asked.send_response(200)
        asked.end_headers()
        for _ in range(1200):
            asked.wfile.write(b"#")
            asked.wfile.flush()
            time.sleep(0.05)

    for answer in (silent, dripping):
        began = time.monotonic()
        with endpoint({"/metrics": answer}) as port, pytest.raises(UnseenError, match="no answer within"):
            look(port)
        assert time.monotonic() - began < 30


def test_a_run_that_has_ended() -> None:
    """Its endpoint refuses: gone, unlike one that is slow."""
    with pytest.raises(UnseenError) as raised:
        look(free_port())
    assert raised.value.gone


def test_rates() -> None:
    """From moment to moment, and over the last seconds for the present."""
    history = History()
    history.add(10.0, 100, 5)
    assert (history.rate(), history.rates()) == (10.0, [])
    for elapsed_s, done in ((11.0, 120), (12.0, 160), (17.0, 160), (17.0, 160)):
        history.add(elapsed_s, done, 7)
    assert history.rates() == [20.0, 40.0, 0.0]
    assert history.rate() == 0.0
    assert history.open() == [5.0, 7.0, 7.0, 7.0]
    history.add(1.0, 3, 1)
    assert (history.rate(), history.open()) == (3.0, [1.0]), "another run has begun there"


def test_a_watch_keeps_the_last_numbers() -> None:
    """It says that a run has ended, that somebody does not answer, that there was a fault; and when all is well."""
    first, second = View(where="here", done=1), View(where="here", done=2)
    gone, slow = UnseenError("refused", gone=True), UnseenError("here: no answer within 5 s")
    source = Told(slow, second, gone)
    watch = Watch(source, first, 0.01)
    assert (watch.state(), watch.latest.done) == ("", 1)
    states = []
    watch.start()
    while watch.looks < 10:
        states.append(watch.state())
        time.sleep(0.001)
    watch.close()
    assert watch.latest == closed(second, GONE)
    assert watch.state() == "the run has ended: nobody answers any more"
    assert (
        Watch(source, View(where="here", done=1, ended="interrupted"), 1.0).state() == "the run has ended: interrupted"
    )


def test_a_fault_of_a_source_is_said() -> None:
    watch = Watch(SimpleNamespace(where="here", look=lambda: 1 / 0), View(where="here", done=1), 0.01)
    watch.start()
    while not watch.looks:
        time.sleep(0.001)
    watch.close()
    assert watch.state().startswith("here: ZeroDivisionError; the numbers are ")


def scanned(folder: Path, tmp_path: Path, hosts: int = 20) -> None:
    """A run that has left its rows in a state folder."""
    with Farm(greeting_after(0.0)) as farm:
        targets = [f"127.7.1.{last}:{farm.port}" for last in range(1, hosts + 1)]
        options = ["-q", "--probes", database_file(tmp_path), "--no-post", "--workers", "1", "--matcher", "reference"]
        command = [sys.executable, "-m", "probemill", "scan", *options, "--state", str(folder), *targets]
        subprocess.run(command, check=True, timeout=60)


def first_rows(source: StateFolder) -> View:
    """Once there are some."""
    for _ in range(600):
        with suppress(UnseenError):  # the folder is still to be made
            view = source.look()
            if view.services:
                return view
        time.sleep(0.05)
    raise AssertionError("no rows")


def test_a_state_folder(tmp_path: Path) -> None:
    """Its committed rows are counted, each once, and it says what it cannot know. Nothing in it changes."""
    folder = tmp_path / "state"
    scanned(folder, tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    source = StateFolder(str(folder))
    for _ in range(3):
        view = source.look()
        assert view.done == 20
        assert view.verdicts == {"hardmatched": 20}
        assert view.services == {"hello": 20}
        assert view.probes == {"NULL": Asked(hits=20)}
        assert view.in_flight is view.elapsed_s is None
        assert (view.rate, view.left_s) == (None, None)
        assert (view.read, view.ended[20:]) == (20, ", all was done")
        assert "in flight" in view.unknown
    assert "how many targets" not in view.unknown
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_state_folder_whose_run_goes_on(tmp_path: Path) -> None:
    """Segments are counted as they come, and that it has ended is not said before it is so."""
    folder = tmp_path / "state"
    options = ["-q", "--probes", database_file(tmp_path), "--no-post", "--workers", "1", "--matcher", "reference"]
    command = [sys.executable, "-m", "probemill", "scan", *options, "-i", "-", "--state", str(folder)]
    command += ["--segment-seconds", "1s"]
    with Farm(greeting_after(0.0)) as farm, subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(f"127.7.1.1:{farm.port}\n")
        process.stdin.flush()
        view = first_rows(StateFolder(str(folder)))
        assert view.services == {"hello": 1}
        assert (view.read, view.ended) == (None, "")
        assert "how many targets" in view.unknown
        process.communicate(f"127.7.1.2:{farm.port}\n", timeout=60)
    view = StateFolder(str(folder)).look()
    assert (view.services, view.read, view.ended[20:]) == ({"hello": 2}, 2, ", all was done")


def test_a_segment_on_the_way_to_its_name(tmp_path: Path) -> None:
    """The journal names it a moment before the folder does: it is counted at a later look."""
    folder = tmp_path / "state"
    scanned(folder, tmp_path, 3)
    [part] = folder.glob("part-*")
    part.rename(tmp_path / "staged")
    source = StateFolder(str(folder))
    for _ in range(2):
        assert "1 segments could not be read" in source.look().unknown
    (tmp_path / "staged").rename(part)
    view = source.look()
    assert view.services == {"hello": 3}
    assert "could not be read" not in view.unknown


def test_a_state_folder_that_lacks_segments(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    scanned(folder, tmp_path, 3)
    for part in folder.glob("part-*"):
        part.unlink()
    view = StateFolder(str(folder)).look()
    assert (view.done, view.verdicts) == (3, {})
    assert "1 segments could not be read" in view.unknown


def test_a_folder_of_no_run(tmp_path: Path) -> None:
    """One line, and nothing is made there."""
    done = CliRunner().invoke(cli, ["top", "--once", str(tmp_path)])
    assert done.exit_code == 1
    assert isinstance(done.exception, ConfigError)
    assert not list(tmp_path.iterdir())
    (tmp_path / "journal").write_bytes(b"\0" * 100)
    with pytest.raises(UnseenError):
        StateFolder(str(tmp_path)).look()


def test_hostile_names_are_plain_text() -> None:
    """One printable line each, no longer than its place."""
    view = View(
        where="here",
        done=1,
        services={HOSTILE: 1},
        slow=[(HOSTILE, 1)],
        probes={HOSTILE: Asked(1, 1, 1)},
        workers=[Load(HOSTILE, {"in flight": HOSTILE})],
        log=[HOSTILE],
        ended=HOSTILE,
        unknown=HOSTILE,
    )
    said = text_of(view)
    assert said.replace("\n", "").isprintable()
    assert "[red]<b>" in said
    assert max(map(len, said.splitlines())) <= 250


def test_orders() -> None:
    view = View(where="here", done=6, services={"b": 1, "c": 3, "a": 1})
    assert [row[0] for row in boards(view, ORDERS[0])[0].rows] == ["c", "a", "b"]
    assert [row[0] for row in boards(view, ORDERS[1])[0].rows] == ["a", "b", "c"]


def test_long_tables_are_cut() -> None:
    said = text_of(View(where="here", done=6, services={f"s{number}": 1 for number in range(SHOWN + 7)}))
    assert "7 more" in said
    assert said.count("4%") == SHOWN


def test_the_status_fits() -> None:
    """Parts are not torn; what is not known is left out."""
    assert status(View(where="here", done=1000)) == ["1,000 done"]
    view = View(where="here", done=50, read=100, input_ended=True, in_flight=7, elapsed_s=90.0, rate=5.0)
    assert status(view) == ["50 done of 100", "5/s", "7 in flight", "10 s left", "1.5 min so far"]
    assert flowed(status(view), 24) == "50 done of 100  5/s\n7 in flight  10 s left\n1.5 min so far"


def test_a_folder_without_a_journal_is_there_and_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match="holds no run"):
        StateFolder(str(tmp_path)).look()


def test_a_run_that_has_ended_has_no_pace() -> None:
    """Neither a rate nor a time left, nor conversations: not where its journal says so, nor where nobody answers."""
    loads = [Load("0", {"in flight": "7", "done": "50"})]
    view = View(
        where="here", done=50, read=100, input_ended=True, in_flight=7, elapsed_s=90.0, rate=5.0, workers=loads,
        nodes=loads,
    )  # fmt: skip
    assert replace(view, ended="interrupted").left_s is None
    watch = Watch(Told(UnseenError("refused", gone=True)), view, 0.01)
    watch.start()
    while not watch.looks:
        time.sleep(0.001)
    watch.close()
    assert status(watch.latest) == ["50 done of 100", "1.5 min so far"]
    assert watch.latest.workers == [] and [node.numbers for node in watch.latest.nodes] == [{"done": "50"}]
    assert watch.state() == "the run has ended: nobody answers any more"


def test_the_command_without_a_terminal() -> None:
    """One line and exit code 2; with --once, text that a script can read."""
    with endpoint({"/metrics": text(metrics()), "/log": text("12:00:00 WARNING so\n")}) as port:
        command = [sys.executable, "-m", "probemill", "top", str(port)]
        pipe = subprocess.PIPE
        refused = subprocess.run(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, timeout=60, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == "probemill: top: needs a terminal; --once prints one look as text\n"
        once = subprocess.run([*command, "--once"], stdin=pipe, stdout=pipe, text=True, timeout=60, check=True).stdout
    lines = once.splitlines()
    assert lines[0] == f"http://127.0.0.1:{port}/metrics"
    assert lines[1].startswith("9 done of 20  4/s  ")
    assert "ssh            7  100%" in lines
    assert lines[-2:] == ["log", "12:00:00 WARNING so"]


def test_where_nobody_scans() -> None:
    command = [sys.executable, "-m", "probemill", "top", "--once", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "nobody answers there; a scan does with --metrics" in done.stderr


def test_a_run_with_hostile_services_is_read_back() -> None:
    """What Prometheus' text escapes comes out as it went in."""
    name = 'a"b\\c\nd{e="f"} 1'
    hostile = collector(1, {**COUNTS, f"service:{name}": 1})
    with endpoint({"/metrics": text(metrics(collector=hostile))}) as port:
        assert name in look(port).services


def test_a_narrow_place_has_fewer_columns() -> None:
    """The most important ones stay whole."""
    board = boards(View(where="here", done=1, probes={"GetRequest": Asked(2, 450, 7)}))[0]
    for width, columns in ((39, 5), (38, 4), (32, 4), (31, 3), (26, 3), (25, 2), (1, 2)):
        assert len(table_of(board, width).columns) == columns
