"""The charts of the page: `Report` -> Vega-Lite, in the colours of page/style.css.

Colours are names of the style sheet's (`var(--accent)`), which the SVG takes as they are: the page changes from light
to dark, and to paper, without drawing anew. A datum's `find` is the search that a click on it begins. What strangers
wrote is only ever data, never an expression or the name of a field.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.extras import extra
from engine.insight.report.gather import LATER, Report
from matcher import shown

if TYPE_CHECKING:
    import altair

BARS = 12
ROW = 26  # pixels of a bar
LABEL = 170

Spec = dict[str, Any]
Datum = dict[str, Any]

_FONT = "system-ui, sans-serif"
_CONFIG: Spec = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        **{"domain": False, "ticks": False, "title": None, "labelColor": "currentColor", "labelFontSize": 12},
        **{"gridColor": "var(--line)", "labelPadding": 8, "labelLimit": LABEL},
    },
    "text": {"color": "currentColor", "fontSize": 12},
    "legend": {"labelColor": "currentColor", "title": None, "orient": "top", "labelFontSize": 12, "symbolType": "square"},
}


def search_for(field: str, value: str) -> str:
    """What the page's search is told to find just this: whole, or in part where its grammar has no way to quote."""
    if '"' not in value:
        return f'{field}="{value}"'
    return f'{field}:"{max(value.split(chr(34)), key=len)}"'


def charts(report: Report) -> dict[str, Spec]:
    """By the name that the page gives their places; none where there is nothing to draw."""
    with extra("report", "report"):
        import altair

    drawn = {name: draw(altair, report) for name, draw in _CHARTS.items()}
    return {name: chart.configure(**_CONFIG).to_dict() for name, chart in drawn.items() if chart is not None}


def _outcomes(alt: Any, report: Report) -> "altair.LayerChart | None":
    data = [
        _datum(f"{count.name}: {count.more}" if count.more else count.name, count.rows)
        | {"find": search_for("reason", count.more) if count.more else search_for("verdict", count.name)}
        for count in report.outcomes[:BARS]
    ]
    return _bars(alt, data) if data else None


def _services(alt: Any, report: Report) -> "altair.LayerChart | None":
    data = [_datum(count.name, count.rows) | {"find": search_for("service", count.name)} for count in report.services]
    return _bars(alt, data[:BARS]) if data else None


def _products(alt: Any, report: Report) -> "altair.LayerChart | None":
    """How many of each product stand behind the newest version seen."""
    data: list[Datum] = []
    for at, product in enumerate(report.products[:BARS]):
        told = sum(version.rows for version in product.versions)
        newest = sum(version.rows for version in product.versions if not version.old) if not product.left else 0
        current = newest if not product.left else max(0, told - product.old)
        rest = product.rows - product.old - current
        for kind, rows in (("newest seen", current), ("older", product.old), ("version unknown", rest)):
            data.append(_datum(product.product, rows) | {"kind": kind, "at": at, "find": search_for("product", product.product)})
    if not data:
        return None
    kinds = ["newest seen", "older", "version unknown"]
    colours = alt.Scale(domain=kinds, range=["var(--good)", "var(--warn)", "var(--dim)"])
    return _base(alt, data).mark_bar(cornerRadius=2, height=14).encode(
        **_sides(alt, "at"),
        color=alt.Color("kind:N", scale=colours),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("label:N"), alt.Tooltip("kind:N"), alt.Tooltip("rows:Q", format=",")],
    )
