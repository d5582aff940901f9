"""HTML as text, safely: whatever is put between tags is escaped, and what strangers wrote cannot reorder the line.

`Html` is a text that is markup already; every other text becomes it by `text`. Controls and marks that hide or
reorder are shown as their code, as in all that a terminal is told; other right-to-left text is isolated by `bdi`.
"""

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from matcher import shown

LONGEST = 300  # characters of one text


class Html(str):
    """A text that is markup."""

    __slots__ = ()

    def __add__(self, other: str) -> "Html":
        return Html(str(self) + str(text(other)))


def text(value: object) -> Html:
    """Numbers with thousands apart, other values as what they say."""
    if isinstance(value, Html):
        return value
    if isinstance(value, int):
        return Html(f"{value:,}")
    said = str(value)
    said = escape(shown(said if len(said) <= LONGEST else said[:LONGEST] + "…"))
    return Html(said if said.isascii() else f"<bdi>{said}</bdi>")


def lines(value: str) -> Html:
    """A text of several lines."""
    return Html("\n".join(escape(shown(line)) for line in value.split("\n")))


def join(parts: Iterable[object]) -> Html:
    return Html("".join(str(text(part)) for part in parts))


def tag(name: str, *inside: object, **attributes: str) -> Html:
    """An element. Attributes are named as `class_` and `data_find`; empty ones are left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(shown(value))}"' for key, value in attributes.items() if value
    )
    return Html(f"<{name}{said}>{join(inside)}</{name}>")


def found(value: str, search: str) -> Html:
    """A text that begins a search for it when it is clicked. search: kept to the letter, as JSON has it."""
    return tag("a", value, href="#rows", data_find=json.dumps(search))


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> Html:
    """Columns whose head begins with `#` are numbers."""
    names = list(heads)
    kinds = [{"class_": "n"} if name.startswith("#") else {} for name in names]
    head = tag(
        "tr", *(tag("th", name.lstrip("#"), scope="col", **kind) for name, kind in zip(names, kinds, strict=True))
    )
    body = [tag("tr", *(tag("td", value, **kind) for value, kind in zip(row, kinds, strict=True))) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroller")


def script_json(value: Any) -> Html:
    """JSON that may stand in a script element: nothing in it ends the element, begins a comment or ends a line."""
    said = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return Html(said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
