"""Match a response: the first line in file order over a probe, its fallbacks and the NULL list.

Contract: `Matcher.match` gives what Nmap 7.93 gives, with any engine. The engine proposes candidates, PCRE2 confirms
them in file order, and the first that fits wins, hard or soft, even where its templates yield nothing.
Source: service-detection behaviour of Nmap 7.93 (lists to try, first match over all lists, limits as "no match").
"""

import os
from collections.abc import Sequence
from threading import Lock, Thread

from msgspec import Struct, field

from matcher import patterns
from matcher.model import Match, Probe, ProbeDatabase, Signature
from matcher.patterns import EveryLine, PatternSet, SetFailure, cache, pcre, plan
from matcher.patterns.keyed import KeyedSet
from matcher.version import Expander, compile_templates, uses_groups

_PLANNED_BY = ("regex/tree.py", "regex/literals.py", "regex/translate.py", "patterns/plan.py")

_UNSET = [(-1, -1)] * 10  # groups 0 to 9 are all that templates can name


class Stats(Struct):
    """What a matcher did.

    failures: sets that could not answer, by cause; each time every line was tried instead.
    """

    responses: int = 0
    candidates: int = 0
    failures: dict[str, int] = field(default_factory=dict)


class Line(pcre.Pattern):
    """One signature, compiled when it is first a candidate. fixed: its Match, where no field needs a group."""

    __slots__ = ("expand", "fixed", "last", "probe", "signature")

    def __init__(self, signature: Signature, probe: Probe) -> None:
        super().__init__(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
        self.signature = signature
        self.probe = probe
        self.expand: Expander | None = None
        self.fixed: Match | None = None
        self.last = 0

    def matched(self, response: bytes, found: pcre.Found) -> Match:
        if self.fixed is not None:
            return self.fixed
        expand = self.expand or self._prepare()
        spans = [*_UNSET]
        for number in range(1, self.last):  # no template can name group 0
            spans[number] = pcre.span(found, response, number)
        return Match(self.signature, self.probe, expand(response, spans))

    def _prepare(self) -> Expander:
        self.expand = compile_templates(self.signature.templates)
        self.last = min(self.groups() + 1, len(_UNSET))
        if not uses_groups(self.signature.templates):
            self.fixed = Match(self.signature, self.probe, self.expand(b"", ()))
        return self.expand


class Matcher:
    """A database that can be asked. engine: the name of the one in use.

    The set of a probe is made when it is first needed, in a fraction of a second, or beforehand by `compile_all` or
    `preload`. Raises EngineUnavailable where the engine is unknown or not installed. cache: keep plans on disk.
    """

    def __init__(self, db: ProbeDatabase, engine: str = "auto", cache: bool = True) -> None:
        self.database = db
        self._engine = patterns.engine(engine)
        self.engine = self._engine.name
        self.stats = Stats()
        self._cached = cache
        self._sets: list[PatternSet | None] = [None] * len(db.probes)
        self._making = [Lock() for _ in db.probes]
        self._lines = [[Line(signature, probe) for signature in probe.signatures] for probe in db.probes]

    def match(self, probe: Probe, response: bytes) -> Match | None:
        """The line that identifies `response` as an answer to `probe`, or None."""
        stats = self.stats
        stats.responses += 1
        size = len(response)
        confirm, context = pcre.match, pcre.CONTEXT
        patience = pcre.Patience()
        for index in probe.lists:
            try:
                candidates = (self._sets[index] or self._load(index)).candidates(response)
            except SetFailure as failure:
                self._count(failure)
                candidates = range(len(self._lines[index]))
            stats.candidates += len(candidates)
            lines = self._lines[index]
            for position in candidates:
                line = lines[position]
                if size > pcre.LONG:
                    found = line.search(response, patience)
                else:
                    try:  # as line.search does, without its call
                        found = confirm(line.code or line.compile(), response, size, 0, context)[0]
                    except pcre.LibraryError:
                        found = line.retry(response, patience)
                if found is not None:
                    return line.matched(response, found)
        return None

    def line(self, probe: int, position: int) -> Line:
        """The line at `position` of the probe with that index, for whoever confirms by hand."""
        return self._lines[probe][position]

    def compile_all(self) -> None:
        """Make every set ready, from the cache or anew."""
        for index in self._order():
            self._load(index)

    def preload(self) -> Thread:
        """Make the NULL probe's set ready, which every conversation begins with; begin with the others beside all else.

        A set that is asked for meanwhile is made, or waited for, by who asks.
        """
        if (null := self.database.null_index) is not None:
            self._load(null)
        thread = Thread(target=self.compile_all, name="preload", daemon=True)
        thread.start()
        return thread

    def _order(self) -> list[int]:
        """The NULL probe first. Processes that start together begin elsewhere with the rest: they share the cache."""
        null = self.database.null_index
        rest = [index for index in range(len(self._sets)) if index != null]
        first = os.getpid() * 7 % max(1, len(rest))
        return ([] if null is None else [null]) + rest[first:] + rest[:first]

    def _load(self, index: int) -> PatternSet:
        with self._making[index]:
            made = self._sets[index]
            if made is None:
                lines, engine = self.database.probes[index].signatures, self._engine
                finding = (engine.cached if self._cached else None) or engine.finding
                made = EveryLine(len(lines)) if finding is None else KeyedSet(self._plan(lines), finding)
                self._sets[index] = made
            return made

    def _plan(self, lines: Sequence[Signature]) -> tuple[plan.Line, ...]:
        if not self._cached:
            return plan.plan(lines)
        return cache.kept(_plan_key(lines), lambda: plan.encode(plan.plan(lines)), plan.decode)

    def _count(self, failure: SetFailure) -> None:
        cause = str(failure)
        self.stats.failures[cause] = self.stats.failures.get(cause, 0) + 1


def _plan_key(lines: Sequence[Signature]) -> str:
    """The lines themselves are the key, so of an edited database only the probes that changed are planned anew."""
    texts = (b"%d%d%b" % (line.caseless, line.dotall, line.pattern) for line in lines)
    return cache.key("plan", cache.code(*_PLANNED_BY), *texts)


def compile_matcher(db: ProbeDatabase, engine: str = "auto", *, cache: bool = True) -> Matcher:
    """A Matcher with every set ready; see Matcher for the arguments."""
    matcher = Matcher(db, engine, cache)
    matcher.compile_all()
    return matcher
