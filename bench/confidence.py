"""Is `confidence` right as often as it says? `python -m bench.confidence`

Known responses (bench/known_wins.py) are answered with our own database and with that of an installed Nmap; a row is
right when its line speaks of the product, or, without one, of the service, that gave the response
(matcher/tools/broad.py). Of each half of the responses only the other half is told to `Confidences`, so nothing is
judged by what it was learnt from. Four ways to ask:

    as asked    each response as the answer to its own probe, by the database that the responses were not made of
    mutated     the same with a few bytes changed, by either database: what is right is who gave the response before
    elsewhere   each response as the answer to other probes, as services give that do not understand what they are asked

Prints, for each range of confidence, how many rows there are and the share that is right; and the same of the whole
where a second database agrees, disputes, or is silent, as scans with `--second-opinion` would say it.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from zlib import crc32

from bench.corpora import damaged
from bench.known_wins import databases, known_samples
from engine.conversation.opinion import AGREED, DISPUTED, DatabaseOpinion
from engine.conversation.questions import SAME
from engine.model import DatabaseRef, Evidence, ServiceResult, Verdict
from matcher import Matcher, Probe, ProbeDatabase
from matcher.confidence import Confidences
from matcher.database.known import KnownWins, line_key
from matcher.database.samples import Sample, answer
from matcher.tools.broad import known_wins, related

BOUNDS = (0.0, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95, 1.01)
ELSEWHERE = 8  # other probes that each response is tried with
WAYS = ("as asked", "mutated", "elsewhere")
COPIES = 3  # mutated ones of each response

Count = Counter[tuple[str, float, bool]]
"""By the way of asking, the lower end of the range, and whether the row is right."""


def half(sample: Sample) -> int:
    return crc32(sample.response) & 1


def learnt(database: ProbeDatabase, samples: Sequence[Sample]) -> KnownWins:
    wins = known_wins(database, samples).values()
    lines = {line_key(each.signature): (each.own, len(each.others)) for each in wins}
    return KnownWins(frozenset({database.sha256}), lines)


def probe_of(database: ProbeDatabase, sample: Sample) -> Probe | None:
    names = (sample.probe, *SAME.get((sample.proto, sample.probe), ()))
    return next(filter(None, (database.probe(name, sample.proto) for name in names)), None)


def asked(database: ProbeDatabase, sample: Sample, chance: random.Random) -> Iterator[tuple[str, Probe, bytes]]:
    """The ways of asking: name, probe, response."""
    probe = probe_of(database, sample)
    if probe is not None:
        if (database.name == "builtin") == (sample.path == "nmap-7.93-open.ndjson.zst"):
            yield "as asked", probe, sample.response
        for _ in range(COPIES):
            yield "mutated", probe, damaged(sample.response, chance)
    others = [each for each in database.probes if each.proto == sample.proto and each is not probe]
    for other in chance.sample(others, ELSEWHERE):
        yield "elsewhere", other, sample.response


def judged(database: ProbeDatabase, samples: Sequence[Sample]) -> Count:
    matcher = Matcher(database)
    chance = random.Random(1)
    count: Count = Counter()
    for part in (0, 1):
        known = learnt(database, [sample for sample in samples if half(sample) != part])
        confidences = Confidences(database, known)
        for sample in samples:
            if half(sample) != part:
                continue
            for way, probe, response in asked(database, sample, chance):
                match = matcher.match(probe, response)
                said = answer(match)
                right = related(said, sample) if said else None
                if match is not None and right is not None:
                    value = confidences.of(match.signature).value
                    count[way, max(bound for bound in BOUNDS if bound <= value), right] += 1
    return count


def opinions(first: ProbeDatabase, second: ProbeDatabase, samples: Sequence[Sample]) -> Counter[tuple[str, str, bool]]:
    """By the way of asking, what the second database said, and whether the first one's row is right."""
    matcher, confidences = Matcher(first), Confidences(first)
    opinion = DatabaseOpinion(first, second, Matcher(second).match)
    chance = random.Random(1)
    count: Counter[tuple[str, str, bool]] = Counter()
    for sample in samples:
        for way, probe, response in asked(first, sample, chance):
            match = matcher.match(probe, response)
            said = answer(match)
            right = related(said, sample) if said else None
            if match is None or said is None or right is None:
                continue
            sure = confidences.of(match.signature)
            row = ServiceResult(
                ip="",
                port=0,
                proto=probe.proto,
                name=said.name.removeprefix("ssl/"),
                product=said.product,
                version=said.version,
                cpe=said.cpe,
                verdict=Verdict.SOFTMATCHED if said.soft else Verdict.HARDMATCHED,
                evidence=Evidence(probe.name, match.signature.line),
                confidence=sure.value,
                database=DatabaseRef("", ""),
                started="",
            )
            told = opinion.on(row, response).reasons
            count[way, told[0] if told else "silent", right] += 1
    return count


def share(right: int, wrong: int) -> str:
    return f"{right / (right + wrong):.1%} of {right + wrong:,}" if right + wrong else "-"


def main() -> int:
    samples = known_samples()
    print(f"{len(samples):,} known responses; right, of rows, by confidence")
    own, *nmap = databases()
    for first, second in [(one, two) for other in nmap for one, two in ((own, other), (other, own))]:
        count = opinions(first, second, samples)
        print(f"\n{first.name}, asked beside it {second.name}\n| | as asked | mutated | elsewhere |\n|---|---|---|---|")
        for word in (AGREED, DISPUTED, "silent"):
            cells = [share(count[way, word, True], count[way, word, False]) for way in WAYS]
            print(f"| {word} | " + " | ".join(cells) + " |")
    for database in (own, *nmap):
        counted = judged(database, samples)
        print(f"\n{database.name}\n| confidence | as asked | mutated | elsewhere |\n|---|---|---|---|")
        for low, high in pairwise(BOUNDS):
            cells = [share(counted[way, low, True], counted[way, low, False]) for way in WAYS]
            print(f"| {low:.2f} to {min(high, 1):.2f} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
