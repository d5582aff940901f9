"""What lint finds, and what it leaves alone: a table of small databases; and our own database, which must be clean."""

import json
import random
import re
from pathlib import Path

import pytest

from matcher import MatcherError, builtin_database, parse_database
from matcher.database.samples import read_samples
from matcher.patterns import pcre
from matcher.regex.inclusion import made_up, uncovered
from matcher.regex.tree import parse
from matcher.tools.advice import HELPS
from matcher.tools.cost import EXPONENTIAL, needs_backtracking, worst_case
from matcher.tools.explain import explain
from matcher.tools.lint import ERROR, NOTE, WARNING, Finding, cpe_fault, lint
from matcher.tools.propose import propose

NULL = "Probe TCP NULL q||\n"


def sample(banner: str, expect: dict[str, object] | None, **keys: str) -> dict[str, object]:
    return {"banner": banner, "expect": expect, "source": "handmade", **keys}


def findings(tmp_path: Path, text: str, samples: list[dict[str, object]] | None = None) -> list[Finding]:
    read, faults = None, []
    if samples is not None:
        path = tmp_path / "s.ndjson"
        path.write_text("\n".join(map(json.dumps, samples)))
        read, faults = read_samples([path])
    found = lint(text.encode("latin-1"), "db", read, faults=faults, engine="reference")
    return [Finding(Path(one.path).name, one.line, one.column, one.severity, one.text, one.rule) for one in found]


CASES = [  # name, database behind the NULL probe (whose line is 1), samples, findings
    ("clean", "match a m|^a+b| p/P/\nsoftmatch b m|^b|", None, []),
    ("bad template", "match a m|^a+b| p/$0 /", None, ["db:2:19: error: product can never be made"]),
    ("grammar", "match a m|(|\nmatch b m|x|\nmatch c m|y|z", None,
     ["db:2:12: error: pattern: missing closing parenthesis", "db:4:13: error: unknown flag 'z'"]),
    ("no group", "match a m|^(a)| v/$1/ p/$2/ cpe:/a:b:c:$3/", None,
     ["db:2:25: error: product can never be made: $2 but the pattern has 1 group",
      "db:2:29: error: cpe_a can never be made: $3 but the pattern has 1 group"]),
    ("cpe part", "match a m|^a| cpe:/x:b:c/", None, ["db:2:15: error: not a well-formed CPE: part 'x'"]),
    ("cpe product", "match a m|^(a)| cpe:/a:b/", None, ["db:2:17: error: not a well-formed CPE: vendor and product"]),
    ("cpe character", "match a m|^(a)| cpe:/a:b:c d/", None, ["db:2:17: error: not a well-formed CPE: 'c d' holds"]),
    ("cpe case", "match a m|^(a)| cpe:/a:b:C:$1/", None, ["db:2:17: warning: CPE names are written in lower case"]),
    ("cpe twice", "match a m|^a| cpe:/a:b:c/ cpe:/a:b:d/", None, ["db:2:27: warning: a second CPE for part a"]),
    ("cpe of helpers", 'match a m|^(a)| cpe:/a:b:c:$SUBST(1,"_",".")/ cpe:/o:d:e/', None, []),
    ("probe twice", "match a m|^a|\nProbe UDP X q|x|\nProbe TCP X q|x|\nProbe TCP X q|y|", None,
     ["db:5:1: warning: a second TCP probe X; the first is in line 4"]),
    ("backtracking", r"match a m|^(?=a)(.)\1|", None,
     ["db:2:11: note: needs backtracking: look ahead, back reference", "db:2:11: note: not decided"]),
    ("exponential", "match a m|^(?:a+)+b|", None, ["db:2:11: warning: a repeat inside a repeat"]),
    ("polynomial", "match a m|a.*b.*c.*d.*e|s", None, ["db:2:11: warning: up to 5 repeats compete"]),
    ("empty", "match a m|^a*|", None, ["db:2:11: warning: fits an empty response"]),
    ("long line", "match a m|^" + "a" * 2100 + "|", None, ["db:2:11: warning: line of 2113 bytes"]),
    # reachability
    ("same pattern", "match a m|^x|s\nmatch b m|^x|s p/P/", None, ["db:3:11: error: line 2 has the same pattern"]),
    ("same pattern, other flags", "match a m|^x.|\nmatch b m|^x.|s", None, []),
    ("same pattern, other list", "match a m|^x|\nProbe TCP A q|a|\nmatch a m|^x|", None, []),
    ("covered", r"match a m|^SSH-\d|" + "\n" + r"match b m|^SSH-2\.0-(\w+)\r\n|", None,
     ["db:3:11: error: line 2 fits every response that this one fits"]),
    ("covered by a softmatch", "softmatch a m|^ab|\nmatch b m|^abc|", None,
     ["db:3:11: error: line 2 fits every response"]),
    ("not covered", "match a m|^SSH-2|\nmatch b m|^SSH-\\d|", None, []),
    ("covered by look-ahead: not decided", "match a m|^(?=ab)|\nmatch b m|^abc|", None,
     ["db:2:11: note: needs backtracking", "db:2:11: note: not decided",
      "db:3:11: note: line 2 took every response made up for this one"]),
    ("impossible", r"match a m|^(?!a)abc|", None,
     ["db:2:11: note: needs backtracking", "db:2:11: note: not decided whether this line can be reached"]),
    # samples
    ("good sample", "match a m|^a(.)| v/$1/", [sample("ab", {"name": "a", "version": "b"})], []),
    ("unsampled", "match a m|^a|\nmatch b m|^b|", [sample("a", {"name": "a"})],
     ["db:3:11: error: no sample reaches this line"]),
    ("no match", "match a m|^a|", [sample("b", {"name": "a"}), sample("a", {"name": "a"})],
     ["s.ndjson:1:1: error: no line matches"]),
    ("false match", "match a m|^a|", [sample("ab", None), sample("a", {"name": "a"})],
     ["s.ndjson:1:1: error: line 2 matches, and none may"]),
    ("right to be silent", "match a m|^a|", [sample("b", None), sample("a", {"name": "a"})], []),
    ("other fields", "match a m|^a(.)| v/$1/", [sample("ab", {"name": "a", "version": "c", "product": "p"})],
     ["s.ndjson:1:1: error: line 2: product is absent, expected 'p'; version is 'b', expected 'c'"]),
    ("soft", "softmatch a m|^a|", [sample("a", {"name": "a"})],
     ["s.ndjson:1:1: error: line 2: soft is soft, expected hard"]),
    ("stolen", "match a m|^a|\nmatch b m|^ab|\nmatch c m|^c|",
     [sample("ab", {"name": "b"}), sample("c", {"name": "c"}), sample("a", {"name": "a"})],
     ["db:3:11: error: no sample reaches this line",
      "db:3:11: error: line 2 fits every response",
      "s.ndjson:1:1: error: stolen by line 2 from line 3: name is 'a', expected 'b'"]),
    ("stolen behind a sample of the thief's", "match a m|^a|\nmatch b m|^ab|",
     [sample("a", {"name": "a"}), sample("ab", {"name": "b"})],
     ["db:3:11: error: no sample reaches this line",
      "db:3:11: error: line 2 fits every response",
      "s.ndjson:2:1: error: stolen by line 2 from line 3: name is 'a', expected 'b'"]),
    ("no such probe", "match a m|^a|", [sample("a", {"name": "a"}), sample("a", None, probe="X", proto="udp")],
     ["s.ndjson:2:1: error: no UDP probe is named X"]),
    ("no source", "match a m|^a|", [sample("a", {"name": "a"}, source="x")],
     ["s.ndjson:1:1: warning: source is neither"]),
    ("cpe of a sample", "match a m|^(.)| cpe:/a:b:c:$1/", [sample("|", {"name": "a", "cpe": ["cpe:/a:b:c:|"]})],
     ["s.ndjson:1:1: error: line 2 gives cpe:/a:b:c:|: '|' holds what must be written as %XX"]),
    ("no sample at all", "match a m|^a|", [{"banner": "a"}, sample("€", None), sample("", None), sample("a", {}),
                                           sample("a", {"name": "a", "port": 1}), {"expect": None}],
     ["db:2:11: error: no sample reaches this line",
      "s.ndjson:1:1: error: 'expect' is missing",
      "s.ndjson:2:1: error: character '€' in 'banner' is no byte",
      "s.ndjson:3:1: error: an empty response",
      "s.ndjson:4:1: error: Object missing required field `name`",
      "s.ndjson:5:1: error: Object contains unknown field `port`",
      "s.ndjson:6:1: error: neither 'banner' nor 'data'"]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_findings(tmp_path: Path, case: tuple[str, str, list[dict[str, object]] | None, list[str]]) -> None:
    """Every finding, in the order of the file, its place included; and no other."""
    _, text, samples, expected = case
    found = [str(one) for one in findings(tmp_path, NULL + text + "\n", samples)]
    assert len(found) == len(expected), found
    for one, start in zip(found, expected, strict=True):
        assert one.startswith(start)


def test_grammar_faults_in_a_probe_line_end_the_reading(tmp_path: Path) -> None:
    """What follows a probe that is not there would be blamed on the one before it."""
    found = findings(tmp_path, "Probe TCP NULL q||\nmatch a m|(|\nProbe TCP A|x|\nmatch b m|)|\n")
    assert [(one.line, one.rule) for one in found] == [(2, "grammar"), (3, "grammar")]


def test_samples_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MatcherError, match="no-such: cannot be read"):
        read_samples([tmp_path / "no-such"])


BACKTRACKING = [
    (rb"^abc", []),
    (rb"^a(?:b|c)*+", ["possessive repeat"]),
    (rb"^(a)\1", ["back reference"]),
    (rb"^\Q(?=\E\(?=[(?=]", []),
    (rb"(?<!a)b(?!c)", ["look behind", "look ahead"]),
    (rb"(?>a)b\b", ["atomic group"]),
    (rb"\012\x31", []),
]


@pytest.mark.parametrize(("pattern", "names"), BACKTRACKING)
def test_what_needs_backtracking(pattern: bytes, names: list[str]) -> None:
    assert needs_backtracking(pattern) == names


COSTS = [
    (rb"^abc", 0),
    (rb"abc", 1),
    (rb"^a.*b", 1),
    (rb"^a.*", 0),
    (rb"^.*a.*b", 2),
    (rb"^[^\n]*\n[^\n]*\nx", 1),
    (rb"^[^\n]*a[^\n]*\nx", 2),
    (rb"^(?:a+)+b", EXPONENTIAL),
    (rb"^(?:a+)+", 0),
    (rb"^(?:\w+ ?)+:", EXPONENTIAL),
    (rb"^(?:\w+ )+:", 1),
    (rb"^(?:[^\r\n]+\r\n)*x", 1),
    (rb"^(?:x|(?:a|b+)*)c", EXPONENTIAL),
]


@pytest.mark.parametrize(("pattern", "cost"), COSTS)
def test_worst_case(pattern: bytes, cost: int) -> None:
    assert worst_case(parse(pattern)) == cost


@pytest.mark.parametrize("pattern", [pattern for pattern, cost in COSTS if cost == EXPONENTIAL])
def test_what_is_called_exponential_is(pattern: bytes) -> None:
    """Sixty bytes that nearly fit are enough to reach the match limit."""
    response = (b"b" if b"b+" in pattern else b"a") * 60 + b"-" + pattern[-1:]
    code = pcre.compile_pattern(pattern, caseless=False, dotall=False)
    with pytest.raises(pcre.LibraryError):
        pcre.match(code, response, len(response), 0, pcre.CONTEXT)


COVERS = [  # earlier, later, whether earlier fits all that later fits
    (rb"^SSH-", rb"^SSH-2\.0-(\w+)\r\n", True),
    (rb"^SSH-2", rb"^SSH-", False),
    (rb"", rb"x", True),
    (rb"ab", rb"^xxab", True),
    (rb"^ab", rb"ab", False),
    (rb"^a.*b$", rb"^a[^\n]*cb$", True),
    (rb"^a.*b$", rb"^a.*cb\n?$", False),
    (rb"^a$", rb"^a\z", True),
    (rb"^a\z", rb"^a$", False),
    (rb"^a{1,300}", rb"^a{5}", True),
    (rb"^a{6}", rb"^a{5}", False),
    (rb"^(?:a|b)+c", rb"^abababc", True),
    (rb"^a|b", rb"^a", True),
    (rb"^a|^b", rb"b", False),
    (rb"(?i)^abc", rb"^ABCD", True),
    (rb"x\w{0,12}y", rb"x\w{0,12}z", False),
    (rb".{1500}(?:.{1500})", rb"a", None),
    (rb"^(?:a|$)b", rb"a", None),
]


@pytest.mark.parametrize(("earlier", "later", "answer"), COVERS)
def test_covers(earlier: bytes, later: bytes, answer: bool | None) -> None:
    rest = uncovered(parse(earlier), parse(later))
    assert (None if rest is None else rest == b"") is answer
    if rest:
        assert _fits(later, rest)
        assert not _fits(earlier, rest)


@pytest.mark.parametrize("seed", range(30))
def test_a_proof_is_never_refuted(seed: int) -> None:
    """Small random patterns: a response that is given tells them apart; where there is none, PCRE finds none either."""
    chance = random.Random(seed)
    pieces = [b"a", b"b", b".", b"a?", b"b*", b"(?:a|bb)", b"[^a]", b"\n", b"(?:ab)+", b"$", b"^"]
    responses = [bytes(text) for n in range(1, 5) for text in _texts(n)]
    for _ in range(20):
        one, other = (b"".join(chance.choices(pieces, k=chance.randrange(1, 5))) for _ in range(2))
        rest = uncovered(parse(one), parse(other))
        if rest:
            assert _fits(other, rest) and not _fits(one, rest), (one, other, rest)
        elif rest == b"":
            assert not [text for text in responses if _fits(other, text) and not _fits(one, text)], (one, other)


def _fits(pattern: bytes, response: bytes) -> bool:
    return pcre.Pattern(pattern, caseless=False, dotall=False).search(response, pcre.Patience()) is not None


def _texts(length: int) -> list[list[int]]:
    texts: list[list[int]] = [[]]
    for _ in range(length):
        texts = [[*text, code] for text in texts for code in b"ab\nc"]
    return texts


@pytest.mark.parametrize("pattern", [rb"^SSH-([\d.]+)-(?:a|b)+\r?\n", rb"x{3,5}[^\n]*$", rb"^\0\x{ff}.(?:q|)"])
def test_made_up_responses_fit(pattern: bytes) -> None:
    code = pcre.Pattern(pattern, caseless=False, dotall=True)
    made = list(made_up(parse(pattern, dotall=True), 24))
    assert made == list(made_up(parse(pattern, dotall=True), 24))
    assert len(set(made)) > 3
    assert all(code.search(response, pcre.Patience()) for response in made)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("cpe:/a:b:c", ""), ("cpe:/o:b:c:1.0%2b:~x::", ""), ("cpe:/b:b:c", "part"), ("cpe:/a:b", "vendor"),
     ("cpe:/a:b:c:d:e:f:g:h", "components"), ("cpe:/a:b:c+", "%XX"), ("cpe:/a:b:c%2", "%XX")],
)  # fmt: skip
def test_cpe(text: str, fault: str) -> None:
    assert fault in cpe_fault(text)
    assert bool(fault) == bool(cpe_fault(text))


DROPS = [  # pattern and templates, response, reasons
    (rb"^(a)(b)?| p/$1/ v/$2/", b"a", (("version", "$2 took no part in the match"),)),
    (rb"^(a)| p/$1/ v/$4/", b"a", (("version", "$4 but the pattern has 1 group"),)),
    (rb'^(.*)| i/$I(1,"<")/', b"123456789", (("extrainfo", "$I(): group 1 is longer than 8 bytes"),)),
    (rb"^(.*)| o/$1/", b"x" * 40, (("ostype", "blank, or longer than the 30 bytes there is room for"),)),
    (rb"^(.*)| h/$1/ d/dev/", b"  ", (("hostname", "blank, or longer than the 78 bytes there is room for"),)),
    (rb"^(.*)| cpe:/a:b:$1/", b"x" * 80, (("cpe_a", "blank, or longer than the 78 bytes there is room for"),)),
]


@pytest.mark.parametrize(("line", "response", "dropped"), DROPS)
def test_why_a_field_is_missing(line: bytes, response: bytes, dropped: tuple[tuple[str, str], ...]) -> None:
    database = parse_database(NULL.encode() + b"match a m|" + line + b"\n", "db")
    (fit,) = explain(database, database.probes[0], response).fits
    assert fit.dropped == dropped


def test_everything_that_fits_is_told_in_the_order_of_the_search() -> None:
    database = parse_database(
        b"Probe TCP NULL q||\nmatch n m|^a|\nProbe TCP A q|a|\nfallback B\nmatch x m|^b|\nsoftmatch a m|^ab|\n"
        b"match a2 m|b$|\nProbe TCP B q|b|\nmatch b m|a|\n",
        "db",
    )
    explanation = explain(database, database.probes[1], b"ab")
    assert [(fit.match.probe.name, fit.signature.service) for fit in explanation.fits] == [
        ("A", "a"), ("A", "a2"), ("B", "b"), ("NULL", "n"),
    ]  # fmt: skip
    assert [(probe.name, lines) for probe, lines in explanation.tried] == [("A", 3), ("B", 1), ("NULL", 1)]


def test_our_own_database_is_clean() -> None:
    """Every line is the winner of a sample, yields its fields, and is reachable; no warnings either."""
    path = builtin_database()
    samples, faults = read_samples([path.parent / "samples"])
    found = [one for one in lint(path.read_bytes(), str(path), samples, faults=faults) if one.severity != NOTE]
    assert not found, f"{len(found)} findings, as\n" + "\n".join(map(str, found[:20]))


def test_every_rule_is_explained() -> None:
    root = Path(__file__).resolve().parent.parent
    source = (root / "matcher" / "tools" / "lint.py").read_text(encoding="utf-8")
    rules = set(re.findall(r'"([a-z-]{3,})"(?:\)|$)', source, re.MULTILINE)) - {ERROR, WARNING, NOTE}
    assert len(rules) >= 16
    table = (root / "docs" / "database.md").read_text(encoding="utf-8").partition("## What lint finds")[2]
    assert rules <= set(re.findall(r"`([a-z-]+)`", table))
    assert rules - {"backtracking", "undecided"} <= set(HELPS)


def test_the_example_of_the_documentation_is_clean(tmp_path: Path) -> None:
    """The line that docs/database.md has proposed is what `propose` proposes, and it gives what the page shows."""
    text = (Path(__file__).resolve().parent.parent / "docs" / "database.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^match toy .*$", text, re.MULTILINE)
    expect = {"name": "toy", "product": "toyd", "version": "1.4.2", "hostname": "shelf.example"}
    greeting = sample("* toyd 1.4.2 on shelf.example ready\r\n", expect)
    assert not findings(tmp_path, f"{NULL}{line}\n", [greeting])
    (read,), _ = read_samples([tmp_path / "s.ndjson"])
    assert propose(read).line == line
