"""The sections of the page: `Report` -> HTML that can be read without any script.

A section that has nothing to say is not there. Places of charts are empty until page.js fills them; what they show
stands in the tables beside them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from engine.insight.report.charts import search_for
from engine.insight.report.gather import Count, Product, Report, Unknown, Version
from engine.insight.report.markup import Html, found, join, lines, table, tag

FEW = 6  # versions that are told without being asked for
SHOWN = 25  # lines of a table, before the rest is behind a click
NOTHING = Html("")


def links(report: Report) -> Html:
    """To the sections that are there."""
    own = [(name, title) for name, title, _, made in _SECTIONS if made(report) != NOTHING]
    return join(tag("a", title, href=f"#{name}") for name, title in [*own, ("rows", "All rows")])


def sections(report: Report, notes: Iterable[str], drawn: Collection[str]) -> Html:
    """notes: told first, beside the report's own. drawn: names of the charts that there are."""
    told = join(tag("p", note, class_="note", role="note") for note in (*report.notes, *notes))
    made = ((name, title, chart, make(report)) for name, title, chart, make in _SECTIONS)
    return (
        told
        + _tiles(report)
        + join(
            tag("section", tag("h2", title), _chart(chart, title) if chart in drawn else NOTHING, body, id=name)
            for name, title, chart, body in made
            if body != NOTHING
        )
    )


def _chart(name: str, title: str) -> Html:
    inside = tag(
        "div", id=f"chart-{name}", class_="heat" if name == "heat" else "", role="img", aria_label=f"Chart: {title}"
    )
    return tag("div", tag("div", inside, class_="scroller"), class_="card chart")


def _tiles(report: Report) -> Html:
    ended = next((count.rows for count in report.tls.expiry if count.name == "expired"), 0)
    tiles = [
        ("hosts", report.hosts, ""),
        ("ports asked", report.rows, ""),
        ("services recognised", report.recognised, ""),
        ("products", report.product_count, ""),
        ("older than the newest seen", report.old, "warn" if report.old else ""),
        ("open, not recognised", report.unknown, ""),
        ("expired certificates", ended, "bad" if ended else ""),
    ]
    return tag(
        "div",
        *(
            tag("div", tag("b", number), tag("span", name), class_=f"tile {kind}".strip())
            for name, number, kind in tiles
        ),
        class_="tiles",
    )


def _scanned(report: Report) -> Html:
    outcomes = table(
        ["Verdict", "Reason", "#Ports", "#Hosts"],
        (
            (
                found(count.name, search_for("verdict", count.name)),
                found(count.more, search_for("reason", count.more)) if count.more else "",
                count.rows,
                count.hosts,
            )
            for count in report.outcomes
        ),
    )
    sources = table(
        ["Read from", "Form", "#Rows", "Ended"],
        ((source.name, source.kind, source.rows, source.ended) for source in report.sources),
    )
    databases = table(
        ["Database", "SHA-256", "#Rows"],
        ((count.name, tag("span", count.more[:16], class_="mono muted"), count.rows) for count in report.databases),
    )
    facts = [("Distinct ports", report.ports), ("First connection", report.first), ("Last connection", report.last)]
    if report.pseudo:
        facts.append(("Rows of hosts that answer alike on many ports", report.pseudo))
    about = tag("dl", *(tag("dt", name) + tag("dd", value) for name, value in facts))
    return (
        tag(
            "div",
            tag("div", tag("h3", "What became of the ports"), outcomes, class_="card"),
            tag("div", tag("h3", "Inputs"), sources, Html("<br>"), databases, Html("<br>"), about, class_="card"),
            class_="cards",
        )
        if report.rows or report.sources
        else NOTHING
    )


def _services(report: Report) -> Html:
    return _counts("Service", "service", report.services)


def _products(report: Report) -> Html:
    if not report.products:
        return NOTHING
    body = _folded(
        ["Product", "Service", "#Ports", "#Hosts", "Newest seen", "#Older", "Versions seen, the oldest first"],
        [
            (
                found(product.product, search_for("product", product.product)),
                product.service,
                product.rows,
                product.hosts,
                product.newest or tag("span", "–", class_="muted"),
                tag("span", product.old, class_="warn") if product.old else 0,
                _versions(product),
            )
            for product in report.products
        ],
    )
    left = report.product_count - len(report.products)
    more = (
        tag("p", f"{left:,} more products, on fewer ports, are in the table of all rows.", class_="muted")
        if left
        else ""
    )
    lead = (
        "Each product against the newest version of it that was seen in these rows, not against its maker's. Ranges "
        "count for nothing; additions of a distribution are compared within that distribution alone."
    )
    return tag("p", lead, class_="lead") + tag("div", body, more, class_="card long")


def _versions(product: Product) -> Html:
    chips = tag("ul", *(_chip(product, version) for version in product.versions), class_="chips")
    left = tag("p", f"and {product.left:,} more", class_="muted small") if product.left else NOTHING
    if len(product.versions) <= FEW:
        return chips
    count = len(product.versions) + product.left
    return tag("details", tag("summary", f"{count:,} versions"), chips, left)


def _chip(product: Product, version: Version) -> Html:
    kind = "old" if version.old else "newest" if version.version == product.newest else ""
    search = f"{search_for('product', product.product)} {search_for('version', version.version)}"
    count = tag("small", Html(f" ×{version.rows:,}")) if version.rows > 1 else NOTHING
    return tag("li", found(version.version, search), count, class_=kind)


def _tls(report: Report) -> Html:
    tls = report.tls
    if not tls.rows:
        return NOTHING
    ending = [
        (
            found(end.subject, search_for("certificate", end.subject, whole=False)) if end.subject else "(no subject)",
            end.place,
            end.rows,
            end.not_after[:10],
            tag("span", f"{end.days:,} days", class_="bad" if end.days < 0 else "warn" if end.days < 30 else ""),
            "yes" if end.self_signed else "",
        )
        for end in tls.ending
    ]
    lead = (
        f"{tls.rows:,} ports with TLS, {tls.certificates:,} different certificates, self-signed on {tls.self_signed:,} "
        f"ports. Days are counted from the newest row, {report.last}, and not from today."
    )
    kinds = tag(
        "div",
        _card("Until the certificate ends", table(["Ends", "#Ports", "#Hosts"], map(_plain, tls.expiry))),
        _card("Protocols", _lines("Protocol", "tls", tls.protocols)),
        _card("Keys", _lines("Key", "tls", tls.keys)),
        class_="cards",
    )
    heads = ["Certificate", "Seen at", "#Ports", "Ends", "#Left", "Self-signed"]
    soon = tag("div", tag("h3", "Expired, or within 90 days"), _folded(heads, ending), class_="card long")
    return tag("p", lead, class_="lead") + kinds + (soon if ending else NOTHING)


def _heat(report: Report) -> Html:
    if not report.heat:
        return NOTHING
    rows = [
        (found(port, search_for("port", port)), found(service, search_for("service", service)), count)
        for port, service, count in report.heat
    ]
    return tag("details", tag("summary", "As a table"), table(["Port", "Service", "#Ports"], rows), class_="card long")


def _systems(report: Report) -> Html:
    cards = [
        _card(title, _lines(head, field, counts))
        for title, head, field, counts in (
            ("Operating systems", "System", "os", report.systems),
            ("Kinds of device", "Device", "device", report.devices),
        )
        if counts
    ]
    return tag("div", *cards, class_="cards") if cards else NOTHING


def _unknowns(report: Report) -> Html:
    if not report.unknowns:
        return NOTHING
    left = report.unknown_groups - len(report.unknowns)
    more = tag("p", f"{left:,} more groups, on fewer ports.", class_="muted") if left else NOTHING
    lead = (
        "What was open and not recognised, or only half, by what the first probe that was answered got back; digits "
        "(#) and dates (@) aside. The fingerprint is what a new signature is made from."
    )
    groups = tag("ol", *map(_unknown, report.unknowns), class_="groups")
    return tag("p", lead, class_="lead") + tag("div", groups, more, class_="card long")


def _unknown(group: Unknown) -> Html:
    ports = "port" if group.rows == 1 else "ports"
    hosts = "host" if group.hosts == 1 else "hosts"
    head = tag(
        "p",
        tag("b", f"{group.rows:,} {ports}"),
        tag("span", f"{group.hosts:,} {hosts}, such as {group.place}", class_="muted"),
        tag("span", f"answer to {group.probe}", class_="muted") if group.probe else NOTHING,
        tag("span", f"{group.service}, its product unknown") if group.service else NOTHING,
    )
    fingerprint = NOTHING
    if group.fingerprint:
        copy = tag("button", "Copy", type="button", class_="copy")
        fingerprint = tag("details", tag("summary", "Fingerprint"), copy, tag("pre", lines(group.fingerprint)))
    return tag("li", head, tag("code", group.answer[:300]), fingerprint)


def _counts(head: str, field: str, counts: list[Count]) -> Html:
    return tag("div", _lines(head, field, counts), class_="card long") if counts else NOTHING


def _lines(head: str, field: str, counts: list[Count]) -> Html:
    found_by = field if field != "tls" else ""
    return _folded(
        [head, "#Ports", "#Hosts"],
        [
            (found(count.name, search_for(found_by, count.name)) if found_by else count.name, count.rows, count.hosts)
            for count in counts
        ],
    )


def _plain(count: Count) -> tuple[object, ...]:
    return count.name, count.rows, count.hosts


def _card(title: str, *inside: Html) -> Html:
    return tag("div", tag("h3", title), *inside, class_="card")


def _folded(heads: list[str], rows: Sequence[tuple[object, ...]]) -> Html:
    """A table, its end behind a click where it is long."""
    if len(rows) <= SHOWN:
        return table(heads, rows)
    rest = tag("details", tag("summary", f"{len(rows) - SHOWN:,} more"), table(heads, rows[SHOWN:]))
    return table(heads, rows[:SHOWN]) + rest


_SECTIONS: tuple[tuple[str, str, str, Callable[[Report], Html]], ...] = (
    ("scanned", "What was scanned", "outcomes", _scanned),
    ("products", "Products and versions", "products", _products),
    ("services", "Services", "services", _services),
    ("tls", "TLS", "expiry", _tls),
    ("heat", "Ports and services", "heat", _heat),
    ("systems", "Systems and devices", "", _systems),
    ("unknown", "Not recognised", "", _unknowns),
)
