"""A Ray cluster of several nodes on this machine, for tests and benchmarks: each node on a loopback address of its own.

    with ray_cluster(nodes=3, cpus=2) as cluster:
        probemill scan --runner ray --ray-address ADDRESS --ray-options OPTIONS ...   # cluster.address, cluster.options
        cluster.kill(2)      # with SIGKILL, everything of that node
        cluster.add()

Nodes are 127.X.Y.10, 127.X.Y.11, ..., X and Y drawn for each cluster, so that several do not meet. 127.0.0.1 cannot be
one of them: Ray takes it for "find out". Every process of a node is known by a variable in its environment, so that
nothing else on the machine is touched, and nothing is left.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.object_store import free_port

MARK = "PROBEMILL_BENCH_NODE"
START_S = 90.0
OBJECTS = 80_000_000  # bytes of a node's object store; the least that Ray takes is 78,643,200
# Ray's ports are open on every address of the machine: nobody comes in without this token. Drivers need it, too.
GUARD = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# Dead nodes are noticed within 3 seconds, not 30; nothing is reported to anybody.
SETTINGS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


class RayCluster:
    """address: of the head. options: a file for `--ray-options`. Use `ray_cluster`."""

    def __init__(self, folder: Path, cpus: int, environment: Mapping[str, str]) -> None:
        self.options = folder / "ray.toml"
        self.address = ""
        self._folder = folder
        self._cpus = cpus
        self._environment = {**os.environ, **SETTINGS, **GUARD, **environment}
        self._name = secrets.token_hex(4)
        self._network = f"127.{100 + secrets.randbelow(150)}.{secrets.randbelow(256)}"
        self._nodes = 0
        self.options.write_text(f'[init]\n_node_ip_address = "{self.ip(0)}"\n', encoding="utf-8")

    @property
    def nodes(self) -> int:
        """How many were started; they are numbered from 0."""
        return self._nodes

    def ip(self, node: int) -> str:
        return f"{self._network}.{10 + node}"

    def add(self, resources: str = "{}", prefix: Sequence[str] = ()) -> int:
        """Start another node, the head first; when it is up, its number. One at a time: Ray's ports are found by trial.

        resources: JSON, as `ray start --resources` has it. prefix: of its command, such as one that sets a limit first.
        """
        node = self._nodes
        command = [*prefix, str(Path(sys.executable).with_name("ray")), "start", "--disable-usage-stats"]
        command += [f"--node-ip-address={self.ip(node)}", f"--num-cpus={self._cpus}", f"--resources={resources}"]
        command += [f"--object-store-memory={OBJECTS}"]
        if node == 0:
            self.address = f"{self.ip(0)}:{free_port()}"
            port = self.address.partition(":")[2]
            command += ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self._folder / 'r'}"]
        else:
            command += [f"--address={self.address}"]
        environment = self._environment | {MARK: f"{self._name}-{node}"}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_S, check=False
        )
        if done.returncode:
            raise RuntimeError(f"no Ray node: {done.stderr.decode()[-2000:]}{done.stdout.decode()[-2000:]}")
        self._nodes += 1
        return node

    def pids(self, node: int) -> list[int]:
        """Every process of a node: its raylet, actors, and what else Ray has started there.

        Some write their title over their environment: these are known by their parents.
        """
        mark = f"{MARK}={self._name}-{node}".encode()
        found, parents = set(), {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit():
                    parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.add(int(folder.name))
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def kill(self, node: int) -> None:
        """As if its machine had lost power."""
        until = time.monotonic() + START_S
        while (pids := self.pids(node)) and time.monotonic() < until:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def close(self) -> None:
        for node in range(self._nodes):
            self.kill(node)


@contextlib.contextmanager
def ray_cluster(nodes: int = 1, cpus: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[RayCluster]:
    """A cluster as long as the block. environment: what its processes have beside our own."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: sockets have their paths in it
    cluster = RayCluster(folder, cpus, environment or {})
    try:
        for _ in range(nodes):
            cluster.add()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
