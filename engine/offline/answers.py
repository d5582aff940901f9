"""What a matcher says of stored responses, remembered: whole networks greet with the same few banners.

Contract: `Answers.of` gives for each response what `written` makes of the line that fits, the very same object for a
short response that comes again. Several threads may ask, if they may ask `match`.
"""

from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from msgspec import Struct

from engine.conversation.questions import SAME, as_asked
from matcher import Match, Probe, ProbeDatabase

REMEMBERED = 16_384  # answers to short responses
SHORT = 512  # bytes

Written = TypeVar("Written")


class MatchRow(Struct, kw_only=True, omit_defaults=True):
    """What `match` holds in an output row. probe, line: of the match line that won; file: where several were merged."""

    name: str
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    cpe: tuple[str, ...] = ()
    soft: bool = False
    probe: str
    line: int
    file: str = ""


class _Reading(Struct, frozen=True):
    """How the responses to a probe are read. number: of this reading, for whoever remembers answers.

    probes: the first of them that has a line for it counts. foreign: the question was another program's.
    """

    number: int
    probes: tuple[Probe, ...]
    foreign: bool


class Answers(Generic[Written]):
    """match: asks the database's lines. written: makes an answer, never None, of the line that fits, or of None."""

    def __init__(
        self,
        database: ProbeDatabase,
        match: Callable[[Probe, bytes], Match | None],
        written: Callable[[MatchRow | None], Written],
    ) -> None:
        self._match = match
        self._database = database.name
        self._probes: dict[tuple[str, str], Probe] = {}
        for probe in database.probes:
            self._probes.setdefault((probe.proto, probe.name), probe)
        self._written = written
        self._nothing = written(None)
        self._readings: dict[tuple[str, tuple[str, ...], bool], _Reading] = {}
        self._numbers = count()
        self._remembered: dict[tuple[int, bytes], Written] = {}  # (number of the reading, response) -> answer
        self._last: dict[int, tuple[Match, Written]] = {}  # id of a line of the database -> its last match

    def of(self, proto: str, names: tuple[str, ...], foreign: bool, response: bytes) -> Written | None:
        """The answer to a response; None where the database has none of the probes.

        proto: in lower case. names: of the probe, the first known one counts. foreign: another program asked.
        """
        name = (proto, names, foreign)
        reading = self._readings.get(name) or self._reading(*name)
        if not reading.probes:
            return None
        if len(response) > SHORT:
            return self._matched(reading, response)
        key = (reading.number, response)
        answer = self._remembered.get(key)
        if answer is None:
            answer = self._matched(reading, response)
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = answer
        return answer

    def _reading(self, proto: str, names: tuple[str, ...], foreign: bool) -> _Reading:
        """By the first name that the database knows, or that asks what some of its probes ask."""
        name = (proto, names, foreign)
        probes: tuple[Probe, ...] = ()
        for each in names:
            known = self._probes.get((proto, each))
            if known is not None:
                probes = (known,)
                break
            same = (self._probes.get((proto, other)) for other in SAME.get((proto, each), ()))
            if probes := tuple(filter(None, same)):
                foreign = True
                break
        reading = _Reading(next(self._numbers), probes, foreign)
        if probes:
            self._readings[name] = reading
        return reading

    def _matched(self, reading: _Reading, response: bytes) -> Written:
        for probe in reading.probes:
            match = self._match(probe, as_asked(probe, response) if reading.foreign else response)
            if match is not None:
                return self._said(match)
        return self._nothing

    def _said(self, match: Match) -> Written:
        """What is written of a match; once where a line always says the same, which it does with the same object."""
        line = id(match.signature)
        last = self._last.get(line)
        if last is not None and last[0] is match:
            return last[1]
        written = self._written(match_row(match, self._database))
        self._last[line] = (match, written)
        return written


def match_row(match: Match, database: str) -> MatchRow:
    """database: the name that goes without saying."""
    signature, info = match.signature, match.info
    return MatchRow(
        name=signature.service,
        product=info.product,
        version=info.version,
        extrainfo=info.extrainfo,
        hostname=info.hostname,
        ostype=info.ostype,
        devicetype=info.devicetype,
        cpe=info.cpe,
        soft=signature.soft,
        probe=match.probe.name,
        line=signature.line,
        file=signature.file if signature.file != database else "",
    )
