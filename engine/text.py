"""Text of strangers, made fit for a row: one line, and nothing in it that changes how its surroundings look.

Controls (C0, DEL, C1) move a terminal's cursor or end a line; bidirectional and zero-width marks reorder and hide what
stands beside them; surrogates, private and unassigned code points are no text at all. Blanks and controls are folded
into spaces, all others become dots, as in Nmap's fields.
"""

import re

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def first_line(error: BaseException) -> str:
    """Of what a library says, which may be a page."""
    return str(error).strip().partition("\n")[0]


def counted(number: int, what: str) -> str:
    """`1 row`, `1,204 rows`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters of the text, all of them printable in Unicode's sense."""
    folded = _BLANKS.sub(" ", text[: 4 * limit]).strip()[:limit]
    if folded.isprintable():
        return folded
    return "".join(char if char.isprintable() else "." for char in folded)


_LOGIN = re.compile(r"(\b(?:socks[45][ah]?|https?)://).*@", re.DOTALL | re.IGNORECASE)


def without_logins(text: str) -> str:
    """A word in which the URLs of proxies have no user and no password, for whoever writes a command line down."""
    return _LOGIN.sub(r"\1***@", text)
