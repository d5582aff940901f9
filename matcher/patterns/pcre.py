"""Confirm one line on a response: the original pattern under PCRE2, as Nmap 7.93 would judge it.

Contract: `compile_pattern` and `search` give the leftmost match or None; a limit that is reached, or any other error
of the library, is no match for that line. `check_pattern` tells a database's author what is wrong with a pattern.
The interpreter is used, not the JIT: only it counts the match limit the way PCRE 8.39 did.
Source: service-detection behaviour of Nmap 7.93; pcre2api(3).
"""

from pcre2 import _cy

from matcher.translate import pcre2_text

MATCH_LIMIT = 100_000  # internal match calls per start offset, Nmap 7.93's setting
DEPTH_LIMIT = 10_000  # nested backtracking points, Nmap 7.93's recursion limit

CASELESS = int(_cy.CompileOption.CASELESS)
DOTALL = int(_cy.CompileOption.DOTALL)
CONTEXT = _cy.create_match_context()

Code = _cy.PCRE2Code
LibraryError = _cy.LibraryError
span = _cy.match_substring_span_bynumber  # (match data, response, group) -> (start, end) or (-1, -1)
match = _cy.match  # (code, response, length, offset, CONTEXT) -> (match data or None, ...)


def compile_pattern(
    pattern: bytes, *, caseless: bool, dotall: bool, limit: int = MATCH_LIMIT, jit: bool = False
) -> Code:
    """The compiled pattern with its limits. Raises LibraryError, but never for a pattern check_pattern passed."""
    prefix = b"(*LIMIT_MATCH=%d)(*LIMIT_DEPTH=%d)" % (limit, DEPTH_LIMIT)
    code = _cy.compile(prefix + pcre2_text(pattern).text, CASELESS * caseless | DOTALL * dotall)
    if jit:
        _cy.jit_compile(code)
    return code


def groups(code: Code) -> int:
    """How many groups the pattern has, group 0 not counted."""
    return int(_cy.pattern_capture_count(code))


def check_pattern(pattern: bytes, caseless: bool, dotall: bool) -> tuple[str, int] | None:
    """None, or (what is wrong, 0-based offset in the pattern)."""
    text = pcre2_text(pattern)
    if text.fault is not None:
        return text.fault
    try:
        _cy.compile(text.text, CASELESS * caseless | DOTALL * dotall)
    except _cy.PatternError as error:
        return str(error.msg).partition("; ")[2], text.origin(error.pos)
    return None
