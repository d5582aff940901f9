"""The audit of exactly-once: scans that are killed at random moments and resumed, and what they leave behind.

    python -m bench.chaos [--rounds 20] [--targets 5000] [--seed N]

Each round scans a loopback farm (bench/farm.py) into a state folder, kills the whole process group with SIGKILL one to
three times, at moments drawn over the length of an undisturbed run, and resumes until it is done. After every kill all
visible segments must be whole; at the end every target must have exactly one row. Where a small tmpfs may be mounted,
a last round fills the disk instead. Exit code 1 if anything was lost, doubled or broken.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec
import zstandard
from msgspec import Struct

from bench.farm import DATABASE, ROOT, addresses, farm

DELAY_S = 0.05
GIVE_UP_S = 120  # one scan that takes longer hangs
DISK = 1 << 20  # bytes of the small disk
SPARE = 24 << 10  # bytes that are left on it for the first attempt


class Row(Struct):
    ip: str
    port: int
    verdict: str
    reason: str = ""
    host: str = ""


class Audit(Struct):
    """What the segments of a state folder hold, against what was asked for."""

    rows: int
    lost: int
    doubled: int
    strange: int

    @property
    def perfect(self) -> bool:
        return not (self.lost or self.doubled or self.strange)


def read_rows(state: Path) -> list[Row]:
    """The rows of all visible segments. Raises ValueError or ZstdError for anything but whole frames and lines."""
    rows: list[Row] = []
    for path in sorted(state.glob("part-*.ndjson.zst")):
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        text = unpacker.decompress(path.read_bytes())
        if not unpacker.eof or unpacker.unused_data or not text.endswith(b"\n"):
            raise ValueError(f"{path} is not one whole frame of whole lines")
        rows += msgspec.json.Decoder(Row).decode_lines(text)
    return rows


def audit(state: Path, targets: Sequence[str]) -> Audit:
    """strange: rows of other targets, or of targets that were cancelled."""
    rows = read_rows(state)
    seen = Counter(f"{row.ip}:{row.port}" for row in rows if row.reason != "cancelled")
    wanted = set(targets)
    doubled = sum(count - 1 for count in seen.values())
    return Audit(len(rows), len(wanted - seen.keys()), doubled, len(rows) - seen.total() + len(seen.keys() - wanted))


class Arena(Struct):
    """A farm's targets in a file, and how to scan them. inflight: bounds the speed, so a kill finds work undone."""

    folder: Path
    targets: list[str]
    inflight: int = 400

    @classmethod
    def build(cls, folder: Path, port: int, count: int, inflight: int = 400) -> "Arena":
        targets = [f"{address}:{port}" for address in addresses(count)]
        (folder / "targets.txt").write_text("".join(f"{target}\n" for target in targets))
        (folder / "probes").write_bytes(DATABASE)
        return cls(folder, targets, inflight)

    @contextlib.contextmanager
    def start(self, state: Path, *options: str, stdin: IO[bytes] | None = None) -> "Iterator[subprocess.Popen[str]]":
        """A scan into `state`, in a process group of its own, which does not outlive the block."""
        command = [sys.executable, "-m", "probemill", "scan", "-i", str(self.folder / "targets.txt")]
        command += ["--probes", str(self.folder / "probes"), "--matcher", "reference", "--workers", "2", "--quiet"]
        command += ["--max-inflight", str(self.inflight), "--state", str(state), "--resume", "--segment-seconds", "0.1"]
        command += options
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stdin=stdin, stderr=pipe, text=True
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def finish(self, state: Path, *options: str) -> tuple[int, str]:
        """Scan to the end. -> exit code, what was said on stderr"""
        with self.start(state, *options) as process:
            _, said = process.communicate(timeout=GIVE_UP_S)
        return process.returncode, said

    def kill(self, state: Path, after_s: float) -> bool:
        """Scan, and kill all its processes after a while. False if it was done before."""
        with self.start(state) as process:
            try:
                process.wait(after_s)
            except subprocess.TimeoutExpired:
                return True
        return False


@contextlib.contextmanager
def small_disk(mount: Path) -> Iterator[Path | None]:
    """A file system of DISK bytes, or None where this user may not mount one."""
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "probemill-chaos", str(mount)]
    allowed = os.geteuid() == 0 and shutil.which("mount") is not None
    if not allowed or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def fill(disk: Path, spare: int = SPARE) -> Path:
    """A file that leaves `spare` bytes on the disk."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - spare))
    return filler


def killed_round(arena: Arena, state: Path, rng: random.Random, length_s: float) -> tuple[list[float], Audit]:
    """One to three kills, then to the end. -> when it was killed, what was found"""
    kills = [rng.uniform(0.1, length_s)]
    while not arena.kill(state, kills[0]):  # it was done before: the machine has become faster
        shutil.rmtree(state)
        kills[0] *= 0.7
    read_rows(state)
    for _ in range(rng.randint(0, 2)):
        after_s = rng.uniform(0.1, length_s)
        if not arena.kill(state, after_s):
            break
        kills.append(after_s)
        read_rows(state)
    code, said = arena.finish(state)
    if code:
        raise SystemExit(f"the resumed scan ended with {code}: {said}")
    return kills, audit(state, arena.targets)


def full_disk_round(arena: Arena, disk: Path) -> tuple[str, Audit]:
    """Run into a full disk, make room, resume. -> what the scan said of it, what was found"""
    filler = fill(disk)
    code, said = arena.finish(disk / "state")
    if code != 1:
        raise SystemExit(f"the scan on a full disk ended with {code}: {said}")
    read_rows(disk / "state")
    filler.unlink()
    code, more = arena.finish(disk / "state")
    if code:
        raise SystemExit(f"the scan with room again ended with {code}: {more}")
    return said.strip(), audit(disk / "state", arena.targets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--targets", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.targets} targets a round")
    rng = random.Random(options.seed)
    total = Audit(0, 0, 0, 0)
    killed = 0
    with tempfile.TemporaryDirectory() as name, farm(DELAY_S) as port:
        arena = Arena.build(Path(name), port, options.targets)
        began = time.monotonic()
        arena.finish(Path(name) / "undisturbed")
        length_s = time.monotonic() - began
        print(f"undisturbed: {length_s:.1f} s")
        found = []
        for number in range(options.rounds):
            state = Path(name) / f"state-{number}"
            kills, result = killed_round(arena, state, rng, length_s)
            killed += len(kills)
            found.append(result)
            moments = " ".join(f"{moment:.2f}" for moment in kills)
            print(f"{number + 1:3}  killed at {moments:16}  {result.rows} rows  {'ok' if result.perfect else result}")
            shutil.rmtree(state)
        with small_disk(Path(name) / "disk") as disk:
            if disk is None:
                print("full disk: left out, a tmpfs cannot be mounted here")
            else:
                said, result = full_disk_round(arena, disk)
                found.append(result)
                print(f"full disk: {said}\n     room again: {result.rows} rows  {'ok' if result.perfect else result}")
        for result in found:
            total.rows += result.rows
            total.lost += result.lost
            total.doubled += result.doubled
            total.strange += result.strange
    print(f"{killed} kills, {total.rows} rows: {total.lost} lost, {total.doubled} doubled, {total.strange} strange")
    return 0 if total.perfect else 1


if __name__ == "__main__":
    sys.exit(main())
