"""Hosts that answer the same on many ports: middleboxes and tarpits that pretend to be everything.

Per host the ports with equal answers are counted; beyond a threshold the host is a pseudo service: the rows say so, and
its further ports get a short conversation. Pure; remembers a bounded number of hosts, those heard of last.
"""

import hashlib
from collections import OrderedDict

from engine.model import Pseudo, ServiceResult, Verdict

HOSTS = 8192  # remembered by one worker
MIN_ANSWER = 4  # bytes; equal answers shorter than this prove nothing
_INCOMPLETE = Verdict.INCOMPLETE  # conversation/scan.py says why


class PseudoServices:
    """threshold: so many equal answers make a host a pseudo service; 0: never."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._answers: OrderedDict[str, dict[int, set[int]]] = OrderedDict()  # host -> hash of an answer -> its ports
        self._caught: OrderedDict[str, None] = OrderedDict()

    def is_caught(self, host: str) -> bool:
        """Whether the host has passed the threshold."""
        return host in self._caught

    def label(self, result: ServiceResult, response: bytes) -> Pseudo | None:
        """Count one service's last response; its label once the host is a pseudo service."""
        if self._threshold <= 0 or len(response) < MIN_ANSWER or result.verdict is _INCOMPLETE:
            return None
        host = result.ip or result.host
        digest = hash(response)
        answers = self._answers.get(host)
        if answers is None:
            self._answers[host] = {digest: {result.port}}
            if len(self._answers) > HOSTS:
                self._answers.popitem(last=False)
            return None
        self._answers.move_to_end(host)
        ports = answers.get(digest)
        if ports is None:
            answers[digest] = {result.port}
            if len(answers) > self._threshold * 4:
                del answers[min(answers, key=lambda answer: len(answers[answer]))]
            return None
        ports.add(result.port)
        if len(ports) < self._threshold:
            return None
        self._caught[host] = None
        self._caught.move_to_end(host)
        if len(self._caught) > HOSTS:
            self._caught.popitem(last=False)
        return Pseudo(len(ports), hashlib.blake2b(response, digest_size=8).hexdigest())
