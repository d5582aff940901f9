"""Shapes of one probe that are alike, together: greetings with another name in them, answers with another number.

Two shapes are alike where at least ALIKE of the pairs of neighbouring tokens (of binary ones, pairs of bytes in their
places) that either has are in both. The largest shapes lead; each other joins the leader it is most like. Pure;
time grows with the number of shapes, because of a pair that very many have only the first leaders are looked at.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from engine.insight.learn.shapes import Shape
from matcher.tools.tokens import Token, tellings, tokens

ALIKE = 0.6
BUSY = 64  # leaders that one pair leads to
POSITIONS = 48  # bytes of a binary response that are compared
Feature = tuple[object, ...]


def clusters(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Each a leader with those that have joined it. shapes: largest first."""
    groups: list[list[Shape]] = []
    sizes: list[int] = []  # how many features each leader has
    places: dict[Feature, list[int]] = {}
    for shape in shapes:
        features = set(_features(shape))
        shared = Counter(number for feature in features for number in places.get(feature, ()))
        likeness = {number: count / (len(features) + sizes[number] - count) for number, count in shared.items()}
        best = max(likeness, key=lambda number: (likeness[number], -number), default=-1)
        if best >= 0 and likeness[best] >= ALIKE:
            groups[best].append(shape)
            continue
        for feature in features:
            known = places.setdefault(feature, [])
            if len(known) < BUSY:
                known.append(len(groups))
        groups.append([shape])
        sizes.append(len(features))
    return groups


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
    if shape.form == "binary":
        text = part.text[:POSITIONS]
        yield from ((*kind, at, text[at : at + 2]) for at in range(len(text)))
        return
    yield from ((*kind, first, second) for first, second in _pairs(tokens(part.text[part.said :])))


def _pairs(found: Iterable[Token]) -> Iterator[tuple[bytes, bytes]]:
    before = b""
    for token in found:
        if token.kind not in {"blank", "end"}:
            yield before, token.key
            before = token.key
    yield before, b""
