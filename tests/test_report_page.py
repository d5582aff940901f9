"""A report's page in a browser: at three widths, in light, dark and on paper; search, sort, evidence; no network."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import report_rows
from engine.insight.report import blob
from tests.reports import Row, page_of, reported, row
from tests.test_report_hostile import EVIL, hostile_rows

playwright = pytest.importorskip("playwright.sync_api", reason="needs probemill[pagedev]")
for library in ("duckdb", "altair", "vl_convert"):
    pytest.importorskip(library, reason="needs probemill[report]")

CHROMIUM = Path("/usr/bin/chromium")
WIDTHS = (1440, 1024, 390)
MADE = 1500
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium at /usr/bin/chromium"),
    pytest.mark.xdist_group("browser"),
]

# What sticks out of the window, but for what can be scrolled to or is cut off by what holds it.
STICKING_OUT = """() => [...document.querySelectorAll('body *')].filter((element) => {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1 || element.closest('.skip')) return false;
    for (let held = element.parentElement; held !== document.body; held = held.parentElement)
        if (getComputedStyle(held).overflowX !== 'visible' && held.getBoundingClientRect().right <= innerWidth + 1)
            return false;
    return true;
}).map((element) => element.outerHTML.slice(0, 120))"""

# Of every link to products, versions and certificates, its search and how many rows it finds.
FOUND_BY_LINKS = """async () => {
    const found = [];
    for (const link of document.querySelectorAll('#products [data-find], #tls [data-find]')) {
        const before = document.querySelector('#grid').dataset.found;
        link.click();
        while (document.querySelector('#grid').dataset.found === before) await new Promise((done) => setTimeout(done));
        found.push([link.dataset.find, document.querySelector('#told').textContent.split(' ')[0]]);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Path]:
    folder = tmp_path_factory.mktemp("page")
    rows = list(report_rows.rows(MADE, seed=7))
    reported(folder, rows, "r.html")
    return rows, folder / "r.html"


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a page and waits for its table; whatever it complains of or asks the network for fails the test."""
    contexts = []
    amiss: list[str] = []

    def open_page(path: Path, width: int = 1440, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: amiss.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("dialog", lambda dialog: amiss.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: amiss.append(request.url) if _is_asked(request.url, path) else None)
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("#window [role=row]", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not amiss


def _is_asked(url: str, path: Path) -> bool:
    return not url.startswith("blob:") and url.partition("#")[0] != path.as_uri()


def find(page: Any, words: str) -> int:
    """Types a search. -> how many rows it found"""
    before = page.get_attribute("#grid", "data-found")
    page.fill("#search", words)
    page.wait_for_selector(f'#grid:not([data-found="{before}"])')
    return int(page.inner_text("#told").split()[0].replace(",", ""))


def column(page: Any, name: str) -> list[str]:
    """What is in sight of a column."""
    return [cell.text_content() for cell in page.query_selector_all(f"#window .c-{name}")]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(
    made: tuple[list[Row], Path], opened: Open, tmp_path: Path, width: int, scheme: str
) -> None:
    """The page is as wide as the window, all charts are drawn, and its background is what the scheme says."""
    page = opened(made[1], width, color_scheme=scheme)
    page.wait_for_selector("#chart-heat svg")
    page.screenshot(path=str(tmp_path / f"{scheme}-{width}.png"), full_page=True)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate(STICKING_OUT) == []
    assert page.locator(".chart svg").count() == 5
    assert _brightness(page) > 200 if scheme == "light" else _brightness(page) < 60


def _brightness(page: Any) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_the_theme_can_be_chosen(made: tuple[list[Row], Path], opened: Open) -> None:
    page = opened(made[1], color_scheme="dark")
    assert page.inner_text("#theme") == "Light"
    page.click("#theme")
    assert _brightness(page) > 200
    assert page.inner_text("#theme") == "Dark"


def test_on_paper(made: tuple[list[Row], Path], opened: Open) -> None:
    """Light in any case, without what only a screen can do."""
    page = opened(made[1], color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert _brightness(page) > 240
    for name in ("#finder", "nav", "#theme"):
        assert not page.is_visible(name)
    assert page.is_visible("#products table")


def test_without_scripts_the_summaries_can_be_read(made: tuple[list[Row], Path], opened: Open) -> None:
    page = opened(made[1], java_script_enabled=False)
    assert page.is_visible("#products table")
    assert "need JavaScript" in page.inner_text("noscript")
    assert not page.is_visible(".chart")
    assert not page.is_visible("#finder")


@pytest.mark.parametrize("width", [1440, 390])
def test_a_search_finds_what_the_rows_hold(made: tuple[list[Row], Path], opened: Open, width: int) -> None:
    """By any word, by field, whole or in part, without, and by certificate."""
    rows, path = made
    page = opened(path, width)

    def said(one: Row) -> str:
        return json.dumps(one).lower()

    assert page.inner_text("#told") == "1,500 of 1,500 rows"
    for words, wanted in {
        "NGINX": lambda one: one.get("product") == "nginx",
        "port:443": lambda one: one["port"] == 443,
        "port:443 nginx -version:1.26": lambda one: (
            one["port"] == 443 and one.get("product") == "nginx" and "1.26" not in one.get("version", "")
        ),
        'version="9.10"': lambda one: one.get("version") == "9.10",
        '"Apache httpd"': lambda one: one.get("product") == "Apache httpd",
        'version=""': lambda one: not one.get("version"),
        "reason:refused": lambda one: one.get("reason") == "refused",
        "certificate:srv7.example": lambda one: "srv7.example" in json.dumps(one.get("tls", {})),
        "2001:db8::": lambda one: one["ip"].startswith("2001:db8::"),
        "no-such-thing": lambda one: False,
    }.items():
        assert find(page, words) == sum(map(wanted, rows)), words
    assert find(page, "") == MADE


def test_every_column_sorts_both_ways(made: tuple[list[Row], Path], opened: Open) -> None:
    """In the order of the dictionaries, so versions as versions; what is empty comes last either way."""
    words = page_of(made[1]).words("version")
    page = opened(made[1])
    find(page, "version:.")
    for down in (False, True):
        page.click("#head [data-name=version] button")
        sort = "descending" if down else "ascending"
        page.wait_for_selector(f'#head [data-name=version][aria-sort="{sort}"]')
        found = [words.index(version) for version in column(page, "version")]
        assert found == sorted(found, reverse=down)


def test_a_click_on_a_name_finds_its_rows(made: tuple[list[Row], Path], opened: Open) -> None:
    rows, path = made
    page = opened(path)
    page.click("#products td a >> text=nginx")
    page.wait_for_timeout(300)
    assert page.input_value("#search") == 'product="nginx"'
    count = sum(one.get("product") == "nginx" for one in rows)
    assert page.inner_text("#told") == f"{count:,} of 1,500 rows"


def test_a_click_on_a_bar_finds_its_rows(made: tuple[list[Row], Path], opened: Open) -> None:
    rows, path = made
    page = opened(path)
    page.locator("#chart-services .mark-rect path").first.click()
    page.wait_for_timeout(300)
    most = max(
        {one["name"] for one in rows if "name" in one}, key=lambda name: sum(_plain(one) == name for one in rows)
    )
    assert page.input_value("#search") == f'service="{most}"'


def _plain(one: Row) -> str:
    return "" if one.get("tunnel") else one.get("name", "")


@pytest.mark.parametrize("width", [1440, 390])
def test_a_row_opens_its_evidence(made: tuple[list[Row], Path], opened: Open, width: int) -> None:
    rows, path = made
    page = opened(path, width)
    wanted = next(one for one in rows if "tls" in one)
    find(page, f'address="{wanted["ip"]}" port:{wanted["port"]} certificate:{wanted["tls"]["names"][0]}')
    page.click("#window [role=row]")
    page.wait_for_selector("dialog[open]")
    said = page.inner_text("#details-body")
    for part in (
        wanted["product"],
        str(wanted["evidence"]["line"]),
        f"{wanted['elapsed_ms']:,} ms",
        wanted["tls"]["sha256"],
        wanted["post"]["http"]["title"],
        "rows.ndjson",
    ):
        assert part in said
    assert page.evaluate(STICKING_OUT) == []
    page.keyboard.press("Escape")
    assert not page.is_visible("dialog")


def test_the_table_can_be_used_with_the_keyboard(made: tuple[list[Row], Path], opened: Open) -> None:
    page = opened(made[1])
    page.focus("#scroll")
    for key, active in (("ArrowDown", 1), ("ArrowUp", 0), ("End", MADE - 1), ("PageUp", None), ("Home", 0)):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        here = page.get_attribute("#scroll", "aria-activedescendant")
        assert page.is_visible(f"#{here}")
        assert active is None or here == f"row-{active}"
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")


def test_a_fingerprint_can_be_copied(made: tuple[list[Row], Path], browser: Any, opened: Open) -> None:
    page = opened(made[1], permissions=["clipboard-read", "clipboard-write"])
    page.click("#unknown summary >> nth=0")
    page.click("#unknown button.copy >> nth=0")
    page.wait_for_selector("#unknown button.copy >> text=Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied in {one["fingerprint"] for one in made[0] if "fingerprint" in one}


def test_scrolling_reaches_the_last_row_of_very_many(browser: Any, opened: Open, tmp_path: Path) -> None:
    """Beyond what a browser can make high, scrolling moves proportionally, and the wheel by rows as ever."""
    rows = [row(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(300_000)]
    reported(tmp_path, rows, "r.html")
    page = opened(tmp_path / "r.html")
    page.evaluate("document.querySelector('#scroll').scrollTop = 1e9")
    page.wait_for_selector("#row-299999")
    assert "10.4.147.223" in column(page, "address")
    page.evaluate("document.querySelector('#scroll').scrollTop = 0")
    page.wait_for_selector("#row-0")
    page.hover("#scroll")
    page.mouse.wheel(0, 340)
    page.wait_for_timeout(400)
    box = page.locator("#row-10").bounding_box()
    top = page.locator("#scroll").bounding_box()
    assert abs(box["y"] - top["y"]) < 5


def test_what_strangers_wrote_does_nothing(browser: Any, opened: Open, tmp_path: Path) -> None:
    """No dialog, no request, no complaint; it stands in the table as text, with its marks made visible."""
    reported(tmp_path, hostile_rows(), "r.html")
    page = opened(tmp_path / "r.html", 1024)
    page.wait_for_selector("#chart-products svg")
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert find(page, '"<img src=x"') == 1
    assert "<img src=x onerror=alert(1)>" in column(page, "product")
    find(page, "gnp.exe")
    assert "\\u{202e}gnp.exe" in column(page, "product")
    page.click("#window [role=row] >> nth=0")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0


def test_texts_that_were_left_out_are_said_to_be(
    browser: Any, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob, "ROOM", 10)
    reported(tmp_path, [row("10.0.0.1", 9, verdict="nomatch", fingerprint="SF" * 20)], "r.html")
    page = opened(tmp_path / "r.html")
    page.click("#window [role=row]")
    page.wait_for_selector("dialog[open]")
    assert "left out of the page" in page.inner_text("#details-body")


@pytest.mark.parametrize(
    "long",
    [{"post": {"t": "P" * 20_000}}, {"tls": {"names": ["a.example"] * 2000}}, {"evidence": {"probe": "P" * 20_000}}],
)
def test_a_row_with_long_texts_opens(browser: Any, opened: Open, tmp_path: Path, long: Row) -> None:
    """And says that something is missing, and of how much."""
    reported(tmp_path, [row("10.0.0.1", 443, **long)], "r.html")
    page = opened(tmp_path / "r.html")
    page.click("#window [role=row]")
    page.wait_for_selector("dialog[open]")
    said = page.inner_text("#details-body")
    assert "(20,000 characters)" in said or "more" in said
    assert page.evaluate(STICKING_OUT) == []


def test_every_link_finds_its_rows(browser: Any, opened: Open, tmp_path: Path) -> None:
    """Whatever a text holds: what cannot be seen, quotation marks, ends of lines, however long it is."""
    unseen = (
        "a\u00adb",
        "\ufeffx",
        "a\u200bb",
        "a\r\nb",
        "\x7f\x80",
        '"',
        '""',
        'a "b" c',
        '"a',
        " a ",
        "z" * 1000,
        "-a:b",
    )
    texts = {*EVIL, *unseen}
    rows = [row("10.0.0.1", at, name="x", product=said, version=said) for at, said in enumerate(texts)]
    rows += [
        row("10.0.0.2", at, name="x", tls={"subject": said, "not_after": "2026-11-21T00:00:00Z"})
        for at, said in enumerate(texts)
    ]
    reported(tmp_path, rows, "r.html")
    page = opened(tmp_path / "r.html")
    assert page.locator("#products .chips a").count() == len(texts)
    assert page.locator("#tls [data-find]").count() == len(texts)
    for search, count in page.evaluate(FOUND_BY_LINKS):
        assert count == "1" or ("certificate:" in search and count != "0"), search  # certificates by a part of theirs


def test_a_long_word_leaves_room_for_the_other_columns(browser: Any, opened: Open, tmp_path: Path) -> None:
    """In every table, so that none has to be scrolled sideways for one row of a stranger."""
    word = "a" * 1000
    names = dict.fromkeys(("name", "product", "version", "ostype", "devicetype"), word)
    tls = {"subject": word, "protocol": word, "key": word, "not_after": "2026-11-21T00:00:00Z"}
    long = row("10.0.0.1", 80, **names, tls=tls, database={"name": word, "sha256": word})
    reported(tmp_path, [long, row("10.0.0.2", 80, name="http", product="nginx", version="1.2")], "r.html")
    page = opened(tmp_path / "r.html")
    assert (
        page.evaluate("""() => [...document.querySelectorAll('.scroller:has(table)')]
        .filter((place) => place.scrollWidth > place.clientWidth).map((place) => place.innerText.slice(0, 99))""")
        == []
    )


def test_the_counter_tells_of_rows_that_are_not_in_the_page(browser: Any, opened: Open, tmp_path: Path) -> None:
    reported(tmp_path, [row("10.0.0.1", at) for at in range(1, 1501)], "r.html", most=100)
    assert opened(tmp_path / "r.html").inner_text("#told") == "100 of 100 rows; 1,400 more are not in the page"
