"""Why a response got the answer it got: every line that fits it, in the order of the search, and every dropped field.

Contract: `explain` asks each line of each list on its own, without any set, so the first Fit is what a Matcher finds
unless the response is built to exhaust the search. Slow (it compiles every line): for people, not for traffic.
"""

import re

from msgspec import Struct

from matcher.model import Match, Probe, ProbeDatabase, Signature
from matcher.patterns import pcre
from matcher.version import CAPACITY, compile_templates, template_fields, unusable_fields

_GROUP_USE = re.compile(rb"\$(?:([1-9])|(?:P|SUBST|I)\(\s*([1-9]))")
_INTEGER = re.compile(rb"\$I\(\s*([1-9])")
MAX_INTEGER = 8  # bytes
GROUPS = 10  # 0 to 9; templates can name no others


class Fit(Struct, frozen=True):
    """A line that fits. groups: text of each group, None where unset; dropped: (field, reason)."""

    match: Match
    groups: tuple[bytes | None, ...]
    dropped: tuple[tuple[str, str], ...]

    @property
    def signature(self) -> Signature:
        return self.match.signature


class Explanation(Struct, frozen=True):
    """fits: in the order of the search, the winner first. tried: lines asked, per list."""

    fits: tuple[Fit, ...]
    tried: tuple[tuple[Probe, int], ...]


def explain(database: ProbeDatabase, probe: Probe, response: bytes) -> Explanation:
    """Everything that fits `response` as an answer to `probe`."""
    fits = []
    tried = []
    for index in probe.lists:
        owner = database.probes[index]
        tried.append((owner, len(owner.signatures)))
        for signature in owner.signatures:
            fit = try_line(signature, owner, response)
            if fit is not None:
                fits.append(fit)
    return Explanation(tuple(fits), tuple(tried))


def try_line(signature: Signature, probe: Probe, response: bytes) -> Fit | None:
    """What one line makes of a response."""
    pattern = pcre.Pattern(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
    found = pattern.search(response, pcre.Patience())
    if found is None:
        return None
    count = min(pattern.groups() + 1, GROUPS)
    spans = [pcre.span(found, response, number) for number in range(count)]
    groups = tuple(response[start:end] if start >= 0 else None for start, end in spans)
    spans += [(-1, -1)] * (GROUPS - count)
    info = compile_templates(signature.templates)(response, spans)
    unusable = dict(unusable_fields(signature.templates, pattern.groups()))
    dropped = tuple(
        (name, unusable.get(name) or _reason(name, template, groups))
        for name, template in template_fields(signature.templates)
        if not getattr(info, name)
    )
    return Fit(Match(signature, probe, info), groups, dropped)


def _reason(name: str, template: bytes, groups: tuple[bytes | None, ...]) -> str:
    for found in _GROUP_USE.finditer(template):
        number = int(found[1] or found[2])
        if groups[number] is None:
            return f"${number} took no part in the match"
    for found in _INTEGER.finditer(template):
        if len(groups[int(found[1])] or b"") > MAX_INTEGER:
            return f"$I(): group {int(found[1])} is longer than {MAX_INTEGER} bytes"
    return f"blank, or longer than the {CAPACITY[name.partition('_')[0]] - 2} bytes there is room for"
