"""Colours of what people read, and the care that a terminal needs: styles by meaning, and who applies them.

Contract: a `Paint` takes a style and a text, and changes nothing of the text that can be seen. `plain` is for files and
pipes, which get every byte as it is. On a terminal, whatever a row holds is shown and not obeyed.
"""

from collections.abc import Callable

from matcher import shown

HEADING = "1"
SERVICE = "1;36"
MUTED = "2"
GOOD = "32"
DOUBTFUL = "33"
BAD = "31"
FAILURE = "1;31"
WARNING = "1;33"

STATES = {"open": GOOD, "open|filtered": DOUBTFUL, "filtered": DOUBTFUL, "closed": BAD}

Paint = Callable[[str, str], str]
"""(style, text) -> the text as it is to be written."""


def plain(_style: str, text: str) -> str:
    """For what is no terminal."""
    return text


def safe(_style: str, text: str) -> str:
    """For a terminal without colours."""
    return shown(text)


def coloured(style: str, text: str) -> str:
    """For a terminal with colours."""
    return f"\x1b[{style}m{shown(text)}\x1b[0m" if style and text else shown(text)
