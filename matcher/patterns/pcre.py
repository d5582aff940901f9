"""Confirm one line on a response: the original pattern under PCRE2, as Nmap 7.93 would judge it, in bounded time.

Contract: a Pattern gives the leftmost match or None; an error of the library is no match for that line. The
interpreter is used, not the JIT: only it counts the match limit the way PCRE 8.39 did. `check_pattern` tells a
database's author what is wrong with a pattern.

The match limit alone does not bound the time: it counts backtracking points, and between two of them PCRE may walk
through the whole response. So every pattern first runs with a small limit. Only if that is reached, and a linear-time
check with RE2 says that the line may fit at all, it runs again with Nmap's limit, and so often only as the response's
Patience lasts. Responses of ordinary size and content never come near these bounds; the same bounds hold for every
engine, because the check makes them independent of who proposed the line.
Source: service-detection behaviour of Nmap 7.93; pcre2api(3); the bounds are our own (bench/hostile.py).
"""

from functools import lru_cache

from matcher.errors import UnsupportedPattern
from matcher.patterns import bindings
from matcher.patterns.bindings import Code, Expression
from matcher.patterns.plan import Needs, needs_of
from matcher.regex.translate import anchored, pcre2_text, superset
from matcher.regex.tree import parse

MATCH_LIMIT = 100_000  # internal match calls per start offset, Nmap 7.93's setting
DEPTH_LIMIT = 10_000  # nested backtracking points, Nmap 7.93's recursion limit
QUICK_LIMIT = 2_000  # match calls of the first run; one response in 500 needs more for one line
LONG = 16 << 10  # bytes; longer responses get a smaller first limit, and the linear-time check beforehand
FULL = 32 << 10  # bytes; in longer responses Nmap's limit shrinks in proportion
MAX_PATIENCE = 4  # second runs per response; ordinary traffic needs two at most
CHECK_MEMORY = 4 << 20  # bytes for the linear-time check of one line
KEPT_CHECKS = 32  # checks that are kept; for every line of a database they would fill the memory

Found = bindings.Found
CONTEXT = bindings.CONTEXT
LibraryError = bindings.LibraryError
span = bindings.span
match = bindings.match


@lru_cache(maxsize=KEPT_CHECKS)
def _linear_check(text: bytes, caseless: bool, dotall: bool) -> tuple[Expression | None, bool, Needs | None]:
    """(an RE2 expression that matches wherever the pattern does, whether it is anchored, what it needs at least).

    None for what there is not.
    """
    try:
        tree = parse(text, caseless=caseless, dotall=dotall)
    except UnsupportedPattern:
        return None, False, None
    try:
        return bindings.linear(superset(tree), max_mem=CHECK_MEMORY), anchored(tree), None
    except UnsupportedPattern:
        return None, False, needs_of(tree)


class Patience:
    """How often a response may still make a pattern run with the full limit."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_PATIENCE


def compile_pattern(pattern: bytes, *, caseless: bool, dotall: bool, limit: int = MATCH_LIMIT) -> Code:
    """The compiled pattern with its limits. Raises LibraryError, but never for a pattern check_pattern passed."""
    prefix = b"(*LIMIT_MATCH=%d)(*LIMIT_DEPTH=%d)" % (limit, DEPTH_LIMIT)
    return bindings.compile_code(prefix + pcre2_text(pattern).text, _options(caseless, dotall))


def _options(caseless: bool, dotall: bool) -> int:
    return bindings.CASELESS * caseless | bindings.DOTALL * dotall


class Pattern:
    """One pattern. code: compiled with the quick limit, None before its first use."""

    __slots__ = ("caseless", "code", "dotall", "text")

    def __init__(self, text: bytes, *, caseless: bool, dotall: bool) -> None:
        self.text = text
        self.caseless = caseless
        self.dotall = dotall
        self.code: Code = None

    def compile(self) -> Code:
        self.code = self._compiled(QUICK_LIMIT)
        return self.code

    def groups(self) -> int:
        """How many groups the pattern has, group 0 not counted."""
        return int(bindings.capture_count(self.code or self.compile()))

    def search(self, response: bytes, patience: Patience) -> Found | None:
        """The leftmost match within the bounds of the module's docstring."""
        size = len(response)
        try:
            if size <= LONG:
                return match(self.code or self.compile(), response, size, 0, CONTEXT)[0]
            start = self.possible_start(response)
            if start is None:
                return None
            return match(self._compiled(max(1, QUICK_LIMIT * LONG // size)), response, size, start, CONTEXT)[0]
        except LibraryError:
            return self.retry(response, patience)

    def retry(self, response: bytes, patience: Patience) -> Found | None:
        """The leftmost match with Nmap's limit, after a search has reached the quick one."""
        start = self.possible_start(response)
        if start is None or patience.left == 0:
            return None
        patience.left -= 1
        size = len(response)
        try:
            return match(self._compiled(MATCH_LIMIT * FULL // max(FULL, size)), response, size, start, CONTEXT)[0]
        except LibraryError:
            return None

    def possible_start(self, response: bytes) -> int | None:
        """A place before which no match can begin, or None where there is none at all; in linear time."""
        check, is_anchored, needed = _linear_check(self.text, self.caseless, self.dotall)
        if check is None:  # the same must be left out here as by sets, for what else may spend patience
            return 0 if needed is None or needed.met(response) else None
        found = check.search(response)
        if found is None:
            return None
        return 0 if is_anchored or rb"\G" in self.text else found.start()

    def _compiled(self, limit: int) -> Code:
        return compile_pattern(self.text, caseless=self.caseless, dotall=self.dotall, limit=limit)


def check_pattern(pattern: bytes, caseless: bool, dotall: bool) -> tuple[str, int] | None:
    """None, or (what is wrong, 0-based offset in the pattern)."""
    text = pcre2_text(pattern)
    if text.fault is not None:
        return text.fault
    try:
        bindings.compile_code(text.text, _options(caseless, dotall))
    except bindings.PatternError as error:
        return str(error.msg).partition("; ")[2], text.origin(error.pos)
    return None
