"""The one door to the libraries of regular expressions: RE2 through pyre2, PCRE2 through pcre2.

pyre2 is used by its public names. Of pcre2 the private module `_cy` is taken, the functions below its own wrapper,
because a response costs several of these calls: in the wrapper a search that fails takes 690 ns instead of 98, one
that fits 1,000 instead of 178, the span of a group 160 to 470 instead of 48. Nothing else would be lost: limits in the
pattern, LibraryError where one is reached, and spans by number are there as well.
Contract: every name that is needed is looked for when this module is imported; where one is missing, EngineUnavailable
says which, and what versions are known to have it.
Source: pcre2/__init__.py and _cy.pyx of pcre2 0.7; pyre2's README and compile.pxi; dfa.cc of RE2 on memory.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any

import pcre2
import re2

from matcher.errors import EngineUnavailable, UnsupportedPattern

TESTED = {  # distribution -> (lowest, highest) version that the tests ran with; `make bindings` runs them with both
    "pyre2": ("0.3.10", "0.3.14"),
    "pcre2": ("0.7.1", "0.7.1"),  # 0.7.0 loses 4 kB of memory whenever a pattern does not match
}
_RE2_NAMES = ("Pattern", "RegexError", "compile", "escape", "purge")
_PCRE2_NAMES = ("IGNORECASE", "DOTALL", "LibraryError", "PatternError", "__libpcre2_version__", "_cy")
_CY_NAMES = (
    "compile",
    "create_match_context",
    "jit_compile",
    "match",
    "match_substring_span_bynumber",
    "pattern_capture_count",
)


def version(distribution: str) -> str:
    """Of what is installed; `absent` where nothing is."""
    from importlib.metadata import PackageNotFoundError  # and the email package, a tenth of a start
    from importlib.metadata import version as installed

    try:
        return installed(distribution)
    except PackageNotFoundError:
        return "absent"


def require(module: Any, names: Sequence[str], distribution: str) -> None:
    """Raises EngineUnavailable where `module`, a part of `distribution`, lacks one of the names."""
    missing = [name for name in names if not hasattr(module, name)]
    if not missing:
        return
    tested = " to ".join(dict.fromkeys(TESTED[distribution]))
    advice = ""
    if distribution == "pyre2" and version("google-re2") != "absent":
        advice = "; google-re2 is imported by the same name and hides it: pip uninstall google-re2"
    raise EngineUnavailable(
        f"{distribution} {version(distribution)} lacks {', '.join(missing)}; "
        f"probemill was tested with {distribution} {tested}{advice}"
    )


require(re2, _RE2_NAMES, "pyre2")
require(pcre2, _PCRE2_NAMES, "pcre2")
require(pcre2._cy, _CY_NAMES, "pcre2")

# --- PCRE2 ----------------------------------------------------------------------------------------------------------

Code = Any  # a compiled pattern
Found = Any  # the data of a match; what span() takes

LIBPCRE2: str = pcre2.__libpcre2_version__
CASELESS = int(pcre2.IGNORECASE)
DOTALL = int(pcre2.DOTALL)
LibraryError = pcre2.LibraryError  # a limit was reached, or the pattern is none
PatternError = pcre2.PatternError  # the latter; .msg, and .pos in bytes
CONTEXT = pcre2._cy.create_match_context()
compile_code = pcre2._cy.compile  # (pattern, options) -> Code. Raises PatternError
jit_compile = pcre2._cy.jit_compile  # (code); for the benchmarks only
match = pcre2._cy.match  # (code, response, length, offset, CONTEXT) -> (Found or None, ...). Raises LibraryError
span = pcre2._cy.match_substring_span_bynumber  # (found, response, group) -> (start, end) or (-1, -1)
capture_count = pcre2._cy.pattern_capture_count  # (code) -> groups, group 0 not counted

# --- RE2 ------------------------------------------------------------------------------------------------------------

Expression = Any  # search(response, pos=0) -> a match with span(), or None. Beyond pos 0 an anchored one never matches

AUTOMATA = 64  # to begin its automata RE2 needs this many times the memory of the program at most,
ROOM = 128 << 10  # and so many bytes whatever the program
escape = re2.escape  # (literal) -> a pattern that matches it, whatever its bytes
_compiling = Lock()


def linear(text: bytes, *, max_mem: int) -> Expression:
    """`text` in RE2's syntax, on bytes read as Latin-1, searched in linear time.

    Of alternatives that match at the same place the first counts, so a set of literals is given longest first.
    max_mem: bytes for the program and its automata. An automaton that fills up is begun anew, and where that would
    happen all the time RE2 goes on without one: slower, and with a line on standard error once, but never wrong. If it
    could not even begin one it would do so always; so the program alone must fit into a small part of the memory.
    Raises UnsupportedPattern, also where the pattern is too large.
    """
    with _compiling:
        _compiled(text, max(2, (max_mem - ROOM) // AUTOMATA))  # RE2 takes less for "no bound"
        return _compiled(text, max_mem)


def _compiled(text: bytes, max_mem: int) -> Expression:
    """By RE2, never by Python's re, which pyre2 falls back to: its setting against that is global to the process."""
    try:
        expression = re2.compile(text, max_mem=max_mem)
    except (re2.RegexError, ValueError):  # ValueError: the reason quotes bytes that are no UTF-8
        expression = None
    finally:
        re2.purge()  # pyre2 keeps what it has compiled, and gives it back whatever memory is asked for
    if not isinstance(expression, re2.Pattern):
        raise UnsupportedPattern(text, f"not for RE2 in {max_mem:,} bytes")
    return expression
