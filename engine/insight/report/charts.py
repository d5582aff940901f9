"""The charts of the page: `Report` -> Vega-Lite, in the colours of page/style.css.

Colours are names of the style sheet's (`var(--accent)`), which the SVG takes as they are: the page changes from light
to dark, and to paper, without drawing anew. A datum's `find` is the search that a click on it begins. What strangers
wrote is only ever data, never an expression or the name of a field.
"""

from typing import Any

from engine.extras import extra
from engine.insight.report.told import Report
from matcher import shown

BARS = 12
ROW = 34  # pixels of a bar
LABEL = 170
SEARCHED = 400  # characters of a text that a search is begun for

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
    "legend": {
        "labelColor": "currentColor",
        "title": None,
        "orient": "top",
        "labelFontSize": 12,
        "symbolType": "square",
    },
}


def search_for(field: str, value: str, *, whole: bool = True) -> str:
    """What the page's search is told to find just this; of a long text, all that have its beginning."""
    sign = "=" if whole and len(value) <= SEARCHED else ":"
    quoted = value[:SEARCHED].replace('"', '""')
    return f'{field}{sign}"{quoted}"'


def charts(report: Report) -> dict[str, Spec]:
    """By the name that the page gives their places; none where there is nothing to draw."""
    bars = {"outcomes": _outcomes(report), "services": _services(report), "expiry": _expiry(report)}
    drawn = {name: _bars(data) for name, data in bars.items() if data}
    drawn |= {"products": _products(report), "heat": _heat(report)}
    return {name: chart.configure(**_CONFIG).to_dict() for name, chart in drawn.items() if chart is not None}


def _outcomes(report: Report) -> list[Datum]:
    return [
        _datum(f"{count.name}: {count.more}" if count.more else count.name, count.rows)
        | {"find": search_for(*(("reason", count.more) if count.more else ("verdict", count.name)))}
        for count in report.outcomes[:BARS]
    ]


def _services(report: Report) -> list[Datum]:
    return [
        _datum(count.name, count.rows) | {"find": search_for("service", count.name)} for count in report.services[:BARS]
    ]


def _expiry(report: Report) -> list[Datum]:
    return [_datum(count.name, count.rows) for count in report.tls.expiry]


def _bars(data: list[Datum]) -> Any:
    """One bar a datum, in their order, with its number at its end."""
    alt = _altair()

    base = _base(data, axis=None)
    bars = base.mark_bar(height=16, cornerRadius=2, color="var(--accent)")
    numbers = base.mark_text(align="left", dx=6).encode(text=alt.Text("rows:Q", format=","))
    return alt.layer(bars, numbers)


def _products(report: Report) -> Any:
    """How many of each product stand behind the newest version seen."""
    alt = _altair()

    kinds = {"newest seen": "var(--good)", "older": "var(--warn)", "no exact version": "var(--dim)"}
    data = [
        _datum(product.product, rows) | {"kind": kind, "find": search_for("product", product.product)}
        for product in report.products[:BARS]
        for kind, rows in zip(
            kinds, (product.current, product.old, product.rows - product.current - product.old), strict=True
        )
    ]
    if not data:
        return None
    colours = alt.Scale(domain=list(kinds), range=list(kinds.values()))
    return (
        _base(data, alt.Axis(format=",d", tickCount=4, tickMinStep=1))
        .mark_bar(height=16)
        .encode(
            color=alt.Color("kind:N", scale=colours),
            order=alt.Order("at:Q"),
            tooltip=["label:N", "kind:N", alt.Tooltip("rows:Q", format=",")],
        )
    )


def _heat(report: Report) -> Any:
    """Ports by services: the stronger the colour, the more, on a scale of orders of magnitude."""
    alt = _altair()

    data = [
        {"port": port, "service": shown(service), "rows": rows}
        | {"find": f"{search_for('port', port)} {search_for('service', service)}"}
        for port, service, rows in report.heat
    ]
    if not data:
        return None
    ports = list(dict.fromkeys(datum["port"] for datum in data))
    return (
        alt.Chart(alt.Data(values=data), width="container", height=ROW * len({datum["service"] for datum in data}))
        .mark_rect(color="var(--accent)", cornerRadius=3, stroke="var(--card)", strokeWidth=2)
        .encode(
            x=alt.X("port:N", sort=ports, axis=alt.Axis(labelAngle=-45, orient="top")),
            y=alt.Y("service:N", sort=alt.EncodingSortField("rows", op="sum", order="descending")),
            opacity=alt.Opacity("rows:Q", scale=alt.Scale(type="symlog", range=[0.2, 1]), legend=None),
            tooltip=["port:N", "service:N", alt.Tooltip("rows:Q", format=",")],
        )
    )


def _altair() -> Any:
    with extra("probemill report", "report"):
        import altair
    return altair


def _base(data: list[Datum], axis: Any) -> Any:
    alt = _altair()

    order = list(dict.fromkeys(datum["label"] for datum in data))
    numbered = [datum | {"at": at} for at, datum in enumerate(data)]
    return alt.Chart(alt.Data(values=numbered), width="container", height=ROW * len(order)).encode(
        x=alt.X("rows:Q", axis=axis),
        y=alt.Y("label:N", sort=order),
        tooltip=["label:N", alt.Tooltip("rows:Q", format=",")],
    )


def _datum(label: str, rows: int) -> Datum:
    return {"label": shown(label), "rows": rows}
