"""What a library raised at a destination, as one of the two errors of a lake.

Object stores, catalogs and databases raise errors of dozens of types, in several lines, with URLs in them. What they
have in common is how they speak of what may pass by itself; that is read here, for all lakes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import EngineError, OutputError
from engine.results.lake.base import Unavailable

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PASSING = re.compile(
    r"""
      after\ \d+\ retries | retry\ attempts            # object_store, which tries again only what may pass
    | connection\ (refused|reset|aborted|closed) | could(\ not|n't)\ (connect|resolve) | NETWORK_CONNECTION
    | error\ sending\ request | broken\ pipe | unreachable | timed?.?out\b
    | SLOW_?DOWN | too\ many\ requests | INTERNAL_FAILURE | SERVICE_UNAVAILABLE
    | (status|code|response|error)\W*(code\W*)?5\d\d\b | \b5\d\d\ (internal|bad|service|gateway)
    | database\ is\ locked
    | already\ exists | UNIQUE\ constraint            # another was faster in making it
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LASTING = re.compile(
    r"""
      status\ code:\ (4(?!08|09|12|25|29)\d\d | 501)   # of these only time-outs, conflicts and too many requests pass
    | credential | access.?denied | not\ implemented
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MENDED = {
    "169.254.169.254": "no credentials are known: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "501 not implemented": "this store cannot create an object on condition that it does not exist",
    "expiredtoken": "take new credentials",
    "invalidaccesskeyid": "see AWS_ACCESS_KEY_ID",
    "signaturedoesnotmatch": "see AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "scheme is not allowed": "set AWS_ALLOW_HTTP=true for a server without TLS",
    "403 forbidden": "see that the credentials may write there",
    "access_denied": "see that the credentials may write there",
    "nosuchbucket": "make the bucket first",
    "no_such_bucket": "make the bucket first",
    "unable to open database file": "make its folder first",
}


@contextmanager
def trouble(name: str, *passing: type[Exception]) -> Iterator[None]:
    """Whatever is raised inside becomes OutputError, or Unavailable if it is one of `passing` or sounds like that."""
    try:
        yield
    except OutputError:
        raise
    except EngineError as error:
        raise OutputError(f"{name}: {error}") from error
    except Exception as error:  # the libraries share no base, and pass on what those below them raise
        text = _COLOUR.sub("", str(error))
        passes = isinstance(error, (*passing, ConnectionError, TimeoutError)) or (
            _PASSING.search(text) and not _LASTING.search(text)
        )
        hint = next((hint for sign, hint in _MENDED.items() if sign in text.lower()), "")
        line = f"{name}: {_reason(text) or type(error).__name__}{hint and '; ' + hint}"
        raise (Unavailable if passes else OutputError)(line) from error


def _reason(text: str) -> str:
    """The innermost cause, where the text is a chain of them (object_store's); else its first line."""
    chain = [line.strip(" \t↳") for line in re.split(r"\n\s*\n|<\?xml", text)[0].splitlines()]
    chained = "↳" in text
    return next((line for line in (reversed(chain) if chained else chain) if line), "").rpartition(" - ")[2]
