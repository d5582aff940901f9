"""What a comparison can find, in the order in which people want to know.

The words are those of `--only`, `--ignore` and `--fail-on`, and of `changes` in NDJSON. A field that is compared only
where it was asked for (ALSO) is a kind by its own name.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from engine.errors import ConfigError

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "new": "answers now, and was not there",
        "gone": "answered, and is not there any more",
        "state": "answered and does not any more, or the other way round",
        "service": "another service",
        "product": "another product",
        "version": "another version of the same product",
        "certificate": "another certificate",
        "renewed": "the certificate was renewed",
        "tls": "TLS appeared or vanished",
    }
)
"""What is always looked for, and what it means."""

ALSO = ("extrainfo", "hostname", "ostype", "devicetype", "cpe")
"""Fields that are compared where they are asked for."""

ANY = "any"
SIGNS: Mapping[str, str] = MappingProxyType({"new": "+", "gone": "-"})
CHANGED = "~"  # the sign of all other kinds


def sign_of(kind: str) -> str:
    return SIGNS.get(kind, CHANGED)


def meaning_of(kind: str) -> str:
    return KINDS.get(kind, f"another `{kind}`")


def all_kinds(also: Iterable[str]) -> tuple[str, ...]:
    """Of a comparison that looks at these fields, too."""
    return (*KINDS, *also)


def read_words(option: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """The words of a list such as `new,gone`, in the order of `known`. Raises ConfigError for one that is not known."""
    known = tuple(known)
    given = {word.strip().lower() for word in text.split(",")} - {""}
    if strange := sorted(given - {*known}):
        raise ConfigError(f"{option}: {strange[0]!r} is none of {', '.join(known)}")
    return tuple(word for word in known if word in given)
