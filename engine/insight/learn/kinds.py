"""One line for each kind of stored response, tried on what is known: the work of `probemill db propose`.

Responses that say by `expect` what they are form a kind for each service and product; of the lines that can be made of
them the one counts that gives most of them what they expect, and steals least. What says nothing, and what the database
does not name either, is put together by how it looks, as `probemill learn` does.

Contract: `propose_kinds` gives Drafts for each kind; those that nothing speaks against come first, the largest of them
before the others. What the database says already as expected, or names where nothing is expected, gets none: it is
kept to try the lines on. Pure but for the matching engine's cache.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from engine.insight.learn.clusters import clusters
from engine.insight.learn.judging import Judge, Known, label, label_of, parts_of
from engine.insight.learn.making import Learned, Wish, propose_all
from engine.insight.learn.shapes import KEPT, Answer, Shapes
from engine.insight.learn.stored import Stored
from matcher import DatabaseError, Match, Matcher, Probe
from matcher.database.samples import Expected, Sample, answer
from matcher.tools.aligned import aligned
from matcher.tools.propose import fitter, given, propose, written
from matcher.tools.tokens import tellings

TRIED = 4  # responses of a kind from which a line is made alone
ALIGNED = 48  # that are laid upon one another
MOST_LINES = 16  # of a kind
_NOT_ITSELF = ("does not fit its own sample: write it by hand",)
CONSTANT = ("product", "extrainfo", "ostype", "devicetype")


class Draft(Struct, frozen=True):
    """A proposed line. samples: responses with what it gives them; if it serves none, what they want.

    missed: how many of its kind it does not serve. today: what the database says of the first sample. faults: what
    speaks against the line, in words.
    """

    probe: Probe
    line: str
    samples: tuple[tuple[Stored, Expected], ...]
    missed: int
    today: Match | None
    faults: tuple[str, ...]


class Kinds(Struct):
    """known: responses that need no line."""

    drafts: list[Draft]
    known: int


def propose_kinds(responses: Sequence[Stored], matcher: Matcher, samples: Iterable[Sample]) -> Kinds:
    """samples: further responses that lines are tried on."""
    told: dict[tuple[int, str, str, bool], list[Stored]] = {}
    nameless: list[Stored] = []
    known = [_known(matcher, one) for one in samples]
    count = 0
    for one in responses:
        match = matcher.match(one.probe, one.data)
        said = answer(match)
        if one.expect is not None and said != one.expect:
            told.setdefault((one.probe.index, one.expect.name, one.expect.product, one.expect.soft), []).append(one)
        elif said is None or (said.soft and one.expect is None):
            nameless.append(one)
        else:
            count += 1
            known.append(Known(one.probe.index, one.data, _label(said)))
    for group in told.values():
        known += (Known(one.probe.index, one.data, _label(one.expect)) for one in group)
    judge = Judge(matcher.database, [one for one in known if one is not None])
    drafts: list[Draft] = []
    for family in sorted(
        told.values(), key=lambda family: len(family[0].probe.lists)
    ):  # NULL's lines serve others, too
        drafts += _of_told([one for one in family if not _served(one, drafts)], matcher, judge)
    drafts += _of_nameless(nameless, matcher, judge)
    return Kinds(sorted(drafts, key=lambda one: (bool(one.faults), -len(one.samples))), count)


def _known(matcher: Matcher, sample: Sample) -> Known | None:
    probe, told = matcher.database.probe(sample.probe, sample.proto), label_of(sample)
    return None if probe is None or told is None else Known(probe.index, sample.response, told)


def _label(said: Expected | None) -> str:
    """As a judge has it."""
    return label(said.name, said.product) if said else ""


# -- what says what it is


def _of_told(family: Sequence[Stored], matcher: Matcher, judge: Judge) -> list[Draft]:
    """Lines for all responses of a product: one for each system and device, and more for those that one leaves."""
    parts: dict[tuple[str, ...], list[Stored]] = {}
    for one in family:
        parts.setdefault(tuple(getattr(one.expect, name) for name in CONSTANT), []).append(one)
    drafts: list[Draft] = []
    for part in sorted(parts.values(), key=len, reverse=True):
        rest = part
        while rest and len(drafts) < MOST_LINES:
            draft = _best(rest, family, matcher, judge)
            drafts.append(draft)
            served = {id(stored) for stored, _ in draft.samples}
            rest = [one for one in rest if id(one) not in served]
    return drafts


def _served(one: Stored, drafts: list[Draft]) -> bool:
    """Whether a line for a probe that its own falls back on gives what it expects; then it is a sample of that."""
    for number, draft in enumerate(drafts):
        if draft.faults or draft.probe.index not in one.probe.lists or one.expect is None:
            continue
        if given(draft.line.encode("latin-1"), one.data) == one.expect:
            drafts[number] = replace(draft, samples=(*draft.samples, (one, one.expect)))
            return True
    return False


def _best(group: Sequence[Stored], family: Sequence[Stored], matcher: Matcher, judge: Judge) -> Draft:
    """Of the lines that can be made, the one that serves most of the group and is wrong nowhere. It may serve none."""
    probe = group[0].probe
    expects = [one.expect for one in group if one.expect is not None]
    best: tuple[tuple[bool, bool, int], bytes, list[Stored], tuple[str, ...]] | None = None
    for line in _lines_of(group, expects):
        fits = fitter(line)
        said = [(one, given(line, one.data)) for one in family if fits(one.data)]
        wrong = sum(got != one.expect for one, got in said)
        mine = set(map(id, group))
        served = [one for one, got in said if got == one.expect and id(one) in mine]
        thefts, false = judge.tried(probe.index, line)
        thefts.pop(_label(expects[0]), None)
        faults = _faults(thefts, false)
        if wrong:
            faults = (f"gives {wrong:,} samples of its product something else than they expect", *faults)
        rank = (not served, bool(faults), len(group) - len(served))
        if best is None or rank < best[0]:
            best = rank, line, served, faults
        if not any(rank):
            break
    assert best is not None
    (_, _, missed), line, served, faults = best
    samples = tuple((one, one.expect) for one in served or group if one.expect is not None)
    today = matcher.match(probe, samples[0][0].data)
    return Draft(probe, line.decode("latin-1"), samples, missed, today, faults or _NOT_ITSELF[: not served])


def _lines_of(group: Sequence[Stored], expects: Sequence[Expected]) -> Iterable[bytes]:
    """Lines that may do for all of them: one response by itself, and all laid upon one another."""
    for one, expect in zip(group[:TRIED], expects, strict=False):
        sample = Sample("", 0, one.probe.name, one.probe.proto, one.data, expect)
        with suppress(DatabaseError):  # of a header that is longer than a line may be
            yield propose(sample).line.encode("latin-1")
    members = list(dict.fromkeys(one.data[:KEPT] for one in group[:ALIGNED]))
    for part in tellings(members[0]):
        parts = parts_of(members, part.form)
        if len(parts) < len(members):
            continue
        made = aligned(parts)
        templates = {
            name: text.encode("latin-1", "replace") for name in CONSTANT if (text := getattr(expects[0], name))
        }
        if made.version:
            templates["version"] = b"$%d" % made.version
        yield written(expects[0], made.pattern, made.flags, templates)


def _faults(thefts: dict[str, int], false: int) -> tuple[str, ...]:
    found = [f"steals {count:,} of {label}" for label, count in list(thefts.items())[:3]]
    return (*found, f"fits {false:,} that belong elsewhere") if false else tuple(found)


# -- what nobody names


def _of_nameless(nameless: Sequence[Stored], matcher: Matcher, judge: Judge) -> list[Draft]:
    shapes = Shapes()
    by_data: dict[tuple[int, bytes], Stored] = {}
    for one in nameless:
        match = matcher.match(one.probe, one.data)
        shapes.add(Answer(one.probe.index, one.data, match.service if match else ""))
        by_data.setdefault((one.probe.index, one.data[:KEPT]), one)
    learned = Learned(matcher.database.name)
    propose_all(clusters(shapes.all()), judge, matcher, Wish(least=1, limit=len(nameless)), learned)
    drafts = []
    for made in learned.proposals:
        samples = tuple((by_data[made.probe.index, data], expect) for data, expect in made.samples)
        first = by_data[made.probe.index, made.shape.samples.kept()[0]]
        judged = made.judged
        faults = _faults(judged.thefts, judged.false)
        if judged.vague:
            faults = (*faults, "says too little by itself")
        if judged.held is not None and "narrow" in judged.faults:
            faults = (*faults, f"half a line fits {judged.held:.0%} of the other half")
        today = matcher.match(made.probe, first.data)
        drafts.append(Draft(made.probe, made.line, samples, 0, today, faults))
    return drafts
