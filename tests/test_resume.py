"""The command itself, killed and resumed on a loopback farm: one row for every target, whatever happens."""

import asyncio
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from loopback import from_items

from bench.chaos import DELAY_S, Arena, Audit, audit, full_disk_round, read_rows, small_disk
from bench.farm import addresses, farm
from engine.model import Target
from engine.targets.source import CHUNK, TargetSource

TARGETS = 3000


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with farm(DELAY_S) as port:
        yield port


@pytest.fixture
def arena(tmp_path: Path, port: int) -> Arena:
    """Slow enough that a run takes about four seconds."""
    return Arena.build(tmp_path, port, TARGETS, inflight=60)


def until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait while the process lives."""
    while not condition() and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, "the scan ended too soon"


def visible(state: Path) -> list[Path]:
    return list(state.glob("part-*"))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_three_times(arena: Arena, tmp_path: Path) -> None:
    """The whole process group, or all but its workers, at random moments once the first rows are committed."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    state = tmp_path / "state"
    for _ in range(3):
        with arena.start(state) as process:
            before = len(visible(state))
            until(lambda: len(visible(state)) > before, process)  # noqa: B023
            time.sleep(rng.uniform(0, 0.3))
            rng.choice((os.kill, os.killpg))(process.pid, signal.SIGKILL)
        assert read_rows(state)
    code, said = arena.finish(state)
    assert (code, said) == (0, "")
    result = audit(state, arena.targets)
    assert result.perfect, result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(arena: Arena, tmp_path: Path, number: signal.Signals) -> None:
    """What is done is committed at once, and what was in flight is left for the next run."""
    state = tmp_path / "state"
    with arena.start(state) as process:
        until(lambda: visible(state), process)
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == 130
    rows = read_rows(state)
    assert 0 < len(rows) < TARGETS
    assert not [row for row in rows if row.reason]
    assert arena.finish(state)[0] == 0
    result = audit(state, arena.targets)
    assert result.perfect, result


def test_a_worker_is_killed(arena: Arena, tmp_path: Path) -> None:
    """The run goes on with another one."""
    state = tmp_path / "state"
    with arena.start(state) as process:
        until(lambda: visible(state), process)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "died with status -9" in said
    result = audit(state, arena.targets)
    assert result.perfect, result


def test_full_disk(arena: Arena, tmp_path: Path) -> None:
    """One line on stderr, exit code 1; with room again the run is completed."""
    with small_disk(tmp_path / "disk") as disk:
        if disk is not None:
            said, result = full_disk_round(arena, disk)
        else:
            said, result = small_files_round(arena, tmp_path / "state")
    assert said.count("\n") == 0, said
    assert "what is committed is safe" in said
    assert result.perfect, result


def small_files_round(arena: Arena, state: Path) -> tuple[str, Audit]:
    """The same with a bound on the size of files, for users who may not mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        code, said = arena.finish(state, "--segment-seconds", "1h")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert arena.finish(state)[0] == 0
    return said.strip(), audit(state, arena.targets)


def test_other_inputs_are_refused(arena: Arena, tmp_path: Path) -> None:
    """Before anything is contacted: with the first target gone, every other would get the wrong ordinal."""
    state = tmp_path / "state"
    with arena.start(state) as process:
        until(lambda: visible(state), process)
        os.killpg(process.pid, signal.SIGKILL)
    rows = len(read_rows(state))
    whole = (tmp_path / "targets.txt").read_text()
    (tmp_path / "targets.txt").write_text(whole.partition("\n")[2])
    code, said = arena.finish(state)
    assert code == 2
    assert said.count("\n") == 1
    assert "the inputs are not those that this run was begun with" in said
    assert len(read_rows(state)) == rows
    (tmp_path / "targets.txt").write_text(whole)
    code, said = arena.finish(state, "-p", "22")
    assert (code, said.count("\n")) == (2, 1)
    assert "was begun with other ports" in said


def test_standard_input_is_given_again(port: int, tmp_path: Path) -> None:
    """The same bytes, from a pipe this time, and more of them; a bare network among them is taken up in the middle."""
    arena = Arena.build(tmp_path, port, 500, inflight=60)
    network = [f"127.200.{i // 256}.{i % 256}:{port}" for i in range(1024)]
    with (tmp_path / "targets.txt").open("a") as file:
        file.write(f"127.200.0.0/22:{port}\n")
    state = tmp_path / "state"
    with arena.start(state) as process:
        until(lambda: len(visible(state)) > 2, process)
        os.killpg(process.pid, signal.SIGKILL)
    more = [f"{address}:{port}" for address in addresses(520)[500:]]
    text = (tmp_path / "targets.txt").read_text() + "".join(f"{target}\n" for target in more)
    (tmp_path / "targets.txt").unlink()
    (tmp_path / "targets.txt").symlink_to("/dev/stdin")
    (tmp_path / "text").write_text(text)
    command = ["cat", str(tmp_path / "text")]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as cat,
        arena.start(state, stdin=cat.stdout) as process,
    ):
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    result = audit(state, [*arena.targets, *network, *more])
    assert result.perfect, result


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress], ids=["zstd", "gzip"])
def test_compressed_targets_are_taken_up(arena: Arena, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """What is compared is the file as it is: it may have grown by a frame; the same lines packed anew are others."""
    path, state = tmp_path / "targets.txt", tmp_path / "state"
    whole = path.read_bytes()
    half = whole.index(b"\n", len(whole) // 2) + 1
    begun = pack(whole[:half])
    path.write_bytes(begun)
    with arena.start(state) as process:
        until(lambda: visible(state), process)
        os.killpg(process.pid, signal.SIGKILL)
    path.write_bytes(pack(whole[:100]) + pack(whole[100:half]))
    code, said = arena.finish(state)
    assert (code, said.count("\n")) == (2, 1)
    assert "the inputs are not those" in said
    path.write_bytes(begun + pack(whole[half:]))
    assert arena.finish(state) == (0, "")
    result = audit(state, arena.targets)
    assert result.perfect, result


def test_a_compressed_input_that_is_damaged(port: int, tmp_path: Path) -> None:
    """Its whole lines are scanned; the damage is one error and exit code 1, or 2 where there is no target at all."""
    arena = Arena.build(tmp_path, port, 300)
    path = tmp_path / "targets.txt"
    whole = gzip.compress(path.read_bytes())
    path.write_bytes(whole + b"more")
    code, said = arena.finish(tmp_path / "state")
    assert code == 1
    first, *others = said.splitlines()
    assert first.startswith(f"{path}:301: damaged gzip data: ")
    assert others == ["probemill: 1 input line skipped"]
    assert audit(tmp_path / "state", arena.targets).perfect
    path.write_bytes(whole[:12])
    code, said = arena.finish(tmp_path / "other")
    assert code == 2
    assert said.startswith(f"{path}:1: ends in the middle of its gzip data")
    assert "no valid target" in said


def test_targets_without_rows(port: int, tmp_path: Path) -> None:
    """Blocked addresses are done with the run that met them; an unknown name has its row, once."""
    arena = Arena.build(tmp_path, port, 100)
    with (tmp_path / "targets.txt").open("a") as file:
        file.write(f"127.1.0.0/27:{port + 1}\nno-such-host.invalid:80\n127.1.0.9:{port}\n")
    (tmp_path / "blocked").write_text("127.1.0.0/28\n")
    state = tmp_path / "state"
    code, said = arena.finish(state, "--blocklist", str(tmp_path / "blocked"))
    assert (code, said) == (0, "")
    code, said = arena.finish(state)
    assert (code, said) == (0, "")
    rows = read_rows(state)
    assert len(rows) == 100 - 15 + 16 + 1
    assert [row.host for row in rows if not row.ip] == ["no-such-host.invalid"]


def test_what_a_folder_holds(port: int, tmp_path: Path) -> None:
    """Said by a command of its own, as JSON."""
    arena = Arena.build(tmp_path, port, 100)
    assert arena.finish(tmp_path / "state")[0] == 0
    command = [sys.executable, "-m", "probemill", "state"]
    told = subprocess.run([*command, str(tmp_path / "state")], check=True, capture_output=True)
    facts = json.loads(told.stdout)
    assert (facts["targets_done"], facts["all_done_below"], facts["rows"]) == (100, 100, 100)
    told = subprocess.run([*command, str(tmp_path)], check=False, capture_output=True)
    assert (told.returncode, told.stderr) == (2, f"probemill: {tmp_path}: holds no run\n".encode())


def test_reading_ends_when_nobody_listens() -> None:
    """A reader with more targets than its queue holds can be cancelled at once, as when an output fails."""

    async def cancel_reader() -> int:
        known = [Target(ordinal, "127.0.0.1", 80) for ordinal in range(10 * CHUNK)]
        lists = aiter(TargetSource(from_items(known), lambda error: None))
        await anext(lists)
        await asyncio.sleep(0.05)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=5)
        for task in pending:
            task.cancel()
        return len(pending)

    assert asyncio.run(cancel_reader()) == 0


def test_pseudo_random_order(port: int, tmp_path: Path) -> None:
    """With a seed the ordinals follow the order of the visits, so that few ranges tell what is done."""
    arena = Arena.build(tmp_path, port, 0, inflight=60)
    (tmp_path / "targets.txt").write_text(f"127.5.0.0/22:{port}\n")
    state = tmp_path / "state"
    with arena.start(state, "--seed", "7") as process:
        until(lambda: len(visible(state)) > 1, process)
        os.killpg(process.pid, signal.SIGKILL)
    code, said = arena.finish(state, "--seed", "8")
    assert code == 2
    assert "was begun with other seed" in said
    assert arena.finish(state, "--seed", "7")[0] == 0
    result = audit(state, [f"127.5.{i // 256}.{i % 256}:{port}" for i in range(1024)])
    assert result.perfect, result
