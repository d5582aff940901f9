"""Shapes of one probe that are alike, together: greetings with another name in them, answers with another number.

Two shapes are alike where at least ALIKE of the pairs of neighbouring tokens (of binary ones, in their places) that
either has are in both; of HTTP and SSH servers those whose product, as RFC 9110 and RFC 4253 have it, is the same. The
largest shapes lead; each other joins the leader it is most like. Pure; time grows with the number of shapes, because of
a pair that very many have only the first leaders are looked at.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from engine.insight.learn.shapes import Shape
from matcher.tools.tokens import Token, tellings, tokens

ALIKE = 0.6
ALIKE_BINARY = 0.25  # by chance hardly two bytes are equal in their places, and what follows a header may be anything
SHARED_BINARY = 4  # pairs in their places, none of zeros alone, which are enough
BUSY = 64  # leaders that one pair leads to
POSITIONS = 24  # tokens of a binary response that are compared
_PRODUCTS = {  # by form
    "server": re.compile(rb"[^\s/()]{2,}(?:/(?=\d))?"),
    "line": re.compile(rb"SSH-[\d.]+-[A-Za-z-]{3,}"),
}
Feature = tuple[object, ...]


def clusters(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Each a leader with those that have joined it. shapes: largest first."""
    groups: list[list[Shape]] = []
    sizes: list[int] = []  # how many features each leader has
    places: dict[Feature, list[int]] = {}
    for shape in shapes:
        features = set(_features(shape))
        shared = Counter(number for feature in features for number in places.get(feature, ()))
        best = _best(shared, len(features), sizes, shape.form == "binary")
        if best is not None:
            groups[best].append(shape)
            continue
        for feature in features:
            known = places.setdefault(feature, [])
            if len(known) < BUSY:
                known.append(len(groups))
        groups.append([shape])
        sizes.append(len(features))
    return groups


def _best(shared: Mapping[int, int], own: int, sizes: Sequence[int], binary: bool) -> int | None:
    """The leader that is most alike, if one is alike at all."""
    most: tuple[float, int] | None = None
    for number, count in shared.items():
        likeness = count / (own + sizes[number] - count)
        alike = likeness >= (ALIKE_BINARY if binary else ALIKE) or (binary and count >= SHARED_BINARY)
        if alike and (most is None or (likeness, -number) > most):
            most = likeness, -number
    return None if most is None else -most[1]


def merged(group: Sequence[Shape]) -> Shape:
    """What shapes of one kind have together, as one; they stay as they are."""
    first = group[0]
    if len(group) == 1:
        return first
    whole = Shape(first.probe, first.form, first.mask)
    for shape in group:
        whole.merge(shape)
    return whole


def _features(shape: Shape) -> Iterator[Feature]:
    kind = (shape.probe, shape.form)
    part = tellings(next(iter(shape.samples.kept()), b""))[0]
    names = _PRODUCTS.get(shape.form)
    if names is not None and (product := names.match(part.text, part.said)):
        yield (*kind, product[0])
    elif shape.form == "binary":
        keys = [token.key for token in tokens(part)[:POSITIONS]]
        yield from ((*kind, at, *pair) for at, pair in enumerate(pairwise(keys)) if any(pair[0] + pair[1]))
    else:
        yield from ((*kind, first, second) for first, second in _pairs(tokens(part.own)))


def _pairs(found: Iterable[Token]) -> Iterator[tuple[bytes, bytes]]:
    before = b""
    for token in found:
        if token.kind not in {"blank", "end"}:
            yield before, token.key
            before = token.key
    yield before, b""
