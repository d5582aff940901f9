"""A cluster's proposal: a line made of its samples, judged, and a database that holds it alone.

The parts of the responses are tried in turn, the most telling first (a Server line, a first line), until nothing speaks
against the line that is made of them; else the best stays.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from engine.insight.learn.judging import Judge, Judged, is_vague, parts_of
from engine.insight.learn.naming import file_name, service_name
from engine.insight.learn.shapes import Shape
from matcher import Matcher, Probe, parse_database
from matcher.database.samples import Expected, answer, sample_row
from matcher.regex.tree import parse
from matcher.tools.aligned import Aligned, aligned
from matcher.tools.cost import worst_case
from matcher.tools.propose import written
from matcher.tools.tokens import tellings


class Proposal(Struct, frozen=True):
    """number: 1-based, in the order of the report. line: for the database. cost: exponent of the pattern's worst case.

    samples: members that the line fits, with what it says of them. name: for files.
    """

    number: int
    shape: Shape
    line: str
    name: str
    probe: Probe
    judged: Judged
    cost: int
    samples: tuple[tuple[bytes, Expected], ...]

    @property
    def clean(self) -> bool:
        return not self.judged.faults


SAMPLES = 8  # written of each cluster


def propose(number: int, family: int, shape: Shape, probe: Probe, judge: Judge) -> Proposal:
    """family: the cluster's number at the judge."""
    members = shape.samples.kept()
    service = ""
    best: tuple[tuple[bool, tuple[int, int, int], bool], Aligned, Judged, bytes] | None = None
    for form in [part.form for part in tellings(members[0])]:
        parts = parts_of(members, form)
        if len(parts) < len(members):
            continue
        made = aligned(parts)
        service = service or service_name(shape, members[0], made)
        line = _line(made, service)
        judged = judge.judge(family, probe.index, members, made, line)
        rank = (judged.vague, judged.badness, bool(judged.faults))
        if best is None or rank < best[0]:
            best = rank, made, judged, line
        if not judged.faults:
            break
    assert best is not None
    _, made, judged, line = best
    return Proposal(
        number,
        shape,
        line.decode("latin-1"),
        file_name(service, made.product.decode("latin-1")),
        probe,
        judged,
        worst_case(parse(made.pattern, dotall=bool(made.flags))),
        _samples(members, probe, line),
    )


def says_enough(shape: Shape) -> bool:
    """Whether a line made of these responses does; what they share may be next to nothing."""
    return not is_vague(aligned(parts_of(shape.samples.kept(), shape.form)))


def _line(made: Aligned, service: str) -> bytes:
    templates = {"product": made.product} if made.product else {}
    if made.version:
        templates["version"] = b"$%d" % made.version
    return written(Expected(name=service), made.pattern, made.flags, templates)


def database_of(probe: Probe, lines: Sequence[str]) -> bytes:
    """A probe with these lines, as text of a database that changes nothing where it is merged with others."""
    kind = "UDP" if probe.proto == "udp" else "TCP"
    text = f"Probe {kind} {probe.name} q|".encode("latin-1") + _payload(probe.payload) + b"|\n"
    text += b"rarity %d\ntotalwaitms %d\n" % (probe.rarity, round(probe.totalwait_s * 1000))
    if probe.is_null:
        text += b"tcpwrappedms %d\n" % round(probe.tcpwrapped_s * 1000)
    return text + b"".join(line.encode("latin-1") + b"\n" for line in lines)


def sample_line(probe: Probe, response: bytes, source: str, expect: Expected) -> bytes:
    """A line of the file that lies beside such a database."""
    return msgspec.json.encode(sample_row(probe, response, source, expect)) + b"\n"


def _payload(data: bytes) -> bytes:
    r"""Between `|`s: what is printable as it is, all else, and `|` and `\`, as `\xHH`."""
    return b"".join(bytes((c,)) if 0x20 <= c < 0x7F and c not in b"|\\" else b"\\x%02x" % c for c in data)


def _samples(members: Sequence[bytes], probe: Probe, line: bytes) -> tuple[tuple[bytes, Expected], ...]:
    database = parse_database(database_of(probe, [line.decode("latin-1")]), "proposal")
    matcher = Matcher(database, "reference", cache=False)
    said = ((data, answer(matcher.match(database.probes[0], data))) for data in members)
    return tuple([(data, expected) for data, expected in said if expected is not None][:SAMPLES])
