"""Check a database: grammar, samples, lines that can never win, fields that can never be made, costly patterns.

    service-probes:412:19: error: line 398 has the same pattern, so this one is never reached [unreachable]

An error is a fault beyond doubt; a warning deserves a second look; a note is a fact worth knowing, and what could not
be decided. A line is reachable when a sample or a made-up response reaches it. It is called unreachable only where an
earlier line of its list has the same pattern, or provably fits all that it can fit (see inclusion.py).

Contract: `lint` gives every finding in the order of the file; faults of the grammar end the check, because what
follows could not be trusted. Pure but for the matching engine's cache.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from msgspec import Struct

from matcher.database.load import parse_database
from matcher.database.ports import ServiceRow
from matcher.database.samples import Sample, SampleFault, answer, differences
from matcher.errors import DatabaseError, UnsupportedPattern
from matcher.matcher import Matcher
from matcher.model import Match, Probe, ProbeDatabase, Signature
from matcher.patterns import pcre
from matcher.regex.inclusion import made_up, uncovered
from matcher.regex.tree import Node, parse
from matcher.tools.broad import broad_lines, known_wins
from matcher.tools.cost import EXPONENTIAL, needs_backtracking, relaxed, worst_case
from matcher.tools.explain import explain, try_line
from matcher.version import template_fields, unusable_fields

ERROR, WARNING, NOTE = "error", "warning", "note"
MAX_GRAMMAR_FAULTS = 20
MADE_UP = 24  # responses tried before a line's reachability is in doubt
MAX_TAKERS = 12  # lines that are compared with one whose reachability is in doubt
COSTLY = 4  # exponent of the worst case from which a pattern is reported
OLD_LINE_LIMIT = 2047  # bytes; Nmap 7.93 takes the rest of a longer line for another one
_LINE_START = re.compile(rb"(?:soft)?match [^ ]* *\s*m.", re.DOTALL)
_PLACEHOLDER = re.compile(rb"\$(?:\d|[^($]{1,15}\([^)]*\))")
_CPE_COMPONENT = re.compile(r"(?:[\w.~-]|%[0-9A-Fa-f]{2})*", re.ASCII)


class Finding(Struct, frozen=True, order=True):
    """One fault and its place; line and column are 1-based. rule: its kind, one word that never changes."""

    path: str
    line: int
    column: int
    severity: str
    text: str
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.severity}: {self.text} [{self.rule}]"


def lint(
    data: bytes,
    path: str,
    samples: Sequence[Sample] | None = None,
    *,
    faults: Sequence[SampleFault] = (),
    services: Sequence[ServiceRow] = (),
    engine: str = "auto",
) -> list[Finding]:
    """Every finding on the database `data`, called `path`. samples: None where there are none to judge by."""
    found = [Finding(fault.path, fault.line, 1, ERROR, fault.reason, "sample") for fault in faults]
    grammar, database = _read(data, path, services)
    if database is None:
        return found + grammar
    check = _Check(database, data, path, engine)
    if samples is not None:
        found += check.samples(samples)
        found += check.unsampled()
    for rule in (check.names, check.fields, check.cpes, check.patterns, check.reachability):
        found += rule()
    return sorted(found, key=lambda one: (one.path != path, one.path, one.line, one.column))


def lint_broad(
    data: bytes,
    path: str,
    samples: Sequence[Sample],
    *,
    engine: str = "auto",
) -> list[Finding]:
    """Only the lines that win samples of other products, those that win most first; see broad.py."""
    grammar, database = _read(data, path, ())
    if database is None:
        return grammar
    check = _Check(database, data, path, engine)
    wins = broad_lines(known_wins(database, samples, engine).values())
    return [check.at(line.signature)(WARNING, str(line), "broad") for line in wins]


def _read(data: bytes, path: str, services: Sequence[ServiceRow]) -> tuple[list[Finding], ProbeDatabase | None]:
    """The database, or up to MAX_GRAMMAR_FAULTS faults: each faulty line is blanked and the rest read again."""
    found: list[Finding] = []
    lines = data.split(b"\n")
    while len(found) < MAX_GRAMMAR_FAULTS:
        try:
            database = parse_database(b"\n".join(lines), path, services=services)
        except DatabaseError as error:
            found.append(Finding(path, error.line, error.column, ERROR, error.reason, "grammar"))
            faulty = lines[error.line - 1] if error.line <= len(lines) else b""
            if not faulty or faulty.startswith((b"Probe", b"#")):
                break
            lines[error.line - 1] = b"#"
        else:
            return found, None if found else database
    return found, None


class _Check:
    """The rules, over one database that can be read. `won`: ids of the lines that a sample has reached."""

    def __init__(self, database: ProbeDatabase, data: bytes, path: str, engine: str) -> None:
        self.database = database
        self.path = path
        self.raw = data.split(b"\n")
        self.matcher = Matcher(database, engine)
        self.won: set[int] = set()

    def at(self, signature: Signature, template: bytes = b"") -> Callable[[str, str, str], Finding]:
        """(severity, text, rule) -> Finding, placed at a line's pattern, or at one of its templates."""
        raw = self.raw[signature.line - 1]
        start = _LINE_START.match(raw)
        column = start.end() if start else 0
        if template:
            behind = raw.find(template, column + len(signature.pattern))
            column = behind if behind >= 0 else column
        return lambda severity, text, rule: Finding(self.path, signature.line, column + 1, severity, text, rule)

    # -- samples

    def samples(self, samples: Sequence[Sample]) -> Iterator[Finding]:
        for sample in samples:
            if not sample.source_is_valid:
                yield _of(sample, WARNING, "source is neither 'real: ...', 'document: ...' nor 'handmade'", "source")
            probe = self.database.probe(sample.probe, sample.proto)
            if probe is None:
                yield _of(sample, ERROR, f"no {sample.proto.upper()} probe is named {sample.probe}", "sample")
                continue
            text = self.judged(sample, probe)
            if text:
                yield _of(sample, ERROR, *text)

    def judged(self, sample: Sample, probe: Probe) -> tuple[str, str] | None:
        """What is wrong with the answer to a sample, and the rule."""
        match = self.matcher.match(probe, sample.response)
        fault = self._fault(sample, probe, match)
        if match is not None and sample.expect is not None and (fault is None or fault[1] != "stolen"):
            self.won.add(match.signature.id)
        return fault

    def _fault(self, sample: Sample, probe: Probe, match: Match | None) -> tuple[str, str] | None:
        got = answer(match)
        if match is not None and sample.expect is not None:
            for cpe in match.info.cpe:
                if fault := cpe_fault(cpe):
                    return f"line {match.signature.line} gives {cpe}: {fault}", "cpe"
        if got == sample.expect:
            return None
        if match is None or got is None:
            return "no line matches", "no-match"
        line = match.signature.line
        if sample.expect is None:
            return f"line {line} matches, and none may", "false-match"
        wrong = "; ".join(differences(sample.expect, got))
        for fit in explain(self.database, probe, sample.response).fits:
            if answer(fit.match) == sample.expect:
                return f"stolen by line {line} from line {fit.signature.line}: {wrong}", "stolen"
        return f"line {line}: {wrong}", "fields"

    def unsampled(self) -> Iterator[Finding]:
        for signature in self.database.signatures():
            if signature.id not in self.won:
                yield self.at(signature)(ERROR, "no sample reaches this line", "unsampled")

    # -- lines

    def names(self) -> Iterator[Finding]:
        first: dict[tuple[str, str], Probe] = {}
        for probe in self.database.probes:
            other = first.setdefault((probe.proto, probe.name), probe)
            if other is not probe:
                text = f"a second {probe.proto.upper()} probe {probe.name}; the first is in line {other.line}"
                yield Finding(self.path, probe.line, 1, WARNING, text, "duplicate-probe")

    def fields(self) -> Iterator[Finding]:
        for signature in self.database.signatures():
            templates = dict(template_fields(signature.templates))
            pattern = pcre.Pattern(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
            for name, reason in unusable_fields(signature.templates, pattern.groups()):
                text = f"{name} can never be made: {reason}"
                yield self.at(signature, templates[name])(ERROR, text, "field")

    def cpes(self) -> Iterator[Finding]:
        for signature in self.database.signatures():
            seen: set[bytes] = set()
            for template in signature.templates.cpe:
                report = self.at(signature, template)
                if fault := cpe_fault(_PLACEHOLDER.sub(b"0", template).decode("latin-1")):
                    yield report(ERROR, f"not a well-formed CPE: {fault}", "cpe")
                elif (literal := _PLACEHOLDER.sub(b"", template)) != literal.lower():
                    yield report(WARNING, "CPE names are written in lower case", "cpe")
                if template[5:6] in seen:
                    yield report(WARNING, f"a second CPE for part {template[5:6].decode()} replaces the first", "cpe")
                seen.add(template[5:6])

    def patterns(self) -> Iterator[Finding]:
        for signature in self.database.signatures():
            report = self.at(signature)
            if names := needs_backtracking(signature.pattern):
                yield report(NOTE, f"needs backtracking: {', '.join(names)}", "backtracking")
            tree = _tree(signature)
            cost = 0 if tree is None else worst_case(tree)
            if cost == EXPONENTIAL:
                text = "a repeat inside a repeat can divide the same bytes in exponentially many ways"
                yield report(WARNING, text, "cost")
            elif cost >= COSTLY:
                text = f"up to {cost} repeats compete for the same bytes: time grows as (length of response)^{cost}"
                yield report(WARNING, text, "cost")
            if try_line(signature, self.database.probes[0], b"") is not None:
                yield report(WARNING, "fits an empty response: newer Nmap versions refuse such a line", "empty")
            if (length := len(self.raw[signature.line - 1]) + 1) > OLD_LINE_LIMIT:
                text = f"line of {length} bytes: Nmap 7.93 takes at most {OLD_LINE_LIMIT}"
                yield report(WARNING, text, "long-line")

    # -- reachability

    def reachability(self) -> Iterator[Finding]:
        for probe in self.database.probes:
            first: dict[tuple[bytes, bool, bool], Signature] = {}
            for signature in probe.signatures:
                same = first.setdefault((signature.pattern, signature.caseless, signature.dotall), signature)
                if same is not signature:
                    text = f"line {same.line} has the same pattern, so this one is never reached"
                    yield self.at(signature)(ERROR, text, "unreachable")
                elif signature.id not in self.won:
                    yield from self.reached(signature, probe)

    def reached(self, signature: Signature, probe: Probe) -> Iterator[Finding]:
        """Try responses made up for this line; where earlier lines take them all, see if one of them must."""
        tree = _tree(signature)
        takers: dict[int, Signature] = {}
        untaken: list[bytes] = []  # responses that earlier lines do not fit
        for response in () if tree is None else chain(made_up(tree, MADE_UP), _drain(untaken)):
            if try_line(signature, probe, response) is None:
                continue
            match = self.matcher.match(probe, response)
            if match is None or match.signature.id == signature.id:
                return
            taker = match.signature
            if taker.id in takers or len(takers) >= MAX_TAKERS:
                continue
            takers[taker.id] = taker
            exact = None if relaxed(taker.pattern) else _tree(taker)
            rest = None if exact is None or tree is None else uncovered(exact, tree)
            if rest == b"":
                text = f"line {taker.line} fits every response that this one fits, so this one is never reached"
                yield self.at(signature)(ERROR, text, "unreachable")
                return
            untaken += [rest] if rest else []
        if takers:
            lines = ", ".join(str(line) for line in sorted(taker.line for taker in takers.values())[:5])
            text = f"line {lines} took every response made up for this one; not decided whether it can be reached"
        else:
            text = "not decided whether this line can be reached"
        yield self.at(signature)(NOTE, text, "undecided")


def _drain(items: list[bytes]) -> Iterator[bytes]:
    """The items, and those that are added meanwhile."""
    while items:
        yield items.pop(0)


def _of(sample: Sample, severity: str, text: str, rule: str) -> Finding:
    return Finding(sample.path, sample.line, 1, severity, text, rule)


def _tree(signature: Signature) -> Node | None:
    try:
        return parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
    except UnsupportedPattern:
        return None


def cpe_fault(text: str) -> str:
    """What is wrong with a CPE 2.2 URI; empty where nothing is."""
    part, *components = text.removeprefix("cpe:/").split(":")
    if part not in ("a", "h", "o"):
        return f"part {part!r}; expected a, h or o"
    if len(components) < 2 or not all(components[:2]):
        return "vendor and product must both be named"
    if len(components) > 6:
        return f"{len(components) + 1} components; at most 7 are allowed"
    for component in components:
        if _CPE_COMPONENT.fullmatch(component) is None:
            return f"{component!r} holds what must be written as %XX"
    return ""
