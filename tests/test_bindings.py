"""What probemill asks of pyre2 and pcre2: the names it needs, and the behaviour that its guarantees stand on."""

import random
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from matcher import EngineUnavailable, UnsupportedPattern
from matcher.patterns import bindings
from matcher.patterns.bindings import escape, linear

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 8 << 20


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


# --- which versions -------------------------------------------------------------------------------------------------


def test_a_missing_name_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what is installed, what it lacks and what would do."""
    monkeypatch.setattr(bindings, "version", lambda distribution: "0.8.0")
    monkeypatch.setitem(bindings.TESTED, "pcre2", ("0.7.1", "0.7.4"))
    module = SimpleNamespace(match=1, compile=2)
    bindings.require(module, ("match", "compile"), "pcre2")
    with pytest.raises(EngineUnavailable) as told:
        bindings.require(module, ("match", "span", "free"), "pcre2")
    assert str(told.value) == "pcre2 0.8.0 lacks span, free; probemill was tested with pcre2 0.7.1 to 0.7.4"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ("import pcre2; del pcre2._cy.match_substring_span_bynumber", r"pcre2 \S+ lacks match_substring_span_bynumber"),
        ("import pcre2; del pcre2._cy", r"pcre2 \S+ lacks _cy"),
        ("import re2; del re2.purge, re2.escape", r"pyre2 \S+ lacks escape, purge"),
    ],
)
def test_it_is_told_before_anything_else_happens(damage: str, line: str) -> None:
    """A library that has changed is found out when the matcher is imported, not in the middle of a scan."""
    code = f"{damage}\nimport matcher"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    told = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"matcher\.errors\.EngineUnavailable: {line}; probemill was tested with py?c?re2 .*", told)


def test_the_command_says_it_in_one_line() -> None:
    code = "import pcre2; del pcre2._cy.match; from engine.cli.start import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"probemill: pcre2 \S+ lacks match; probemill was tested with .*\n", done.stderr)


def test_google_re2_is_named_where_it_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages are imported as re2, and google-re2's hides the other one."""
    monkeypatch.setattr(bindings, "version", lambda distribution: "1.1")
    with pytest.raises(EngineUnavailable, match=r"pyre2 1\.1 lacks Pattern; .*: pip uninstall google-re2$"):
        bindings.require(SimpleNamespace(), ("Pattern",), "pyre2")


@pytest.mark.parametrize("distribution", bindings.TESTED)
def test_the_versions_in_use_are_tested_ones(distribution: str) -> None:
    """Or it is said which one is new: if the tests pass with it, it becomes the upper end of TESTED."""
    lowest, highest = bindings.TESTED[distribution]
    found = bindings.version(distribution)
    assert numbers(found) >= numbers(lowest)
    if numbers(found) > numbers(highest):
        pytest.skip(f"{distribution} {found} is newer than {highest}, the highest version in bindings.TESTED")


@pytest.mark.parametrize("distribution", bindings.TESTED)
def test_what_is_tested_is_what_is_allowed_and_pinned(distribution: str) -> None:
    lowest, highest = bindings.TESTED[distribution]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (allowed,) = (line for line in project["dependencies"] if line.startswith(f"{distribution}>="))
    bounds = re.fullmatch(rf"{distribution}>=([\d.]+),<([\d.]+)", allowed)
    assert bounds is not None
    assert bounds[1] == lowest
    assert numbers(bounds[2]) > numbers(highest)
    assert f"{distribution}=={highest}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


# --- RE2 ------------------------------------------------------------------------------------------------------------


def test_every_byte_stands_for_itself() -> None:
    """Patterns and responses are bytes, read as Latin-1: each of the 256 is found, alone and among the others."""
    every = bytes(range(256))
    for code in range(256):
        byte = bytes((code,))
        found = [other for other in range(256) if linear(escape(byte), max_mem=MEMORY).search(bytes((other,)))]
        assert found == [code]
        assert linear(b"\\x%02x" % code, max_mem=MEMORY).search(every).span() == (code, code + 1)
        assert linear(escape(b"\0" + byte + b"0"), max_mem=MEMORY).search(b"\0\0" + byte + b"01").span() == (1, 4)
    assert linear(escape(every), max_mem=MEMORY).search(b"\xff" + every).span() == (1, 257)


def test_the_first_alternative_counts() -> None:
    """Not the longest; therefore keys are given longest first."""
    assert linear(b"ab|abc", max_mem=MEMORY).search(b"xabc").span() == (1, 3)
    assert linear(b"abc|ab|(?i:ABCD)", max_mem=MEMORY).search(b"xabcd").span() == (1, 4)


def test_a_search_goes_on_from_a_place() -> None:
    """The bytes before it are seen by anchors only: an anchored expression never matches there."""
    assert linear(b"ab", max_mem=MEMORY).search(b"abab", 1).span() == (2, 4)
    assert linear(b"ab", max_mem=MEMORY).search(b"abab", 4) is None
    assert linear(rb"\Aab", max_mem=MEMORY).search(b"abab", 2) is None


@pytest.mark.parametrize(
    "text", [rb"(?=a)b", rb"(a)\1", rb"a++", rb"(?>a)", rb"a(", rb"a{2000}", rb"\p{Nonsense}", b"\xff("]
)
def test_pythons_re_never_takes_over(text: bytes) -> None:
    """pyre2 gives a pattern that RE2 refuses to Python's re, which has no bound; that is a refusal here."""
    with pytest.raises(UnsupportedPattern):
        linear(text, max_mem=MEMORY)


def test_memory_counts_for_a_text_that_was_compiled_before() -> None:
    """pyre2 would give back what it has compiled from this text, whatever memory is asked for."""
    text = b"|".join(b"literal number %d" % number for number in range(300))
    linear(text, max_mem=MEMORY)
    with pytest.raises(UnsupportedPattern, match="not for RE2 in"):
        linear(text, max_mem=100_000)


KEYS = [random.Random(number).randbytes(12) for number in range(300)]
BINARY = bytes(random.Random(1).choices(b"ab", k=10_000))


@pytest.mark.parametrize(
    ("text", "response", "span"),
    [
        (b"|".join(map(escape, KEYS)), b"zz" + KEYS[77] + b"yy", (2, 14)),
        (b"|".join(b"(?i:%b)" % escape(key) for key in KEYS), b"zz" + KEYS[77] + b"yy", (2, 14)),
        (b"(?:a[b-c]{2,9}){100}\\n?\\z", b"zz" + b"abb" * 100, (2, 302)),
        (b"\\Azz(?:a[b-c]{2,9}){100}x", b"zz" + b"abb" * 100 + b"x", (0, 303)),
        (b"(?:(?:aa|bb|c.d){1,20}x?){1,20}y", b"zz" + b"aabb" * 10 + b"aay", (2, 45)),
        (b"[ab]*a[ab]{40}c", BINARY + b"a" + b"b" * 40 + b"c", (0, 10_042)),  # more states than any memory holds
    ],
)
def test_with_any_memory_it_is_right_or_refused(
    text: bytes, response: bytes, span: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Memory that runs out never makes a match disappear, and where no automaton can be begun, it is a refusal."""
    outcomes = set()
    memory = 1
    while memory < 64 << 20:
        try:
            found = linear(text, max_mem=memory).search(response)
            assert found is not None, memory
            assert found.span() == span
            outcomes.add("right")
        except UnsupportedPattern:
            outcomes.add("refused")
        memory = memory * 5 // 4 + 1
    assert outcomes == {"right", "refused"}
    assert "DFA out of memory" not in capfd.readouterr().err
