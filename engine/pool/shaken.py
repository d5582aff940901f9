"""What handshakes told, read together after each turn.

A handshake is half a millisecond of OpenSSL and leaves nothing else in the processor's caches. Reading a certificate
takes 25 us beside another one and 100 us between two handshakes, so that the facts wait for the end of the turn.

Contract: whoever is `added` has its facts after the next `read`, or by `completed` where its row comes first.
"""

import ssl

from msgspec.structs import replace

from engine.conversation.driver import Driver
from engine.model import ServiceResult
from engine.transports.certificates import tls_facts


class Shaken:
    """The drivers whose facts nobody has read yet."""

    __slots__ = ("_unread",)

    def __init__(self) -> None:
        self._unread: dict[Driver, ssl.SSLObject] = {}

    def add(self, driver: Driver, session: ssl.SSLObject) -> None:
        """A handshake succeeded; a driver's first is the one that counts."""
        if driver.scan.tls is None:
            self._unread.setdefault(driver, session)

    def read(self, now: float) -> None:
        """Give all scans their facts."""
        while self._unread:
            driver, session = self._unread.popitem()
            try:
                driver.scan.tls = tls_facts(session)
            except Exception as error:
                driver.crashed(error, now)

    def completed(self, driver: Driver, result: ServiceResult) -> ServiceResult:
        """The row of a driver that ended in the turn of its handshake, with the facts."""
        session = self._unread.pop(driver, None)
        return result if session is None else replace(result, tls=tls_facts(session))
