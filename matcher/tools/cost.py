r"""What a pattern may cost a backtracking engine, estimated from its tree, and what makes it need one.

Contract: `worst_case` is an estimate from
repeats that can exchange bytes with one another; it judges neither the alternatives' overlap nor counted repeats, and
every match is bounded by a limit anyway. It finds the patterns that deserve a second look, and proves nothing.
"""

import re

from matcher.regex.tree import ALL, Alt, Chars, Mark, Node, Repeat, Seq

MANY = 16  # a counted repeat that may run this often is treated like one without limit
_TOKEN = re.compile(
    rb"""
      \\Q (?s:.*?) (?: \\E | \Z )
    | (?P<back_reference>   \\[1-9](?!\d) | \\g\{?[+-]?\w+\}? | \\k[<{'][^>}']*[>}'] | \(\?P=\w+\) )
    | (?P<word_boundary>    \\[bB] )
    | (?P<start_of_search>  \\G )
    | \\ (?s:.)
    | \[ \^? \]? (?: \\(?s:.) | \[:\^?\w+:\] | [^\]\\] )* \]
    | \(\?\# [^)]* \)
    | (?P<look_ahead>       \(\?[=!] )
    | (?P<look_behind>      \(\?<[=!] )
    | (?P<atomic_group>     \(\?> )
    | (?P<condition>        \(\?\( )
    | (?P<recursion>        \(\?(?:R|[+-]?\d+|&\w+|P>\w+)\) )
    | (?P<multiline>        \(\?[a-zA-Z]*m )
    | (?P<possessive_repeat> (?: [*+?] | \{\d+(?:,\d*)?\} ) \+ )
    | (?s:.)
    """,
    re.VERBOSE,
)
EXPONENTIAL = -1
_REGULAR = {"word boundary", "start of search", "multiline"}


def relaxed(pattern: bytes) -> list[str]:
    """Names of the constructs in `pattern` that its tree has relaxed, in order, each once."""
    names = (found.lastgroup for found in _TOKEN.finditer(pattern))
    return list(dict.fromkeys(name.replace("_", " ") for name in names if name))


def needs_backtracking(pattern: bytes) -> list[str]:
    """The constructs in `pattern` that no automaton can do exactly."""
    return [name for name in relaxed(pattern) if name not in _REGULAR]


def worst_case(node: Node) -> int:
    """The exponent k of time ~ (response length)^k in the worst case, or EXPONENTIAL."""
    items = _flat(node)
    if _exponential(items, followed=False):
        return EXPONENTIAL
    return _degree(items)


def _flat(node: Node) -> tuple[Node, ...]:
    """The items one after another, with groups that occur exactly once opened."""
    if isinstance(node, Seq):
        return tuple(inner for item in node.items for inner in _flat(item))
    if isinstance(node, Repeat) and node.low == node.high == 1:
        return _flat(node.body)
    return (node,)


def _endless(node: Node) -> bool:
    return isinstance(node, Repeat) and (node.high is None or node.high - node.low >= MANY)


def _mandatory(node: Node) -> bool:
    """Whether nothing matches without at least one byte, or a place, for this node."""
    match node:
        case Repeat(body, low, _):
            return low > 0 and _mandatory(body)
        case Alt(branches):
            return all(_mandatory(branch) for branch in branches)
        case Seq(items):
            return any(_mandatory(item) for item in items)
    return True


def _mask(node: Node) -> int:
    """Every byte that can occur in a match."""
    match node:
        case Chars(mask):
            return mask
        case Seq(items):
            return _union(items)
        case Alt(branches):
            return _union(branches)
        case Repeat(body, _, _):
            return _mask(body)
    return 0


def _union(nodes: tuple[Node, ...]) -> int:
    mask = 0
    for node in nodes:
        mask |= _mask(node)
    return mask


def _separates(node: Node, mask: int) -> bool:
    """Whether this must match something, and never a byte of `mask`: a repeat over `mask` cannot run across it."""
    if not _mandatory(node):
        return False
    if isinstance(node, Seq):
        return any(_separates(item, mask) for item in node.items)
    if isinstance(node, Alt):
        return all(_separates(branch, mask) for branch in node.branches)
    if isinstance(node, Repeat):
        return _separates(node.body, mask)
    return not _mask(node) & mask


def _exponential(items: tuple[Node, ...], followed: bool) -> bool:
    """Whether a repeat of a repeat can divide the same bytes in ever more ways before something behind it fails."""
    for index, item in enumerate(items):
        behind = followed or any(_mandatory(later) for later in items[index + 1 :])
        match item:
            case Alt(branches):
                if any(_exponential(_flat(branch), behind) for branch in branches):
                    return True
            case Repeat(body, _, _):
                branches = body.branches if isinstance(body, Alt) else (body,)
                for branch in branches:
                    inner = _flat(branch)
                    if _exponential(inner, behind):
                        return True
                    if behind and _endless(item) and _divisible(inner):
                        return True
    return False


def _divisible(items: tuple[Node, ...]) -> bool:
    """Whether one pass through `items` can also be two: an endless repeat in it that nothing else holds apart."""
    return any(
        _endless(item) and not any(_separates(other, _mask(item)) for other in items if other is not item)
        for item in items
    )


def _degree(items: tuple[Node, ...]) -> int:
    """The longest run of endless repeats that can take bytes from one another, before something that may fail.

    A search that may begin anywhere is such a repeat itself.
    """
    anchored = bool(items) and isinstance(items[0], Mark) and items[0].kind == "start"
    run = 0 if anchored else 1
    before = ALL  # what the latest repeat of the run takes
    most = run
    for index, item in enumerate(items):
        if _endless(item):
            if not any(_mandatory(later) for later in items[index + 1 :]):
                break
            mask = _mask(item)
            run = run + 1 if run and mask & before else 1
            before = mask
        elif isinstance(item, Alt):
            run += max(_degree((Mark("start"), *_flat(branch), Chars(ALL))) for branch in item.branches)
            before |= _mask(item)
        elif run and _separates(item, before):
            run = 0
        most = max(most, run)
    return most
