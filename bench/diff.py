"""What a comparison of two large scans costs: `python -m bench.diff [--rows N] [--folder DIR]`, a million by default.

Two scans are made, N rows each, five ports a host. Every hundredth row is another version in the second, every
thousandth is gone, and as many are new at its end. `probemill diff` compares them in a process of its own. Its answer
is compared with what was made before a time counts: each target, in order, with its kind. Printed are the time, the
peak of its resident memory, and the most that lay in its scratch folder.

A row takes some 370 bytes: ten million in each scan need 8 GB of disk in DIR (TMPDIR), which are removed at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from threading import Event, Thread

ROWS = 1_000_000
CHANGED, CHANGED_AT, GONE = 100, 2, 1000  # every so manieth; that one is a web server
SERVICES = (
    ("ssh", "OpenSSH", "9.%dp1", 22),
    ("smtp", "Postfix smtpd", "", 25),
    ("http", "nginx", "1.%d.1", 80),
    ("https", "Apache httpd", "2.4.%d", 443),
    ("mysql", "MySQL", "8.0.%d", 3306),
)
_PAUSE_S = 0.2


def line(number: int, changed: bool) -> str:
    """The row of a target, as a scan writes it."""
    name, product, version, port = SERVICES[number % len(SERVICES)]
    row = {"ip": address(number), "port": port, "proto": "tcp", "state": "open", "name": name, "product": product}
    if version:
        row["version"] = version % (number % 40 + 100 * changed)
    row |= {"cpe": [f"cpe:/a:vendor:product:{number % 40}"], "method": "probed", "conf": 10, "verdict": "hardmatched"}
    row |= {"evidence": {"probe": "GetRequest", "line": number % 5000}, "database": {"name": "builtin", "sha256": "5f"}}
    moment = f"2026-11-26T10:{number // 60 % 60:02}:{number % 60:02}.123Z"
    row |= {"started": moment, "elapsed_ms": number % 3000, "connections": 1, "bytes": number % 900}
    return json.dumps(row, separators=(",", ":")) + "\n"


def address(number: int) -> str:
    host = number // len(SERVICES)
    return f"10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"


def scan(rows: int, second: bool) -> Iterator[str]:
    for number in range(rows + (rows // GONE if second else 0)):
        if not (second and number < rows and number % GONE == 0):
            yield line(number, second and number < rows and number % CHANGED == CHANGED_AT)


def expected(rows: int) -> Iterator[tuple[str, int, str]]:
    """Address, port and kind of each finding, in order: ports of a host ascend as its rows do."""
    for number in range(rows + rows // GONE):
        *_, port = SERVICES[number % len(SERVICES)]
        if number >= rows:
            yield address(number), port, "new"
        elif number % GONE == 0:
            yield address(number), port, "gone"
        elif number % CHANGED == CHANGED_AT:
            yield address(number), port, "version"


def write(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def size_of(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone by now
            size += path.stat().st_size
    return size


def run(old: Path, new: Path, out: Path, scratch: Path) -> tuple[float, float, int, int]:
    """-> seconds, seconds of processor time, and bytes at most: of resident memory, in the scratch folder"""
    most = 0
    done = Event()

    def look() -> None:
        nonlocal most
        while not done.wait(_PAUSE_S):
            most = max(most, size_of(scratch))

    watcher = Thread(target=look)
    watcher.start()
    began = time.monotonic()
    command = [sys.executable, "-m", "probemill", "diff", old, new, "-o", out, "--scratch", scratch]
    process = subprocess.Popen(list(map(str, command)))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"probemill diff: exit code {code}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, most


def check(out: Path, rows: int) -> int:
    """-> how many findings; SystemExit where one is wrong"""
    count = 0
    with out.open(encoding="utf-8") as file:
        for text, wanted in zip_longest(file, expected(rows)):
            found = json.loads(text) if text else None
            if found is None or wanted != (found["ip"], found["port"], *found["changes"]):
                raise SystemExit(f"finding {count + 1}: {text!r}, and not {wanted}")
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", default=None, help="for the scans and what memory does not hold")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-diff-", dir=arguments.folder) as name:
        folder = Path(name)
        old, new, out, scratch = (folder / name for name in ("old.ndjson", "new.ndjson", "out.ndjson", "scratch"))
        scratch.mkdir()
        write(old, scan(arguments.rows, second=False))
        write(new, scan(arguments.rows, second=True))
        seconds, worked, memory, disk = run(old, new, out, scratch)
        found = check(out, arguments.rows)
        left = [*scratch.iterdir()]
        if left:
            raise SystemExit(f"left behind: {left}")
    print(f"{arguments.rows:,} rows a scan, {found:,} findings, all as they should be")
    print(f"{seconds:.1f} s ({worked:.1f} s of processor time)")
    print(f"{memory >> 20:,} MiB of memory and {disk >> 20:,} MiB of scratch at most")


if __name__ == "__main__":
    main()
