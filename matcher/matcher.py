"""Match a response: the first line in file order over a probe, its fallbacks and the NULL list.

Contract: `Matcher.match` gives what Nmap 7.93 gives, with any engine. The engine proposes candidates, PCRE2 confirms
them in file order, and the first that fits wins, hard or soft, even where its templates yield nothing.
Source: service-detection behaviour of Nmap 7.93 (lists to try, first match over all lists, limits as "no match").
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Thread

from msgspec import Struct, field

from matcher import patterns
from matcher.model import Match, Probe, ProbeDatabase, Signature
from matcher.patterns import EveryLine, PatternSet, SetFailure, cache, pcre, quarantine
from matcher.version import Expander, compile_templates, uses_groups

Progress = Callable[[int, int], None]
"""(probes whose sets are ready, probes in all); told while compiling, which ends with what it raises."""

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
        spans = [pcre.span(found, response, number) for number in range(self.last)]
        spans += _UNSET[self.last :]
        return Match(self.signature, self.probe, expand(response, spans))

    def _prepare(self) -> Expander:
        self.expand = compile_templates(self.signature.templates)
        self.last = min(self.groups() + 1, len(_UNSET))
        if not uses_groups(self.signature.templates):
            self.fixed = Match(self.signature, self.probe, self.expand(b"", ()))
        return self.expand


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
        self._cached = cache
        self._progress = progress
        self._sets: list[PatternSet | None] = [None] * len(db.probes)
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
                candidates = (self._sets[index] or self._load_alone(index)).candidates(response)
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
        """Make every set ready, from the cache or anew; the engines that compile long do so on all cores.

        The threads are daemons and hold what they need by themselves: who leaves early, because `progress` has raised
        or the program ends, does not wait for the sets that they are at.
        """
        missing = [index for index, made in enumerate(self._sets) if made is None]
        missing.sort(key=lambda index: -len(self._lines[index]))
        if not missing:
            return
        todo, done = deque(missing), SimpleQueue[BaseException | None]()
        with ExitStack() as stack:
            notes = stack.enter_context(quarantine.notes(wanted=self._cached))
            if self._is_cold(missing):
                stack.enter_context(cache.alone())
            held = stack.pop_all()
        crew = [Thread(target=self._make_sets, args=(todo, done, notes), daemon=True) for _ in range(_cores())]
        keeper = Thread(target=_work, args=(crew, held), daemon=True)
        keeper.start()
        try:
            for ready in range(1, len(missing) + 1):
                if (failure := done.get()) is not None:
                    raise failure
                if self._progress is not None:
                    self._progress(len(self._sets) - len(missing) + ready, len(self._sets))
            keeper.join()
        finally:
            todo.clear()

    def _make_sets(
        self, todo: "deque[int]", done: "SimpleQueue[BaseException | None]", notes: quarantine.Notes
    ) -> None:
        """One thread of the crew: as long as there is something to do."""
        with suppress(IndexError):
            while True:
                index = todo.popleft()
                try:
                    self._load(index, notes)
                    done.put(None)
                except BaseException as failure:  # told to whoever waits
                    done.put(failure)

    def _is_cold(self, indices: list[int]) -> bool:
        """Whether any of these sets would have to be compiled and kept."""
        return self._cached and not cache.holds(map(self._cache_key, indices))

    def _load(self, index: int, notes: quarantine.Notes) -> PatternSet:
        engine, lines = self._engine, self.database.probes[index].signatures
        made: PatternSet
        try:
            if self._cached:
                key = self._cache_key(index)
                made = cache.kept(key, lambda: engine.analyse(lines), notes.around(key, engine.load))
            else:
                made = engine.load(engine.analyse(lines))
        except SetFailure as failure:
            self._count(failure)
            made = EveryLine(len(lines))
        self._sets[index] = made
        return made

    def _load_alone(self, index: int) -> PatternSet:
        """A set that is needed before `compile_all` was asked for."""
        with quarantine.notes(wanted=self._cached) as notes:
            return self._load(index, notes)

    def _cache_key(self, index: int) -> str:
        """The lines themselves are the key, so an edited database compiles only the probes that changed."""
        engine, lines = self._engine, self.database.probes[index].signatures
        regex = ("regex/tree.py", "regex/literals.py", "regex/translate.py", "regex/effort.py")
        code = cache.code(*regex, f"patterns/{engine.name}.py")
        texts = (b"%d%d%b" % (line.caseless, line.dotall, line.pattern) for line in lines)
        return cache.key("set", engine.name, engine.version, code, cache.cpu_features(), *texts)

    def _count(self, failure: SetFailure) -> None:
        cause = str(failure)
        self.stats.failures[cause] = self.stats.failures.get(cause, 0) + 1


def _cores() -> int:
    return os.cpu_count() or 1


def _work(crew: Sequence[Thread], held: ExitStack) -> None:
    """Let the crew work, and give back what it needs when the last one is done."""
    with held:
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()


def compile_matcher(
    db: ProbeDatabase, engine: str = "auto", *, cache: bool = True, progress: Progress | None = None
) -> Matcher:
    """A Matcher with every set ready; see Matcher for the arguments."""
    matcher = Matcher(db, engine, cache, progress)
    matcher.compile_all()
    return matcher
