"""What goes into a scan and what comes out of it: Target, ScanConfig, ServiceResult.

The field names of a result are Nmap's XML names. An empty string, empty tuple, zero or None means absent and is left
out of the row. Times are seconds with the suffix `_s`, except where a field says `_ms`.
"""

from enum import Enum
from functools import cache
from math import inf
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.json import decode, encode
from msgspec.structs import force_setattr

from engine.errors import ConfigError
from matcher import Proto

State = Literal["open", "open|filtered"]
Json = Any  # what a JSON value may be; msgspec has no recursive types


class Target(Struct, frozen=True, array_like=True):
    """One port to identify.

    ordinal: position in the input, 0-based; sharding, resuming and exactly-once are arithmetic on it.
    host: the literal IPv4 or IPv6 address, empty where `name` could not be resolved: then the row says just that. Once
    more the name where a proxy is to look it up.
    name: the host name the user gave, if any (used for SNI).
    state: what a port scan said of the port, if anybody did.
    """

    ordinal: int
    host: str
    port: int
    proto: Proto = "tcp"
    name: str = ""
    state: State | Literal[""] = ""

    @property
    def address(self) -> str:
        """As a row has it: empty where it is not known here, which of a name that a proxy looks up it never is."""
        host = self.host
        return host if host != self.name or ":" in host or host.rpartition(".")[2].isdigit() else ""


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
    UNRESOLVED = "unresolved"
    CRASHED = "crashed"
    PROXY = "proxy"


NOT_SCANNED = frozenset((Reason.CANCELLED, Reason.PROXY))
"""Nobody knows of these targets what a scan would say of them: a run that is resumed asks them again."""


NAMING_PROXIES = frozenset(("socks5h", "socks4a", "http"))
"""The schemes of proxies that look up names themselves."""


class Tunnel(Enum):
    """What a conversation runs inside: nothing, or TLS, which Nmap calls ssl."""

    NONE = ""
    SSL = "ssl"


BARE = Tunnel.NONE
"""By a global name: Python 3.11 looks a member up in its class five times as slowly, and conversations often do."""


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


class Also(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a second database says, where it is something else. line: of it, 0 for Recog, whose fingerprint is named."""

    name: str
    product: str = ""
    version: str = ""
    line: int
    database: str
    recog: str = ""


class DatabaseRef(Struct, frozen=True):
    """The database that was used. name: path or `builtin`; sha256: of its bytes."""

    name: str
    sha256: str


class TlsFacts(Struct, frozen=True, omit_defaults=True):
    """What a TLS handshake told. Names as RFC 4514 text; times RFC 3339; sha256 over the certificate's DER, hex.

    key: kind and size, as `rsa 2048`, `ec secp256r1`, `ed25519`. chain: the certificates sent behind the server's own.
    notes: words for what is wrong with what was shown. ja4s and ja4x are there only where they were asked for.
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
    chain: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ja4s: str = ""
    ja4x: tuple[str, ...] = ()


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
    confidence: float | None = None
    reasons: tuple[str, ...] = ()
    also: Also | None = None
    fingerprint: str = ""
    tls: TlsFacts | None = None
    post: dict[str, Json] | None = None
    pseudo: Pseudo | None = None
    database: DatabaseRef
    started: str
    elapsed_ms: int = field(default_factory=int)  # made, so that a zero is written: averages need it
    connections: int = field(default_factory=int)
    bytes: int = field(default_factory=int)

    def to_dict(self) -> dict[str, Json]:
        """The row as its NDJSON line has it: plain values, what is absent left out."""
        row: dict[str, Json] = decode(encode(self))  # to_builtins would leave tuples
        return row

    def to_json(self) -> str:
        """The row as one line of JSON, without the line's end."""
        return encode(self).decode()


class Batch(Struct, frozen=True, array_like=True):
    """Finished targets on their way from a worker to the collector.

    rows: `count` NDJSON lines, encoded by the worker. done: the ordinals of these rows. tally: counters since the last
    batch, by name (see cli/metrics.py).
    """

    rows: bytes
    count: int
    done: list[int]
    tally: dict[str, int]


MAX_WORKERS = 1024  # processes
MANY = 10_000_000  # more than any machine holds


class ScanConfig(Struct, frozen=True, kw_only=True):
    """Everything a scan can be told. The command line's options are these fields, with these words as their help.

    A number that is 0 means no limit, except where it says otherwise. Raises ConfigError, naming the field, for a value
    that cannot be used.
    """

    # which of the targets
    ports: Annotated[str, Meta(description="Ports of targets without one: `22,80,1000-2000,U:53,T:443`, `-100`.")] = ""
    blocklist: Annotated[
        tuple[str, ...],
        Meta(
            description="Never contact these: a network, an address, a range, or a file of them, one a line; "
            "`#` begins a comment. A list that cannot be read stops the run."
        ),
    ] = ()
    allowlist: Annotated[tuple[str, ...], Meta(description="Contact only these; written as a blocklist is.")] = ()
    exclude_reserved: Annotated[
        bool, Meta(description="Never contact private, loopback, multicast and other special-purpose addresses.")
    ] = False
    shard: Annotated[
        str,
        Meta(
            description="Scan the I-th of N equal shares, `I/N`. Hosts stay whole, so machines that share nothing can "
            "each take one."
        ),
    ] = ""
    seed: Annotated[
        int | None,
        Meta(
            description="Visit the addresses and ports of each network in a pseudo-random order; nothing is stored "
            "for it.",
        ),
    ] = None

    # what to ask, and how the answers are read
    probes: Annotated[
        tuple[str, ...],
        Meta(
            description="The probe database: a file, `nmap` (the installed one) or `builtin`. Several, also as "
            "`nmap,builtin`, are merged, the first counting first. Default: `$PROBEMILL_PROBES`, else an installed "
            "Nmap's, else the built-in one."
        ),
    ] = ()
    recog: Annotated[
        str,
        Meta(
            description="Folder of Recog's XML fingerprints, for a second opinion: product and CPE where the "
            "database has none; see docs/recog.md."
        ),
    ] = ""
    second_opinion: Annotated[
        str,
        Meta(
            description="Answer each response with a second database, too, and say where it says something else: "
            "`builtin`, `nmap`, a file, or `recog`, which needs `--recog DIR`; see docs/confidence.md."
        ),
    ] = ""
    matcher: Annotated[
        Literal["auto", "hyperscan", "re2", "reference"],
        Meta(description="`auto` is hyperscan where it is installed, else re2. All give the same answers."),
    ] = "auto"
    generation: Annotated[
        Literal["newest", "7.93"],
        Meta(
            description="Which Nmap is meant where two ask differently: `7.93` takes `dtls` for an answer, newer ones "
            "ask again inside the tunnel; see docs/fidelity.md."
        ),
    ] = "newest"
    intensity: Annotated[
        int, Meta(ge=0, le=9, description="From 0, the banner and probes that name the port, to 9, every probe.")
    ] = 7
    alpn: Annotated[
        tuple[str, ...],
        Meta(
            description="Application protocols offered inside TLS, the best first, as `http/1.1,h2`. Nmap offers none; "
            "a server that takes `h2` understands no probe, and its row is named by how it begins."
        ),
    ] = ()
    allports: Annotated[bool, Meta(description="Scan ports that the database excludes (printers), too.")] = False
    spare_fragile: Annotated[
        bool, Meta(description="Listen only on printer and industrial control ports: nothing is sent there.")
    ] = False
    timing: Annotated[
        Literal["nmap", "adaptive"],
        Meta(
            description="How long to wait for answers: exactly Nmap's windows, or windows from measured round trips; "
            "see docs/timing.md."
        ),
    ] = "nmap"
    post: Annotated[
        tuple[str, ...],
        Meta(description="Post-processing modules, or groups of them: `default`, `all`; none for none."),
    ] = ("default",)
    trace: Annotated[
        bool, Meta(description="Tell every step of every conversation on standard error, in Nmap's words.")
    ] = False

    # where the work is done
    workers: Annotated[
        int,
        Meta(
            ge=0,
            le=MAX_WORKERS,
            description="Processes; 0 scans inside the caller's own, and is what the Python API does by itself. The "
            "command starts one a core.",
        ),
    ] = 0
    batch_rows: Annotated[int, Meta(ge=1, le=MANY)] = 256
    batch_s: Annotated[float, Meta(ge=0)] = 0.2

    # how hard; over all workers
    max_inflight: Annotated[
        int,
        Meta(
            ge=0,
            le=MANY,
            description="Conversations at once. 0: as many as pay, which is found while scanning; at most 20,000 and "
            "what the file descriptor limit allows.",
        ),
    ] = 0
    rate: Annotated[float, Meta(ge=0, description="Connections per second.")] = 0.0
    per_host: Annotated[int, Meta(ge=0, le=MANY, description="Conversations at once with one address.")] = 16
    per_prefix: Annotated[int, Meta(ge=0, le=MANY, description="Conversations at once with one /24 (IPv6: /64).")] = 0
    host_delay_s: Annotated[float, Meta(ge=0, description="From one connection to an address to the next.")] = 0.0
    sources: Annotated[
        tuple[str, ...],
        Meta(description="Local addresses to connect from, in turn: each adds its own ephemeral ports."),
    ] = ()
    source_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Local port of every connection and datagram; 0: the system's choice. Connections end with "
            "RST then, and a target has one at a time.",
        ),
    ] = 0
    interface: Annotated[str, Meta(description="Network interface that everything goes through, as `eth0`.")] = ""
    proxy: Annotated[
        tuple[str, ...],
        Meta(
            description="Reach targets through this proxy, and never past it: `socks5://`, `socks5h://`, `socks4://`, "
            "`socks4a://` or `http://[USER:PASSWORD@]HOST:PORT`. Repeatable: a chain, the nearest first; see "
            "docs/proxy.md."
        ),
    ] = ()
    reset: Annotated[
        bool, Meta(description="End connections with RST instead of FIN, which leaves no TIME_WAIT behind.")
    ] = False
    pseudo_ports: Annotated[
        int,
        Meta(
            ge=0,
            le=MANY,
            description="So many equal answers of one address make it a pseudo service: rows are labelled, further "
            "ports get a short conversation. 0: never.",
        ),
    ] = 30

    # how long
    connect_timeout_s: Annotated[float, Meta(gt=0, description="For a TCP connection.")] = 5.0
    tls_timeout_s: Annotated[float, Meta(gt=0, description="For a TCP connection and its TLS handshake together.")] = (
        8.0
    )
    service_timeout_s: Annotated[float, Meta(ge=0, description="For all probes of one service.")] = 600.0
    host_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            description="For all services of an address, from the first one begun. What was found is kept; the rest "
            "is marked `incomplete`, reason `budget`.",
        ),
    ] = 0.0
    deadline_s: Annotated[
        float, Meta(ge=0, description="For the run; what is in flight is then marked `incomplete`, reason `budget`.")
    ] = 0.0
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 40, description="Received per service.")] = 1 << 23

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            try:
                checked = convert(value, _field_types()[name])
                if checked == inf or "\0" in "".join(_texts(checked)):
                    raise ValidationError
                if isinstance(checked, int) and not -(1 << 63) <= checked < 1 << 63:  # what a worker can be told
                    raise ValidationError
            except (ValidationError, UnicodeError):
                told = "its value" if name == "proxy" else repr(value)  # which may hold a password
                raise ConfigError(f"{name}: {told} cannot be used; expected {allowed(name)}") from None
            force_setattr(self, name, checked)


def _texts(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()


@cache
def _field_types() -> dict[str, Any]:
    return get_type_hints(ScanConfig, include_extras=True)


def field_meta(name: str) -> Meta:
    """A field of ScanConfig: `description`, the words of its option, and its bounds `ge`, `le`, `gt`."""
    meta: Meta = get_args(_field_types()[name])[1]
    return meta


def field_choices(name: str) -> tuple[str, ...]:
    """The words that a field of ScanConfig takes; empty where it is not a choice."""
    kind = get_args(_field_types()[name])[0]
    return get_args(kind) if get_origin(kind) is Literal else ()


def allowed(name: str) -> str:
    """What values a field of ScanConfig takes, in words."""
    kind, meta = get_args(_field_types()[name])[0], field_meta(name)
    if choices := field_choices(name):
        return "one of " + ", ".join(choices)
    words = _KINDS[kind]
    if kind == int | None:
        return words
    if meta.ge is not None and meta.le is not None:
        return f"{words} from {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return f"{words} of at least {meta.ge}"
    return f"{words} above {meta.gt}" if meta.gt is not None else words


_KINDS = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    int | None: "a whole number of 64 bits, or None",
    tuple[str, ...]: "a tuple of texts",
}
