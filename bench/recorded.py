"""Figures over time: several runs of a figure as one line of a record, and what two such lines say of each other.

A line keeps the median of the runs and the lowest and highest of them. What is compared is *how good* a figure is: its
ratio to the yardstick of the same run, so that a slow hour slows both; for a figure without a yardstick its value, on
the same machine only. Larger is better in either case.
Contract: a record is a file of lines a machine, appended to and never rewritten; a line that cannot be read is an
error, because nobody but `make bench-record` writes there.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from bench.figures import Figure
from bench.machine import Machine

RECORDS = Path(__file__).resolve().parent / "record"
THRESHOLD = 0.05  # a smaller change of the median is no news


class Run(Struct, frozen=True):
    """What the lines of one `make bench-record` have in common. commit: "" outside a checkout. time: UTC, ISO 8601."""

    commit: str
    clean: bool
    time: str
    machine: Machine
    versions: dict[str, str]


class Recorded(Struct, frozen=True):
    """A figure of a run. figure: with the median of `value`, and of `reference` as the median ratio makes it.

    low, high: of how good it was, over `runs` runs. good: their median.
    """

    figure: Figure
    good: float
    low: float
    high: float
    runs: int
    run: Run

    @property
    def spread(self) -> float:
        """The width of the runs, as a part of their median."""
        return (self.high - self.low) / self.good if self.good else 0.0


class Verdict(Enum):
    REGRESSION = "regression"
    BETTER = "better"
    NOISE = "noise"
    NEW = "new"


def goodness(figure: Figure) -> float:
    """Larger is better; 0 for a value of nothing."""
    if figure.reference:
        return figure.ratio
    if figure.better == "more":
        return figure.value
    return 1 / figure.value if figure.value else 0.0


def recorded(runs: Sequence[Figure], run: Run) -> Recorded:
    """The line of a figure that was measured several times. Raises ValueError for none."""
    if not runs:
        raise ValueError("no runs")
    good = [goodness(figure) for figure in runs]
    middle, value, last = median(good), median(figure.value for figure in runs), runs[-1]
    reference = 0.0
    if last.reference:
        reference = value / middle if last.better == "more" and middle else value * middle
    figure = msgspec.structs.replace(last, value=_short(value), reference=_short(reference))
    return Recorded(figure, _short(middle), _short(min(good)), _short(max(good)), len(runs), run)


def _short(number: float) -> float:
    """Five digits are more than any of these measurements has."""
    return float(f"{number:.5g}")


def comparable(now: Recorded, before: Recorded) -> bool:
    """Whether the two measured the same: the same corpus, and against a yardstick or on the same machine."""
    same = (now.figure.corpus, bool(now.figure.reference)) == (before.figure.corpus, bool(before.figure.reference))
    return same and (bool(now.figure.reference) or now.run.machine.name == before.run.machine.name)


def verdict(now: Recorded, before: Recorded | None) -> tuple[Verdict, float]:
    """(what it means, the change of the median as a part of what it was).

    News is a change beyond THRESHOLD where no run of now was within the runs of then, nor the other way round. With
    five runs each and nothing changed, chance alone does that to one figure in 126 at most.
    """
    if before is None or not before.good:
        return Verdict.NEW, 0.0
    change = now.good / before.good - 1
    if change < -THRESHOLD and now.high < before.low:
        return Verdict.REGRESSION, change
    if change > THRESHOLD and now.low > before.high:
        return Verdict.BETTER, change
    return Verdict.NOISE, change


def read(folder: Path = RECORDS) -> dict[str, list[Recorded]]:
    """Machine name -> its lines, oldest first. Raises msgspec.DecodeError for a line that is none."""
    decoder = msgspec.json.Decoder(Recorded)
    return {path.stem: decoder.decode_lines(path.read_bytes()) for path in sorted(folder.glob("*.ndjson"))}


def append(lines: Iterable[Recorded], folder: Path = RECORDS) -> None:
    """To the records of the machines that they were measured on."""
    folder.mkdir(exist_ok=True)
    for line in lines:
        with (folder / f"{line.run.machine.name}.ndjson").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def last_of(now: Recorded, records: Mapping[str, Sequence[Recorded]]) -> Recorded | None:
    """The newest line that `now` can be compared with: of the same machine, else of any other."""
    mine = now.run.machine.name
    others = sorted(
        (line for name in records if name != mine for line in records[name]), key=lambda line: line.run.time
    )
    for lines in (records.get(mine, ()), others):
        for line in reversed(lines):
            if line.figure.name == now.figure.name and comparable(now, line):
                return line
    return None
