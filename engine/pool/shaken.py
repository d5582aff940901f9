"""What handshakes told, read together after each turn.

A handshake is half a millisecond of OpenSSL and leaves nothing else in the processor's caches. Reading a certificate
takes 25 us beside another one and 100 us between two handshakes, so that this waits for the end of the turn. It is
taken from the session at once, because the same turn may end that.

Contract: whoever is `added` has its facts after the next `read`, or by `completed` where its row comes first. A fault
here costs facts: no conversation ends by it, and no row is lost.
"""

import time
from typing import NamedTuple

from msgspec.structs import replace

from engine.conversation.driver import Driver
from engine.model import ServiceResult, TlsFacts
from engine.transports.base import Session
from engine.transports.certificates import CHAIN, certificate_facts, handshake, sent_chain, with_chain
from engine.transports.crashes import report


class _Taken(NamedTuple):
    """From a session. der: the server's certificate; chain: all that it sent; first: its first bytes."""

    facts: TlsFacts
    der: bytes | None
    chain: tuple[bytes, ...]
    first: bytes


class Shaken:
    """The drivers whose facts nobody has read yet. ja4: whether the fingerprints of that name are wanted."""

    __slots__ = ("_ja4", "_unread")

    def __init__(self, *, ja4: bool = False) -> None:
        self._ja4 = ja4
        self._unread: dict[Driver, _Taken] = {}

    def add(self, driver: Driver, session: Session, first: bytes = b"") -> None:
        """A handshake succeeded just now; a driver's first is the one that counts. first: what its server said."""
        if driver.scan.tls is None and driver not in self._unread:
            try:
                self._unread[driver] = _Taken(*handshake(session), sent_chain(session), first)
            except Exception as error:
                _tell(driver, error)

    def read(self) -> None:
        """Give all scans their facts."""
        while self._unread:
            driver, taken = self._unread.popitem()
            driver.scan.tls = self._facts(driver, taken)

    def completed(self, driver: Driver, result: ServiceResult) -> ServiceResult:
        """The row of a driver that ended in the turn of its handshake, with the facts."""
        taken = self._unread.pop(driver, None)
        return result if taken is None else replace(result, tls=self._facts(driver, taken))

    def _facts(self, driver: Driver, taken: _Taken) -> TlsFacts:
        """With the certificates', unless reading them fails."""
        try:
            facts = with_chain(certificate_facts(taken.der, taken.facts), taken.chain, driver.scan.target.name)
            if self._ja4:
                from engine.transports.ja4 import ja4s, ja4x

                facts = replace(facts, ja4s=ja4s(taken.first), ja4x=tuple(ja4x(der) for der in taken.chain[:CHAIN]))
        except Exception as error:
            _tell(driver, error)
            return taken.facts
        return facts


def _tell(driver: Driver, error: Exception) -> None:
    target = driver.scan.target
    report(f"{target.host} port {target.port}/{target.proto}", error, time.monotonic())
