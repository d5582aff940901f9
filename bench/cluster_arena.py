"""Scans of a loopback farm on a Ray cluster of this machine, and what there is to find afterwards.

    ground = Ground(nodes=3)
    scene = Scene(arena, ground, folder)
    with scene.start() as scan:
        scan.middle()  # some of it is committed, and it is not over
        os.kill(ground.busiest(), signal.SIGKILL)
        code = scan.wait()
    assert scene.found().perfect

A scene is one run: a state folder, a Parquet sink beside it, and the command that scans or goes on. Every wait has an
end, and no process outlives its block.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.chaos import Arena, Row
from bench.farm import ROOT
from bench.lake_contents import keys
from bench.object_store import BUCKET, ObjectStore
from bench.ray_cluster import GUARD, RayCluster, ray_cluster
from engine.state.journal import read_journal
from engine.state.records import summed

GIVE_UP_S = 150.0  # whatever takes longer hangs
ESTABLISHED = "01"  # in /proc/net/tcp
COMES_S = 60.0  # for what is to come of a disturbance
LEFT_S = 30.0  # for actors to be gone when their run is over; Ray takes its time to kill one that is stopped
LOOK_S = 0.05
FIRST, SECOND = 0.5, 0.8  # of the targets: what a command is given at once, and when some of that is committed


class Found(Struct):
    """What is there when a run is over. In segments and Parquet files: targets without a row, rows too many.

    attempts: what was put and does not count. processes: of the command, and actors.
    """

    rows: int
    lost: int
    doubled: int
    lake_lost: int
    lake_doubled: int
    attempts: int
    processes: int

    @property
    def perfect(self) -> bool:
        return not any(getattr(self, name) for name in self.__struct_fields__ if name != "rows")


class Ground:
    """A cluster that may be ruined: `renew` gives another. Used as a block.

    environment: of its nodes and of commands, beside our own.
    """

    cluster: RayCluster

    def __init__(self, nodes: int, cpus: int = 2, environment: Mapping[str, str] | None = None) -> None:
        self.environment = {**GUARD, **(environment or {})}
        self._nodes = nodes
        self._cpus = cpus
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Ground":
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def renew(self) -> None:
        self._stack.close()
        self.cluster = self._stack.enter_context(ray_cluster(self._nodes, self._cpus, self.environment))

    def kill_node(self) -> None:
        """The last one that lives, as if its machine had lost power; never the head."""
        self.cluster.kill(max(node for node in range(1, self.cluster.nodes) if self.cluster.pids(node)))

    def busiest(self) -> int:
        """The actor with the most descriptors, and so with the most conversations."""
        return max(self.actors(), key=_descriptors)

    def actors(self, node: int | None = None) -> list[int]:
        """Processes of actors: of one node, or of all of them."""
        nodes = range(self.cluster.nodes) if node is None else [node]
        return [pid for number in nodes for pid in self.cluster.pids(number) if _name(pid).startswith(b"ray::Actor")]


class Scan:
    """A command that runs. Use `Scene.start`."""

    def __init__(self, scene: "Scene", process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._scene = scene
        self._begun = threading.Event()
        self._released = threading.Event()
        self._feeder = threading.Thread(target=self._feed)
        self._feeder.start()

    def middle(self, at_work: Callable[[], bool] | None = None) -> None:
        """Wait until some of the run is committed and some in flight; it is not over, as it lacks some of its input.

        at_work: how the latter is seen, where conversations are too short to be met.
        """
        self.until(lambda: self._scene.done() > 0)
        self._begun.set()
        self.until(at_work or (lambda: conversations(self._scene.arena) > 0))

    def release(self) -> None:
        """Give it the rest of its input."""
        self._begun.set()
        self._released.set()

    def close(self) -> None:
        self.release()
        self._feeder.join()

    def until(self, condition: Callable[[], bool], limit_s: float = COMES_S) -> None:
        """Wait for something that is to come while the command runs. Raises RuntimeError when it does not."""
        came = False

        def seen() -> bool:  # once is enough: it may not last
            nonlocal came
            came = condition()
            return came or self.process.poll() is not None

        wait_for(seen, limit_s)
        if not came:
            code = self.process.poll()
            raise RuntimeError(f"{'in vain' if code is None else f'ended with {code}'}: {self._scene.said}")

    def wait(self) -> int:
        """For its end, with all of its input. -> exit code. Raises RuntimeError with its numbers when it hangs."""
        self.release()
        wait_for(lambda: self.process.poll() is not None, GIVE_UP_S)
        if (code := self.process.poll()) is None:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            raise RuntimeError(f"it hangs: {self._scene.said}")
        return code

    def _feed(self) -> None:
        lines = [f"{target}\n".encode() for target in self._scene.arena.targets]
        first, second = (int(len(lines) * share) for share in (FIRST, SECOND))
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(b"".join(lines[:first]))
            stdin.flush()
            self._begun.wait()
            stdin.write(b"".join(lines[first:second]))
            stdin.flush()
            self._released.wait()
            stdin.write(b"".join(lines[second:]))


class Scene:
    """options: more of the command. store: where segments are put, if not into the state folder.

    settings: more of the file of `--ray-options`. eyes: a folder for the command's PYTHONPATH.
    """

    def __init__(
        self,
        arena: Arena,
        ground: Ground,
        folder: Path,
        options: Sequence[str] = (),
        store: ObjectStore | None = None,
        *,
        settings: str = "",
        eyes: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.arena = arena
        self.ground = ground
        self.folder = folder
        self.state = folder / "state"
        self.lake = folder / "lake"
        self.store = store
        self.segments = f"s3://{BUCKET}/{folder.name}" if store is not None else ""
        self._options = list(options)
        self.settings = settings
        self._eyes = {"PYTHONPATH": str(eyes)} if eyes is not None else {}
        self.output = folder / "output"  # what the last command has written on stdout
        self._said = folder / "said"
        self._group = 0

    @property
    def said(self) -> str:
        """What the last command has written on stderr so far."""
        return self._said.read_text(encoding="utf-8")

    @contextlib.contextmanager
    def start(self, *more: str, descriptors: Sequence[int] = ()) -> Iterator[Scan]:
        """The command, new or going on, in a process group of its own."""
        cluster = self.ground.cluster
        settings = self.folder / "ray.toml"
        settings.write_text(self.settings + cluster.options.read_text(encoding="utf-8"), encoding="utf-8")
        command = [sys.executable, "-m", "probemill", "scan", "-i", "-", "--quiet"]
        command += ["--probes", str(self.arena.folder / "probes"), "--matcher", "reference", "--no-post"]
        command += ["--max-inflight", str(self.arena.inflight), "--state", str(self.state), "--resume"]
        command += ["--runner", "ray", "--ray-address", cluster.address, "--ray-options", str(settings)]
        command += ["--sink", f"parquet:{self.lake}", *(["--segments", self.segments] if self.segments else [])]
        with (
            self._said.open("wb") as said,
            self.output.open("wb") as output,
            subprocess.Popen(
                [*command, *self._options, *more],
                cwd=ROOT,
                env={**os.environ, **self.ground.environment, **self._eyes},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=said,
                pass_fds=descriptors,
                start_new_session=True,
            ) as process,
        ):
            self._group = process.pid
            scan = Scan(self, process)
            try:
                yield scan
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                scan.close()

    def finish(self, *more: str) -> int:
        """To the end. -> exit code"""
        with self.start(*more) as scan:
            return scan.wait()

    def done(self) -> int:
        """Targets that are committed."""
        with contextlib.suppress(FileNotFoundError):
            header, records = read_journal(self.state)
            if header is not None:
                return len(summed(header, records)[0])
        return 0

    def rows(self) -> list[Row]:
        """Of all committed segments, wherever they lie. Raises RuntimeError where they are not as committed."""
        path = self.folder / "rows.ndjson"
        command = [sys.executable, "-m", "probemill", "convert", "--quiet", str(self.state), str(path)]
        environment = {**os.environ, **self.ground.environment}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the segments cannot be read: {done.stderr}")
        return msgspec.json.Decoder(Row).decode_lines(path.read_bytes())

    def found(self, wanted: Sequence[str] | None = None) -> Found:
        """wanted: the targets that are to have a row, if not all."""
        expected = set(self.arena.targets if wanted is None else wanted)
        seen = Counter(f"{row.ip or row.host}:{row.port}" for row in self.rows())
        table = keys(f"parquet:{self.lake}")
        pairs = zip(table.column("ip").to_pylist(), table.column("port").to_pylist(), strict=True)
        lake = Counter(f"{ip}:{port}" for ip, port in pairs)
        return Found(
            seen.total(),
            len(expected - seen.keys()),
            _too_many(seen, expected),
            len(expected - lake.keys()),
            _too_many(lake, expected),
            self._attempts(),
            self._processes(),
        )

    def _attempts(self) -> int:
        left = len(list(self.state.glob(".tmp-*")))
        if self.segments:
            _, records = read_journal(self.state)
            left += len(_objects(self.segments, self.ground.environment) - {record.key for record in records})
        return left

    def _processes(self) -> int:
        """That are left after a while."""

        def left() -> int:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, 0)
                return 1 + len(self.ground.actors())
            return len(self.ground.actors())

        wait_for(lambda: not left(), LEFT_S)
        return left()


def conversations(arena: Arena) -> int:
    """Connections to the servers of an arena that are open now."""
    ports = {f"{int(target.rpartition(':')[2]):04X}" for target in arena.targets[:100]}
    entries = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(entry[2].rpartition(":")[2] in ports and entry[3] == ESTABLISHED for entry in entries)


def wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    """Until then, or until so much time has passed."""
    until = time.monotonic() + limit_s
    while not condition() and time.monotonic() < until:
        time.sleep(LOOK_S)


def _too_many(seen: Counter[str], expected: set[str]) -> int:
    strangers = sum(count for target, count in seen.items() if target not in expected)
    return sum(count - 1 for target, count in seen.items() if target in expected) + strangers


def _objects(url: str, environment: Mapping[str, str]) -> set[str]:
    """Names of objects below a URL, without it."""
    import pyarrow.fs

    system = pyarrow.fs.S3FileSystem(
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=environment["AWS_REGION"],
        endpoint_override=environment["AWS_ENDPOINT_URL"].removeprefix("http://"),
        scheme="http",
    )
    path = url.removeprefix("s3://")
    selector = pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True)
    found = system.get_file_info(selector)
    return {entry.path.removeprefix(path + "/") for entry in found if entry.type is pyarrow.fs.FileType.File}


def _descriptors(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _name(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
