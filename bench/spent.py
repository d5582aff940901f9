"""What a command has cost: by the clock, of CPU, of memory; of all its processes together."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

SAMPLE_S = 0.25


class Spent(Struct, frozen=True):
    """Seconds by the clock, seconds of CPU of the command and of all that it waited for, megabytes at most."""

    wall: float
    cpu: float
    megabytes: float = 0.0


def spent(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cores: Iterable[int] | None = None
) -> Spent:
    """Run a command to its end. cores: the only ones that it may use. Raises CalledProcessError where it fails."""
    usable = None if cores is None else frozenset(cores)

    def confine() -> None:
        if usable is not None:
            os.sched_setaffinity(0, usable)

    began = time.monotonic()
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, preexec_fn=confine)  # noqa: PLW1509 - no threads
    with Memory(child.pid) as memory:
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Spent(wall, usage.ru_utime + usage.ru_stime, memory.most)


class Memory:
    """Watches a process and its children while the block runs."""

    def __init__(self, pid: int) -> None:
        """samples: megabytes that are resident, by pid."""
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.samples: list[dict[int, float]] = []

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def most(self) -> float:
        """Over all processes together; 0 for what ended before anybody looked."""
        return max((sum(sample.values()) for sample in self.samples), default=0.0)

    def growth(self, since: int) -> float:
        """The greatest growth of a process since a sample."""
        first = self.samples[since]
        return max(
            (
                megabytes / first[pid]
                for sample in self.samples[since:]
                for pid, megabytes in sample.items()
                if pid in first
            ),
            default=1.0,
        )

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            with contextlib.suppress(OSError):  # it has just ended
                children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
                sample = {pid: _resident(pid) for pid in (self._pid, *map(int, children))}
                self.samples.append(sample)


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
