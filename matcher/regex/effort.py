"""What it costs to compile a pattern into an automaton, estimated from its tree before anybody tries.

A counted repeat is so many copies of its body, and a row of optional items can be left at each and entered at each, so
a short line can mean millions of transitions: minutes inside a library that cannot be interrupted.
Contract: `effort` counts the positions and the transitions of the automaton that Glushkov's construction gives for the
pattern `superset` makes of the same tree, and multiplies the two. Hyperscan needs a tenth of a microsecond to three
microseconds a unit. Linear in the size of the tree.
Source: V. M. Glushkov, "The abstract theory of automata" (1961); the times are measured.
"""

from typing import NamedTuple

from matcher.regex.tree import Alt, Chars, Mark, Node, Repeat, Seq


class _Part(NamedTuple):
    """positions, those a match of it can begin and end with, transitions inside, and whether it can be empty."""

    positions: int = 0
    first: int = 0
    last: int = 0
    transitions: int = 0
    empty: bool = True


def effort(node: Node, *, max_repeat: int) -> int:
    """The estimate. max_repeat: as for `superset`; longer counts are open ends."""
    part = _measured(node, max_repeat)
    return part.positions * part.transitions


def _measured(node: Node, most: int) -> _Part:
    match node:
        case Chars():
            return _Part(1, 1, 1, 0, False)
        case Seq(items):
            return _joined(items, most)
        case Alt(branches):
            parts = [_measured(branch, most) for branch in branches]
            positions, first, last, transitions, empty = zip(*parts, strict=True)
            return _Part(sum(positions), sum(first), sum(last), sum(transitions), any(empty))
        case Repeat(body, low, high):
            copies = high if high is not None and high <= most else None
            return _repeated(_measured(body, most), min(low, most), copies)
        case Mark():
            return _Part()


def _joined(items: tuple[Node, ...], most: int) -> _Part:
    positions = first = last = transitions = 0
    empty = True
    for item in items:
        if isinstance(item, Chars):  # nine of ten; as below, without the detour
            positions += 1
            transitions += last
            first += empty
            last = 1
            empty = False
            continue
        part = _measured(item, most)
        positions += part.positions
        transitions += part.transitions + last * part.first
        first += part.first * empty
        last = part.last + last * part.empty
        empty = empty and part.empty
    return _Part(positions, first, last, transitions, empty)


def _repeated(body: _Part, low: int, high: int | None) -> _Part:
    """So many copies in a row, of which those behind `low` may be left out; without limit, the last one is a loop."""
    copies = max(1, low if high is None else high)
    between = copies * (copies - 1) // 2 if body.empty else copies - 1  # pairs of copies that may follow each other
    return _Part(
        body.positions * copies,
        body.first * (copies if body.empty else 1),
        body.last * (copies if body.empty or low == 0 else copies - min(low, copies) + 1),
        body.transitions * copies + body.last * body.first * (between + (high is None)),
        body.empty or low == 0,
    )
