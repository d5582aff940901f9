"""Which of two versions of a product is the older, as far as their texts tell. Pure.

    >>> sorted(["9.10", "9.2p1 Debian 2+deb12u7", "9.2p1", "9.2rc1"], key=version_key)
    ['9.2rc1', '9.2p1', '9.2p1 Debian 2+deb12u7', '9.10']

A version has two halves: the maker's, and what a distribution adds behind it. Numbers count as numbers, letters behind
a number are later than none (9.2 < 9.2p1), but for the words of what comes before a release (1.0rc1 < 1.0); zeros at
the end say nothing (1.0 = 1.0.0). Additions count only where the maker's halves are equal, and only within one
distribution: whether Debian's or Ubuntu's 9.2p1 is the newer, no text says. Nor does it of a number and a date, of
numbers behind different words (`Debian 12`, `Ubuntu 9`), or of the digests of commits.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

Key = tuple[tuple[tuple[int, int, str], ...], tuple[tuple[int, int, str], ...], str]

LONGEST = 200  # characters that count; banners can hold more

_END = (1, 0, "")
_EARLY = {word: rank for rank, word in enumerate(("dev", "snapshot", "alpha", "beta", "pre", "preview", "rc"))}
_PARTS = re.compile(r"\d+|[a-z]+")
_MAKER = re.compile(
    r"v?\d[\w.]*(?:[-_ ](?:dev|snapshot|alpha|beta|preview|pre|rc|patch|build|release|sp|p|r|u)[-. ]?\d+)*", re.ASCII
)
_FEIGNED = re.compile(r"5\.5\.5-(?=1\d)")  # MariaDB's, so that old clients of MySQL take it for one
_DIGEST = re.compile(r"(?=\d*[a-f])[\da-f]{6,64}", re.ASCII)
_DATE = re.compile(r"(?:19|20)\d\d[-./]?(?:0\d|1[0-2])[-./]?(?:[0-2]\d|3[01])(?!\d)", re.ASCII)
_VAGUE = re.compile(r" - | or (?:later|newer|earlier|older)\b|\bthrough\b|[<>?]|(?:^|[.\d])x\b")


@lru_cache(1 << 16)
def version_key(version: str) -> Key:
    """What versions are sorted by, the oldest first; equal only for equal texts."""
    maker, addition = _halves(version)
    return _natural(maker), _natural(addition), version


def is_exact(version: str) -> bool:
    """Whether it is one version, and no range such as `3.X - 4.X` or `2.0 or later`, and no digest of a commit."""
    text = version.lower()
    return any(char.isdigit() for char in text) and not (_VAGUE.search(text) or _DIGEST.fullmatch(text))


def comparable(versions: Iterable[str]) -> set[str]:
    """Those that have an order: the exact ones of one kind, if more than half of these are of it."""
    kinds: dict[tuple[str, bool], set[str]] = {}
    exact = set(filter(is_exact, versions))
    for version in exact:
        kinds.setdefault(_kind(version), set()).add(version)
    most = max(kinds.values(), key=len, default=exact)
    return most if 2 * len(most) > len(exact) else set()


def compare(versions: Iterable[str]) -> tuple[str, set[str]]:
    """Of all versions seen of one product: the newest, empty where none can be told; and those certainly older."""
    exact = sorted(comparable(versions), key=version_key)
    if not exact:
        return "", set()
    latest = version_key(exact[-1])[0]
    ends: dict[tuple[object, ...], str] = {}  # the last of each maker's version and distribution
    for version in exact:
        ends[_line(version)] = version
    old = {
        version
        for version in exact
        if version_key(version)[0] < latest or version_key(version)[1] < version_key(ends[_line(version)])[1]
    }
    return exact[-1], old


def _line(version: str) -> tuple[object, ...]:
    """What two versions have in common that differ in a distribution's own number alone."""
    maker, addition, _ = version_key(version)
    return maker, tuple(word for _, _, word in addition if word)


def _kind(version: str) -> tuple[str, bool]:
    """The words in front of its number, and whether that is a date."""
    text = _FEIGNED.sub("", version[:LONGEST].lower().strip(), count=1)
    at = next((at for at, char in enumerate(text) if char.isdigit()), len(text))
    return text[:at].strip().removesuffix("v"), _DATE.match(text, at) is not None


def _halves(version: str) -> tuple[str, str]:
    text = _FEIGNED.sub("", version[:LONGEST].lower().strip(), count=1)
    found = _MAKER.match(text)
    return (found[0].removeprefix("v"), text[found.end() :]) if found else (text, "")


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    parts: list[tuple[int, int, str]] = []
    for part in _PARTS.findall(text):
        if part.isdigit():
            parts.append((3, int(part), ""))
            continue
        while len(parts) > 1 and parts[-1] == (3, 0, ""):
            parts.pop()
        parts.append((0, _EARLY[part], part) if part in _EARLY else (2, 0, part))
    while len(parts) > 1 and parts[-1] == (3, 0, ""):
        parts.pop()
    return (*parts, _END)
