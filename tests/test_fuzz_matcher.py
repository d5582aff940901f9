"""A mutated database is a database or an error with a place, and engines never disagree; see fuzz_matcher."""

from pathlib import Path

import pytest
from fuzz_matcher import check
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = sorted((Path(__file__).parent / "cases" / "fuzz").iterdir())
BYTES = st.sampled_from([b"|", b"$1", b"(", b")", b"[", b"\\", b"{,3}", b"*", b"^", b"$", b"\n", b" ", b"\xff", b"\0"])
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.one_of(BYTES, st.binary(max_size=3))), max_size=4)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.name)
def test_known_inputs(seed: Path) -> None:
    check(seed.read_bytes())


@settings(max_examples=250, deadline=None)
@given(seed=st.sampled_from(SEEDS), edits=EDITS)
def test_mutated_databases(seed: Path, edits: list[tuple[float, int, bytes]]) -> None:
    """edits: (where, how many bytes go, what comes in their place)."""
    data = seed.read_bytes()
    for where, gone, text in edits:
        at = int(where * len(data))
        data = data[:at] + text + data[at + gone :]
    check(data)
