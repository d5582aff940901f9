"""Findings as one page: counts, and a table for each kind. Static: no script, nothing loaded from anywhere.

Every text of a host is escaped, and isolated in its direction; the page forbids itself all but its own style.
"""

from collections.abc import Iterator, Sequence
from html import escape

from engine.insight.diff.compare import Comparison
from engine.insight.diff.kinds import meaning_of
from engine.insight.diff.words import changes_of, counted, heading, place_of, remarks, service_of

_COLUMNS = ("host", "port", "service", "before", "after")
_STYLE = """
:root { color-scheme: light dark; --text: #1d2127; --quiet: #59636e; --page: #ffffff; --card: #f6f8fa; --line: #d1d9e0;
  --new: #116329; --gone: #a40e26; --changed: #7d4e00 }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9aa4af; --page: #0d1117; --card: #161b22;
  --line: #30363d; --new: #57c26b; --gone: #ff8b84; --changed: #e0a93b } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 1rem } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem }
p { margin: .25rem 0 } .quiet { color: var(--quiet) } bdi { overflow-wrap: anywhere; white-space: pre-wrap }
.warning { border-left: 3px solid var(--gone); padding-left: .6rem }
nav { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0 }
nav a { border: 1px solid var(--line); border-radius: .5rem; background: var(--card); padding: .4rem .8rem;
  color: inherit; text-decoration: none } nav b { display: block; font-size: 1.3rem }
table { border-collapse: collapse; table-layout: fixed; width: 100%; margin-top: .5rem;
  font-variant-numeric: tabular-nums }
th:nth-child(1) { width: 24% } th:nth-child(2) { width: 6rem } th:nth-child(3) { width: 9rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line) }
th { color: var(--quiet); font-weight: 600 }
.new { color: var(--new) } .gone { color: var(--gone) } .changed { color: var(--changed) }
@media (max-width: 45rem) {
  thead { display: none } tr { display: block; border-bottom: 1px solid var(--line); padding: .4rem 0 }
  td { display: flex; gap: .6rem; border: 0; padding: .1rem 0 } td:empty { display: none }
  td::before { content: attr(data-of); color: var(--quiet); flex: 0 0 4.5rem } }
@media print { :root { color-scheme: light } body { max-width: none; padding: 0 } tr { break-inside: avoid }
  nav a { background: none } }
"""
_HEAD = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Differences between two scans</title><style>{_STYLE}</style></head><body>
<h1>Differences between two scans</h1>"""
_ROLES = {"new": "new", "gone": "gone"}


def lines(comparison: Comparison, kinds: Sequence[str], limit: int) -> Iterator[str]:
    """limit: rows of a table at most, 0 for all."""
    found = [kind for kind in kinds if comparison.counts[kind]]
    yield _HEAD
    yield f"<p>Old: {_isolated(heading(comparison.old))}</p><p>New: {_isolated(heading(comparison.new))}</p>"
    yield f"<p>{escape(counted(comparison, tuple(kinds)))}</p>"
    for remark in remarks(comparison):
        yield f'<p class="{"warning" if remark.warning else "quiet"}">{escape(remark.text)}</p>'
    yield "<nav>"
    yield from (
        f'<a href="#{kind}" class="{_role(kind)}"><b>{comparison.counts[kind]:,}</b>{kind}</a>' for kind in found
    )
    yield "</nav>"
    for kind in found:
        yield from _section(comparison, kind, limit)
    yield "</body></html>"


def _section(comparison: Comparison, kind: str, limit: int) -> Iterator[str]:
    count = comparison.counts[kind]
    yield f'<section id="{kind}"><h2 class="{_role(kind)}">{kind} <span class="quiet">({count:,})</span></h2>'
    yield f'<p class="quiet">{escape(meaning_of(kind))}</p>'
    yield f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr></thead><tbody>"
    for finding in comparison.findings([kind], limit):
        (change,) = changes_of(finding)
        port = f"{finding.port}/{finding.proto}"
        doubt = '<span class="quiet">doubtful</span>' if finding.doubtful else ""
        named = map(_isolated, (place_of(finding), port, service_of(finding)))
        told = (_isolated(text) or doubt for text in (change.before, change.after))
        cells = zip(_COLUMNS, (*named, *told), strict=True)
        yield "<tr>" + "".join(f'<td data-of="{name}">{said}</td>' for name, said in cells) + "</tr>"
    yield "</tbody></table>"
    if limit and count > limit:
        yield f'<p class="quiet">{count - limit:,} more are left out (--limit).</p>'
    yield "</section>"


def _isolated(text: str) -> str:
    return f"<bdi>{escape(text)}</bdi>" if text else ""


def _role(kind: str) -> str:
    return _ROLES.get(kind, "changed")
