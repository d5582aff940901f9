"""What a cluster costs, and what its driver holds: `python -m bench.cluster_table [--quick] [WHAT]...`.

    throughput   200,000 banners by two Ray actors, against `--workers 2`, in turns
    start        one target on a cluster that is running: a whole command
    stream       10,000,000 targets through a pipe, most of them refused at once: the driver's memory meanwhile
    memory       of all processes of an idle node that is no head, what they share counted once

One node of two CPUs on loopback (ray_cluster.py), the farm in C (native.py). Rows are counted and checked before a time
counts. `--quick` does a tenth.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from bench.native import addresses, compiled, farm
from bench.ray_cluster import GUARD, RayCluster, ray_cluster

HOSTS = 2000
TOTAL = 200_000
STREAM = 10_000_000
ROUNDS = 3
ANSWERING = 200  # of how many streamed targets one answers
SAMPLE_S = 1.0
SETTLED_S = 10.0
WARM = 0.2  # of a stream, before its memory counts
LIMIT = 400 << 20  # bytes of the driver
GROWTH = 1.15  # from the first part of a stream to the last
WHAT = ("throughput", "start", "stream", "memory")


class Bench:
    def __init__(self, folder: Path, cluster: RayCluster, port: int, scale: int) -> None:
        self.folder = folder
        self.port = port
        self.scale = scale
        self.environment = os.environ | GUARD
        self._nodes = cluster
        self._cluster = ["--runner", "ray", "--ray-address", cluster.address, "--ray-options", str(cluster.options)]
        self._runs = 0

    def command(self, *options: str, ray: bool) -> tuple[list[str], Path]:
        self._runs += 1
        state = self.folder / f"run{self._runs}"
        where = self._cluster if ray else ["--workers", "2"]
        return [
            sys.executable,
            "-m",
            "probemill",
            "scan",
            "-q",
            "--reset",
            "--state",
            str(state),
            *where,
            *options,
        ], state

    def scan(self, targets: Path, total: int, *, ray: bool) -> float:
        """Seconds of a whole command."""
        command, state = self.command("-i", str(targets), ray=ray)
        began = time.monotonic()
        subprocess.run(command, check=True, env=self.environment)
        taken = time.monotonic() - began
        self.check(state, total)
        return taken

    def check(self, state: Path, total: int) -> None:
        """Raises SystemExit where not every target has one row."""
        said = subprocess.run([sys.executable, "-m", "probemill", "state", state], check=True, capture_output=True)
        facts = json.loads(said.stdout)
        if not facts["rows"] == facts["targets_done"] == facts["all_done_below"] == total:
            raise SystemExit(f"{facts['rows']:,} rows of {facts['targets_done']:,} targets, and not of {total:,}")

    def throughput(self) -> bool:
        total = TOTAL // self.scale
        targets, hosts = self.folder / "targets", addresses(HOSTS)
        targets.write_text("".join(f"{hosts[number % HOSTS]}:{self.port}\n" for number in range(total)))
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for ray, taken in times.items():
                taken.append(self.scan(targets, total, ray=ray))
        local, cluster = (statistics.median(taken) for taken in times.values())
        print(
            f"throughput  {total:,} banners, median of {ROUNDS}: --workers 2 {total / local:,.0f}/s ({local:.1f} s), ",
            end="",
        )
        print(f"two actors {total / cluster:,.0f}/s ({cluster:.1f} s): {local / cluster:.0%}")
        return local / cluster >= 0.9

    def start(self) -> bool:
        target = self.folder / "one"
        target.write_text(f"127.1.0.1:{self.port}\n")
        times = [self.scan(target, 1, ray=True) for _ in range(ROUNDS + 1)]
        print("start       one target on a running cluster:", ", ".join(f"{taken:.2f} s" for taken in times))
        return statistics.median(times[1:]) < 3

    def stream(self) -> bool:
        total = STREAM // self.scale
        command, state = self.command("-i", "-", ray=True)
        maker = [sys.executable, "-m", "bench.cluster_table", "--targets", str(total), "--port", str(self.port)]
        began = time.monotonic()
        memory: list[int] = []
        with (
            subprocess.Popen(maker, stdout=subprocess.PIPE) as source,
            subprocess.Popen(command, stdin=source.stdout, env=self.environment) as driver,
        ):
            while driver.poll() is None:
                memory.append(resident(driver.pid))
                time.sleep(SAMPLE_S)
        taken = time.monotonic() - began
        if driver.returncode:
            raise SystemExit(f"the driver ended with {driver.returncode}")
        self.check(state, total)
        steady = [size for size in memory[int(len(memory) * WARM) :] if size] or [0]
        fifth = max(1, len(steady) // 5)
        growth = statistics.mean(steady[-fifth:]) / max(1, statistics.mean(steady[:fifth]))
        print(f"stream      {total:,} targets in {taken:.0f} s, {total / taken:,.0f}/s: the driver had ", end="")
        print(f"{max(memory) >> 20} MiB at most, {growth - 1:+.0%} from the second fifth to the last")
        return max(memory) < LIMIT and growth < GROWTH

    def memory(self) -> bool:
        node = self._nodes.add()
        time.sleep(SETTLED_S)
        pids = self._nodes.pids(node)
        sizes = [proportional(pid) for pid in pids]
        print(f"memory      an idle node: {sum(sizes) >> 20} MiB in {len(pids)} processes")
        return all(sizes)


def proportional(pid: int) -> int:
    """Bytes of memory that a process has, its part of what it shares with others."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) << 10


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def write_targets(total: int, port: int) -> None:
    """Nearly all at a port where nobody listens."""
    for number in range(total):
        host = f"127.{1 + number // 62500 % 200}.{number // 250 % 250}.{number % 250 + 1}"
        sys.stdout.write(f"{host}:{port if number % ANSWERING == 0 else 9}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*WHAT, []])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--targets", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.targets:
        write_targets(options.targets, options.port)
        return 0
    machine = f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    parts = ", ".join(f"{part} {version(part)}" for part in ("probemill", "ray", "uvloop"))
    print(f"{machine}, {parts}, load {os.getloadavg()[0]:.1f}")
    good = True
    with tempfile.TemporaryDirectory() as name, ray_cluster(1, 2) as cluster:
        folder = Path(name)
        with farm(compiled("farm", folder), "banner", ()) as port:
            bench = Bench(folder, cluster, port, 10 if options.quick else 1)
            for what in options.what or WHAT:
                good &= getattr(bench, what)()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
