"""The pictures of docs/img: `python -m bench.screenshots`, or `make screenshots`.

The demonstration network (bench/demo.py) is scanned; made-up rows (bench/report_rows.py) have what a loopback network
has not: versions that are behind, certificates, what nobody recognised. A report of both is taken as it looks in
Chromium: its top at three widths and in the dark, its table, the evidence of a row.
"""

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from bench.demo import RESULTS, demonstrate
from bench.report import CHROMIUM
from bench.report_rows import rows
from engine.cli.reading import FaultLines
from engine.insight.report.making import make_report

PLACE = Path(__file__).resolve().parent.parent / "docs" / "img"
MADE = 2000
WIDTHS = {1440: 1000, 1024: 900, 390: 844}
MOST = 150_000  # bytes of a picture


class Watch:
    """Nobody waits for it; faults are printed."""

    def __init__(self) -> None:
        faults = FaultLines()
        self.tell = faults.report_lines
        self.damage = faults.report

    def moved(self, done: int, rows: int) -> None: ...


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(500)
    path = PLACE / f"report-{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size < MOST, path
    print(path.relative_to(PLACE.parent.parent))


def opened(browser: Any, path: Path, width: int, scheme: str) -> Page:
    page: Page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
    page.goto(path.as_uri())
    page.wait_for_selector("#window [role=row]")
    page.wait_for_selector("#chart-heat svg")
    return page


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # short names in the pictures
        asyncio.run(demonstrate(["-q"]))
        Path("made-up.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows(MADE)))
        make_report([RESULTS, "made-up.ndjson"], ["report.html"], MADE * 2, "", Watch())
        path = Path("report.html").resolve()
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for width in WIDTHS:
                take(opened(browser, path, width, "light"), str(width))
            take(opened(browser, path, 1440, "dark"), "dark")
            page = opened(browser, path, 1024, "light")
            page.fill("#search", "age:older port:443")
            page.locator("#rows").scroll_into_view_if_needed()
            page.evaluate("document.querySelector('#rows').scrollIntoView({behavior: 'instant'})")
            take(page, "rows")
            page.click("#window [role=row] >> nth=2")
            take(page, "evidence")
            page = opened(browser, path, 390, "dark")
            page.evaluate("document.querySelector('#rows').scrollIntoView({behavior: 'instant'})")
            take(page, "rows-390")
            browser.close()


if __name__ == "__main__":
    main()
