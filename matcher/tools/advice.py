"""What a person does about the findings of `lint`: a sentence for each rule, and the next command.

Contract: `few` keeps the first findings of each rule, `advice` says of each rule that has errors or warnings how many
there are and what helps, the most pressing first, and `next_step` is one thing to do; empty where nothing is wrong.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from matcher.tools.lint import NOTE, Finding

MOST = 5  # findings of a rule that one screen has room for
HELPS = {  # by rule, in the order in which to go about them
    "grammar": "write the line as docs/database.md has it; nothing else is checked before",
    "sample": "correct the row, or name a probe that the database has",
    "duplicate-probe": "put the lines of both under the first",
    "stolen": "make the earlier line narrower, or put the later one before it",
    "no-match": "see with `db explain` where the pattern stops to fit; or have a line proposed with `db propose`",
    "false-match": "make the line narrower: it fits what no line may match",
    "fields": "compare what the line gives with what the sample expects: one of the two is wrong",
    "broad": "make the line narrower: it fits samples of other products",
    "unsampled": "add a response that only this line wins, or remove the line",
    "unreachable": "remove the line, or put it before the one that takes all of its responses",
    "field": "correct the template: no response can ever fill it",
    "cpe": "write cpe:/a:vendor:product:version in lower case, as the official dictionary has it",
    "cost": "let no two repeats compete for the same bytes: other classes, or a bound below 16",
    "empty": "anchor the pattern, or let it need at least one byte",
    "long-line": "leave out what does not tell this product from others",
    "source": "write `real: PRODUCT VERSION (where from)`, `document: RFC or page`, or `handmade`",
}


def few(findings: Iterable[Finding]) -> tuple[list[Finding], int]:
    """(the first MOST of each rule, how many are left out)."""
    seen: Counter[str] = Counter()
    kept, left = [], 0
    for finding in findings:
        seen[finding.rule] += 1
        if seen[finding.rule] <= MOST:
            kept.append(finding)
        else:
            left += 1
    return kept, left


def advice(findings: Iterable[Finding]) -> list[str]:
    """A sentence for each rule."""
    count = Counter(finding.rule for finding in findings if finding.severity != NOTE)
    return [f"{count[rule]:,} {rule}: {helps}" for rule, helps in HELPS.items() if count[rule]]


def next_step(findings: Sequence[Finding], path: str) -> str:
    """The command that helps with the first of the most pressing findings. path: of the database."""
    for rule in HELPS:
        for finding in findings:
            if finding.rule != rule or finding.severity == NOTE:
                continue
            place = shlex.quote(finding.path)
            if rule == "unsampled":
                return f"probemill db capture HOST:PORT --probes {shlex.quote(path)}"
            if finding.path != path and rule not in {"sample", "source"}:
                return f"sed -n {finding.line}p {place} | probemill db explain --probes {shlex.quote(path)}"
            return f"${{EDITOR:-vi}} +{finding.line} {place}"
    return ""
