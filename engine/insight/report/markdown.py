"""A report as Markdown, for a ticket: the summaries, cut where a ticket would drown.

What strangers wrote stands in code spans: nothing in them is markup, a link, a mention or a number of another ticket.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from engine.insight.report.told import Product, Report
from matcher import shown

LINES = 25  # of a table
CHIPS = 8  # versions of a product
WIDTH = 120  # characters of a code span
_MARKS = re.compile(r"[\\`*_\[\]<>|#~!&]")
_BACKSLASHED = r"\\\g<0>"


def markdown(report: Report, notes: Iterable[str] = ()) -> str:
    """notes: told first, beside the report's own."""
    return "\n".join(_lines(report, [*report.notes, *notes])).strip() + "\n"


def code(value: str) -> str:
    """A text of strangers on one line of a table."""
    said = shown(value)
    said = (said if len(said) <= WIDTH else said[: WIDTH - 1] + "…").replace("|", "\\x7c")
    if not said.strip():
        return ""
    fence = "`" * (max(map(len, re.findall("`+", said)), default=0) + 1)
    pad = " " if said[0] == "`" or said[-1] == "`" else ""
    return f"{fence}{pad}{said}{pad}{fence}"


def _lines(report: Report, notes: list[str]) -> Iterator[str]:
    yield "# Service report"
    yield ""
    yield report.period
    yield ""
    yield from (f"> **Note:** {_MARKS.sub(_BACKSLASHED, shown(note))}\n" for note in notes)
    ended = next((count.rows for count in report.tls.expiry if count.name == "expired"), 0)
    yield from _table(
        ["", "#"],
        [
            ("hosts", report.hosts),
            ("ports asked", report.rows),
            ("services recognised", report.recognised),
            ("open, not recognised", report.unknown),
            ("products", report.product_count),
            ("ports whose version is older than the newest seen", report.old),
            ("ports with an expired certificate", ended),
        ],
    )
    yield from _part(
        "What became of the ports",
        ["verdict", "reason", "#ports", "#hosts"],
        [(code(count.name), code(count.more), count.rows, count.hosts) for count in report.outcomes],
    )
    yield from _part(
        "Inputs",
        ["input", "form", "#rows", "ended"],
        [(code(source.name), source.kind, source.rows, code(source.ended)) for source in report.sources],
    )
    yield from _part(
        "Products and versions",
        ["product", "service", "#ports", "#older", "newest seen", "versions, the oldest first"],
        [
            (
                *(code(product.product), code(product.service), product.rows, product.old, code(product.newest)),
                _versions(product),
            )
            for product in report.products
        ],
        report.product_count,
    )
    yield from _part(
        "Services", ["service", "#ports", "#hosts"], [(code(c.name), c.rows, c.hosts) for c in report.services]
    )
    yield from _tls(report)
    for title, counts in (("Operating systems", report.systems), ("Kinds of device", report.devices)):
        yield from _part(title, ["", "#ports", "#hosts"], [(code(c.name), c.rows, c.hosts) for c in counts])
    yield from _part(
        "Not recognised",
        ["#ports", "#hosts", "such as", "probe", "answer"],
        [(g.rows, g.hosts, code(g.place), code(g.probe), code(g.answer)) for g in report.unknowns],
        report.unknown_groups,
    )


def _tls(report: Report) -> Iterator[str]:
    tls = report.tls
    ends = [(count.name, count.rows, count.hosts) for count in tls.expiry]
    yield from _part("TLS: until the certificate ends", ["ends", "#ports", "#hosts"], ends)
    if ends:
        yield f"Counted from the newest row, {report.last}. Self-signed: {tls.self_signed:,} of {tls.rows:,} ports."
        yield ""
    rows = [(code(end.subject), code(end.place), end.rows, end.not_after[:10], end.days) for end in tls.ending]
    yield from _part(
        "Certificates that end within 90 days", ["certificate", "seen at", "#ports", "ends", "#days left"], rows
    )
    for title, counts in (("TLS protocols", tls.protocols), ("TLS keys", tls.keys)):
        yield from _part(title, ["", "#ports", "#hosts"], [(code(c.name), c.rows, c.hosts) for c in counts])


def _versions(product: Product) -> str:
    told = product.versions[-CHIPS:]
    left = product.left + len(product.versions) - len(told)
    said = ", ".join(f"{code(version.version)} ×{version.rows:,}" for version in told)
    return f"{left:,} more, {said}" if left else said


def _part(title: str, heads: list[str], rows: Sequence[tuple[object, ...]], count: int = 0) -> Iterator[str]:
    """count: of the rows that there are, where more than these."""
    if not rows:
        return
    yield ""
    yield f"## {title}"
    yield ""
    yield from _table(heads, rows[:LINES])
    left = max(count, len(rows)) - min(len(rows), LINES)
    if left:
        yield f"… and {left:,} more"
        yield ""


def _table(heads: list[str], rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head.lstrip('#') for head in heads)} |"
    yield f"|{'|'.join('---:' if head.startswith('#') else '---' for head in heads)}|"
    for row in rows:
        yield f"| {' | '.join(f'{value:,}' if isinstance(value, int) else str(value) for value in row)} |"
    yield ""
