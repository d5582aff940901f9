"""What the tests of lakes share: rows, a simulated S3 on the loopback, and writers that are killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rows import LEAST, MOST

from engine.results.arrow import conformed, lines_of
from engine.results.lake.base import Batch, Delivery, Lake, Unavailable

BUCKET = "lake"
KILLED = 2000  # rows in a batch whose writer is killed
LONG = "Ä" * 80
LAST = "\U0010ffff" * 80  # the last of all texts


def rows_of(count: int, seed: int = 1) -> bytes:
    """NDJSON of varied rows, of two days."""
    chance = random.Random(seed)
    rows = []
    for at in range(count):
        ip = f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}" if chance.random() < 0.8 else f"2001:db8::{at:x}"
        moment = f"2026-11-{21 + (at * 2 >= count)}T{at % 24:02}:15:{at % 60:02}.{at % 1000:03}Z"
        row = replace(
            MOST if at % 5 == 0 else LEAST,
            ip=ip,
            port=chance.randrange(1, 65536),
            product=chance.choice(["", "nginx", LONG, LAST]),
            fingerprint="SF" + "x" * chance.randrange(200) if at % 50 == 0 else "",
            cpe=tuple(f"cpe:/a:{n}" for n in range(at % 3)),
            bytes=chance.randrange(1 << 40),
            started=moment,
        )
        rows.append(row.to_json().encode() + b"\n")
    return b"".join(rows)


def sorted_lines(blob: bytes) -> list[bytes]:
    return sorted(blob.splitlines())


def lines_in(table: Any) -> list[bytes]:
    """The rows of a pyarrow Table as sorted NDJSON lines."""
    return sorted_lines(b"".join(lines_of(conformed(batch)) for batch in table.to_batches()))


def delivery(folder: Path, run: str = "run-1", scan: str = "weekly") -> Delivery:
    return Delivery(run, scan, str(folder / "staging"))


def deliver(lake: Lake, batch: Batch, rows: bytes) -> None:
    """As the engine does it: asked first, and in pieces."""
    if lake.holds(batch):
        return
    half = rows.index(b"\n", len(rows) // 2) + 1
    for piece in (rows[:half], rows[half:]):
        lake.write(piece)
    lake.commit(batch)


class S3:
    """A moto server on a port of the loopback, with one bucket; what it holds goes when it ends."""

    def __init__(self) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT"), timeout=10).close()

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[S3]:
    """With an environment that leads to it."""
    server = S3()
    server.start()
    patch.setenv("AWS_ENDPOINT_URL", server.url)
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_REGION", "us-east-1")
    patch.delenv("AWS_ALLOW_HTTP", raising=False)
    try:
        yield server
    finally:
        server.stop()


class Wire:
    """A port that leads to another, and can be cut: what was sent last arrives, but its answer does not."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._left: int | None = None
        self._open: set[socket.socket] = set()
        self.cut = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut_after(self, pieces: int) -> None:
        """Pieces of what clients send, some to each request."""
        self._left = pieces

    def mend(self) -> None:
        self._left = None
        self.cut.clear()

    def close(self) -> None:
        self.cut.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self._hang_up()

    def _hang_up(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.cut.is_set():
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._server))
            self._open |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(source, target, source is client), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if not asks and self.cut.is_set():
                    break
                if asks and self._left is not None:
                    self._left -= 1
                    if self._left < 0:
                        self.cut.set()
                target.sendall(piece)
        for one in (source, target):
            self._open.discard(one)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()


def check_cuts(wire: Wire, again: Callable[[], Lake], read: Callable[[], Any]) -> None:
    """Wherever a commit loses its answer, for a moment or for long, the batch arrives once."""
    expected: list[bytes] = []
    for at, pieces in enumerate((1, 3, 5, 7, 9, 12)):
        batch, rows = Batch(at + 1, at + 1), rows_of(200, at)
        lake = again()
        lake.write(rows)
        wire.cut_after(pieces)
        mending = threading.Thread(target=lambda: (wire.cut.wait(20), time.sleep(0.2), wire.mend()))
        if at % 2:
            mending.start()
        try:
            lake.commit(batch)
        except Unavailable:
            lake.discard()
        if at % 2:
            wire.cut.set()
            mending.join()
        wire.mend()
        deliver(lake, batch, rows)
        lake.close()
        expected = sorted([*expected, *rows.splitlines()])
        assert lines_in(read()) == expected, f"after {pieces} pieces"


def killed(kind: str, target: str, folder: Path, batch: Batch, *, after: float | None) -> float:
    """A process that delivers the rows, killed `after` seconds from when it begins; returns how long it took."""
    arguments = [kind, target, str(folder), str(batch.first), str(batch.last)]
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"begin\n"
        began = time.monotonic()
        if after is not None:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
        process.wait(60)
    return time.monotonic() - began


def check_kills(kind: str, target: str, folder: Path, again: Callable[[], Lake], read: Callable[[], Any]) -> None:
    """Whenever a writer is killed, the same batch arrives once when it is said again."""
    whole = killed(kind, target, folder, Batch(1, 1), after=None)
    expected = sorted_lines(rows_of(KILLED, 1))
    kills = 6
    for at in range(kills):
        batch = Batch(at + 2, at + 2)
        killed(kind, target, folder, batch, after=whole * (at + random.random()) / kills)
        lake = again()
        deliver(lake, batch, rows_of(KILLED, batch.last))
        lake.close()
        expected = sorted([*expected, *rows_of(KILLED, batch.last).splitlines()])
        assert lines_in(read()) == expected, f"after kill {at}"


def _main(kind: str, target: str, folder: str, first: str, last: str) -> None:
    lake: Lake
    if kind == "delta":
        from engine.results.lake.delta import DeltaLake

        lake = DeltaLake(target, delivery(Path(folder)))
    else:
        from engine.results.lake.iceberg import IcebergLake

        lake = IcebergLake(target, delivery(Path(folder)))
    rows = rows_of(KILLED, int(last))
    print("begin", flush=True)
    deliver(lake, Batch(int(first), int(last)), rows)


if __name__ == "__main__":
    _main(*sys.argv[1:])
