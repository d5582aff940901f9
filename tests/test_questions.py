"""The names that other databases give to the questions of ours."""

import pytest

from engine.conversation.questions import ECHOED, SAME, as_asked
from matcher import DatabaseError, ProbeDatabase, load_databases

OURS = load_databases(["builtin"])


@pytest.fixture(scope="module")
def theirs() -> ProbeDatabase:
    try:
        return load_databases(["nmap"])
    except DatabaseError as missing:
        pytest.skip(str(missing))


def names(database: ProbeDatabase) -> set[tuple[str, str]]:
    return {(probe.proto, probe.name) for probe in database.probes}


def test_every_name_is_a_probe_of_ours_or_of_nmap(theirs: ProbeDatabase) -> None:
    """A name that one database gives up leaves the table; none of them is a name in both."""
    for (proto, name), others in SAME.items():
        database, other = (OURS, theirs) if (proto, name) in names(OURS) else (theirs, OURS)
        assert (proto, name) in names(database)
        assert {(proto, each) for each in others} <= names(other)


def test_equal_bytes_are_the_same_question(theirs: ProbeDatabase) -> None:
    """Whatever else the table says, it says this."""
    for probe in theirs.probes:
        same = {mine.name for mine in OURS.probes if (mine.proto, mine.payload) == (probe.proto, probe.payload)}
        if same and (probe.proto, probe.name) not in names(OURS):
            assert same & set(SAME[probe.proto, probe.name])


def test_the_number_of_another_asker_becomes_ours() -> None:
    """Only that, and only where there is one."""
    for probe in OURS.probes:
        place = ECHOED.get((probe.proto, probe.name))
        for response in (b"", b"\xee", b"\xee" * 40):
            asked = as_asked(probe, response)
            assert len(asked) == len(response)
            if place is None or len(response) < place.stop:
                assert asked == response
            else:
                assert asked[place] == probe.payload[place] != response[place]
                assert asked[: place.start] + asked[place.stop :] == response[: place.start] + response[place.stop :]
