"""The sections of the page: `Report` -> HTML that can be read without any script.

A section that has nothing to say is not there. Places of charts are empty until page.js fills them; what they show
stands in the tables beside them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec import Struct

from engine.insight.report.charts import search_for
from engine.insight.report.markup import Html, found, join, lines, table, tag
from engine.insight.report.told import Count, Product, Report, Unknown, Version

FEW = 8  # versions that are told without being asked for
GROUPS = 12  # of what was not recognised, before the rest is behind a click
SHOWN = 25  # lines of a table, before the rest is behind a click
SOON = 30  # days that a certificate has left
NOTHING = Html("")


class Section(Struct):
    """name: its anchor. chart: the name of its chart, beside `cards`. lead: what it is about. below: wider cards."""

    name: str
    title: str
    chart: str = ""
    lead: str = ""
    cards: list[Html] = []
    below: list[Html] = []


def sections(report: Report) -> list[Section]:
    """Those that have something to say."""
    return [section for make in _SECTIONS if (section := make(report)).cards or section.below]


def links(made: Iterable[Section]) -> Html:
    return join(tag("a", section.title, href=f"#{section.name}") for section in made)


def body(report: Report, made: Iterable[Section], notes: Iterable[str], drawn: Collection[str]) -> Html:
    """notes: told first, beside the report's own. drawn: names of the charts that there are."""
    told = join(tag("p", note, class_="note", role="note") for note in (*report.notes, *notes))
    return told + _tiles(report) + join(_laid_out(section, section.chart in drawn) for section in made)


def _laid_out(section: Section, drawn: bool) -> Html:
    lead = tag("p", section.lead, class_="lead") if section.lead else NOTHING
    cards = [_chart(section), *section.cards] if drawn else section.cards
    beside = tag("div", *cards, class_="cards") if cards else NOTHING
    return tag("section", tag("h2", section.title), lead, beside, *section.below, id=section.name)


def _chart(section: Section) -> Html:
    label = f"Chart: {section.title}"
    place = tag("div", id=f"chart-{section.chart}", class_=section.chart, role="img", aria_label=label)
    return tag("div", tag("div", place, class_="scroller"), class_="card chart")


def _tiles(report: Report) -> Html:
    ended = next((count.rows for count in report.tls.expiry if count.name == "expired"), 0)
    tiles = [
        ("hosts", report.hosts, ""),
        ("ports asked", report.rows, ""),
        ("services recognised", report.recognised, ""),
        ("products", report.product_count, ""),
        ("older than the newest seen", report.old, "warn" if report.old else ""),
        ("open, not recognised", report.unknown, ""),
        ("with an expired certificate", ended, "bad" if ended else ""),
    ]
    return tag(
        "div",
        *(
            tag("div", tag("b", number), tag("span", name), class_=f"tile {kind}".strip())
            for name, number, kind in tiles
        ),
        class_="tiles",
    )


def _scanned(report: Report) -> Section:
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
        ["Read from", "Form", "Ended", "#Rows"],
        ((source.name, source.kind, source.ended, source.rows) for source in report.sources),
    )
    databases = table(
        ["Database", "SHA-256", "#Rows"],
        ((count.name, tag("span", count.more[:16], class_="mono muted"), count.rows) for count in report.databases),
    )
    facts = [("Distinct ports", report.ports), ("First connection", report.first), ("Last connection", report.last)]
    if report.pseudo:
        facts.append(("Rows of hosts that answer alike on many ports", report.pseudo))
    about = tag("dl", *(tag("dt", name) + tag("dd", value) for name, value in facts))
    cards = [_card("What became of the ports", outcomes)] if report.outcomes else []
    below = tag("div", _card("Inputs", sources), _card("Databases and times", databases, about), class_="cards")
    return Section("scanned", "What was scanned", "outcomes", "", cards, [below])


def _services(report: Report) -> Section:
    cards = [_card("", _counts("Service", "service", report.services))] if report.services else []
    return Section("services", "Services", "services", "", cards)


def _products(report: Report) -> Section:
    told = _folded(
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
    more = tag("p", f"{left:,} more products, on fewer ports, are in the table of all rows.", class_="muted")
    lead = (
        "Each product against the newest version of it that was seen in these rows, not against its maker's. Ranges "
        "count for nothing; additions of a distribution are compared within that distribution alone."
    )
    below = [_card("", told, more if left else NOTHING)] if report.products else []
    return Section("products", "Products and versions", "products", lead, [], below)


def _versions(product: Product) -> Html:
    chips = tag("ul", *(_chip(product, version) for version in product.versions), class_="chips")
    if len(product.versions) <= FEW:
        return chips
    left = tag("p", f"and {product.left:,} more", class_="muted small") if product.left else NOTHING
    count = len(product.versions) + product.left
    return tag("details", tag("summary", f"{count:,} versions, from {product.versions[0].version}"), chips, left)


def _chip(product: Product, version: Version) -> Html:
    kind = "old" if version.old else "newest" if version.version == product.newest else ""
    search = f"{search_for('product', product.product)} {search_for('version', version.version)}"
    count = tag("small", Html(f" ×{version.rows:,}")) if version.rows > 1 else NOTHING
    return tag("li", found(version.version, search), count, class_=kind)


def _tls(report: Report) -> Section:
    tls = report.tls
    if not tls.rows:
        return Section("tls", "TLS")
    ending = [
        (
            found(end.subject, search_for("certificate", end.subject, whole=False)) if end.subject else "(no subject)",
            end.place,
            end.rows,
            end.not_after[:10],
            tag("span", f"{end.days:,}", class_="bad" if end.days < 0 else "warn" if end.days < SOON else ""),
            "yes" if end.self_signed else "",
        )
        for end in tls.ending
    ]
    lead = (
        f"{tls.rows:,} ports with TLS, {tls.certificates:,} different certificates, self-signed on {tls.self_signed:,} "
        f"ports. Days are counted from the newest row, {report.last}, and not from today."
    )
    cards = [
        _card(title, _counts(head, "", counts))
        for title, head, counts in (
            ("Until the certificate ends", "Ends", tls.expiry),
            ("Protocols", "Protocol", tls.protocols),
            ("Keys", "Key", tls.keys),
        )
        if counts
    ] or [_card("", tag("p", "The rows say nothing of ends, protocols and keys.", class_="muted"))]
    heads = ["Certificate", "Seen at", "#Ports", "Ends", "#Days left", "Self-signed"]
    below = [_card("Expired, or within 90 days", _folded(heads, ending))] if ending else []
    return Section("tls", "TLS", "expiry", lead, cards, below)


def _heat(report: Report) -> Section:
    rows = [
        (found(port, search_for("port", port)), found(service, search_for("service", service)), count)
        for port, service, count in report.heat
    ]
    told = tag("details", tag("summary", "As a table"), table(["Port", "Service", "#Ports"], rows))
    return Section("heat", "Ports and services", "heat", "", [], [_card("", told)] if rows else [])


def _systems(report: Report) -> Section:
    cards = [
        _card(title, _counts(head, field, counts))
        for title, head, field, counts in (
            ("Operating systems", "System", "os", report.systems),
            ("Kinds of device", "Device", "device", report.devices),
        )
        if counts
    ]
    return Section("systems", "Systems and devices", "", "", cards)


def _unknowns(report: Report) -> Section:
    left = report.unknown_groups - len(report.unknowns)
    more = tag("p", f"{left:,} more groups, on fewer ports.", class_="muted") if left else NOTHING
    lead = (
        "What was open and not recognised, or only half, by what the first probe that was answered got back; digits "
        "(#) and dates (@) aside. The fingerprint is what a new signature is made from."
    )
    first = tag("ol", *map(_unknown, report.unknowns[:GROUPS]), class_="groups")
    if rest := report.unknowns[GROUPS:]:
        groups = tag("ol", *map(_unknown, rest), class_="groups")
        more = tag("details", tag("summary", f"{len(rest):,} more groups"), groups, more)
    return Section("unknown", "Not recognised", "", lead, [], [_card("", first, more)] if report.unknowns else [])


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
    """field: by which the table of all rows finds them; empty for none."""
    return _folded(
        [head, "#Ports", "#Hosts"],
        [
            (found(count.name, search_for(field, count.name)) if field else count.name, count.rows, count.hosts)
            for count in counts
        ],
    )


def _card(title: str, *inside: Html) -> Html:
    return tag("div", tag("h3", title) if title else NOTHING, *inside, class_="card")


def _folded(heads: list[str], rows: Sequence[tuple[object, ...]]) -> Html:
    """A table, its end behind a click where it is long."""
    if len(rows) <= SHOWN:
        return table(heads, rows)
    rest = tag("details", tag("summary", f"{len(rows) - SHOWN:,} more"), table(heads, rows[SHOWN:]))
    return table(heads, rows[:SHOWN]) + rest


_SECTIONS: tuple[Callable[[Report], Section], ...] = (
    _scanned,
    _products,
    _services,
    _tls,
    _heat,
    _systems,
    _unknowns,
)
