"""The regular-expression dialect, on every engine: what fits, what does not, and that nothing explodes."""

import pytest
from cases import RegexCase, load_regex

from matcher import EngineUnavailable, compile_matcher, parse_database
from matcher.patterns import ENGINES

CASES = load_regex()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_dialect(case: RegexCase, engine: str) -> None:
    """All engines give the same answer, the one observed."""
    database = parse_database(case.database, "cases")
    try:
        matcher = compile_matcher(database, engine, cache=False)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))
    assert database.null_probe is not None
    match = matcher.match(database.null_probe, case.response)
    assert (match is not None) == case.fits, case.what
    if match is not None:
        assert match.info.product == "hit"


def test_limit_is_no_match_and_the_next_line_is_tried() -> None:
    """A pattern that reaches its limit does not fit; the lines after it have their chance."""
    lines = b"match slow m|^(a+)+$| p/never/\nmatch next m|^aaa| p/next/\n"
    database = parse_database(b"Probe TCP NULL q||\n" + lines, "cases")
    assert database.null_probe is not None
    match = compile_matcher(database, cache=False).match(database.null_probe, b"a" * 40 + b"!")
    assert match is not None
    assert match.service == "next"
