r"""How sure a match is: a number from 0 to 1 for each line of a database, and the words that explain it.

    confidence = specific * known * quoted     (docs/confidence.md: the whole on one screen, and how often it is right)

specific    s / (s + 1), where s is what the line demands of a response, in bytes of information: 1 for a literal byte,
            0.58 for `\d`, nothing for what may be any byte; the least of alternatives, of repeats what must be there. A
            line that may fit anywhere demands ANYWHERE less than one that begins at the first byte.
known       (own + 1) / (own + others + 1): of the known responses that the line wins, how many are its own product's
            (database/known.py). 1 for a line that won nothing of others, or that nobody has tried.
quoted      QUOTED where the product is but a text out of the response: what the line demands then tells the protocol,
            and the product is whatever the server calls itself. 1 for all others.

Contract: a function of the line and of the table of known responses alone; the response that it won does not matter.
`Confidences.of` is one look-up after the first time: what takes time is done once a line, when it first wins.
"""

import re
from math import log2

from msgspec import Struct

from matcher.database.known import KnownWins, builtin_known, line_key
from matcher.errors import UnsupportedPattern
from matcher.model import ProbeDatabase, Signature, SignatureId
from matcher.regex.translate import anchored
from matcher.regex.tree import Alt, Chars, Node, Repeat, Seq, parse

ANYWHERE = 1.5  # bytes: the choice of a place in some hundred
END = 0.5  # bytes: few responses end just there
MOST = 64  # times that what is repeated counts
SPECIFIC, VAGUE = 10.0, 3.0  # bytes; from here a line is called specific, below that vague
QUOTED = 0.7
DIGITS = 2

# The words of `reasons`, for good; docs/confidence.md says what each means.
SPECIFIC_LINE, PLAIN_LINE, VAGUE_LINE = "specific", "plain", "vague"
FITS_ANYWHERE, SOFT_LINE, FITS_OTHERS, UNTESTED = "anywhere", "soft", "fits-others", "untested"
QUOTED_PRODUCT = "quoted"

ROLE = r" (?:SNMP|SMB|\w*d)"  # at the end of a product, our own word for what it does: ftpd, sshd
_GROUP_ALONE = re.compile(rb"\$\d(?:%b)?" % ROLE.encode())


class Confidence(Struct, frozen=True):
    """value: from 0 to 1, to two digits; None where no line spoke. reasons: short words that keep their meaning."""

    value: float | None
    reasons: tuple[str, ...] = ()


class Confidences:
    """How sure the lines of a database are. known: without one, the table that comes with the package."""

    def __init__(self, database: ProbeDatabase, known: KnownWins | None = None) -> None:
        self._sha256 = database.sha256
        self._known = known
        self._told: dict[SignatureId, Confidence] = {}

    def of(self, signature: Signature) -> Confidence:
        """How sure a line of this database is where it wins."""
        return self._told.get(signature.id) or self._tell(signature)

    def _tell(self, signature: Signature) -> Confidence:
        known = builtin_known() if self._known is None else self._known
        wins = known.lines.get(line_key(signature)) or ((0, 0) if self._sha256 in known.tested else None)
        told = self._told[signature.id] = confidence(signature, wins)
        return told


def confidence(signature: Signature, wins: tuple[int, int] | None) -> Confidence:
    """wins: known responses that the line won, of its own product and of others; None where nobody has tried."""
    size, placed = specific_bytes(signature)
    own, others = wins or (0, 0)
    quoted = _GROUP_ALONE.fullmatch(signature.templates.product) is not None
    value = size / (size + 1) * (own + 1) / (own + others + 1) * (QUOTED if quoted else 1)
    grade = SPECIFIC_LINE if size >= SPECIFIC else PLAIN_LINE if size >= VAGUE else VAGUE_LINE
    told = {grade: True, FITS_ANYWHERE: not placed, SOFT_LINE: signature.soft}
    told |= {QUOTED_PRODUCT: quoted, FITS_OTHERS: others > 0, UNTESTED: wins is None}
    return Confidence(round(value, DIGITS), tuple(word for word, holds in told.items() if holds))


def specific_bytes(signature: Signature) -> tuple[float, bool]:
    """What a line demands of a response, in bytes, and whether at its first byte. (0, False) where none can tell."""
    try:
        tree = parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
    except UnsupportedPattern:
        return 0.0, False
    placed = anchored(tree)
    return max(0.0, demanded(tree) - (0 if placed else ANYWHERE)), placed


def demanded(node: Node) -> float:
    """What every match of a tree demands, in bytes of information."""
    match node:
        case Chars(mask):
            return 1 - log2(max(1, mask.bit_count())) / 8
        case Seq(items):
            return sum(map(demanded, items))
        case Alt(branches):
            return min(map(demanded, branches))
        case Repeat(body, low, _):
            return min(low, MOST) * demanded(body) if low else 0.0
    return END if node.kind != "start" else 0.0
