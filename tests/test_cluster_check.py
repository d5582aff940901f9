"""A look at a real cluster of two nodes, and what is seen of a scan on it: one node has few descriptors."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Farm, database_file, greeting_after

from bench.ray_cluster import GUARD, RayCluster, ray_cluster

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

FEW = ("sh", "-c", 'ulimit -n 1024; exec "$@"', "sh")
ENVIRONMENT = {**os.environ, **GUARD}
BLIND = """
import engine.pool.cluster.check as check
from engine.cli.main import main
check.seen = lambda *_: False
check.remove = lambda *_: None
check.LOOKS_S = (0.0,)
main()
"""  # a driver that sees another folder than its nodes


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(1, cpus=1) as made:
        made.add(prefix=FEW)
        yield made


def of(cluster: RayCluster) -> list[str]:
    return ["--ray-address", cluster.address, "--ray-options", str(cluster.options)]


def check(cluster: RayCluster, *arguments: str, program: tuple[str, ...] = ("-m", "probemill")) -> tuple[int, Any]:
    command = [sys.executable, *program, "cluster", "check", "--json", *of(cluster), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=ENVIRONMENT)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def verdicts(report: Any, name: str) -> dict[str, str]:
    return {
        node["node"]: finding["verdict"]
        for node in report["nodes"]
        for finding in node["findings"]
        if finding["name"] == name
    }


def test_nodes_that_are_fit(cluster: RayCluster, tmp_path: Path) -> None:
    """Few descriptors are a warning; what was put is gone, and so is the folder that was made for it."""
    code, report = check(cluster, "--state", str(tmp_path / "run"))
    assert code == 0, report
    for name in ("probemill", "Python", "Ray", "database", "segments", "clock"):
        assert verdicts(report, name) == {cluster.ip(0): "ok", cluster.ip(1): "ok"}, name
    assert verdicts(report, "descriptors")[cluster.ip(1)] == "warning"
    (few,) = (node["facts"]["descriptors"] for node in report["nodes"] if node["node"] == cluster.ip(1))
    assert few == [1024, 1024]
    assert not list(tmp_path.iterdir())


def test_a_state_folder_that_is_not_shared(cluster: RayCluster, tmp_path: Path) -> None:
    """It is said, and what the nodes have put in theirs is removed."""
    code, report = check(cluster, "--state", str(tmp_path), program=("-c", BLIND))
    assert code == 1
    assert verdicts(report, "segments") == {cluster.ip(0): "bad", cluster.ip(1): "bad"}
    assert not list(tmp_path.iterdir())


def scan(cluster: RayCluster, folder: Path, database: Path | str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "probemill", "scan", "-q", "--runner", "ray", *of(cluster)]
    command += ["--state", str(folder / "run"), "--probes", str(database), "--no-post", "--matcher", "reference"]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)


def looked_at(process: "subprocess.Popen[str]") -> tuple[list[dict[str, Any]], list[str]]:
    """The nodes as SIGUSR1 tells them: of the JSON line, and of the table behind it."""
    assert process.stderr is not None
    process.send_signal(signal.SIGUSR1)
    while not (line := process.stderr.readline()).startswith("{"):
        assert line, "it has ended"
    nodes = json.loads(line)["nodes"]
    header, *table = [process.stderr.readline() for _ in (None, *nodes)]
    assert header.split()[0] == "node"
    return nodes, table


def test_what_is_seen_of_a_scan(cluster: RayCluster, tmp_path: Path) -> None:
    """Which node has done what, and lost what: a signal shows it as a table, too, and so do the last numbers."""

    def until(true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first node of which this is true."""
        deadline = time.monotonic() + 120
        while True:
            nodes, table = looked_at(process)
            assert {line.split()[0] for line in table} == {cluster.ip(0), cluster.ip(1)}
            if found := list(filter(true, nodes)):
                return found[0]
            assert time.monotonic() < deadline, nodes
            time.sleep(0.3)

    with (
        Farm(greeting_after(0.0)) as farm,
        scan(
            *(cluster, tmp_path, database_file(tmp_path)),
            *("-i", "-", "-o", "-", "--format", "ndjson", "--workers", "2", "--stats-every", "1h"),
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"127.7.0.1:{farm.port}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["name"] == "hello"
        busy = until(lambda node: node["done"] == 1)["node"]
        (actor,) = (pid for pid in cluster.pids([cluster.ip(0), cluster.ip(1)].index(busy)) if is_actor(pid))
        os.kill(actor, signal.SIGKILL)
        lost = until(lambda node: node["lost"] == 1)
        assert (lost["node"], lost["done"]) == (busy, 1)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    last = json.loads(said.splitlines()[-1])["nodes"]
    assert {node["node"]: (node["done"], node["lost"]) for node in last} == {
        node: (int(node == busy),) * 2 for node in (cluster.ip(0), cluster.ip(1))
    }


def is_actor(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Actor")
    return False


def test_warnings_of_actors_are_told_once(cluster: RayCluster, tmp_path: Path) -> None:
    """With the actor and its node in front. Here each warns of a database without probes."""
    database = tmp_path / "probes"
    database.write_text("# nothing\n")
    with Farm(greeting_after(0.0)) as farm:
        process = scan(cluster, tmp_path, database, "--workers", "2", f"127.7.0.1:{farm.port}", "-i", "-")
        assert process.stdin is not None
        warned: list[str] = []
        with process:
            assert process.stderr is not None
            while len(warned) < 2 and (line := process.stderr.readline()):
                warned.append(line)
            _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert not rest
    told = [
        re.fullmatch(r"probemill: WARNING: actor (\d) \(node ([\d.]+), pid \d+\): .* has no Probe line: .*\n", line)
        for line in warned
    ]
    assert {match and match[2] for match in told} == {cluster.ip(0), cluster.ip(1)}
