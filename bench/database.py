"""What a database costs: `python -m bench.database [FILE] [--before FILE]`.

* load: CPU seconds from nothing to every set ready, in a process of its own; cold with an empty cache, then warm;
* match: CPU microseconds a response, over the samples beside the database with a few bytes changed, for each engine;
  with `--before`, as a ratio to another database that is asked the same in turn.

Each round is judged by its best; the answers of the engines are compared before a time counts.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.corpora import damaged
from bench.figures import Figure, tell
from matcher import Matcher, ProbeDatabase, builtin_database, load_database
from matcher.database.samples import Sample, read_samples

GOALS = {"cold": 1.5, "warm": 0.1}
MOST_RATIO = 1.2  # of the time a response took with the database before
ROUNDS = 5
ENGINES = ("hyperscan", "re2")
LOAD = """
import sys, time
from engine.databases import open_matcher
began = time.process_time()
open_matcher([sys.argv[1]], sys.argv[2]).compile_all()
print(time.process_time() - began)
"""


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


def matching(databases: Sequence[ProbeDatabase], samples: Sequence[Sample], engine: str) -> list[float]:
    """Microseconds a response, of each database."""
    rng = random.Random(1)
    responses = [(one.probe, one.proto, damaged(one.response, rng)) for one in samples]
    asked = []
    for database in databases:
        matcher, reference = Matcher(database, engine), Matcher(database, "reference")
        found = [(database.probe(name, proto), data) for name, proto, data in responses]
        pairs = [(probe, data) for probe, data in found if probe is not None]
        for probe, data in pairs[::20]:
            assert matcher.match(probe, data) == reference.match(probe, data)
        for probe, data in pairs:
            matcher.match(probe, data)
        asked.append((matcher, pairs))
    best = [float("inf")] * len(asked)
    for _ in range(ROUNDS):
        for number, (matcher, pairs) in enumerate(asked):
            began = time.process_time()
            for probe, data in pairs:
                matcher.match(probe, data)
            best[number] = min(best[number], (time.process_time() - began) / len(pairs) * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=builtin_database())
    parser.add_argument("--before", type=Path, help="a database, and its samples, to which match times are ratios")
    options = parser.parse_args()
    base = options.before or options.file
    samples, _ = read_samples([base.parent / "samples"])
    files = [options.file, options.before] if options.before else [options.file]
    databases = [load_database(path) for path in files]
    corpus = f"{sum(len(probe.signatures) for probe in databases[0].probes):,} lines"
    for engine in ENGINES:
        for name, value in zip(GOALS, loads(options.file, engine), strict=True):
            tell(Figure(f"database.{name}.{engine}", value, "s", goal=GOALS[name], corpus=corpus))
        now, *before = matching(databases, samples, engine)
        reference, goal = (before[0], 1 / MOST_RATIO) if before else (0.0, 0.0)
        tell(Figure(f"database.match.{engine}", now, "us", reference=reference, goal=goal, corpus=corpus))


if __name__ == "__main__":
    main()
