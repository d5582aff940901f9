"""The pages: every link leads somewhere, on GitHub as on the site, and the site needs nobody else to be read."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
MADE = {"index.md", "changes.md", "security.md", "python.md"}  # by docs/pages.py
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, by GitHub's rule, which is the site's for those that we have."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """From the file where it lies: to a file that is there, and to a heading of it."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        place, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]

    def pages(part: object) -> list[str]:
        if isinstance(part, dict):
            part = [*part.values()]
        return [part] if isinstance(part, str) else [page for below in part for page in pages(below)]  # type: ignore[attr-defined]

    named = pages(nav)
    assert len(named) == len(set(named))
    assert set(named) == MADE | {page.name for page in DOCS.glob("*.md")}


class _Loads(HTMLParser):
    """What a browser loads for a page, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.names |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a":
            self.links.append(told.get("href", ""))
        elif tag == "link" and told.get("rel") not in {"canonical", "next", "prev"}:
            self.loads.append(told["href"])
        elif "src" in told:
            self.loads.append(told["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make site` builds."""
    for library in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(library, reason="the extra site")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_whole_and_asks_nobody_else(site: Path) -> None:
    """What a page loads lies beside it, and so does what it links to, with the place in it."""
    pages: dict[Path, _Loads] = {}
    for file in site.rglob("*.html"):
        pages[file] = _Loads()
        pages[file].feed(file.read_text("utf-8"))
    assert len(pages) > len(PAGES)
    for file, page in pages.items():
        if file.name == "404.html":  # for servers: its places begin at their root
            continue
        for place in page.loads:
            assert (file.parent / place.partition("?")[0]).is_file(), (file.name, place)
        for link in page.links:
            place, _, anchor = link.partition("#")
            if re.match(r"\w+:", place):
                continue
            target = (file.parent / unquote(place)).resolve() if place else file
            assert target.exists(), (file.name, link)
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].names, (file.name, link)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text("utf-8")), style.name


@pytest.mark.slow
def test_all_that_is_public_is_described(site: Path) -> None:
    """With its words: also those that fields have as descriptions."""
    import probemill
    from engine.model import ScanConfig, field_meta

    page = (site / "python.html").read_text("utf-8")
    names = {name for name in probemill.__all__ if name != "__version__"}
    assert not [name for name in names if f'id="probemill.{name}"' not in page]
    described = [name for name in ScanConfig.__struct_fields__ if field_meta(name).description]
    assert not [name for name in described if f'id="probemill.ScanConfig.{name}"' not in page]


@pytest.mark.slow
def test_search_works_from_disk(site: Path) -> None:
    """Without a server, without a network, and without a word on the browser's console."""
    api = pytest.importorskip("playwright.sync_api", reason="the extra pagedev")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator("html.js").wait_for()  # set by the script that hears the keys
        page.locator("[data-md-component=search-query]").press_sequentially("blocklist", delay=50)
        page.locator(".md-search-result__item", has_text="Operations").first.wait_for(timeout=30_000)
        browser.close()
    assert not said
