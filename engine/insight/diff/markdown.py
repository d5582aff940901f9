"""Findings for a ticket: what was compared, counts, and a table for each kind, in GitHub's and GitLab's Markdown.

Texts of hosts stand in code: nothing in them is markup, a link, or somebody's name that calls him.
"""

import re
from collections.abc import Iterator, Sequence

from engine.insight.diff.compare import Comparison
from engine.insight.diff.kinds import meaning_of
from engine.insight.diff.words import changes_of, counted, heading, place_of, remarks, service_of

_SPACED = re.compile("^ | $|(?<= ) ")  # blanks that are not drawn as many as they are
_HARMLESS = frozenset(" .,:;/-+_()=@#*<>&'\"[]{}!?%$~^→…")


def lines(comparison: Comparison, kinds: Sequence[str], limit: int) -> Iterator[str]:
    """limit: rows of a table at most, 0 for all."""
    yield "# Differences between two scans"
    yield ""
    yield f"- old: {code(heading(comparison.old))}"
    yield f"- new: {code(heading(comparison.new))}"
    yield f"- {counted(comparison, tuple(kinds))}"
    for remark in remarks(comparison):
        text = _encoded(remark.text, " .,:;()")
        yield f"- **{text}**" if remark.warning else f"- {text}"
    found = [kind for kind in kinds if comparison.counts[kind]]
    if found:
        yield from ("", "| | | |", "|---|---:|---|")
        yield from (f"| {kind} | {comparison.counts[kind]:,} | {meaning_of(kind)} |" for kind in found)
    for kind in found:
        yield from _section(comparison, kind, limit)


def _section(comparison: Comparison, kind: str, limit: int) -> Iterator[str]:
    count = comparison.counts[kind]
    yield from ("", f"## {kind} ({count:,})", "", "| host | port | service | before | after |", "|---|---|---|---|---|")
    for finding in comparison.findings([kind], limit):
        (change,) = changes_of(finding)
        doubt = "doubtful" if finding.doubtful else ""
        named = (place_of(finding), f"{finding.port}/{finding.proto}", service_of(finding))
        yield f"| {' | '.join([*map(code, named), *(code(text) or doubt for text in (change.before, change.after))])} |"
    if limit and count > limit:
        yield from ("", f"{count - limit:,} more are left out (`--limit`).")


def code(text: str) -> str:
    """A text as code, in a cell of a table, too."""
    if not text:
        return ""
    if all(char.isalnum() or char in _HARMLESS for char in text) and not _SPACED.search(text):
        return f"`{text}`"
    return f"<code>{_SPACED.sub('&#160;', _encoded(text, ' '))}</code>"


def _encoded(text: str, harmless: str) -> str:
    return "".join(char if char.isalnum() or char in harmless else f"&#{ord(char)};" for char in text)
