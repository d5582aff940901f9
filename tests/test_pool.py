"""The pool of worker processes and the command that runs it: deaths, faults, signals, pipes, full disks."""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from loopback import DATABASE, Farm, Visit, collect, config, database_file, greeting_after, scan, silent

from engine.errors import EngineError
from engine.model import Batch, Reason, Target, Verdict
from engine.pool.runners import processes
from engine.pool.runners.base import Runner
from engine.pool.runners.inline import InlineRunner
from engine.pool.runners.processes import ProcessRunner
from engine.results.sinks.base import decode_rows

PATIENCE_S = 30.0


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


def addresses(count: int) -> list[str]:
    return [f"127.4.{number // 250}.{number % 250 + 1}" for number in range(count)]


@contextlib.contextmanager
def command(database: str, *arguments: str, **options: object) -> "Iterator[subprocess.Popen[bytes]]":
    """A running `probemill scan` with two workers; killed at the end of the block if it has not ended."""
    line = [sys.executable, "-m", "probemill", "scan", "-q", "--no-post", "--probes", database, "--workers", "2"]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([*line, "--matcher", "reference", *arguments], **given) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def until_visited(farm: Farm, count: int) -> None:
    limit = time.monotonic() + PATIENCE_S
    while len(farm.visits) < count:
        assert time.monotonic() < limit, f"{len(farm.visits)} visits"
        time.sleep(0.01)


def finish(process: "subprocess.Popen[bytes]") -> tuple[list[dict[str, object]], str]:
    """Wait for its end. -> rows, stderr"""
    output, said = process.communicate(timeout=PATIENCE_S)
    rows = [json.loads(line) for line in (output or b"").splitlines()]
    return rows, said.decode()


# -- what workers tell


def test_conversations_that_are_open(database: str) -> None:
    """A worker tells how many it has, not how many targets it was given; when all is done there are none."""

    async def run(farm: Farm) -> None:
        runner = ProcessRunner(config(database, workers=2, max_inflight=12))
        assert runner.conversations() == [0, 0]
        scanning = asyncio.create_task(collect(farm.targets(*addresses(60)), runner))
        while sum(runner.conversations()) < 12:
            assert not scanning.done()
            await asyncio.sleep(0.01)
        assert max(runner.conversations()) <= 6
        assert sum(runner.outstanding()) > 12
        await scanning
        assert runner.conversations() == [0, 0]

    with Farm(greeting_after(0.4)) as farm:
        asyncio.run(run(farm))


# -- workers that die


def test_a_worker_is_killed(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every target has exactly one row, and the log says what happened."""
    targets = addresses(600)

    async def kill_one(runner: ProcessRunner, farm: Farm) -> int:
        while len(farm.visits) < 150:
            await asyncio.sleep(0.01)
        pid = runner.pids[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def run(farm: Farm) -> tuple[list[str], int]:
        runner = ProcessRunner(config(database, workers=2, max_inflight=80))
        killing = asyncio.create_task(kill_one(runner, farm))
        rows, _ = await collect(farm.targets(*targets), runner)
        assert runner.restarts == 1
        assert runner.outstanding() == [0, 0]
        assert {row.verdict for row in rows} == {Verdict.HARDMATCHED}
        return [row.ip for row in rows], await killing

    with caplog.at_level(logging.WARNING, "probemill.pool"), Farm(greeting_after(0.05)) as farm:
        found, pid = asyncio.run(run(farm))
    assert Counter(found) == dict.fromkeys(targets, 1)
    assert f"(pid {pid}) died with status -9" in caplog.text


def test_a_database_that_changes_is_told(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that takes another one's place reads it again."""
    targets = addresses(400)

    async def change_and_kill(runner: ProcessRunner, farm: Farm) -> None:
        while len(farm.visits) < 30 or not all(slot.ready for slot in runner._slots):
            await asyncio.sleep(0.01)
        with Path(database).open("ab") as file:
            file.write(b"# another one\n")
        os.kill(runner.pids[0], signal.SIGKILL)

    async def run(farm: Farm) -> int:
        runner = ProcessRunner(config(database, workers=2, max_inflight=20))
        changing = asyncio.create_task(change_and_kill(runner, farm))
        rows, _ = await collect(farm.targets(*targets), runner)
        await changing
        return len(rows)

    with caplog.at_level(logging.WARNING, "probemill.pool"), Farm(greeting_after(0.2)) as farm:
        assert asyncio.run(run(farm)) == 400
    assert "has changed since the scan began" in caplog.text


@pytest.mark.parametrize("main", ["raise SystemExit(7)", "import os; os.kill(os.getpid(), 9)"])
def test_workers_that_die_at_once(database: str, main: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are replaced a few times, then the run gives up with a word of why."""
    child = [sys.executable, "-c", main]
    monkeypatch.setattr("engine.ahead.command", lambda function, descriptor: child)
    with pytest.raises(EngineError, match=r"worker \d dies again and again"):
        scan(["127.4.0.1:9"], config(database, workers=2))


@pytest.mark.parametrize("count", [1, 200])
def test_a_target_that_kills_every_worker(database: str, count: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is narrowed down and has its row; everybody else is answered as if nothing had been."""
    targets = addresses(count)
    culprit = targets[count // 2]
    runner = ProcessRunner(config(database, workers=1, max_inflight=50))

    async def kill(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address == culprit:
            for pid in runner.pids:
                os.kill(pid, signal.SIGKILL)
        else:
            await greeting_after(0.0)(reader, writer, visit)

    with caplog.at_level(logging.WARNING, "probemill.pool"), Farm(kill) as farm:
        rows, tally = asyncio.run(collect(farm.targets(*targets), runner))
    assert Counter(row.ip for row in rows) == dict.fromkeys(targets, 1)
    (crashed,) = (row for row in rows if row.verdict is Verdict.INCOMPLETE)
    assert (crashed.ip, crashed.reason, crashed.database.name) == (culprit, Reason.CRASHED, database)
    assert tally["reason:crashed"] == 1
    assert tally["verdict:hardmatched"] == count - 1
    assert f"{culprit} port" in caplog.text


def test_a_worker_that_hangs_is_replaced(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped for good, it gives no sign of life; its targets are scanned by another."""
    monkeypatch.setattr(processes, "HANG_S", 6.0)
    targets = addresses(1000)

    async def stop_one(runner: ProcessRunner, farm: Farm) -> None:
        while len(farm.visits) < 30 or not all(slot.ready for slot in runner._slots):
            await asyncio.sleep(0.01)
        os.kill(runner.pids[0], signal.SIGSTOP)

    async def run(farm: Farm) -> list[str]:
        runner = ProcessRunner(config(database, workers=2, max_inflight=20))
        stopping = asyncio.create_task(stop_one(runner, farm))
        rows, _ = await collect(farm.targets(*targets), runner)
        await stopping
        assert runner.restarts == 1
        assert {row.verdict for row in rows} == {Verdict.HARDMATCHED}
        return [row.ip for row in rows]

    with Farm(greeting_after(0.05)) as farm:
        assert Counter(asyncio.run(run(farm))) == dict.fromkeys(targets, 1)


@pytest.mark.parametrize("how", ["deadline", "signal"])
def test_workers_that_do_not_listen_do_not_keep_a_run_from_ending(database: str, how: str) -> None:
    """Whatever hangs inside them, the run ends, and says what is missing."""
    with Farm(silent) as tarpit:
        targets = tarpit.targets(*addresses(4))
        options = ["--deadline", "3s"] if how == "deadline" else []
        with command(database, *targets, *options) as process:
            until_visited(tarpit, 4)
            for pid in children(process.pid):
                os.kill(pid, signal.SIGSTOP)
            if how == "signal":
                process.send_signal(signal.SIGTERM)
            rows, said = finish(process)
    assert rows == []
    assert process.returncode == (1 if how == "deadline" else 130)
    assert "0 of 4 done, 4 not reached" in said


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("signals", [1, 2])
def test_an_output_that_nobody_reads(database: str, tmp_path: Path, signals: int) -> None:
    """A pipe that is full holds the rows up and nothing else; who asks twice does not wait for it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    with (
        Farm(greeting_after(0.0)) as farm,
        command(database, *farm.targets(*addresses(200)), "-o", str(path)) as process,
    ):
        until_visited(farm, 200)
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None
        if signals == 1:  # it waits, and a reader that comes back gets the rows
            os.set_blocking(reader, True)
            read = b"".join(iter(lambda: os.read(reader, 65536), b""))
            assert len(read.splitlines()) == 200
        else:
            process.send_signal(signal.SIGINT)
        _, said = finish(process)
        os.close(reader)
    assert process.returncode == 130
    assert ("an output takes nothing" in said) == (signals == 2)


def test_a_deadline_with_an_output_that_nobody_reads(database: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    with Farm(greeting_after(0.0)) as farm:
        targets = farm.targets(*addresses(200))
        with command(database, *targets, "-o", str(path), "--deadline", "2s") as process:
            _, said = finish(process)
    os.close(reader)
    assert process.returncode == 1
    assert "an output takes nothing" in said


@pytest.mark.parametrize(
    "inputs", ["10.0.0.0/8 -p 1-1000 --blocklist 10.0.0.0/8", "10.0.0.0/8 -p 1-1000 --exclude-reserved", "-i {sparse}"]
)
@pytest.mark.parametrize("how", ["deadline", "signal"])
def test_a_run_without_a_target_hears_too(database: str, tmp_path: Path, inputs: str, how: str) -> None:
    """Nothing but targets that are left out, or a line that never ends: the loop has its turn."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    arguments = inputs.format(sparse=sparse).split()
    ending = ["--deadline", "1s"] if how == "deadline" else ["--stats-every", "100ms"]
    with command(database, *arguments, *ending) as process:
        if how == "signal":
            assert process.stderr is not None
            assert process.stderr.readline()  # it has begun
            process.send_signal(signal.SIGTERM)
        rows, said = finish(process)
    assert rows == []
    assert process.returncode == (1 if how == "deadline" else 130)
    assert "the input was not read to its end" in said


def test_a_worker_that_is_done_is_not_stuck(database: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It has said goodbye while another is still at it."""
    monkeypatch.setattr(processes, "HANG_S", 6.0)
    monkeypatch.setattr(processes, "LOOK_S", 0.1)

    async def run(farm: Farm) -> int:
        runner = ProcessRunner(config(database, workers=3))
        rows, _ = await collect(farm.targets("127.4.0.1"), runner)
        assert runner.restarts == 0
        return len(rows)

    with caplog.at_level(logging.WARNING, "probemill.pool"), Farm(greeting_after(0.0)) as farm:
        assert asyncio.run(run(farm)) == 1
        slow = config(database_file(Path(database).parent / "..", DATABASE.replace(b"ms 400", b"ms 4000")), workers=3)
        with Farm(silent) as tarpit:
            rows, _ = scan([*tarpit.targets("127.4.0.2"), *farm.targets(*addresses(3))], slow)
    assert len(rows) == 4
    assert "stuck" not in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_with_the_targets_takes_no_rows_along(database: str, workers: int) -> None:
    async def source(port: int) -> "AsyncIterator[Sequence[Target]]":
        yield [Target(number, host, port) for number, host in enumerate(addresses(20))]
        raise KeyError("whatever the caller's iterable does")

    async def run(port: int) -> int:
        rows = []

        async def deliver(batch: Batch) -> None:
            rows.extend(decode_rows(batch.rows))

        settings = config(database, workers=workers)
        runner: Runner = ProcessRunner(settings) if workers else InlineRunner(settings)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(KeyError):
                await runner.run(source(port), deliver)
        return len(rows)

    with Farm(greeting_after(0.1)) as farm:
        assert asyncio.run(run(farm.port)) == 20


# -- other people's code


def test_nothing_of_the_working_folder_is_imported(database: str, tmp_path: Path) -> None:
    """A file there that is named like a module of ours, of the standard library or of anybody else is left alone."""
    names = {name.partition(".")[0] for name in sys.modules} | {"uvloop", "hyperscan", "re2", "pcre2", "zstandard"}
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in names - {"__main__"}:
        (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r} + chr(10))\n")
    script = Path(sys.executable).with_name("probemill")
    with Farm(greeting_after(0.0)) as farm:
        line = [str(script), "scan", "-q", "--no-post", "--probes", database, "--workers", "2"]
        done = subprocess.run(
            [*line, *farm.targets(*addresses(4))], cwd=trap, capture_output=True, text=True, check=False
        )
    assert not (tmp_path / "sprung").exists(), (tmp_path / "sprung").read_text()
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_no_process_is_left_behind(database: str) -> None:
    runner = ProcessRunner(config(database, workers=2))
    with Farm(greeting_after(0.0)) as farm:
        asyncio.run(collect(farm.targets(*addresses(10)), runner))
    assert runner.pids == []
    with contextlib.suppress(ChildProcessError):
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)  # whatever else this test process has started


@pytest.mark.parametrize("text", [b"Probe nonsense\n", b"Probe TCP NULL q||\nmatch x m|(|\n"])
def test_a_bad_database_is_one_line(tmp_path: Path, text: bytes) -> None:
    path = database_file(tmp_path, text)
    with command(path, "127.4.0.1:9") as process:
        _, said = finish(process)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith("probemill: ")
    assert path in said


def test_too_few_descriptors(database: str) -> None:
    """One line says so, before anything is started."""
    line = f"ulimit -n 12; {sys.executable} -m probemill scan -q --probes {database} 127.0.0.1:9"
    ended = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1
    assert b"ulimit -n" in ended.stderr


@pytest.mark.parametrize("arguments", [["schema"], ["--help"], ["db", "stats", "builtin"]])
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_standard_output_fails(arguments: list[str], redirection: str) -> None:
    line = " ".join([sys.executable, "-m", "probemill", *arguments, redirection])
    ended = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"probemill: ")
    assert ended.stderr.count(b"\n") == 1


def test_standard_streams_are_closed(database: str, tmp_path: Path) -> None:
    """No socket takes their numbers, and the rows go where they should."""
    with Farm(greeting_after(0.0)) as open_:
        out = tmp_path / "rows.ndjson"
        scan = f"scan {open_.targets(*addresses(1))[0]} --no-post --probes {database} -o {out}"
        line = f"{sys.executable} -m probemill {scan} <&- >&- 2>&-"
        assert subprocess.run(["/bin/sh", "-c", line], check=False).returncode == 0
    assert json.loads(out.read_text())["verdict"] == "hardmatched"


# -- being asked to end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("input_has_ended", [True, False])
def test_asked_to_end(tmp_path: Path, number: signal.Signals, input_has_ended: bool) -> None:
    """What is known is written, what was in flight is marked, and the exit code says that there was more to do."""
    slow = database_file(tmp_path, DATABASE.replace(b"totalwaitms 400", b"totalwaitms 60000"))
    with Farm(greeting_after(0.0)) as open_, Farm(silent) as tarpit:
        targets = open_.targets(*addresses(20)) + tarpit.targets(*addresses(20))
        with command(slow, "-i", "-", stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write("".join(f"{target}\n" for target in targets).encode())
            process.stdin.flush()
            if input_has_ended:
                process.stdin.close()
                process.stdin = None
            until_visited(open_, 20)
            until_visited(tarpit, 20)
            time.sleep(0.5)  # for the greetings to be read
            process.send_signal(number)
            rows, said = finish(process)
    assert process.returncode == 130
    assert said.startswith("probemill: interrupted: 20 of 40 done, 20 not reached")
    assert said.count("\n") == 1
    assert Counter(row["verdict"] for row in rows) == {"hardmatched": 20, "incomplete": 20}
    assert {row.get("reason") for row in rows} == {None, "cancelled"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_asked_to_end_while_it_starts(database: str, number: signal.Signals, workers: str, tmp_path: Path) -> None:
    """From our first instruction on: one line, the exit code, and no output without its tail."""
    out = tmp_path / "rows.xml"
    with Farm(silent) as tarpit:
        line = ["probemill", "scan", "-q", "--probes", database, "--workers", workers, "-o", str(out)]
        line += tarpit.targets(*addresses(1))
        for wait_s in (0.02, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6):  # from our first instruction
            out.unlink(missing_ok=True)
            program = (
                "import os, sys, threading\n"
                f"sys.argv = {line!r}\n"
                "from engine.cli import start\n"
                "start.listen(start._leave)\n"
                f"threading.Timer({wait_s}, os.kill, (os.getpid(), {int(number)})).start()\n"
                "start.main()\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S
            )
            assert done.returncode == 130, (wait_s, done.stderr)
            assert done.stderr.startswith("probemill: interrupted")
            assert done.stderr.count("\n") == 1
            assert not out.exists() or out.read_text().endswith("</nmaprun>\n") or out.read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("wait_for_workers", [True, False])
def test_the_whole_group_is_asked_to_end(database: str, number: signal.Signals, wait_for_workers: bool) -> None:
    """`^C`, `timeout` and a terminal that goes away reach the workers, too, even those that are still starting."""
    with Farm(silent) as tarpit:
        targets = tarpit.targets(*addresses(4))
        with command(database, *map(str, targets), "--stats-every", "50ms", start_new_session=True) as process:
            if wait_for_workers:
                until_visited(tarpit, 4)
            else:
                assert process.stderr is not None
                process.stderr.readline()  # the handlers are in place
            os.killpg(process.pid, number)
            rows, said = finish(process)
    assert process.returncode == 130
    assert "died" not in said
    assert "Traceback" not in said
    assert {row["reason"] for row in rows} <= {"cancelled"}


def test_asked_before_the_workers_are_up(database: str) -> None:
    """A run that is cancelled while it starts contacts nobody, or at most what it had begun."""

    async def run(farm: Farm, runner: Runner) -> int:
        runner.cancel(Reason.CANCELLED)
        rows, _ = await collect(farm.targets(*addresses(500)), runner)
        return len(rows)

    for workers in (0, 2):
        settings = config(database, workers=workers, max_inflight=10)
        runner = ProcessRunner(settings) if workers else InlineRunner(settings)
        with Farm(greeting_after(0.0)) as farm:
            assert asyncio.run(run(farm, runner)) == 0
            assert not farm.visits


def test_deadline_after_the_input_has_ended(tmp_path: Path) -> None:
    """What it cuts short has not been done: that is said, and the exit code."""
    slow = database_file(tmp_path, DATABASE.replace(b"totalwaitms 400", b"totalwaitms 60000"))
    with Farm(silent) as farm, command(slow, "--deadline", "2s", *farm.targets(*addresses(3))) as process:
        rows, said = finish(process)
    assert process.returncode == 1
    assert "the deadline has passed: it cut 3 of 3 short" in said
    assert {row["reason"] for row in rows} == {"budget"}


# -- pipes and files


def test_a_reader_that_leaves_is_not_an_error(database: str) -> None:
    """As with `| head -1`: no message, no waiting for the services that nobody wants to hear of."""
    with Farm(greeting_after(0.05)) as farm:
        targets = farm.targets(*addresses(400))
        with command(database, "--max-inflight", "20", *targets) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"{")
            process.stdout.close()
            process.stdout = None
            _, said = finish(process)
    assert said == ""
    assert process.returncode == 0
    assert len(farm.visits) < 400


def test_results_come_while_the_input_goes_on(database: str) -> None:
    """A pipe that stays open: each line is answered without the next."""
    with Farm(greeting_after(0.0)) as farm, command(database, "-i", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for address in addresses(3):
            process.stdin.write(f"{address}:{farm.port}\n".encode())
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
            assert readable
            assert json.loads(process.stdout.readline())["ip"] == address
        process.stdin.close()
        process.stdin = None
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_full_output(database: str) -> None:
    targets = addresses(5)
    with Farm(greeting_after(0.0)) as farm, command(database, "-o", "/dev/full", *farm.targets(*targets)) as process:
        _, said = finish(process)
    assert process.returncode == 1
    assert said == "probemill: /dev/full: No space left on device\n"


def test_few_descriptors(database: str) -> None:
    """A hard limit far below the number of targets: everything is scanned, a few at a time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    targets = addresses(300)
    with Farm(greeting_after(0.01)) as farm, command(database, *farm.targets(*targets), preexec_fn=limit) as process:
        rows, said = finish(process)
    assert (process.returncode, said) == (0, "")
    assert {row["verdict"] for row in rows} == {"hardmatched"}
    assert len(rows) == len(farm.visits) == 300


# -- the flow from the sinks back to the reader


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_sink_holds_the_scan_back(database: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, nothing stands still, and what is read ahead is bounded."""
    monkeypatch.setattr("engine.pool.runners.inline.QUEUED_BATCHES", 2)
    monkeypatch.setattr("engine.pool.descriptors.WAITING_RESULTS", 0)
    settings = config(database, workers=workers, max_inflight=20, batch_rows=2, connect_timeout_s=0.3)
    runner: Runner = ProcessRunner(settings) if workers else InlineRunner(settings)
    rows: list[str] = []
    ahead: list[int] = []
    given = 0

    async def source(port: int) -> "AsyncIterator[Sequence[Target]]":
        nonlocal given
        for start in range(0, 150, 10):
            hosts = addresses(150)[start : start + 10]
            given += 10
            yield [Target(start + number, host, port) for number, host in enumerate(hosts)]

    async def deliver(batch: Batch) -> None:
        rows.extend(row.ip for row in decode_rows(batch.rows))
        ahead.append(given - len(rows))
        await asyncio.sleep(0.01)

    async def run(port: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await runner.run(source(port), deliver)

    with Farm(greeting_after(0.0)) as farm:
        asyncio.run(run(farm.port))
    assert Counter(rows) == dict.fromkeys(addresses(150), 1)
    assert max(ahead) <= 2 * 20 + 3 * 10  # the window, and a list that overlaps it, one at the door, one being made
