"""How a scan begins: what it imports, the worker that is started ahead, the others; how soon a start can be ended."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from installed import greeter
from loopback import Farm, collect, config, database_file, greeting_after
from rich.console import Console

from engine import ahead
from engine.api import scan
from engine.cli import sets
from engine.model import ScanConfig
from engine.pool.runners.processes import ProcessRunner

LIMIT_S = 3.0  # for what takes a tenth of it on a machine that has nothing else to do
PATIENCE_S = 60.0
# An error is being told when a signal comes.
INTERRUPTED_WHILE_FAILING = """
import os, signal, sys
from engine.cli import main, start
main._fail = lambda line, code: os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["probemill", "no-such-command"]
start.main()
"""
# Says that signals are heard from here on, and goes on as the command does.
PROGRAM = """
import os, sys
from engine.cli import start
start.listen(start._leave)
os.write(1, b"\\n")
sys.argv = ["probemill", *sys.argv[1:]]
start.main()
"""
COMMANDS = {  # and how long their cold start takes, about; at how many moments it is interrupted
    "scan": (["scan", "--probes", "builtin", "--no-post"], 0.8, 20),
    "match": (["match", "-q", "--probes", "builtin"], 0.6, 6),
    "compile": (["db", "compile", "--probes", "builtin"], 1.0, 6),
}


@pytest.fixture
def nothing_ahead() -> Iterator[None]:
    yield
    ahead.dismiss()


@contextmanager
def listening(cache: Path, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A command that hears signals by now."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def imported(program: str) -> set[str]:
    """The modules that there are when a program has run."""
    told = "import sys, json; print(json.dumps(list(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", f"{program}; {told}"], check=True, capture_output=True)
    return set(json.loads(ended.stdout))


# -- imports


def test_what_the_command_imports() -> None:
    """Who wants the version waits for no scan: no event loop, no tables, no processes."""
    there = imported("import engine.cli.main")
    assert not there & {"asyncio", "subprocess", "ssl", "rich", "prometheus_client", "importlib.metadata", "uvloop"}
    assert not any(module.startswith(("engine.pool", "engine.results", "engine.targets")) for module in there)


def test_what_a_scan_imports() -> None:
    """Nothing that only some scans need: metrics, tables, stored rows, lakes, nor what its workers do."""
    there = imported("import engine.cli.main, engine.cli.scan")
    assert not there & {"prometheus_client", "http.server", "rich.console", "rich.table", "cryptography", "uvloop"}
    assert not there & {"engine.pool.worker", "engine.offline.rows_in", "engine.cli.metrics", "importlib.metadata"}


def test_what_a_worker_imports() -> None:
    """No command line, what reads certificates with the first of them, HTTP/2 and QUIC with those who ask in them."""
    there = imported("import engine.pool.serve")
    assert not there & {"click", "rich", "cryptography", "h2", "aioquic", "engine.run", "importlib.metadata"}


def test_what_starts_a_worker_ahead_imports() -> None:
    """Nothing of ours but how it is started."""
    there = imported("import engine.cli.start, engine.ahead")
    ours = {"engine", "engine.cli", "engine.cli.start", "engine.ahead", "engine.isolated", "engine.signals"}
    assert {module for module in there if module.partition(".")[0] in {"engine", "matcher", "msgspec"}} == ours


# -- processes


@pytest.mark.usefixtures("nothing_ahead")
def test_a_process_that_was_started_ahead_is_the_first_to_be_taken() -> None:
    ahead.start_ahead()
    ((process, link),) = ahead._ahead
    assert ahead.take() == (process, link)
    another, its_link = ahead.take()
    assert another.pid != process.pid
    for one, its in ((process, link), (another, its_link)):  # nobody has told them anything
        its.close()
        assert one.wait(PATIENCE_S) == 0


@pytest.mark.usefixtures("nothing_ahead")
def test_a_process_that_nobody_takes_is_ended() -> None:
    ahead.start_ahead()
    ((process, _),) = ahead._ahead
    ahead.dismiss()
    assert process.poll() is not None
    ahead.dismiss()  # there is none any more


@pytest.mark.parametrize("hosts", [1, 40])
def test_a_worker_is_started_when_there_is_work_for_it(tmp_path: Path, hosts: int) -> None:
    """One host is the business of one process, however many there may be."""
    runner = ProcessRunner(config(database_file(tmp_path), workers=3))

    async def run(farm: Farm) -> int:
        scanning = asyncio.create_task(collect(farm.targets(*(f"127.4.0.{host + 1}" for host in range(hosts))), runner))
        most = 0
        while not scanning.done():
            most = max(most, len(runner.pids))
            await asyncio.sleep(0.01)
        rows, _ = await scanning
        assert len(rows) == hosts
        return most

    assert not runner.ready
    with Farm(greeting_after(0.2)) as farm:
        assert asyncio.run(run(farm)) == min(hosts, 3)
    assert runner.ready


# -- a cold start


def test_a_cold_start_says_nothing(tmp_path: Path) -> None:
    """The first scan of an empty cache has its row, and no word of what it had to prepare."""
    with greeter() as port:
        command = [sys.executable, "-m", "probemill", "scan", f"127.0.0.1:{port}"]
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        ended = subprocess.run(command, check=True, capture_output=True, env=environment, timeout=PATIENCE_S)
    row = json.loads(ended.stdout)
    assert (row["name"], row["product"]) == ("ssh", "OpenSSH")
    assert ended.stderr == b""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_cold_start_ends_when_it_is_asked_to(tmp_path: Path, name: str) -> None:
    """At any moment, soon, with one line and the exit code of whoever is interrupted; its workers end, too."""
    arguments, lasts_s, moments = COMMANDS[name]
    with greeter() as port:
        target = [f"127.0.0.1:{port}"] if name == "scan" else []
        for moment in range(moments):
            cache = tmp_path / str(moment)
            with listening(cache, *arguments, *target) as process:
                time.sleep(moment / moments * lasts_s)
                process.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[moment % 3])
                asked = time.monotonic()
                _, said = process.communicate(timeout=PATIENCE_S)
                assert time.monotonic() - asked < LIMIT_S
            if process.returncode == 0 and name != "match":  # it was done before
                continue
            assert process.returncode == 130, said
            assert said.startswith(b"probemill: interrupted"), said
            assert said.count(b"\n") == 1, said


def test_who_asks_twice_is_told_once(tmp_path: Path) -> None:
    """A second signal, while the first is being heard, changes nothing: one line and one exit code."""
    for moment in range(6):
        with listening(tmp_path, "match", "-q", "--probes", "builtin") as process:
            time.sleep(0.8)
            process.send_signal(signal.SIGINT)
            time.sleep(moment * 0.0005)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, said) == (130, b"probemill: interrupted\n")


def test_who_asks_often_while_a_scan_is_being_loaded(tmp_path: Path) -> None:
    """Its worker is ended once, and is waited for once."""
    for moment in range(3):
        with listening(tmp_path, "scan", "--no-post", "127.0.0.1:9") as process:
            time.sleep(0.05 * (moment + 1))
            for _ in range(40):
                process.send_signal(signal.SIGINT)
                time.sleep(0.0005)
            _, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, said.count(b"interrupted\n")) == (130, 1)


def test_who_asks_while_an_error_is_told() -> None:
    """The end is that of an interrupted command, without a traceback."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_FAILING], check=False, capture_output=True, timeout=PATIENCE_S
    )
    assert (ended.returncode, ended.stderr) == (130, b"probemill: interrupted\n")


@pytest.mark.parametrize(
    ("lasts_s", "quiet", "said"), [(0.3, False, f"{sets.PREPARING}\n"), (0.3, True, ""), (0.0, False, "")]
)
def test_a_command_that_prepares_says_so(
    lasts_s: float, quiet: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it lasts, and once; nothing of it where it is quick, or where nobody wants to know."""
    monkeypatch.setattr(sets, "PATIENCE_S", 0.1)
    monkeypatch.setattr(sets, "open_matcher", lambda *_: time.sleep(lasts_s))
    page = io.StringIO()
    sets.ready_matcher((), "auto", Console(file=page), quiet)
    assert page.getvalue() == said


@pytest.mark.parametrize("workers", [0, 2])
def test_who_has_enough_of_waiting_for_a_start(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout around a scan ends it in time, whatever its worker or its thread is at."""
    child = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("engine.ahead.command", lambda function, descriptor: child)
    monkeypatch.setattr("engine.conversation.context.open_matcher", lambda *_: time.sleep(LIMIT_S * 2))

    async def run() -> None:
        async with asyncio.timeout(0.3):
            async for _ in scan(["127.0.0.1:9"], ScanConfig(workers=workers)):
                pass

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert time.monotonic() - began < LIMIT_S
