"""The plain reading of "RE2 sets grouped by probe": one RE2::Set of whole patterns a probe, through google-re2.

google-re2 is imported as `re2`, as pyre2 is, so it lives in a throw-away folder and is asked by a process of its own:
`ask` installs it, writes a question to a file, and reads the answer. Run by `ask` only; so this module imports nothing
that needs pyre2.
Contract: as every set of ours, with the same bound of memory. RE2 says "nothing matches" without an error where its
automaton runs out of memory, so each set has one more pattern that matches everything: where it is missing, the answer
is every line, and counted as a failure.
Source: re2/set.h of RE2; google-re2's re2.py.
"""

import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from msgspec import Struct, field

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bindings" / "google-re2"
MEMORY = 256 << 20  # bytes a set: what the re2 engine gives its automaton

Asked = tuple[tuple[int, ...], bytes]  # lists to ask in this order, response


class Question(Struct):
    """sets: the patterns of each list. passes: what to ask, one after another with the same automata."""

    sets: dict[int, list[bytes]]
    passes: list[list[Asked]]


class Pass(Struct):
    """micros: CPU time a response. found: for each response, for each list asked, positions in ascending order."""

    micros: float
    found: list[list[list[int]]]


class Answer(Struct):
    """build_s: CPU time. memory: MiB of the process at its most. failures: responses that a set could not answer."""

    version: str = ""
    build_s: float = 0.0
    memory: int = 0
    failures: int = 0
    passes: list[Pass] = field(default_factory=list)


class Absent(Exception):  # noqa: N818 - a fact about the environment
    """google-re2 cannot be had here; the message says why."""


def ask(question: Question, *, timeout_s: float = 600.0) -> Answer:
    """Raises Absent where google-re2 cannot be installed or its process does not answer."""
    _install()
    with tempfile.TemporaryDirectory() as name:
        asked, answer = Path(name, "question"), Path(name, "answer")
        asked.write_bytes(msgspec.msgpack.encode(question))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "bench.re2_set", asked, answer],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(FOLDER)},
                stderr=subprocess.PIPE,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Absent(f"no answer in {timeout_s:.0f} s") from error
        if done.returncode:
            raise Absent(f"failed: {done.stderr.strip().splitlines()[-1:]}")
        return msgspec.msgpack.decode(answer.read_bytes(), type=Answer)


def _install() -> None:
    if (FOLDER / "re2").is_dir():
        return
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--target", FOLDER]
    done = subprocess.run([*command, "google-re2"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"google-re2 cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def answered(question: Question) -> Answer:
    """In a process that imports google-re2 as `re2`."""
    from importlib.metadata import version

    import re2

    gc.disable()
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = MEMORY
    options.log_errors = False
    began = time.process_time()
    sets = {}
    for index, patterns in question.sets.items():
        made = re2.Set.SearchSet(options)
        for pattern in [*patterns, b""]:
            made.Add(pattern)
        made.Compile()
        sets[index] = (made, len(patterns))
    answer = Answer(version("google-re2"), time.process_time() - began)
    for asked in question.passes:
        all_found = []
        began = time.process_time()
        for lists, response in asked:
            found = []
            for index in lists:
                made, size = sets[index]
                positions = sorted(made.Match(response) or ())
                if positions:
                    positions.pop()
                else:
                    positions = list(range(size))
                    answer.failures += 1
                found.append(positions)
            all_found.append(found)
        answer.passes.append(Pass((time.process_time() - began) / len(asked) * 1e6, all_found))
    answer.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return answer


if __name__ == "__main__":
    asked_of_us = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Question)
    Path(sys.argv[2]).write_bytes(msgspec.msgpack.encode(answered(asked_of_us)))
