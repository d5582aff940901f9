"""The probe database as data: probes, match lines, and what a match yields.

Frozen structs without behaviour beyond look-ups. Everything is bytes where it was bytes in the database (patterns,
payloads, templates) and `str` (Latin-1 decoded) where people read it (names). Times are seconds (suffix `_s`).
Source: the nmap-service-probes format.
"""

from collections.abc import Iterator
from typing import Literal, NewType

from msgspec import Struct

SignatureId = NewType("SignatureId", int)  # position in file order over the whole database, 0-based

Proto = Literal["tcp", "udp"]


class PortSet(Struct, frozen=True):
    """A set of ports as inclusive ranges, in the order they were written. `80 in ports` works."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, port: int) -> bool:
        return any(low <= port <= high for low, high in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[int]:
        for low, high in self.ranges:
            yield from range(low, high + 1)


class Templates(Struct, frozen=True):
    """The version templates of one line, unexpanded; empty bytes = not given. `cpe` texts begin with `cpe:/`."""

    product: bytes = b""
    version: bytes = b""
    extrainfo: bytes = b""
    hostname: bytes = b""
    ostype: bytes = b""
    devicetype: bytes = b""
    cpe: tuple[bytes, ...] = ()


class Signature(Struct, frozen=True):
    """One `match` or `softmatch` line.

    line: 1-based line number in `file`. pattern: the regular expression as written, without its flags.
    """

    id: SignatureId
    file: str
    line: int
    service: str
    soft: bool
    pattern: bytes
    caseless: bool = False
    dotall: bool = False
    templates: Templates = Templates()


class Probe(Struct, frozen=True):
    """Bytes to send and the lines that read the answer; the NULL probe sends nothing (`payload == b""`).

    index: position in `ProbeDatabase.probes`, which is file order.
    lists: indices of the probes whose signatures are tried on a response to this one, in order: itself, its fallbacks,
        and for TCP the NULL probe (the "NULL cheat").
    services: every service name its own lines can report, soft ones too ("can detect").
    """

    index: int
    name: str
    proto: Proto
    payload: bytes
    signatures: tuple[Signature, ...] = ()
    ports: PortSet = PortSet()
    sslports: PortSet = PortSet()
    rarity: int = 5
    totalwait_s: float = 5.0
    tcpwrapped_s: float = 2.0
    fallback: tuple[str, ...] = ()
    lists: tuple[int, ...] = ()
    services: frozenset[str] = frozenset()
    line: int = 0

    @property
    def is_null(self) -> bool:
        return not self.payload


class ProbeDatabase(Struct, frozen=True):
    """A parsed database. name: the file's path, or `builtin`; sha256: of the file's bytes, lower-case hex."""

    name: str
    sha256: str
    probes: tuple[Probe, ...] = ()
    null_index: int | None = None
    exclude_tcp: PortSet = PortSet()
    exclude_udp: PortSet = PortSet()

    @property
    def null_probe(self) -> Probe | None:
        return None if self.null_index is None else self.probes[self.null_index]

    def probe(self, name: str, proto: Proto = "tcp") -> Probe | None:
        """The first probe of that name and protocol in file order; the NULL probe answers to its own name."""
        for probe in self.probes:
            if probe.name == name and probe.proto == proto:
                return probe
        return None

    def signatures(self) -> Iterator[Signature]:
        """Every line, in file order."""
        for probe in self.probes:
            yield from probe.signatures


class VersionInfo(Struct, frozen=True, omit_defaults=True):
    """What the templates of a matched line yielded; the empty string means absent.

    Every field is printable ASCII (0x20-0x7E); other bytes have become dots. One CPE per part, printed a, h, o.
    """

    product: str = ""
    version: str = ""
    extrainfo: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    cpe_a: str = ""
    cpe_h: str = ""
    cpe_o: str = ""

    @property
    def cpe(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.cpe_a, self.cpe_h, self.cpe_o)))


class Match(Struct, frozen=True):
    """A signature that fitted a response. probe: the probe in whose list the signature stands (a fallback, maybe)."""

    signature: Signature
    probe: Probe
    info: VersionInfo

    @property
    def soft(self) -> bool:
        return self.signature.soft

    @property
    def service(self) -> str:
        return self.signature.service
