"""How sure a line is: what it demands, what it wins of others, and that the row says so."""

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.conversation.scan import Finish, ScanContext, ServiceScan
from engine.model import Target
from matcher import Confidences, compile_matcher, nmap_database, parse_database
from matcher.confidence import confidence, specific_bytes
from matcher.database.known import KnownWins, builtin_known, known_file, line_key, parse_known
from matcher.database.samples import read_samples
from matcher.model import Signature, SignatureId, Templates
from matcher.tools.broad import known_wins

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT.parent / "shared" / "golden"
NMAP_2026 = ROOT.parent / "shared" / "data" / "nmap-service-probes-2026-08"


def line(pattern: bytes, *, soft: bool = False, caseless: bool = False, dotall: bool = False) -> Signature:
    return Signature(SignatureId(0), "db", 1, "x", soft, pattern, caseless, dotall)


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        (rb"^abcd", 4.0),
        (rb"abcd", 2.5),
        (rb"^ab\d", 2 + (8 - 3.3219) / 8),
        (rb"^.", 0.0),
        (rb"^(?:abc|d)e", 2.0),
        (rb"^a*b+c?", 1.0),
        (rb"^a{3}$", 3.5),
        (rb"^a{200}", 64.0),
        (rb"^[ab]", 0.875),
        (rb"x", 0.0),
    ],
)
def test_what_a_line_demands(pattern: bytes, size: float) -> None:
    """In bytes of information: the least that any response it fits must have."""
    assert specific_bytes(line(pattern, dotall=True))[0] == pytest.approx(size, abs=0.001)


@pytest.mark.parametrize(
    ("pattern", "wins", "value", "reasons"),
    [
        (b"^abcdefghi", (3, 0), 0.9, ("plain",)),
        (b"^abcdefghij", (3, 0), 0.91, ("specific",)),
        (b"^abcdefghi", None, 0.9, ("plain", "untested")),
        (b"^abcdefghi", (0, 8), 0.1, ("plain", "fits-others")),
        (b"^abcdefghi", (1, 2), 0.45, ("plain", "fits-others")),
        (b"ab", (0, 0), 0.33, ("vague", "anywhere")),
        (b"", None, 0.0, ("vague", "anywhere", "untested")),
    ],
)
def test_the_formula(pattern: bytes, wins: tuple[int, int] | None, value: float, reasons: tuple[str, ...]) -> None:
    """s / (s + 1) * (own + 1) / (own + others + 1), to two digits, and the words that say where it comes from."""
    told = confidence(line(pattern), wins)
    assert (told.value, told.reasons) == (value, reasons)


@pytest.mark.parametrize(
    ("product", "value"),
    [(b"$1", 0.63), (b"$2 ftpd", 0.63), (b"$1 SNMP", 0.63), (b"Acme $1", 0.9), (b"$1 Server", 0.9)],
)
def test_a_product_that_the_response_names(product: bytes, value: float) -> None:
    """A line that knows the protocol alone is less sure of the product than one that knows the product."""
    told = confidence(replace(line(b"^abcdefghi"), templates=Templates(product=product)), (3, 0))
    assert (told.value, "quoted" in told.reasons) == (value, value < 0.9)


def test_a_soft_line_says_so() -> None:
    assert confidence(line(b"^abcdefghi", soft=True), (0, 0)).reasons == ("plain", "soft")


def test_a_line_is_known_wherever_it_stands_and_no_longer_once_it_is_changed() -> None:
    one = parse_database(b"Probe TCP NULL q||\nmatch a m|^x|i p/P/\n", "one")
    other = parse_database(b"Probe TCP A q|a|\nmatch b m|^y|\nmatch a m|^x|i p/P/ v/1/\nmatch a m|^x| p/P/\n", "other")
    (known,) = one.signatures()
    first, same, changed = other.signatures()
    table = KnownWins(frozenset(), {line_key(known): (0, 9)})
    sure = Confidences(other, table)
    assert "fits-others" in sure.of(same).reasons
    assert "untested" in sure.of(first).reasons and "untested" in sure.of(changed).reasons
    assert "untested" not in Confidences(other, KnownWins(frozenset({other.sha256}))).of(first).reasons


@pytest.mark.parametrize("text", ["x", "tested", "abc 1", "abc 1 2 3", "abc one 2"])
def test_a_table_that_is_none(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_known(text)


def test_a_row_says_how_sure_its_line_is() -> None:
    """And a row that no line recognised says nothing of it."""
    database = parse_database(b"Probe TCP NULL q||\nmatch a m|^abcdefghi|\n", "db")
    rows = {}
    for response in (b"abcdefghi", b"other"):
        scan = ServiceScan(Target(0, "127.0.0.1", 1), ScanContext(database, compile_matcher(database, "re2").match))
        scan.start(0.0)
        scan.connected(0.0)
        action = scan.received(response, 0.1)
        if not isinstance(action, Finish):
            action = scan.timed_out(9.0)
        assert isinstance(action, Finish)
        rows[response] = action.result
    assert (rows[b"abcdefghi"].confidence, rows[b"abcdefghi"].reasons) == (0.9, ("plain", "untested"))
    assert (rows[b"other"].confidence, rows[b"other"].reasons) == (None, ())


def test_of_our_own_database_something_is_known() -> None:
    known = builtin_known()
    assert known.tested
    assert all(others > 0 for _, others in known.lines.values())


def test_what_our_own_samples_say_stands_in_the_table() -> None:
    """At least: the table is made of more responses than these."""
    from matcher import builtin_database

    path = builtin_database()
    database = parse_database(path.read_bytes(), "builtin")
    samples, _ = read_samples([path.parent / "samples", path.parent / "known"])
    known = builtin_known()
    assert database.sha256 in known.tested, "python -m bench.known_wins --write"
    for wins in known_wins(database, samples).values():
        own, others = known.lines.get(line_key(wins.signature), (wins.own, 0))
        assert own >= wins.own and others >= len(wins.others), wins


@pytest.mark.skipif(
    not GOLDEN.exists() or nmap_database() is None or not NMAP_2026.exists(),
    reason="needs ../shared and an installed Nmap",
)
def test_the_table_is_current() -> None:
    """What stands in it is what its command writes."""
    command = [sys.executable, "-m", "bench.known_wins"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_table_holds_hashes_and_counts_only() -> None:
    """No part of anybody's database."""
    for row in known_file().read_text(encoding="utf-8").splitlines():
        words = row.split()
        assert row.startswith(("#", "tested ")) or (len(words) == 3 and len(words[0]) == 16 and int(words[0], 16) >= 0)
