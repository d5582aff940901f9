"""What handshakes told, read together after each turn.

A handshake is half a millisecond of OpenSSL and leaves nothing else in the processor's caches. Reading a certificate
takes 25 us beside another one and 100 us between two handshakes, so that this waits for the end of the turn. It is
taken from the session at once, because the same turn may end that.

Contract: whoever is `added` has its facts after the next `read`, or by `completed` where its row comes first. A fault
here costs facts: no conversation ends by it, and no row is lost.
"""

import ssl
import time

from msgspec.structs import replace

from engine.conversation.driver import Driver
from engine.model import ServiceResult, TlsFacts
from engine.transports.certificates import certificate_facts, handshake, shown, with_chain
from engine.transports.crashes import report

_Taken = tuple[TlsFacts, bytes | None, tuple[bytes, ...]]  # with the server's certificate, and all that it sent


class Shaken:
    """The drivers whose facts nobody has read yet."""

    __slots__ = ("_unread",)

    def __init__(self) -> None:
        self._unread: dict[Driver, _Taken] = {}

    def add(self, driver: Driver, session: ssl.SSLObject) -> None:
        """A handshake succeeded just now; a driver's first is the one that counts."""
        if driver.scan.tls is None and driver not in self._unread:
            try:
                self._unread[driver] = (*handshake(session), shown(session))
            except Exception as error:
                _tell(driver, error)

    def read(self) -> None:
        """Give all scans their facts."""
        while self._unread:
            driver, taken = self._unread.popitem()
            driver.scan.tls = _facts(driver, *taken)

    def completed(self, driver: Driver, result: ServiceResult) -> ServiceResult:
        """The row of a driver that ended in the turn of its handshake, with the facts."""
        taken = self._unread.pop(driver, None)
        return result if taken is None else replace(result, tls=_facts(driver, *taken))


def _facts(driver: Driver, facts: TlsFacts, der: bytes | None, chain: tuple[bytes, ...]) -> TlsFacts:
    """With the certificates', unless reading them fails."""
    try:
        return with_chain(certificate_facts(der, facts), chain, driver.scan.target.name)
    except Exception as error:
        _tell(driver, error)
        return facts


def _tell(driver: Driver, error: Exception) -> None:
    target = driver.scan.target
    report(f"{target.host} port {target.port}/{target.proto}", error, time.monotonic())
