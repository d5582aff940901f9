"""A finding as people read it: for each kind what was there before and after, short and fit to be shown.

What hosts say of themselves is theirs to choose: controls and marks that reorder are escaped, and long texts are cut.
Two texts that differ never look the same for that: they are cut where the difference shows.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.insight.diff.compare import Comparison, Facts, Finding, Side
from engine.insight.diff.kinds import sign_of
from engine.text import counted as number_of
from matcher import shown

WIDTH = 160  # characters of a text
_LEAD = 20  # characters that are kept in front of a difference
_FINGERPRINT = 16  # digits of a certificate's digest


class Change(Struct, frozen=True):
    """One kind of a finding. before, after: texts; empty where there is nothing to say."""

    kind: str
    before: str
    after: str

    @property
    def sign(self) -> str:
        return sign_of(self.kind)


class Remark(Struct, frozen=True):
    """One line. warning: the findings cannot be relied upon without it."""

    text: str
    warning: bool = False


def changes_of(finding: Finding) -> Iterator[Change]:
    """One for each kind."""
    for kind in finding.kinds:
        before = _told(kind, finding.old) if finding.old else ""
        after = _told(kind, finding.new) if finding.new else ""
        yield Change(kind, *fitted(before, after))


def place_of(finding: Finding) -> str:
    """The address, with the name that the target was given by."""
    if finding.host and finding.ip:
        return f"{finding.ip} ({_cut(finding.host, 0)})"
    return finding.ip or _cut(finding.host, 0)


def service_of(finding: Finding) -> str:
    """The name of the service, as the later scan has it if it has one."""
    facts = finding.new if finding.new and finding.new.get("name") else finding.old or finding.new
    return _cut(_service(facts), 0) if facts else ""


def counted(comparison: Comparison, kinds: tuple[str, ...]) -> str:
    """`2 new, 1 version; 1,000 targets compared`."""
    found = [f"{comparison.counts[kind]:,} {kind}" for kind in kinds if comparison.counts[kind]]
    return f"{', '.join(found) or 'no difference'}; {number_of(comparison.targets, 'target')} compared"


def remarks(comparison: Comparison) -> Iterator[Remark]:
    """What else has to be known to read the findings rightly."""
    for name, side, kind in (("OLD", comparison.old, "new"), ("NEW", comparison.new, "gone")):
        if side.damage:
            told = f"{name} is not the whole scan ({_cut(side.damage, 0)})"
            doubt = f": what is told as {kind} may only be missing there" if comparison.counts[kind] else ""
            yield Remark(told + doubt, True)
        if side.unreached:
            yield Remark(f"{name}: {number_of(side.unreached, 'target')} not reached, and so not compared")
        if side.doubled:
            rows = number_of(side.doubled, "further row")
            yield Remark(f"{name}: {rows} for targets that have one; of these, the one begun last counts")


def heading(side: Side) -> str:
    return f"{_cut(side.name, 0)} ({side.rows:,} rows)"


def fitted(before: str, after: str) -> tuple[str, str]:
    """Both texts escaped, cut where they are too long, and different if they were."""
    start = 0
    if before != after and before[:WIDTH] == after[:WIDTH]:
        pairs = enumerate(zip(before, after, strict=False))
        start = next((at for at, (one, other) in pairs if one != other), min(len(before), len(after))) - _LEAD
    return _cut(before, start), _cut(after, start)


def _cut(text: str, start: int) -> str:
    piece = text[start : start + WIDTH]
    return "…" * bool(start) + shown(piece) + "…" * (len(text) > start + WIDTH)


def _told(kind: str, facts: Facts) -> str:
    match kind:
        case "new" | "gone":
            return _answer(facts)
        case "state":
            state = facts.get("state") or "open"
            return f"open {_answer(facts)}" if state == "open" else state
        case "service":
            return _text(facts.get("name")) or "unknown"
        case "product":
            return _product(facts) or "unknown"
        case "version":
            return _product(facts)
        case "certificate":
            return _certificate(facts.tls)
        case "renewed":
            return f"until {_day(facts.tls)}"
        case "tls":
            return "TLS" if facts.get("tunnel") else "no TLS"
        case _:
            return _text(facts.get(kind)) or "none"


def _answer(facts: Facts) -> str:
    return " ".join(filter(None, (_service(facts), _product(facts))))


def _service(facts: Facts) -> str:
    return "ssl/" * bool(facts.get("tunnel")) + (facts.get("name") or "unknown")


def _product(facts: Facts) -> str:
    return " ".join(filter(None, (facts.get("product"), facts.get("version"))))


def _certificate(tls: dict[str, Any]) -> str:
    """Subject and issuer, end and digest."""
    issuer = f"by {tls['issuer']}" if tls.get("issuer") else ""
    digest = f"sha256 {tls.get('sha256', '')[:_FINGERPRINT]}"
    parts = (digest, f"until {_day(tls)}", tls.get("subject") or ", ".join(tls.get("names", ())), issuer)
    return ", ".join(filter(None, parts))


def _day(tls: dict[str, Any]) -> str:
    end = tls.get("not_after")
    return f"{end:%Y-%m-%d}" if isinstance(end, datetime) else "?"


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value or "")
