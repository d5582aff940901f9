"""One HTML file that needs nothing else: the sections of a report, charts, and the table of all rows.

The page's own parts lie in page/: page.html with places in double braces, style.css, and the scripts. It works from
`file://`, asks no network, and its policy allows no script, style or worker but those that are in it, by their digests.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.resources import files

from engine import __version__
from engine.extras import extra
from engine.insight.report.blob import Blob
from engine.insight.report.charts import charts
from engine.insight.report.markup import Html, script_json, tag, text
from engine.insight.report.sections import body, links, sections
from engine.insight.report.told import Report

SCRIPTS = ("table.js", "details.js", "page.js")
TITLE = "Service report"


def page(report: Report, blob: Blob) -> Iterator[str]:
    """The whole file, piece by piece."""
    own = files("engine.insight.report") / "page"
    parts = {
        name: (own / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "store.js", *SCRIPTS)
    }
    script = f"(() => {{\n{''.join(parts[name] for name in SCRIPTS)}}})();"  # its names are its own
    vega = _vega()
    drawn, made = charts(report), sections(report)
    places = {
        "policy": _policy([vega, script], parts["style.css"]),
        "title": text(TITLE),
        "style": parts["style.css"],
        "period": text(report.period),
        "links": links(made),
        "sections": body(report, made, blob.notes, drawn),
        "footer": text(
            f"Made by probemill {__version__} from {report.rows:,} rows. Nothing in this page is sent anywhere."
        ),
        "charts": script_json(drawn),
        "layout": script_json(blob.layout | {"sources": [source.name for source in report.sources]}),
        "store": parts["store.js"],
        "vega": vega,
        "script": script,
    }
    for at, piece in enumerate(re.split(r"\{\{(\w+)\}\}", parts["page.html"])):
        if at % 2 == 0:
            yield piece
        elif piece == "parts":
            for name, data in blob.parts.items():
                yield tag("script", Html(data), type="text/plain", data_part=name)
                yield "\n"
        else:
            yield places[piece]


def check_extras() -> None:
    """Raises ConfigError where what the page is made with is not installed; before rows are read for nothing."""
    for library in ("altair", "pyarrow", "vl_convert"):
        with extra("probemill report", "report"):
            import_module(library)


def _vega() -> str:
    """Vega, Vega-Lite and their embedding, as one script that sets `vegaEmbed`."""
    with extra("probemill report", "report"):
        import vl_convert
    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return re.sub(r"<(?=/script|!--)", r"\\x3c", bundle, flags=re.IGNORECASE)


def _policy(scripts: Iterable[str], style: str) -> Html:
    allowed = {
        "default-src": ["'none'"],
        "script-src": [_digest(script) for script in scripts],
        "style-src": [_digest(style)],
        "worker-src": ["blob:"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return Html("; ".join(f"{name} {' '.join(values)}" for name, values in allowed.items()))


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
