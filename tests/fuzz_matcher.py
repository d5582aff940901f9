"""Fuzz the way from a database's text to a verdict: `python tests/fuzz_matcher.py [libFuzzer options]` with atheris.

The rule, checked by `check` here and on random mutations in test_fuzz_matcher.py: any text is either a database or a
DatabaseError with a place, and on any response all engines give the same answer, or all give none.
`-max_total_time=60` bounds a run; `tests/cases/fuzz/*` are inputs that once broke the rule or may.
"""

import sys
import tempfile
from pathlib import Path

from matcher import DatabaseError, EngineUnavailable, Matcher, parse_database
from matcher.patterns import ENGINES

RESPONSES = (
    b"",
    b"\n",
    b"a",
    b"220 ready\r\n",
    b"HTTP/1.1 200 OK\r\nServer: x/1.2\r\n\r\n",
    b"\0\x01\xff" * 9,
    b"ab" * 40,
)
MAX_BYTES = 4096


def check(data: bytes) -> None:
    """data: a database; what stands behind its last FF byte is a response as well."""
    text, _, response = data[:MAX_BYTES].rpartition(b"\xff")
    try:
        database = parse_database(text or response, "fuzz")
    except DatabaseError as error:
        assert error.line >= 1 and error.column >= 1, error
        assert str(error).startswith(f"fuzz:{error.line}:{error.column}: "), error
        return
    matchers = []
    for engine in ENGINES:
        try:
            matchers.append(Matcher(database, engine, cache=False))
        except EngineUnavailable:
            continue
    for probe in database.probes:
        for subject in (*RESPONSES, response):
            answers = [matcher.match(probe, subject) for matcher in matchers]
            assert all(answer == answers[0] for answer in answers), (probe.name, subject)
    for matcher in matchers:
        assert not matcher.stats.failures, matcher.stats


def main() -> None:
    import atheris

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as found:  # libFuzzer writes what it finds into the first folder
        atheris.Setup([*sys.argv, found, str(Path(__file__).parent / "cases" / "fuzz")], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
