"""The grammar of a probe database: every refusal with its place, every acceptance with what it then means."""

import msgspec
import pytest
from cases import Case, GrammarCase, load_grammar, observed
from replay import UNREGISTERED_PORT, replay

from engine.conversation.scan import ScanContext
from matcher import DatabaseError, compile_matcher, parse_database

CASES = load_grammar()
REFUSED = [case for case in CASES if case.fault]
ACCEPTED = [case for case in CASES if not case.fault]
SERVICES = [("ssh", 22, "tcp"), ("ssh", 22, "udp")]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused(case: GrammarCase) -> None:
    """The error says path:line:column and gives a reason that names the fault."""
    with pytest.raises(DatabaseError) as caught:
        parse_database(case.data, "a/path", services=SERVICES)
    error = caught.value
    place = f"{error.line}:{error.column}" if ":" in case.fault else str(error.line)
    assert place == case.fault, str(error)
    assert case.word.lower() in error.reason.lower()
    assert str(error) == f"a/path:{error.line}:{error.column}: {error.reason}"


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_accepted(case: GrammarCase) -> None:
    """What the database then makes of a port that says `v=1.2` and listens."""
    text = case.data.decode("latin-1").replace("@PORT@", str(UNREGISTERED_PORT))
    database = parse_database(text.encode("latin-1"), "a/path", services=SERVICES)
    talk = msgspec.convert(
        {"id": case.id, "what": case.what, "db": "", "server": [[{"send": "v=1.2\n"}, "hold"]], "expect": {}}, Case
    )
    row, sent = replay(talk, ScanContext(database, compile_matcher(database, "reference").match))
    if case.sends:
        assert sent[0] == case.sends.encode("latin-1")
    else:
        assert case.expect is not None
        got = observed(row, sent)
        names = ("name", "product", "version", "extrainfo", "cpe", "tunnel")
        assert [getattr(got, name) for name in names] == [getattr(case.expect, name) for name in names]


def test_every_number_is_there() -> None:
    assert [case.id for case in CASES] == [f"G-{number:02}" for number in range(1, 99)]
