"""What a report costs: `python -m bench.report [--rows N] [--keep FOLDER]`, or `make bench-report`.

Rows of a made-up scan (bench/report_rows.py) go through `probemill report` in a process of its own: time, peak resident
memory, size of the page. Then Chromium opens the page and searches and sorts: the time until the rows are in sight (of
a search, without the 60 ms after which the last key counts as the last), and the longest time for which the page did
not answer meanwhile. What the page, the CSV and the Markdown say is compared with what the rows were while they were
made, before any time is printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from msgspec import Struct
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from bench.report_rows import Row, rows

ROWS = 1_000_000
CHROMIUM = "/usr/bin/chromium"
ROUNDS = 5

SEARCHES: dict[str, Callable[[Row], bool]] = {
    "nginx": lambda row: row.get("product") == "nginx",
    "port:443 nginx": lambda row: row["port"] == 443 and row.get("product") == "nginx",
    'product="OpenSSH" version="9.10"': lambda row: row.get("product") == "OpenSSH" and row["version"] == "9.10",
    "-state:open": lambda row: row["state"] != "open",
    "certificate:srv77.example": lambda row: "srv77.example" in " ".join(row.get("tls", {}).get("names", ())),
    "no-such-text-anywhere": lambda row: False,
    "": lambda row: True,
}
SORTS = ("version", "address", "product", "expires")

# From a change of the search to the rows in sight, in ms; the longest gap between ticks of 5 ms; what was found.
MEASURE = """async (act) => {
    const grid = document.querySelector('#grid');
    let last = performance.now(), longest = 0;
    const tick = setInterval(() => {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
    });
    const began = performance.now();
    const done = new Promise((ready) => new MutationObserver((_, watching) => { watching.disconnect(); ready(); })
        .observe(grid, { attributes: true, attributeFilter: ['data-found'] }));
    if (act.sort) document.querySelector(`#head [data-name=${act.sort}] button`).click();
    else {
        document.querySelector('#search').value = act.words;
        document.querySelector('#search-form').requestSubmit();
    }
    await done;
    const took = performance.now() - began;
    clearInterval(tick);
    return [took, longest, document.querySelector('#told').textContent];
}"""


class Cost(Struct):
    """seconds: by the clock; cpu: of processor; peak: resident memory, and size: of the page, in bytes."""

    seconds: float
    cpu: float
    peak: int
    size: int


def make(path: Path, count: int) -> Counter[str]:
    """The rows as NDJSON. -> how many of them each search is to find, and `answered`"""
    found: Counter[str] = Counter()
    with path.open("wb") as file:
        for row in rows(count):
            file.write(orjson.dumps(row) + b"\n")
            found.update(words for words, has in SEARCHES.items() if has(row))
            found["answered"] += row["verdict"] != "incomplete"
    return found


def measure(folder: Path) -> Cost:
    """In a process of its own."""
    outputs = [word for name in ("r.html", "r.md", "r.csv") for word in ("-o", str(folder / name))]
    command = [sys.executable, "-m", "probemill", "report", str(folder / "rows.ndjson"), *outputs, "-q"]
    began = time.monotonic()
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"probemill report ended with {status}")
    cpu = used.ru_utime + used.ru_stime
    return Cost(time.monotonic() - began, cpu, used.ru_maxrss * 1024, (folder / "r.html").stat().st_size)


def check_texts(folder: Path, count: int, found: Counter[str]) -> None:
    with (folder / "r.csv").open("rb") as file:
        assert sum(1 for _ in file) == found["answered"] + 1
    assert f"| ports asked | {count:,} |" in (folder / "r.md").read_text()


@contextmanager
def opened(path: Path) -> Iterator[tuple[Page, float]]:
    """The page in Chromium, and how long it took until rows were in sight."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.monotonic()
        page.goto(path.as_uri())
        page.wait_for_selector("#window [role=row]", timeout=120_000)
        yield page, time.monotonic() - began
        browser.close()


def acts(page: Page, act: dict[str, Any], wanted: int) -> tuple[float, float, float]:
    """-> the median and the longest time, and the longest pause, in ms"""
    times, pauses = [], []
    for _ in range(ROUNDS):
        took, pause, told = page.evaluate(MEASURE, act)
        assert int(told.split()[0].replace(",", "")) == wanted, (act, told, wanted)
        times.append(took)
        pauses.append(pause)
    return median(times), max(times), max(pauses)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--keep", type=Path)
    given = options.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        found = make(folder / "rows.ndjson", given.rows)
        cost = measure(folder)
        check_texts(folder, given.rows, found)
        table = Table("in the page", "found", "median ms", "longest ms", "longest pause ms")
        with opened(folder / "r.html") as (page, load):
            for words in SEARCHES:
                figures = acts(page, {"words": words}, found[words])
                table.add_row(words or "(everything)", f"{found[words]:,}", *(f"{figure:.0f}" for figure in figures))
            for name in SORTS:
                figures = acts(page, {"sort": name}, given.rows)
                table.add_row(f"sorted by {name}", f"{given.rows:,}", *(f"{figure:.0f}" for figure in figures))
    console.print(
        f"{given.rows:,} rows: {cost.seconds:.1f} s ({cost.cpu:.1f} s of processor), {cost.peak / 1e6:.0f} MB at most; "
        f"a page of {cost.size / 1e6:.1f} MB, which shows its rows after {load:.1f} s"
    )
    console.print(table)


if __name__ == "__main__":
    main()
