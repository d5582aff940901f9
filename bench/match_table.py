"""How fast is matching? `python -m bench.match_table [--quick] [--only get_long]` prints a table a corpus.

Contract: a row is timed only after its answers were compared with what the corpus expects. Times are CPU time of one
core for the whole classification, and beside it for its two steps alone: finding the lines that may fit, and confirming
them. Cases: the golden corpus where it is there, else this project's samples. Lines without a claim to exactness
(Python's re, pyre2) say how many answers were right. `--quick` is for records: the engines, and little else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from bench import re2_set
from bench.corpora import Case, Corpus, golden, mutated, own
from bench.figures import Figure, tell
from bench.machine import this_machine, versions
from bench.rivals import Inexact, LineByLine, pyre2, python_re, re2_sets
from bench.steps import asked, candidates, confirm, find, sets
from matcher import EngineUnavailable, Match, Matcher
from matcher.database.samples import Expected, answer
from matcher.patterns import ENGINES, bindings

FEW = 150  # cases for what takes milliseconds per response
SOME = 600  # cases for the reference
NEW = 4000  # responses never seen
BUILD_GOAL_S = 2.0  # a cold start, and planning is its dearest part
FIRST_GOAL_S = 0.07  # to compile the keys of GetRequest's lines
PASSES = ("cold, first pass", "never seen, automata warm", "warm")
KINDS = ("cold", "unseen", "warm")  # the same in the names of figures

Ask = Callable[[Case], object]


def wrong_answers(answers: Sequence[Match | None], corpus: Corpus) -> int:
    """How many differ from what is expected; whether a line is soft is told by some corpora only."""
    wrong = 0
    for match, expected in zip(answers, corpus.expected, strict=True):
        got = answer(match)
        if got is not None and not (expected and expected.soft):
            got = Expected(**{name: getattr(got, name) for name in got.__struct_fields__ if name != "soft"})
        wrong += got != expected
    return wrong


def timed(ask: Ask, cases: Sequence[Case], repeats: int = 1) -> float:
    """CPU microseconds per response, the best of `repeats`."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for case in cases:
            ask(case)
        best = min(best, time.process_time() - start)
    return best / len(cases) * 1e6


def asking(matcher: Matcher) -> Ask:
    return lambda case: matcher.match(*case)


class Part(Struct, frozen=True):
    """A corpus, what figures call it, and the goals of ours: how many times as fast as the reference."""

    name: str
    corpus: Corpus
    goals: dict[str, float] = {}


class Table:
    """Prints rows as they come. baseline: microseconds of the reference, which every row is compared with."""

    def __init__(self, part: Part) -> None:
        sizes = sorted(len(response) for _, response in part.corpus.cases)
        print(
            f"\n{part.corpus.name}: {len(sizes):,} responses, median {sizes[len(sizes) // 2]:,} bytes, mean "
            f"{sum(sizes) // len(sizes):,} bytes"
        )
        columns = f"{'us/response':>12}{'find':>9}{'confirm':>9}{'candidates':>11}{'x reference':>13}"
        print(f"  {'engine':36}{columns}  answers")
        self.part = part
        self.baseline = 0.0
        self.figures: list[Figure] = []

    def row(self, name: str, micros: float, note: str, steps: tuple[float, float, float] | None = None) -> None:
        """steps: finding and confirming, in microseconds; candidates."""
        times = f"{self.baseline / micros:,.1f}" if self.baseline else "1.0"
        columns = f"{steps[0]:9,.1f}{steps[1]:9,.1f}{steps[2]:11,.2f}" if steps else " " * 29
        print(f"  {name:36}{micros:12,.1f}{columns}{times:>13}  {note}", flush=True)

    def figure(self, name: str, value: float, unit: str = "us") -> None:
        name = f"match.{self.part.name}.{name}"
        reference = self.baseline if unit == "us" else 0.0
        goal = self.part.goals.get(name, 0.0)
        corpus = f"{self.part.corpus.name}, {len(self.part.corpus.cases)} responses"
        self.figures.append(Figure(name, value, unit, reference=reference, goal=goal, corpus=corpus))


class Comparison:
    """Every engine on the same three passes: the corpus, the same with random changes, the corpus again."""

    def __init__(self, part: Part) -> None:
        self.table = Table(part)
        self.corpus = part.corpus
        self.exact = Matcher(part.corpus.database, "re2")
        known = part.corpus.cases
        self.passes = (known, list(mutated(part.corpus, min(NEW, 4 * len(known)))), known)
        self.truth = [[self.exact.match(*case) for case in cases] for cases in self.passes]
        self.questions = [asked(cases, truth) for cases, truth in zip(self.passes, self.truth, strict=True)]

    def reference(self, name: str, *, jit: bool) -> None:
        some = self.corpus.sample(SOME)
        lines = LineByLine(self.corpus.database, jit=jit)
        wrong = wrong_answers([lines(case) for case in some.cases], some)
        unseen = zip(self.passes[1][:FEW], self.truth[1], strict=False)
        wrong += sum(lines(case) != answer for case, answer in unseen)
        micros = timed(lines, some.cases)
        self.table.row(name, micros, f"{wrong} of {len(some.cases) + FEW} wrong" if wrong else "all right")
        self.table.baseline = self.table.baseline or micros

    def engine(self, name: str) -> None:
        try:
            matcher = Matcher(self.corpus.database, name)
        except EngineUnavailable as absent:
            print(f"  {name}: {absent}")
            return
        matcher.compile_all()
        made = sets(self.corpus.database, name, [question for questions in self.questions for question in questions])
        for at, label in enumerate(PASSES):
            micros = timed(asking(matcher), self.passes[at], 3 if label == "warm" else 1)
            note = self._judged([matcher.match(*case) for case in self.passes[at]], at)
            found = find(made, self.questions[at])
            confirming, answers = confirm(matcher, self.questions[at], found)
            note += self._differing(answers, at)
            self.table.row(f"{name} {label}", micros, note, (found.micros, confirming, candidates(found)))
            self.table.figure(f"{name}.{KINDS[at]}", micros)
            if KINDS[at] == "unseen":
                self.table.figure(f"{name}.find", found.micros)
                self.table.figure(f"{name}.confirm", confirming)
                self.table.figure(f"{name}.candidates", candidates(found), "lines")

    def re2_sets(self) -> None:
        """One RE2::Set a probe; what it proposes is confirmed as for ours."""
        try:
            answer = re2_sets(self.corpus.database, self.questions)
        except re2_set.Absent as absent:
            print(f"  RE2::Set: {absent}")
            return
        for at, label in enumerate(PASSES):
            found = answer.passes[at]
            confirming, answers = confirm(self.exact, self.questions[at], found)
            micros = found.micros + confirming
            note = self._judged(answers, at)
            self.table.row(f"RE2::Set {label}", micros, note, (found.micros, confirming, candidates(found)))
            if KINDS[at] == "unseen":
                self.table.figure("re2_set.unseen", micros)
        failures = f", {answer.failures} responses without an answer" if answer.failures else ""
        memory = f"at most {answer.memory:,} MiB (bound {re2_set.MEMORY >> 20} MiB a set)"
        print(f"  RE2::Set: google-re2 {answer.version}, compiled in {answer.build_s:.2f} s, {memory}{failures}")

    def inexact(self) -> None:
        few = self.corpus.sample(FEW)
        truth = [match and match.signature.line for match in (self.exact.match(*case) for case in few.cases)]
        for name, compiled in (("Python re, line by line", python_re), ("pyre2, line by line, warm", pyre2)):
            inexact = Inexact(self.corpus.database, compiled)
            wrong = sum(inexact(case) != line for case, line in zip(few.cases, truth, strict=True))
            micros = timed(inexact, few.cases)
            self.table.row(name, micros, f"{wrong} of {len(truth)} wrong, {inexact.refused} refused, no fields")

    def _judged(self, answers: Sequence[Match | None], at: int) -> str:
        """Against the corpus; what was never seen, against the re2 engine, which `reference` checks in part."""
        if self.passes[at] is self.corpus.cases:
            wrong = wrong_answers(answers, self.corpus)
        else:
            wrong = sum(one != other for one, other in zip(answers, self.truth[at], strict=True))
        return f"{wrong} of {len(answers)} wrong" if wrong else "all right"

    def _differing(self, answers: Sequence[Match | None], at: int) -> str:
        wrong = sum(one != other for one, other in zip(answers, self.truth[at], strict=True))
        return f", {wrong} wrong step by step" if wrong else ""


def compare(part: Part, *, quick: bool) -> list[Figure]:
    """Print the table of a corpus; its figures."""
    comparison = Comparison(part)
    comparison.reference("reference, PCRE2 without JIT", jit=False)
    if not quick:
        comparison.reference("reference, PCRE2 with JIT", jit=True)
    for engine in ENGINES:
        if engine != "reference":
            comparison.engine(engine)
    if not quick:
        comparison.re2_sets()
        comparison.inexact()
    return comparison.table.figures


STARTS = """
import sys, time
from bench.corpora import golden, own, mutated
from matcher import Matcher
corpus = golden() if sys.argv[1] == "golden" else own()
begin = time.process_time()
matcher = Matcher(corpus.database, sys.argv[2])
matcher.compile_all()
print(time.process_time() - begin)
begin = time.process_time()
matcher.match(corpus.database.probe("GetRequest"), b"HTTP/1.1 200 OK\\r\\n\\r\\n")
print(time.process_time() - begin)
if sys.argv[3] == "memory":
    def memory():
        return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))
    database = corpus.database
    for half in range(2):
        for case in mutated(corpus, 50_000, half):
            matcher.match(*case)
        print(memory())
"""


def starts(name: str, *, memory: bool) -> list[Figure]:
    """Time to make all sets with an empty and a filled cache, and of the first HTTP response, which makes an automaton.

    memory: and that after 100,000 different responses.
    """
    figures = []
    print("\nCPU seconds to plan all, the same from the cache, first HTTP response; MiB of a process after 50,000 and")
    print(f"100,000 different responses ({name})")
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "XDG_CACHE_HOME": folder}
            results: list[str] = []
            for mode in ("build", "memory" if memory and engine != "reference" else "build"):
                done = subprocess.run(
                    [sys.executable, "-c", STARTS, name, engine, mode],
                    capture_output=True,
                    text=True,
                    env=environment,
                    timeout=900,
                    check=False,
                )
                results += done.stdout.split()
        if len(results) < 4:
            print(f"  {engine}: not installed")
            continue
        cold, _, warm, first = map(float, results[:4])
        print(f"  {engine:12}{cold:8.2f}{warm:8.2f}{first:8.3f}   {' '.join(results[4:]) or '-'}", flush=True)
        if engine != "reference":
            figures.append(Figure(f"match.build.{engine}.cold", cold, "s", goal=BUILD_GOAL_S, corpus=name))
            figures.append(Figure(f"match.build.{engine}.cached", warm, "s", corpus=name))
            figures.append(Figure(f"match.build.{engine}.first", first, "s", goal=FIRST_GOAL_S, corpus=name))
    return figures


def parts(corpus: Corpus) -> list[Part]:
    """The goals are those of a whole command, beside which the matcher alone must not be the bound."""
    long = corpus.only("GetRequest 1-10 kB", "GetRequest", range(1000, 10_001))
    return [
        Part("null", corpus.only("NULL", "NULL")),
        Part("get", corpus.only("GetRequest", "GetRequest")),
        Part("get_long", long, {"match.get_long.hyperscan.unseen": 150, "match.get_long.re2.unseen": 60}),
        Part("all", corpus),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="of null,get,get_long,all,build")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    corpus = golden()
    if isinstance(corpus, str):
        print(f"golden corpus not used: {corpus}")
        corpus = own()
    libraries = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"machine: {this_machine()}\nversions: {libraries}, libpcre2 {bindings.LIBPCRE2}")
    lines = sum(len(probe.signatures) for probe in corpus.database.probes)
    print(f"database: {corpus.database.name}, {lines:,} lines, sha256 {corpus.database.sha256[:16]}")
    figures = []
    for part in parts(corpus):
        chosen = part.name in only if only else not (options.quick and part.name == "get")
        if part.corpus.cases and chosen:
            figures += compare(part, quick=options.quick)
    if not only or "build" in only:
        figures += starts(corpus.name, memory=not options.quick)
    print()
    for figure in figures:
        tell(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
