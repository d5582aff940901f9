"""The audit of exactly-once in sinks: scans that are killed at random moments and resumed, and what readers find.

    python -m bench.chaos_sinks [--kills 20] [--targets 3000] [--seed N] [SINK ...]

For each sink, on the local disk, at a server on loopback and in an S3 API on loopback: scans of a loopback farm with a
state folder and that sink, in small batches, are killed with SIGKILL at moments drawn over the length of an undisturbed
run, and resumed; a scan that is done is followed by the next one, into the same table. With S3, the server is killed
and started again in between, too. All the while a reader reads the table: it must never see half a file, nor a row
twice. In the end every scan must be there with all its rows, each once. Exit code 1 where anything was lost, doubled or
broken.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from bench.chaos import GIVE_UP_S, Arena
from bench.farm import farm
from bench.lake_contents import keys
from bench.object_store import ObjectStore, object_store
from bench.sinks import local_sinks, remote_sinks, server_sinks

DELAY_S = 0.05
OPTIONS = ["--sink-size", "20k", "--sink-seconds", "1", "--scan-name", "chaos"]
AWAY_S = (0.3, 3.0)  # how long the server of an object store is away


class Found(Struct):
    """Of all scans into one sink. seen: how often the reader looked."""

    kills: int = 0
    outages: int = 0
    scans: int = 0
    rows: int = 0
    lost: int = 0
    doubled: int = 0
    seen: int = 0
    broken: str = ""

    @property
    def perfect(self) -> bool:
        return not (self.lost or self.doubled or self.broken)


class Reader:
    """Reads a table over and over in a thread. most: how often any row may be there, raised by whoever adds scans."""

    def __init__(self, url: str) -> None:
        self.most = 1
        self.seen = 0
        self.broken = ""
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.wait(0.1) and not self.broken:
            most = self.most
            try:
                counts = count(self._url)
            except (FileNotFoundError, ConnectionError, OSError) as error:  # the server is away, just now
                if "://" not in self._url:
                    self.broken = repr(error)
                continue
            except Exception as error:
                self.broken = repr(error)
                return
            if counts and max(counts.values()) > most:
                self.broken = f"a row was seen {max(counts.values())} times in {most} scans"
            self.seen += 1


def count(url: str) -> Counter[tuple[str, int]]:
    found = keys(url)
    return Counter(zip(found.column("ip").to_pylist(), found.column("port").to_pylist(), strict=True))


class Trial:
    """Scans into one sink. store: where it lies, if that is to go away now and then; length_s: of a scan in peace."""

    def __init__(self, arena: Arena, folder: Path, url: str, rng: random.Random, store: ObjectStore | None) -> None:
        self.found = Found()
        self._arena = arena
        self._folder = folder
        self._url = url
        self._rng = rng
        self._store = store
        self._length_s = 0.0

    def run(self, kills: int) -> Found:
        found = self.found
        with Reader(self._url) as reader:
            began = time.monotonic()
            self._scan_to_the_end()
            self._length_s = time.monotonic() - began
            while found.kills < kills:
                reader.most = found.scans + 1
                while found.kills < kills and self._is_killed():
                    found.kills += 1
                self._scan_to_the_end()
            found.seen, found.broken = reader.seen, reader.broken
        counts = count(self._url)
        found.rows = counts.total()
        wanted = set(self._arena.targets)
        by_target = Counter({f"{ip}:{port}": number for (ip, port), number in counts.items()})
        found.lost = sum(max(0, found.scans - by_target[target]) for target in wanted)
        strangers = sum(number for target, number in by_target.items() if target not in wanted)
        found.doubled = sum(max(0, number - found.scans) for number in by_target.values()) + strangers
        return found

    def _start(self) -> "contextlib.AbstractContextManager[subprocess.Popen[str]]":
        state = self._folder / f"state-{self.found.scans}"
        return self._arena.start(state, "--sink", self._url, *OPTIONS)

    def _is_killed(self) -> bool:
        """Whether that came before its end. A scan that ends because its sink is away is as good as killed."""
        with self._outages(), self._start() as process:
            try:
                process.communicate(timeout=self._rng.uniform(0.3, self._length_s))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return True
        return process.returncode != 0

    def _scan_to_the_end(self) -> None:
        with self._start() as process:
            _, said = process.communicate(timeout=GIVE_UP_S)
        if process.returncode:
            raise SystemExit(f"{self._url}: the resumed scan ended with {process.returncode}: {said}")
        self.found.scans += 1

    @contextlib.contextmanager
    def _outages(self) -> Iterator[None]:
        """The server goes away and comes back, as long as the block; afterwards it is there."""
        store = self._store
        if store is None:
            yield
            return
        stop = threading.Event()

        def disturb() -> None:
            while not stop.wait(self._rng.uniform(0.5, 3.0)):
                store.kill()
                stop.wait(self._rng.uniform(*AWAY_S))
                store.start()
                self.found.outages += 1

        thread = threading.Thread(target=disturb, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--targets", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("sinks", nargs="*", metavar="SINK", help="which; all where none is named")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.targets} targets a scan")
    rng = random.Random(options.seed)
    perfect = True
    with (
        tempfile.TemporaryDirectory() as name,
        farm(DELAY_S) as port,
        object_store() as store,
        server_sinks() as servers,
    ):
        os.environ.update(store.environment)
        folder = Path(name)
        arena = Arena.build(folder, port, options.targets)
        for sinks, server in ((local_sinks(folder) | servers, None), (remote_sinks(folder), store)):
            for sink, url in sinks.items():
                if options.sinks and sink not in options.sinks:
                    continue
                place = folder / f"states-{sink}"
                place.mkdir()
                began = time.monotonic()
                found = Trial(arena, place, url, rng, server).run(options.kills)
                perfect = perfect and found.perfect
                print(
                    f"{sink:16} {found.kills} kills, {found.outages} outages, {found.scans} scans, {found.rows} rows:"
                    f" {found.lost} lost, {found.doubled} doubled, read {found.seen} times"
                    f"{', ' + found.broken if found.broken else ''}, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
    return 0 if perfect else 1


if __name__ == "__main__":
    sys.exit(main())
