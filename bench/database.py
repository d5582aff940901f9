"""What a database costs: `python -m bench.database [FILE] [--before PLACE]`.

* load: CPU seconds from nothing to every set ready, in a process of its own; cold with an empty cache, then warm;
* match: CPU microseconds a response, over the samples beside the database with a few bytes changed, for each engine;
  with `--before`, as a ratio to another database, or to another checkout with its own code and database (made with
  `git worktree add`), which is asked the same, over its own samples, in turn.

Each round is judged by its best; the answers of the engines are compared before a time counts.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.corpora import ROOT, damaged
from bench.figures import Figure, tell
from matcher import builtin_database, load_database
from matcher.database.samples import Sample, read_samples

GOALS = {"cold": 1.5, "warm": 0.1}
MOST_RATIO = 1.2  # of the time a response took with the database before
ROUNDS = 15
ENGINES = ("hyperscan", "re2")
LOAD = """
import sys, time
from engine.databases import open_matcher
began = time.process_time()
open_matcher([sys.argv[1]], sys.argv[2]).compile_all()
print(time.process_time() - began)
"""
MATCH = """
import sys, time
from pathlib import Path
import msgspec
sys.path[0] = ""
from matcher import Matcher, load_database
database, engine, file = sys.argv[1:]
matcher, reference = (Matcher(load_database(Path(database)), name) for name in (engine, "reference"))
asked = msgspec.msgpack.decode(Path(file).read_bytes(), type=list[tuple[str, str, bytes]])
pairs = [(probe, data) for name, proto, data in asked if (probe := matcher.database.probe(name, proto))]
for probe, data in pairs[::20]:
    assert matcher.match(probe, data) == reference.match(probe, data)
for _ in sys.stdin:
    began = time.process_time()
    for probe, data in pairs:
        matcher.match(probe, data)
    print((time.process_time() - began) / len(pairs) * 1e6, flush=True)
"""
Side = tuple[Path, Path]  # (the checkout whose code it is, a database)


def loads(path: Path, engine: str) -> tuple[float, float]:
    """(cold, warm), each the best of three."""
    cold, warm = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            for times in (cold, warm):
                command = [sys.executable, "-c", LOAD, str(path), engine]
                done = subprocess.run(
                    command, env={**os.environ, "XDG_CACHE_HOME": cache}, check=True, capture_output=True
                )
                times.append(float(done.stdout))
    return min(cold), min(warm)


def matching(sides: Sequence[Side], samples: Sequence[Sample], engine: str) -> list[float]:
    """Microseconds a response, of each side. Raises CalledProcessError where one cannot be asked."""
    rng = random.Random(1)
    responses = [(one.probe, one.proto, damaged(one.response, rng)) for one in samples]
    with tempfile.NamedTemporaryFile() as file, ExitStack() as stack:
        file.write(msgspec.msgpack.encode(responses))
        file.flush()
        asked = []
        for code, database in sides:
            command = [sys.executable, "-c", MATCH, str(database), engine, file.name]
            process = subprocess.Popen(command, cwd=code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            asked.append(stack.enter_context(process))
        best = [float("inf")] * len(asked)
        for number in range(1 + ROUNDS):
            for at, process in enumerate(asked):
                assert process.stdin and process.stdout
                process.stdin.write("again\n")
                process.stdin.flush()
                if not (said := process.stdout.readline()):
                    raise subprocess.CalledProcessError(process.wait(), process.args)
                best[at] = min(best[at], float(said)) if number else best[at]  # the first one fills caches
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=builtin_database())
    parser.add_argument("--before", type=Path, help="what match times are ratios to")
    options = parser.parse_args()
    file, before = options.file.resolve(), options.before and options.before.resolve()
    sides = [(ROOT, file)]
    if before:
        sides.append((before, before / "data" / "service-probes") if before.is_dir() else (ROOT, before))
    if missing := [str(path) for _, path in sides if not path.is_file()]:
        parser.error(f"{missing[0]}: no such file")
    if not (folder := sides[-1][1].parent / "samples").is_dir():
        parser.error(f"{folder}: samples are missing; a database is asked over those that lie beside it")
    samples, _ = read_samples([folder])
    corpus = f"{sum(1 for _ in load_database(file).signatures()):,} lines"
    for engine in ENGINES:
        for name, value in zip(GOALS, loads(file, engine), strict=True):
            tell(Figure(f"database.{name}.{engine}", value, "s", goal=GOALS[name], corpus=corpus))
        now, *then = matching(sides, samples, engine)
        reference, goal = (then[0], 1 / MOST_RATIO) if then else (0.0, 0.0)
        tell(Figure(f"database.match.{engine}", now, "us", reference=reference, goal=goal, corpus=corpus))


if __name__ == "__main__":
    main()
