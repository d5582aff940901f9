"""Match a response: the first line in file order over a probe, its fallbacks and the NULL list.

Contract: `Matcher.match` gives what Nmap 7.93 gives, with any engine. The engine proposes candidates, PCRE2 confirms
them in file order, and the first that fits wins, hard or soft, even where its templates yield nothing.
Source: service-detection behaviour of Nmap 7.93 (lists to try, first match over all lists, limits as "no match").
"""

from collections.abc import Callable

from msgspec import Struct

from matcher import patterns
from matcher.model import Match, Probe, ProbeDatabase, Signature
from matcher.patterns import PatternSet, SetFailure, pcre
from matcher.version import Expander, compile_templates, uses_groups

Progress = Callable[[int, int], None]
"""(probes whose sets are ready, probes in all); told while compiling."""

MAX_GROUPS = 10  # groups 0 to 9 are all that templates can name
_UNSET = (-1, -1)


class Stats(Struct):
    """What a matcher did. failures: sets that could not answer, by cause; each was answered line by line instead."""

    responses: int = 0
    candidates: int = 0
    confirms: int = 0
    limits: int = 0
    failures: dict[str, int] = {}


class _Line:
    """One signature, compiled when it is first a candidate. fixed: its Match, where no field needs a group."""

    __slots__ = ("code", "expand", "fixed", "groups", "probe", "signature")

    def __init__(self, signature: Signature, probe: Probe) -> None:
        self.signature = signature
        self.probe = probe
        self.code: pcre.Code | None = None
        self.fixed: Match | None = None
        self.expand: Expander
        self.groups = 0

    def compile(self) -> pcre.Code:
        signature = self.signature
        self.code = pcre.compile_pattern(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
        self.expand = compile_templates(signature.templates)
        self.groups = min(pcre.groups(self.code) + 1, MAX_GROUPS)
        if not uses_groups(signature.templates):
            self.fixed = Match(signature, self.probe, self.expand(b"", ()))
        return self.code

    def matched(self, response: bytes, found: object) -> Match:
        if self.fixed is not None:
            return self.fixed
        spans = [pcre.span(found, response, number) for number in range(self.groups)]
        spans += [_UNSET] * (MAX_GROUPS - self.groups)
        return Match(self.signature, self.probe, self.expand(response, spans))


class Matcher:
    """A database ready to be asked. engine: the name of the one in use.

    Raises EngineUnavailable where the engine is unknown or not installed. cache: keep compiled sets on disk.
    """

    def __init__(
        self, db: ProbeDatabase, engine: str = "auto", cache: bool = True, progress: Progress | None = None
    ) -> None:
        self.database = db
        self._engine = patterns.engine(engine)
        self.engine = self._engine.name
        self.stats = Stats()
        self._progress = progress
        self._sets: list[PatternSet | None] = [None] * len(db.probes)
        self._lines = [[_Line(signature, probe) for signature in probe.signatures] for probe in db.probes]

    def match(self, probe: Probe, response: bytes) -> Match | None:
        """The line that identifies `response` as an answer to `probe`, or None."""
        stats = self.stats
        stats.responses += 1
        size = len(response)
        confirm, context = pcre.match, pcre.CONTEXT
        for index in probe.lists:
            try:
                candidates = (self._sets[index] or self._load(index)).candidates(response)
            except SetFailure as failure:
                cause = str(failure)
                stats.failures[cause] = stats.failures.get(cause, 0) + 1
                candidates = range(len(self._lines[index]))
            stats.candidates += len(candidates)
            lines = self._lines[index]
            for position in candidates:
                line = lines[position]
                stats.confirms += 1
                try:
                    found = confirm(line.code or line.compile(), response, size, 0, context)[0]
                except pcre.LibraryError:
                    stats.limits += 1
                    continue
                if found is not None:
                    return line.matched(response, found)
        return None

    def compile_all(self) -> None:
        """Make every set ready."""
        total = len(self._sets)
        for index in range(total):
            if self._sets[index] is None:
                self._load(index)
            if self._progress is not None:
                self._progress(index + 1, total)

    def _load(self, index: int) -> PatternSet:
        made = self._engine.load(self._engine.analyse(self.database.probes[index].signatures))
        self._sets[index] = made
        return made


def compile_matcher(db: ProbeDatabase, engine: str = "auto", **options: bool) -> Matcher:
    """A Matcher over `db`."""
    return Matcher(db, engine, **options)
