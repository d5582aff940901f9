"""JSON that is too long for the page, cut where it is long: what is left is JSON, and says what is missing. Pure.

>>> shortened('{"names": ["a.example", "b.example", "c.example", "d.example", "e.example"], "end": 7}', 65)
'{"names":["a.example","b.example","… and 3 more"],"end":7}'
"""

import json
from typing import Any

_MOST = tuple(1 << bits for bits in range(10, -1, -1))  # members of a list or an object: the first that fits
_LETTERS = 16  # of a text, for each member of a list


def shortened(text: str, longest: int) -> str:
    """Of at most `longest` characters. text: a JSON object or list; of what is no JSON, the beginning, as a text."""
    try:
        value = json.loads(text)
        cut = (_dumped(_cut(value, most)) for most in _MOST)
        return next(said for said in cut if len(said) <= longest)
    except (ValueError, RecursionError, StopIteration):
        return _dumped({"…": _cut(text, longest // (8 * _LETTERS))})  # a character is up to six of JSON


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str) and len(value) > most * _LETTERS:
        return f"{value[: most * _LETTERS]}… ({len(value):,} characters)"
    if isinstance(value, list):
        left = len(value) - most
        return [_cut(one, most) for one in value[:most]] + [f"… and {left:,} more"] * (left > 0)
    if isinstance(value, dict):
        told = {_cut(name, most): _cut(one, most) for name, one in list(value.items())[:most]}
        return told if len(value) <= most else told | {"…": f"and {len(value) - most:,} more"}
    return value


def _dumped(value: Any) -> str:
    """Halves of characters, which no encoding has, stay escaped."""
    said = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return said.encode(errors="backslashreplace").decode()
