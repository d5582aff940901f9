"""Whom a worker asks about its rows beside the database: a second database, Recog, or both, in this order."""

from typing import Protocol

from engine.conversation.context import RECOG
from engine.conversation.scan import ScanContext
from engine.model import ScanConfig, ServiceResult
from engine.post.recog_opinion import Beside, open_opinion


class Opinion(Protocol):
    """on: the result with what there is to say of it; contacts nobody. response: what the scan received last."""

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult: ...


class Opinions:
    """Several, one after another."""

    def __init__(self, asked: tuple[Opinion, ...]) -> None:
        self._asked = asked

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        for opinion in self._asked:
            result = opinion.on(result, response)
        return result


def open_opinions(config: ScanConfig, context: ScanContext) -> Opinion | None:
    """Those that the config names; None for none. Raises MatcherError."""
    asked: list[Opinion] = [] if context.opinion is None else [context.opinion]
    if config.recog:
        recog = open_opinion(config.recog)
        asked.append(Beside(recog) if config.second_opinion == RECOG else recog)
    return Opinions(tuple(asked)) if len(asked) > 1 else asked[0] if asked else None
