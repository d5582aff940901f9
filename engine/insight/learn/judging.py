"""Whether a proposed line may be trusted: what else it fits, and which members it fits that it was not made of.

A theft: the line fits a response that a hard line of the database, or a sample, gives another name. A false fit: it
fits one that nobody names and that belongs elsewhere, to another cluster or to a sample that no line may match. Only
responses that a database would ask the line for are looked at: those to its probe, and to those that fall back on it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from matcher import ProbeDatabase
from matcher.database.samples import Sample
from matcher.tools.aligned import Aligned, aligned
from matcher.tools.propose import fitter
from matcher.tools.tokens import Telling, telling

LEAST_LETTERS = 6  # bytes of literal text, with fewer of which a line says too little
LEAST_IN_SERVER = 3  # where the protocol says that it is a name
HOLDS = 0.5  # share of the other half, below which a line is too narrow


class Known(Struct, frozen=True):
    """A response whose name is known. label: service and product; empty where no line may match."""

    probe: int
    data: bytes
    label: str


def label(name: str, product: str) -> str:
    """A service with its product, as a Known has it."""
    return " ".join(filter(None, (name, product)))


def label_of(sample: Sample) -> str | None:
    """Of a response; None where a sample says too little to judge by: a soft match, or a service without a product."""
    expect = sample.expect
    if expect is None:
        return ""
    return None if expect.soft or not expect.product else label(expect.name, expect.product)


class Judged(Struct, frozen=True):
    """thefts: label -> how many; false: how many responses that nobody names. own: members it fits, of `members`.

    held: share of the members that a line made from the others fits, each half in turn; None of a single response.
    """

    thefts: dict[str, int]
    false: int
    own: int
    members: int
    held: float | None
    vague: bool

    @property
    def faults(self) -> list[str]:
        """What speaks against it, one word each."""
        found = []
        if self.own < self.members or self.vague:
            found.append("vague")
        if self.thefts:
            found.append("steals")
        if self.false:
            found.append("overlaps")
        if self.held is not None and self.held < HOLDS:
            found.append("narrow")
        return found

    @property
    def badness(self) -> tuple[int, int, int]:
        return self.members - self.own, sum(self.thefts.values()), self.false


class Judge:
    """known: responses with names. Clusters that say the same to several probes have one number."""

    def __init__(self, database: ProbeDatabase, known: Iterable[Known]) -> None:
        self._known: dict[int, list[Known]] = {}
        self._askers: dict[int, list[int]] = {}  # a probe -> those whose answers its lines are asked for
        for probe in database.probes:
            for index in probe.lists:
                self._askers.setdefault(index, []).append(probe.index)
        for one in known:
            self._known.setdefault(one.probe, []).append(one)
        self._others: dict[int, list[tuple[int, bytes]]] = {}

    def add_cluster(self, number: int, probe: int, members: Iterable[bytes]) -> None:
        self._others.setdefault(probe, []).extend((number, data) for data in members)

    def judge(self, family: int, probe: int, members: Sequence[bytes], made: Aligned, line: bytes) -> Judged:
        """line: of the database, with the pattern that was made of `members`."""
        thefts, false = self.tried(probe, line, family)
        fits = fitter(line)
        return Judged(
            thefts,
            false,
            sum(map(fits, members)),
            len(members),
            held_out(members, made.form),
            is_vague(made),
        )

    def tried(self, probe: int, line: bytes, family: int = -1) -> tuple[dict[str, int], int]:
        """(label -> how many it steals, most first; false fits), but for the members of the cluster `family`."""
        fits = fitter(line)
        thefts: Counter[str] = Counter()
        false = 0
        for asker in self._askers.get(probe, ()):
            for one in self._known.get(asker, ()):
                if fits(one.data):
                    thefts[one.label] += 1
            false += sum(other != family and fits(data) for other, data in self._others.get(asker, ()))
        false += thefts.pop("", 0)
        return dict(sorted(thefts.items(), key=lambda item: (-item[1], item[0]))), false


def is_vague(made: Aligned) -> bool:
    """Whether a line says too little to be one."""
    return made.letters < (LEAST_IN_SERVER if made.form == "server" else LEAST_LETTERS)


def held_out(members: Sequence[bytes], form: str) -> float | None:
    """The share of members that a line made from the other half fits, each half in turn; None for a single one."""
    if len(members) < 2:
        return None
    fitted = 0
    for mine, theirs in ((members[::2], members[1::2]), (members[1::2], members[::2])):
        made = aligned(parts_of(mine, form))
        fits = fitter(b"match x m|%b|%b" % (made.pattern, made.flags))
        fitted += sum(map(fits, theirs))
    return fitted / len(members)


def parts_of(members: Sequence[bytes], form: str) -> list[Telling]:
    """Of those that have one of that form."""
    return [part for data in members if (part := telling(data, form)) is not None]
