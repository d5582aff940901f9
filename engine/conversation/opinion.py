"""A second database's opinion: every response that a row rests on, answered once more, and what comes of the two.

Contract: `DatabaseOpinion.on(result, response)` gives the result with `also` where the second database says something
else, `agreed` or `disputed` among its reasons and its confidence moved by that; or the result as it was. Nothing that
the first database said is changed, nobody is contacted, and what was judged once is left alone.

The probes of two databases are brought together by what they send, else by their names, else by questions.py. Rows
that were not recognised, or only half, have several responses in their fingerprint: the first hard match speaks, else
the first soft one.
"""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from engine.conversation.fingerprint import answers
from engine.conversation.questions import SAME, as_asked
from engine.model import Also, ServiceResult, Verdict
from matcher import Match, Probe, ProbeDatabase, Proto, Said, akin

AGREED, DISPUTED = "agreed", "disputed"
DOUBT_LEFT = 0.5  # of the doubt in a line that a second database agrees with
TRUST_LEFT = 0.7  # of the trust in one that it contradicts
_JUDGED = {Verdict.HARDMATCHED, Verdict.SOFTMATCHED, Verdict.NOMATCH}


class DatabaseOpinion:
    """first: the database of the rows. match: asks `second`; its sets are made when they are needed."""

    def __init__(
        self, first: ProbeDatabase, second: ProbeDatabase, match: Callable[[Probe, bytes], Match | None]
    ) -> None:
        self._first = first
        self._match = match
        self._by_payload = {(probe.proto, probe.payload): probe for probe in reversed(second.probes)}
        self._by_name = {(probe.proto, probe.name): probe for probe in reversed(second.probes)}
        self._readers: dict[tuple[str, str], tuple[tuple[Probe, bool], ...]] = {}

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        """response: what the scan received last."""
        if result.verdict not in _JUDGED or not response or result.also is not None or is_judged(result):
            return result
        said = self._said(result, response)
        if said is None:
            return result
        info = said.info
        return judged(
            result,
            Also(
                name=said.service,
                product=info.product,
                version=info.version,
                line=said.signature.line,
                database=said.signature.file,
            ),
            info.cpe,
        )

    def _said(self, result: ServiceResult, response: bytes) -> Match | None:
        soft = None
        for name, text in _responses(result, response):
            found = self.match(result.proto, name, text)
            if found is not None and not found.soft:
                return found
            soft = soft or found
        return soft

    def match(self, proto: Proto, name: str, response: bytes) -> Match | None:
        """What the second database says of a response to a probe of the first."""
        readers = self._readers.get((proto, name))
        if readers is None:
            readers = self._readers[proto, name] = tuple(self._reading(proto, name))
        for probe, foreign in readers:
            found = self._match(probe, as_asked(probe, response) if foreign else response)
            if found is not None:
                return found
        return None

    def _reading(self, proto: Proto, name: str) -> Iterator[tuple[Probe, bool]]:
        """The second database's probes for an answer to `name`, and whether their question is another's."""
        asked = self._first.probe(name, proto)
        same = (asked and self._by_payload.get((proto, asked.payload))) or self._by_name.get((proto, name))
        if same is not None:
            yield same, False
            return
        for each in SAME.get((proto, name), ()):
            if other := self._by_name.get((proto, each)):
                yield other, True


def is_judged(result: ServiceResult) -> bool:
    """Whether a second opinion has been heard."""
    return AGREED in result.reasons or DISPUTED in result.reasons


def judged(result: ServiceResult, also: Also, cpe: tuple[str, ...] = ()) -> ServiceResult:
    """The result with what else was said of it. cpe: that `also` came with."""
    first = Said(result.name, result.product, result.cpe)
    second = Said(also.name, also.product, cpe)
    other = (also.name, also.product, also.version) != (result.name, result.product, result.version)
    if result.evidence is None or not result.evidence.line:
        return replace(result, also=also)
    one: bool | None = first.service == second.service
    if first.product and (second.product or one):
        one = akin(second, first) if second.product else None  # who names no product does not bear one out
    if one is None:
        return replace(result, also=also if other else None)
    sure = result.confidence
    if sure is not None:
        sure = round(1 - (1 - sure) * DOUBT_LEFT if one else sure * TRUST_LEFT, 2)
    reasons = (*result.reasons, AGREED if one else DISPUTED)
    return replace(result, also=also if other else None, confidence=sure, reasons=reasons)


def _responses(result: ServiceResult, response: bytes) -> Iterator[tuple[str, bytes]]:
    """Each with the name of the probe that drew it."""
    evidence = result.evidence
    if evidence is not None and evidence.line:
        yield evidence.sent or evidence.probe, response
    if result.fingerprint:
        yield from answers(result.fingerprint)
