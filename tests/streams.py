"""For the tests of lakes that are servers: rows, and a process that delivers them and can be killed at any moment.

python tests/streams.py MODULE CLASS TARGET RUN BATCHES ROWS    says `N` on a line after batch N is committed
"""

import importlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from engine.model import DatabaseRef, Evidence, Pseudo, ServiceResult, TlsFacts, Tunnel, Verdict
from engine.results.lake.base import Batch, Delivery, Lake
from engine.results.table import pieces

LEAST = ServiceResult(
    ip="",
    port=1,
    proto="udp",
    host="nowhere.example",
    verdict=Verdict.NOMATCH,
    database=DatabaseRef("", ""),
    started="2026-11-21T06:38:13.402Z",
)
MOST = ServiceResult(
    ip="2001:db8::1",
    port=65535,
    proto="tcp",
    host="a.example",
    state="open",
    name="http",
    product='a"b\n\0€😀\\N\t\\.',
    version="1",
    extrainfo="\\.",
    hostname="h",
    ostype="Linux",
    devicetype="router",
    cpe=('cpe:/a:x:"y"', "cpe:/o:z\\{,}", ""),
    tunnel=Tunnel.SSL,
    method="probed",
    conf=10,
    verdict=Verdict.HARDMATCHED,
    evidence=Evidence("GetRequest", 5, True, "x\n", "y\\", "z\0"),
    fingerprint="SF-Port\nSF:x\r\\x00",
    tls=TlsFacts(
        *("TLSv1.3", "x", "h2", "CN=a", "CN=b", ("a", "b"), "1950-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "00"),
        *("rsa 2048", True),
    ),
    post={"n": [1, 2.5, None, "é\0\\u0000\\\0"], "\0": {"deep": True}},
    pseudo=Pseudo(40, "ff"),
    database=DatabaseRef("builtin", "00"),
    started="2026-11-22T00:00:00.000Z",
    elapsed_ms=1 << 40,
    connections=3,
    bytes=1 << 40,
)


def rows(count: int, seed: int = 0) -> list[ServiceResult]:
    """Varied rows, the least and the fullest among them; each (ip, port, proto) once for a seed below 256."""
    chance = random.Random(seed)
    made = [
        msgspec.structs.replace(
            MOST if chance.random() < 0.1 else LEAST,
            ip=f"10.{seed}.{at >> 8 & 255}.{at & 255}" if chance.random() < 0.7 else f"2001:db8:{seed:x}::{at:x}",
            port=chance.randrange(65536),
            proto=chance.choice(["tcp", "udp"]),
            product=chance.choice(["", "OpenSSH", "tab\there", "back\\slash", "line\nbreak", "\0", "ÿ€"]),
            version=chance.choice(["", "1.2"]),
            started=f"2026-11-{chance.randrange(10, 29)}T0{chance.randrange(10)}:30:00.{chance.randrange(100, 999)}Z",
            elapsed_ms=chance.randrange(1 << 33),
        )
        for at in range(count - 2)
    ]
    return [*made, LEAST, MOST]


def lines(made: list[ServiceResult]) -> bytes:
    return b"".join(row.to_json().encode() + b"\n" for row in made)


def key(row: Any) -> tuple[str, int, str]:
    return row.ip, row.port, row.proto


def deliver(lake: Lake, batch: Batch, *blobs: bytes) -> bool:
    """As the delivery does it. False where the lake has the batch already."""
    if lake.holds(batch):
        return False
    for blob in blobs:
        lake.write(blob)
    lake.commit(batch)
    return True


class Writer:
    """The process of this file."""

    def __init__(self, lake: type[Any], target: str, run: str, batches: int, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, lake.__module__, lake.__name__, target, run, str(batches), str(count)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
        )

    def committed(self) -> int | None:
        """The next batch that it says to be committed; None when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return int(line) if line else None

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(60)


def _main(module: str, name: str, target: str, run: str, *numbers: str) -> None:
    batches, count = map(int, numbers)
    lake = getattr(importlib.import_module(module), name)(target, Delivery(run, "night", ""))
    for number in range(1, batches + 1):
        if not lake.holds(batch := Batch(number, number)):
            blob = lines(rows(count, number))
            for piece in pieces(blob, len(blob) // 10):
                lake.write(piece)
                time.sleep(0.01)  # so that a kill mostly finds it writing
            lake.commit(batch)
        print(number, flush=True)
    lake.close()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    _main(*sys.argv[1:])
