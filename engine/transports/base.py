"""The seam between a conversation and the network; see the package's docstring."""

from errno import EIO, EPROTO
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

MAX_READ = 600_000  # bytes handed over at once, as much as Nmap takes in one read event
MAX_OVERHEAD = 1 << 18  # bytes received that are no data: handshakes, records' frames. OpenSSL takes chains of 100 kB
LONGEST_ALPN = 255  # bytes of the name of an application protocol, RFC 7301


class TlsError(OSError):
    """The TLS layer gave up; errno EIO, as Nmap sees it. The text is OpenSSL's reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(EIO, reason)


class Load(Struct):
    """What a reactor has seen for a while. idle_s: waiting, with nothing left to do. late_s: of the latest deadline.

    connects: TCP connections made; connect_s: of what they took altogether, the part in which the loop was idle, since
    in the rest they may have waited for us. A pause is none of these.
    """

    idle_s: float = 0.0
    late_s: float = 0.0
    connects: int = 0
    connect_s: float = 0.0


class HopError(OSError):
    """The way to a target failed, not the target. hop: which proxy of the chain, from 1; at: its URL without the login.

    gone: whether it concerns whatever is asked of this proxy, as far as one can see.
    """

    def __init__(self, hop: int, at: str, why: str, *, gone: bool = True) -> None:
        super().__init__(EPROTO, f"proxy {hop}, {at}: {why}")
        self.hop = hop
        self.at = at
        self.why = why
        self.gone = gone


class Transport(Protocol):
    """One connection, or what UDP has in its place. Its construction begins it."""

    def send(self, data: bytes) -> None:
        """Write all of `data`, now or as soon as the socket takes it. Raises OSError, also where it has ended."""
        ...

    def close(self) -> None:
        """End the connection; nothing is reported after that. Harmless when it has ended already."""
        ...


class Session(Protocol):
    """What a handshake has settled, asked for as `ssl.SSLObject` is."""

    def version(self) -> str | None: ...
    def cipher(self) -> tuple[str, str, int] | None: ...
    def selected_alpn_protocol(self) -> str | None: ...
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...


@runtime_checkable
class Secured(Transport, Protocol):
    """A transport with TLS inside. session: meaningful once connected. first: what the server said first, if kept."""

    @property
    def session(self) -> Session: ...
    @property
    def first(self) -> bytes: ...


class Receiver(Protocol):
    """All calls come from the reactor's turn, with its clock's `now` (monotonic seconds)."""

    def opened(self) -> None:
        """TLS over TCP only: the connection below stands and the handshake begins."""
        ...

    def dialled(self, now: float) -> None:
        """Proxies only: the last one has been told where to connect to, and the wait for the target begins."""
        ...

    def connected(self, now: float) -> None: ...

    def received(self, data: bytes, now: float) -> None:
        """At least one byte, everything that could be read at the moment (UDP: one datagram)."""
        ...

    def ended(self, now: float) -> None:
        """The peer closed its side (UDP: an empty datagram)."""
        ...

    def broken(self, error: OSError, now: float) -> None:
        """The connection could not be made, or broke while reading or writing."""
        ...

    def crashed(self, error: Exception, now: float) -> None:
        """One of the calls above raised, or the transport itself did: a fault of ours. Nothing is reported after it."""
        ...
