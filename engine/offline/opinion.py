"""Recog's second opinion on stored responses, as a scan would have given it.

Contract: `StoredOpinion.on(row, proto, response)` gives the match with what was empty filled in; or one of Recog's
alone, whose probe is empty and whose line is 0, where no line fitted, and a text proves its service and its product;
else what it was given.
"""

from typing import cast

from msgspec.structs import replace

from engine.model import DatabaseRef, Evidence, Json, ServiceResult, Verdict
from engine.offline.answers import MatchRow
from engine.post.recog_opinion import open_opinion
from matcher import Proto

FIELDS = ("name", "product", "version", "extrainfo", "hostname", "ostype", "devicetype", "cpe")
_NOWHERE = ServiceResult(
    ip="", port=0, proto="tcp", method="table", verdict=Verdict.NOMATCH, database=DatabaseRef("", ""), started=""
)


class AdvisedRow(MatchRow, kw_only=True, omit_defaults=True):
    """recog: the fingerprint that filled in what was empty. post: all that Recog said, as in a result."""

    recog: str = ""
    post: dict[str, Json] | None = None


class StoredOpinion:
    """folder: of Recog's files. Raises MatcherError where there are none."""

    def __init__(self, folder: str) -> None:
        self._opinion = open_opinion(folder)

    def on(self, row: MatchRow | None, proto: str, response: bytes) -> MatchRow | None:
        """row: of the line that fits, or None. proto: in lower case."""
        known = _result(row, cast("Proto", proto))
        advised = self._opinion.on(known, response)
        if advised is known or advised.method != "probed":
            return row
        evidence = advised.evidence or Evidence("", 0)
        return AdvisedRow(
            **{name: getattr(advised, name) for name in FIELDS},
            soft=evidence.soft,
            probe=evidence.probe,
            line=evidence.line,
            file=evidence.file,
            recog=evidence.recog,
            post=advised.post,
        )


def _result(row: MatchRow | None, proto: Proto) -> ServiceResult:
    """What a scan would have made of the match."""
    if row is None:
        return replace(_NOWHERE, proto=proto)
    return replace(
        _NOWHERE,
        **{name: getattr(row, name) for name in FIELDS},
        proto=proto,
        method="probed",
        conf=10,
        verdict=Verdict.SOFTMATCHED if row.soft else Verdict.HARDMATCHED,
        evidence=Evidence(row.probe, row.line, row.soft, file=row.file),
    )
