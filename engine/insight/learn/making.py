"""The whole of `probemill learn`: responses in, proposals out, in memory that does not grow with the inputs.

Contract: `learn(...)` asks the database about each response, and puts together those that it does not name, or names by
a softmatch. The same inputs give the same proposals. What is read and how it is told, given.py says; how much is kept,
shapes.py. No files are written here.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, count
from pathlib import Path

from msgspec import Struct, field

from engine.conversation.questions import SAME
from engine.insight.learn.clusters import clusters, merged
from engine.insight.learn.given import Given, Inputs
from engine.insight.learn.judging import Judge, Known, label, label_of
from engine.insight.learn.proposing import Proposal, propose, says_enough
from engine.insight.learn.shapes import KEPT, Answer, Shape, Shapes, digest_of
from engine.insight.learn.sketches import Sample
from engine.offline.answers import Answers, MatchRow
from engine.offline.reading import Watch
from matcher import Matcher, Probe, Proto
from matcher.database.samples import read_samples

KNOWN = 4096  # responses with names that the inputs themselves hold, and are kept to try lines on
OTHERS = 4000  # clusters whose members are no one else's
_MEMBERS = 4  # of each
_PARTS = 8  # shapes of a cluster that are tried by themselves
LEAST, LIMIT = 2, 100


class Wish(Struct, frozen=True):
    """least: hosts of a cluster that gets a line; limit: how many lines at most.

    known: files of further responses with names; samples: folders of samples.
    """

    least: int = LEAST
    limit: int = LIMIT
    known: tuple[str, ...] = ()
    samples: tuple[Path, ...] = ()


class Learned(Struct):
    """What came of it. responses: read; named: by the database's hard lines; repeated: of one service, said before.

    unknown: to probes that the database does not have. nameless: what is left, and was put together. shapes, clusters:
    how many; small: clusters of fewer hosts than wished for; left: those beyond the limit.
    """

    database: str
    responses: int = 0
    named: int = 0
    unknown: int = 0
    repeated: int = 0
    nameless: int = 0
    shapes: int = 0
    dropped: int = 0
    dropped_rows: int = 0
    clusters: int = 0
    small: int = 0
    left: int = 0
    known: int = 0
    whole: bool = True
    proposals: list[Proposal] = field(default_factory=list)


_NOTHING = MatchRow(name="", probe="", line=0)


class _Asked:
    """The database's answer to a response, and which of its probes that was to."""

    def __init__(self, matcher: Matcher) -> None:
        self.database = matcher.database
        self._answers = Answers(self.database, matcher.match, lambda row: row or _NOTHING)
        self._probes: dict[tuple[str, tuple[str, ...]], Probe | None] = {}

    def of(self, given: Given) -> tuple[Probe, MatchRow] | None:
        """None for a probe that the database does not have."""
        row = self._answers.of(given.proto, given.names, given.foreign, given.data)
        key = given.proto, given.names
        if row is None:
            return None
        if key not in self._probes:
            if len(self._probes) > 1000:
                self._probes.clear()
            self._probes[key] = self._probe(*key)
        probe = self._probes[key]
        return None if probe is None else (probe, row)

    def _probe(self, proto: str, names: Iterable[str]) -> Probe | None:
        kind: Proto = "udp" if proto == "udp" else "tcp"
        for name in names:
            for each in (name, *SAME.get((proto, name), ())):
                if (probe := self.database.probe(each, kind)) is not None:
                    return probe
        return None


def learn(paths: Sequence[str], matcher: Matcher, wish: Wish, watch: Watch) -> Learned:
    """What `paths` hold that nobody named, and the lines for it. Raises InputError, ConfigError."""
    learned = Learned(matcher.database.name)
    asked = _Asked(matcher)
    inputs = Inputs(paths, watch)
    shapes, named = _gathered(inputs, asked, learned)
    further = Inputs(wish.known, watch)
    judge = Judge(matcher.database, _known(named, chain(_sampled(wish.samples), further), asked, learned))
    learned.whole = not (inputs.faults or further.faults)
    groups = clusters(shapes.all())
    learned.shapes, learned.clusters = sum(map(len, groups)), len(groups)
    learned.dropped, learned.dropped_rows = shapes.dropped, shapes.dropped_rows
    propose_all(groups, judge, matcher, wish, learned)
    return learned


def _gathered(inputs: Inputs, asked: _Asked, learned: Learned) -> tuple[Shapes, Sample[Known]]:
    shapes = Shapes()
    named: Sample[Known] = Sample(KNOWN)
    record, said = 0, set[bytes]()
    for given in inputs:
        learned.responses += 1
        found = asked.of(given) if given.data else None
        if found is None:
            learned.unknown += bool(given.data)
            continue
        probe, row = found
        if row.name and not row.soft:
            learned.named += 1
            digest = digest_of(b"%d" % probe.index, given.data[:KEPT])
            if named.wants(digest):
                named.add(digest, Known(probe.index, given.data[:KEPT], label(row.name, row.product)))
            continue
        if given.record != record:
            record, said = given.record, set()
        key = shapes.shape_of(given.data)
        if given.text and key in said:
            learned.repeated += 1
            continue
        said.add(key)
        learned.nameless += 1
        shapes.add(Answer(probe.index, given.data, row.name, given.ip, given.port, given.pseudo, given.text))
    return shapes, named


def _known(named: Sample[Known], further: Iterable[Given], asked: _Asked, learned: Learned) -> Iterator[Known]:
    """What the inputs name, and what there is beside them."""
    yield from named.kept()
    learned.known = len(named.kept())
    for given in further:
        found = asked.of(given)
        if found is not None:
            probe, row = found
            learned.known += 1
            named_here = label(row.name, row.product) if row.name and not row.soft else given.expected
            yield Known(probe.index, given.data[:KEPT], named_here)


def _sampled(folders: Sequence[Path]) -> Iterator[Given]:
    for one in read_samples(folders)[0]:
        expected = label_of(one)
        if expected is not None:
            yield Given(one.proto, (one.probe,), True, one.response, "", 0, 0, "", False, expected)


def propose_all(groups: list[list[Shape]], judge: Judge, matcher: Matcher, wish: Wish, learned: Learned) -> None:
    """Largest first. A group whose members share next to nothing is taken apart again."""
    families: dict[tuple[str, bytes], int] = {}
    numbers = count()
    waiting: list[tuple[tuple[int, ...], int, Shape, list[Shape], int]] = []
    for group in groups:
        family = families.setdefault((group[0].form, group[0].mask), len(families))
        whole = merged(group)
        if len(waiting) < OTHERS:
            judge.add_cluster(family, whole.probe, whole.samples.kept()[:_MEMBERS])
        waiting.append((_first(whole), next(numbers), whole, group, family))
    heapify(waiting)
    while waiting:
        _, _, whole, group, family = heappop(waiting)
        if whole.size[0] < wish.least:
            learned.small += 1
        elif len(learned.proposals) >= wish.limit:
            learned.left += 1
        else:
            probe = matcher.database.probes[whole.probe]
            number = len(learned.proposals) + 1
            proposal = propose(number, family, whole, probe, judge) if says_enough(whole) or len(group) == 1 else None
            if len(group) > 1 and (proposal is None or _better_apart(proposal, group, wish, family, judge)):
                for shape in group:
                    heappush(waiting, (_first(shape), next(numbers), shape, [shape], family))
                learned.clusters += len(group) - 1
            elif proposal is not None:
                learned.proposals.append(proposal)


def _better_apart(together: Proposal, group: list[Shape], wish: Wish, family: int, judge: Judge) -> bool:
    """Whether something speaks against the line of all shapes, and nothing against lines of their own for most."""
    if together.clean:
        return False
    parts = [shape for shape in group[:_PARTS] if shape.size[0] >= wish.least]
    clean = (shape for shape in parts if propose(0, family, shape, together.probe, judge).clean)
    return 2 * sum(shape.size[0] for shape in clean) >= together.shape.size[0]


def _first(shape: Shape) -> tuple[int, ...]:
    return tuple(-size for size in shape.size)
