"""Lines that fit more than they say: which known responses each line of a database wins, and whose they are.

A known response is a sample: it says who gave it, in `expect` or, for a real one, in `source`. Every line is asked
about every known response of its protocol, whatever probe that answered: a service that does not understand a probe
tends to say the same to all of them. What counts is the line that wins among the lines of its probe, because a general
line behind particular ones does no harm.

Who is another product says kin.py. Nobody is where the response itself spells a word of what the line says, nor where a
known response names no product and its service is the line's.

Contract: `known_wins` is pure, in the order of the file. A wrong line may go unnoticed; few that are right are accused.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from matcher.database.samples import Expected, Sample, answer
from matcher.kin import Said, akin
from matcher.matcher import Matcher
from matcher.model import ProbeDatabase, Signature

SHOWN_OTHERS = 3
_SOURCE = re.compile(r"real: ([^(,;]+)")


class Wins(Struct):
    """What a line wins of known responses. own: of its own product; others: each with what the line said of it."""

    signature: Signature
    own: int = 0
    others: list[tuple[Sample, Expected]] = field(default_factory=list)

    def __str__(self) -> str:
        names = list(dict.fromkeys(_named(sample) for sample, _ in self.others))
        shown = ", ".join(names[:SHOWN_OTHERS]) + (", ..." if len(names) > SHOWN_OTHERS else "")
        said = self.others[0][1]
        count = len(self.others)
        return (
            f"says {said.product or said.name} of {count} known response{'s' * (count > 1)} of others ({shown}),"
            f" and of {self.own} of its own"
        )


def known_wins(database: ProbeDatabase, samples: Sequence[Sample], engine: str = "auto") -> dict[int, Wins]:
    """By signature id, every line that wins a known response. samples: those that expect nothing are left out."""
    matcher = Matcher(database, engine)
    alone = [replace(probe, lists=(probe.index,)) for probe in database.probes]
    found: dict[int, Wins] = {}
    for sample in samples:
        for probe in alone if sample.expect is not None else ():
            match = matcher.match(probe, sample.response) if probe.proto == sample.proto else None
            said = answer(match)
            if match is None or said is None:
                continue
            wins = found.setdefault(match.signature.id, Wins(match.signature))
            kin = related(said, sample)
            if kin:
                wins.own += 1
            elif kin is False:
                wins.others.append((sample, said))
    return dict(sorted(found.items()))


def broad_lines(wins: Iterable[Wins]) -> Iterator[Wins]:
    """Those that win responses of others, most first."""
    yield from sorted((line for line in wins if line.others), key=lambda line: -len(line.others))


def related(said: Expected, sample: Sample) -> bool | None:
    """Whether what a line said of a sample is of the sample's own product; None where it cannot be told."""
    known = sample.expect
    if known is None:
        return None
    source = " ".join(_SOURCE.findall(sample.source))
    return akin(
        Said(said.name, said.product, said.cpe),
        Said(known.name, known.product, known.cpe, source),
        sample.response,
    )


def _named(sample: Sample) -> str:
    source = _SOURCE.match(sample.source)
    named = sample.expect.product or sample.expect.name if sample.expect else ""
    return source[1].strip() if source and sample.expect and not sample.expect.product else named
