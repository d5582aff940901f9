"""Proposed lines as two files that are ready for review: a database that `db lint` checks, and the samples beside it.

    proposed.probes              each line under its probe, behind a comment that says where it belongs; what something
                                 speaks against is a comment itself, and says what
    samples/proposed.ndjson      responses of the lines that nothing speaks against, with what they must give

Contract: what responses say is written so that no database parser obeys it. Other files of the folder stay.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from engine.errors import OutputError
from engine.insight.learn.judging import label
from engine.insight.learn.kinds import Draft
from engine.insight.learn.proposing import database_of, sample_line
from matcher import parse_database, shown

DATABASE = "proposed.probes"
SAMPLES = "samples/proposed.ndjson"
SOURCE = "real: unknown"
MOST_SAMPLES = 8  # of a kind


def write_drafts(out: Path, drafts: Sequence[Draft], name: str) -> None:
    """name: of the database that the lines are for. Raises OutputError."""
    probes = {one.probe.index: one.probe for one in drafts}
    probes |= {stored.probe.index: stored.probe for one in drafts for stored, _ in one.samples}
    text = b"\n".join(
        database_of(probe, [text for one in drafts if one.probe.index == index for text in _lines(one, name)])
        for index, probe in sorted(probes.items())
    )
    parse_database(text, DATABASE)  # what others could not read is a fault of ours, and is found here
    samples = b"".join(
        _sample(one, number) for one in drafts if not one.faults for number in range(len(one.samples[:MOST_SAMPLES]))
    )
    try:
        (out / SAMPLES).parent.mkdir(parents=True, exist_ok=True)
        for place, data in ((out / SAMPLES, samples), (out / DATABASE, text)):
            made = place.with_name(f".{place.name}.{os.getpid()}")
            made.write_bytes(data)
            made.replace(place)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error


def _lines(one: Draft, name: str) -> list[str]:
    """Comments, and the line."""
    told = [
        f"{where_to(one, name)}; made of {one.samples[0][0].place}",
        *(f"against it: {text}" for text in one.faults),
    ]
    return [f"# {_inert(text)}" for text in told] + [f"# {one.line}" if one.faults else one.line]


def where_to(one: Draft, name: str = "") -> str:
    """Where in the database a line belongs."""
    place = f"belongs under `Probe {one.probe.proto.upper()} {one.probe.name}`" + (f" of {name}" if name else "")
    if one.today is None:
        return place
    line = one.today.signature
    by = "" if one.today.probe is one.probe else f" of {one.today.probe.name}"
    known = label(line.service, one.today.info.product)
    return f"{place}, before line {line.line}{by}, which says `{known}` today"


def _sample(one: Draft, number: int) -> bytes:
    stored, expect = one.samples[number]
    return sample_line(stored.probe, stored.data, stored.source or SOURCE, expect)


def _inert(text: str) -> str:
    return shown(text).encode("ascii", "backslashreplace").decode()
