"""How fast is matching? `python -m bench.match_table` prints one table: every engine on the same responses.

Contract: a row is timed only after its answers were compared with what the corpus expects. Times are CPU time of one
core for the whole classification: candidates, confirm, fields. Cases: the golden corpus where it is there, else this
project's samples. Lines without a claim to exactness (Python's re, pyre2) say how many answers were right.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import re2

from bench.corpora import Case, Corpus, golden, mutated, own
from matcher import EngineUnavailable, Match, Matcher, ProbeDatabase, Signature
from matcher.database.samples import Expected, answer
from matcher.patterns import ENGINES, bindings, pcre

FEW = 150  # cases for what takes milliseconds per response
SOME = 600  # cases for the reference

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


class LineByLine:
    """One line after another in file order, with Nmap's limits. jit: PCRE2's compiler in place of its interpreter."""

    def __init__(self, database: ProbeDatabase, *, jit: bool) -> None:
        self.matcher = Matcher(database, "reference")  # for its fields of a match only
        self.codes = []
        for probe in database.probes:
            codes = [
                pcre.compile_pattern(line.pattern, caseless=line.caseless, dotall=line.dotall)
                for line in probe.signatures
            ]
            if jit:
                for code in codes:
                    bindings.jit_compile(code)
            self.codes.append(codes)

    def __call__(self, case: Case) -> Match | None:
        probe, response = case
        size = len(response)
        for index in probe.lists:
            for position, code in enumerate(self.codes[index]):
                try:
                    found = pcre.match(code, response, size, 0, pcre.CONTEXT)[0]
                except pcre.LibraryError:
                    continue
                if found is not None:
                    return self.matcher.line(index, position).matched(response, found)
        return None


class Wrapped(Protocol):
    """A compiled pattern of Python's re or pyre2."""

    def search(self, response: bytes, /) -> object: ...


def python_re(line: Signature) -> Wrapped | None:
    try:
        return re.compile(line.pattern, re.IGNORECASE * line.caseless | re.DOTALL * line.dotall)
    except (re.error, OverflowError, RecursionError):
        return None


def pyre2(line: Signature) -> Wrapped | None:
    """As its user would ask it, but without what it hands on to Python's re."""
    try:
        found = re2.compile(line.pattern, re.IGNORECASE * line.caseless | re.DOTALL * line.dotall)
    except (re.error, OverflowError, RecursionError, ValueError):
        return None
    return found if isinstance(found, re2.Pattern) else None


class Inexact:
    """One line after another, without fields. Lines `compiled` cannot take, or reads otherwise, are its own loss."""

    def __init__(self, database: ProbeDatabase, compiled: Callable[[Signature], Wrapped | None]) -> None:
        self.lines = [[(line, compiled(line)) for line in probe.signatures] for probe in database.probes]
        self.refused = sum(pattern is None for lines in self.lines for _, pattern in lines)

    def __call__(self, case: Case) -> int | None:
        probe, response = case
        for index in probe.lists:
            for line, pattern in self.lines[index]:
                if pattern is not None and pattern.search(response):
                    return line.line
        return None


class Table:
    """Prints rows as they come. baseline: microseconds of the reference, which every row is compared with."""

    def __init__(self, corpus: Corpus) -> None:
        sizes = sorted(len(response) for _, response in corpus.cases)
        print(
            f"\n{corpus.name}: {len(sizes):,} responses, median {sizes[len(sizes) // 2]:,} bytes, mean "
            f"{sum(sizes) // len(sizes):,} bytes"
        )
        print(f"  {'engine':34}{'us/response':>12}{'responses/s':>13}{'x reference':>13}  answers")
        self.baseline = 0.0

    def row(self, name: str, micros: float, note: str) -> None:
        times = f"{self.baseline / micros:,.1f}" if self.baseline else "1.0"
        print(f"  {name:34}{micros:12,.1f}{1e6 / micros:13,.0f}{times:>13}  {note}", flush=True)


def compare(corpus: Corpus) -> None:
    table = Table(corpus)
    some, few = corpus.sample(SOME), corpus.sample(FEW)
    for name, jit in (("reference, PCRE2 without JIT", False), ("reference, PCRE2 with JIT", True)):
        lines = LineByLine(corpus.database, jit=jit)
        wrong = wrong_answers([lines(case) for case in some.cases], some)
        micros = timed(lines, some.cases)
        table.row(name, micros, f"{wrong} of {len(some.cases)} wrong" if wrong else "all right")
        table.baseline = table.baseline or micros
    for engine in ENGINES:
        if engine == "reference":
            continue
        try:
            matcher = Matcher(corpus.database, engine)
        except EngineUnavailable as absent:
            print(f"  {engine}: {absent}")
            continue
        matcher.compile_all()
        cold = timed(asking(matcher), corpus.cases)
        new = list(mutated(corpus, min(4000, 4 * len(corpus.cases))))
        unseen = timed(asking(matcher), new)
        matcher.stats.responses = matcher.stats.candidates = 0
        answers = [matcher.match(*case) for case in corpus.cases]
        found = matcher.stats.candidates / matcher.stats.responses
        wrong = wrong_answers(answers, corpus)
        note = (f"{wrong} of {len(answers)} wrong" if wrong else "all right") + f", {found:.2f} candidates"
        table.row(f"{engine} cold, first pass", cold, note)
        table.row(f"{engine} never seen, automata warm", unseen, "responses with random changes")
        table.row(f"{engine} warm", timed(asking(matcher), corpus.cases, 3), note)
    exact = Matcher(corpus.database, "re2")
    truth = [match and match.signature.line for match in (exact.match(*case) for case in few.cases)]
    for name, compiled in (("Python re, line by line", python_re), ("pyre2, line by line, warm", pyre2)):
        inexact = Inexact(corpus.database, compiled)
        wrong = sum(inexact(case) != line for case, line in zip(few.cases, truth, strict=True))
        micros = timed(inexact, few.cases)
        table.row(name, micros, f"{wrong} of {len(truth)} wrong, {inexact.refused} lines refused, no fields")


STARTS = """
import sys, time
start = time.perf_counter()
from bench.corpora import golden, own, mutated
from matcher import Matcher
corpus = golden() if sys.argv[1] == "golden" else own()
begin = time.perf_counter()
matcher = Matcher(corpus.database, sys.argv[2])
matcher.compile_all()
print(time.perf_counter() - begin)
if sys.argv[3] == "memory":
    def memory():
        return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))
    database = corpus.database
    for half in range(2):
        for case in mutated(corpus, 50_000, half):
            matcher.match(*case)
        print(memory())
"""


def starts(name: str) -> None:
    """Build time with an empty and a filled cache, and memory after 100,000 different responses."""
    print(f"\nbuild seconds cold, from cache; MiB of a process after 50,000 and 100,000 different responses ({name})")
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "XDG_CACHE_HOME": folder}
            results: list[str] = []
            for mode in ("build", "memory"):
                done = subprocess.run(
                    [sys.executable, "-c", STARTS, name, engine, mode if engine != "reference" else "build"],
                    capture_output=True,
                    text=True,
                    env=environment,
                    timeout=900,
                    check=False,
                )
                results += done.stdout.split()
        if len(results) < 2:
            print(f"  {engine}: not installed")
            continue
        cold, warm, *memory = results
        print(f"  {engine:12}{float(cold):8.2f}{float(warm):8.2f}   {' '.join(memory) or '-'}", flush=True)


def main() -> None:
    corpus = golden()
    if isinstance(corpus, str):
        print(f"golden corpus not used: {corpus}")
        corpus = own()
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    names = ("pyre2", "hyperscan", "pcre2")
    print(
        f"machine: {os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )
    print(f"versions: {', '.join(f'{name} {_version(name)}' for name in names)}, libpcre2 {bindings.LIBPCRE2}")
    lines = sum(len(probe.signatures) for probe in corpus.database.probes)
    print(f"database: {corpus.database.name}, {lines:,} lines, sha256 {corpus.database.sha256[:16]}")
    parts = (
        corpus.only("NULL", "NULL"),
        corpus.only("GetRequest", "GetRequest"),
        corpus.only("GetRequest 1-10 kB", "GetRequest", range(1000, 10_001)),
        corpus,
    )
    for part in parts:
        if part.cases:
            compare(part)
    starts(corpus.name)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "absent"


if __name__ == "__main__":
    main()
