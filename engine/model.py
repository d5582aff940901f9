"""What goes into a scan and what comes out of it: Target, ScanConfig, ServiceResult.

The field names of a result are Nmap's XML names. An empty string, empty tuple, zero or None means absent and is left
out of the row. Times are seconds with the suffix `_s`, except where a field says `_ms`.
"""

from enum import Enum
from typing import Any, Literal

from msgspec import Struct

from matcher import Proto

State = Literal["open", "open|filtered"]
Json = Any  # what a JSON value may be; msgspec has no recursive types


class Target(Struct, frozen=True, array_like=True):
    """One port to identify.

    ordinal: position in the input, 0-based; sharding, resuming and exactly-once are arithmetic on it.
    host: the literal IPv4 or IPv6 address. name: the host name the user gave, if any (used for SNI).
    state: what a port scan said of the port, if anybody did.
    """

    ordinal: int
    host: str
    port: int
    proto: Proto = "tcp"
    name: str = ""
    state: State | Literal[""] = ""


class Verdict(Enum):
    """How the conversation with a port ended (Nmap's script names for the same states)."""

    HARDMATCHED = "hardmatched"
    SOFTMATCHED = "softmatched"
    NOMATCH = "nomatch"
    TCPWRAPPED = "tcpwrapped"
    EXCLUDED = "excluded"
    INCOMPLETE = "incomplete"


class Reason(Enum):
    """Why a verdict is INCOMPLETE. A closed list."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    RESET = "reset"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    BUDGET = "budget"
    CANCELLED = "cancelled"


class Tunnel(Enum):
    """What a conversation runs inside: nothing, or TLS, which Nmap calls ssl."""

    NONE = ""
    SSL = "ssl"


class Evidence(Struct, frozen=True, omit_defaults=True):
    """Which line said so. probe: the probe in whose list the line stands; sent: the probe that was sent, if another.

    line: 1-based line of the database; file: the database's name, only where several were merged.
    recog: the Recog fingerprint that filled in what was empty; where no line matched, probe is empty and line 0.
    """

    probe: str
    line: int
    soft: bool = False
    sent: str = ""
    file: str = ""
    recog: str = ""


class DatabaseRef(Struct, frozen=True):
    """The database that was used. name: path or `builtin`; sha256: of its bytes."""

    name: str
    sha256: str


class TlsFacts(Struct, frozen=True, omit_defaults=True):
    """What a TLS handshake told. Names as RFC 4514 text; times RFC 3339; sha256 over the certificate's DER, hex.

    key: kind and size, as `rsa 2048`, `ec secp256r1`, `ed25519`.
    """

    protocol: str = ""
    cipher: str = ""
    alpn: str = ""
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_before: str = ""
    not_after: str = ""
    sha256: str = ""
    key: str = ""
    self_signed: bool = False


class Pseudo(Struct, frozen=True):
    """The label of a host that gives the same answer on many ports. ports: how many so far; hash: of that answer."""

    ports: int
    hash: str


class ServiceResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row: what answers on one port. docs/result.md explains every field."""

    ip: str
    port: int
    proto: Proto
    host: str = ""
    state: str = ""
    name: str = ""
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    cpe: tuple[str, ...] = ()
    tunnel: Tunnel = Tunnel.NONE
    method: Literal["probed", "table", ""] = ""
    conf: int = 0
    verdict: Verdict
    reason: Reason | None = None
    evidence: Evidence | None = None
    fingerprint: str = ""
    tls: TlsFacts | None = None
    post: dict[str, Json] | None = None
    pseudo: Pseudo | None = None
    database: DatabaseRef
    started: str
    elapsed_ms: int = 0
    connections: int = 0
    bytes: int = 0


class Batch(Struct, frozen=True, array_like=True):
    """Finished targets on their way from a worker to the collector.

    rows: `count` NDJSON lines, encoded by the worker. done: the ordinals of these rows. tally: counters since the last
    batch, by name (see metrics.py).
    """

    rows: bytes
    count: int
    done: list[int]
    tally: dict[str, int]


class ScanConfig(Struct, frozen=True, kw_only=True):
    """Everything a scan can be told. The command line's options are these fields; docs/options.md explains each.

    A number that is 0 means no limit, except where it says otherwise.
    """

    # what to ask, and how the answers are read
    probes: tuple[str, ...] = ()  # databases, merged in order: paths, `nmap`, `builtin`; empty: the first that is found
    recog: str = ""  # folder of Recog's XML fingerprints, for a second opinion; empty: none
    matcher: str = "auto"  # or `hyperscan`, `re2`, `reference`
    intensity: int = 7
    allports: bool = False  # scan what the database excludes, too
    timing: Literal["nmap", "adaptive"] = "nmap"
    spare_fragile: bool = False  # printers and industrial controllers: listen only, send nothing
    post: tuple[str, ...] = ("default",)  # post-processing modules, or groups of them: `default`, `all`; () for none
    trace: bool = False  # tell every step on stderr

    # where the work is done
    workers: int = 0  # processes; 0: inside the caller
    batch_rows: int = 256
    batch_s: float = 0.2

    # how hard; over all workers
    max_inflight: int = 0  # conversations at once; 0: as many as descriptors allow, at most 20,000
    rate: float = 0.0  # connections per second
    per_host: int = 16  # conversations at once with one address
    per_prefix: int = 0  # with one /24 or /64
    host_delay_s: float = 0.0  # between two connections to one address
    sources: tuple[str, ...] = ()  # local addresses to connect from, in turn
    reset: bool = False  # end connections with RST instead of FIN

    # how long
    connect_timeout_s: float = 5.0
    tls_timeout_s: float = 8.0  # connect and handshake together
    service_timeout_s: float = 600.0
    host_timeout_s: float = 0.0  # from the first service of an address begun to the last one done
    max_bytes: int = 1 << 23  # received per service

    # hosts that answer alike on many ports
    pseudo_ports: int = 30  # so many equal answers of one address make it a pseudo service; 0: never
