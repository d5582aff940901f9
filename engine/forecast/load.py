"""What a scan has to do: the question asked, and what each kind of target takes of everything. Pure arithmetic.

Who answers how (`loads`): of the targets of a port a share are services, of kinds by the mix; of the rest some
refuse, and what remains is silent until the connect timeout.
What each takes (`_Unit`s in `_unit`): the measured cost of its kind. A silent service's grows with the probes that
are tried on its port, an unanswered target's packets with the connect timeout. A connection of post-processing costs
as much as one of the scan of its kind.
How long a slot is held: round trips, banner windows that run to their end, timeouts.
"""

from collections import defaultdict
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from engine.forecast.constants import REFUSED, UNANSWERED, Constants, Kind

TRIPS = {  # round trips of a conversation, windows apart
    "banner": 2,  # connect; the greeting
    "http": 2,  # connect; request and answer
    "tls": 5,  # connect; hello; connect; handshake (TLS 1.3); request and answer
    REFUSED: 1,
}
USUAL = {  # what is on a port where nobody says otherwise
    **dict.fromkeys((21, 22, 25, 110, 143, 587, 3306), "banner"),  # the server speaks first: FTP, SSH, mail, MySQL
    **dict.fromkeys((443, 465, 636, 853, 990, 993, 995, 4443, 8443), "tls"),  # TLS from the first byte
}
ELSE = "http"  # on any other port: whatever waits to be asked costs a banner window, and web servers are everywhere


class Silence(Struct, frozen=True):
    """What a service that never says anything takes on its port: connections, and seconds until we give up."""

    connections: int
    held_s: float


class Question(Struct, frozen=True, kw_only=True):
    """targets: how many by port. mix: by port, the share of each kind among its services (1 together; none: USUAL).
    answering: share of the targets where a service is; closed: share of the others that refuse. silence: by port, where
    the mix has silent services. post: further connections by kind. differ: whether answers differ from each other.

    rate: connections per second, slots: conversations at once, both of all machines together; 0: no rate, and the slots
    that each machine has by itself. cores, workers, memory (bytes), bandwidth (bits per second and direction; 0: no
    bound), sources (addresses): of one machine. price: of a machine and hour.
    """

    targets: Mapping[int, int]
    hosts: int
    mix: Mapping[int, Mapping[str, float]] = {}
    silence: Mapping[int, Silence] = {}
    post: Mapping[str, int] = {}
    answering: float = 1.0
    closed: float = 0.0
    differ: bool = True
    rtt_s: float = 0.1
    banner_window_s: float = 6.0
    connect_timeout_s: float = 5.0
    service_timeout_s: float = 600.0
    rate: float = 0.0
    slots: int = 0
    per_host: int = 16
    cores: int = 4
    workers: int = 4
    memory: int = 8 << 30
    bandwidth: float = 0.0
    sources: int = 1
    price: float = 0.0


class Load(Struct, frozen=True):
    """So many targets of one kind; `unit` is what one of them takes. held_s: a slot; how: that, as a sum."""

    kind: str
    count: float
    unit: Kind
    held_s: float
    how: str

    @property
    def is_service(self) -> bool:
        return self.kind not in (REFUSED, UNANSWERED)


def usual(port: int) -> str:
    """The kind that services of a port are taken for."""
    return USUAL.get(port, ELSE)


def loads(question: Question, constants: Constants) -> tuple[Load, ...]:
    """Without those that nobody is of; silent services are told apart by what their port takes."""
    counts: defaultdict[tuple[str, Silence | None], float] = defaultdict(float)
    for port, targets in question.targets.items():
        services = targets * question.answering
        for kind, share in (question.mix.get(port) or {usual(port): 1.0}).items():
            counts[kind, question.silence[port] if kind == "silent" else None] += services * share
        counts[REFUSED, None] += (targets - services) * question.closed
        counts[UNANSWERED, None] += (targets - services) * (1 - question.closed)
    return tuple(
        _load(kind, silence, count, question, constants) for (kind, silence), count in counts.items() if count > 0
    )


def _load(kind: str, silence: Silence | None, count: float, question: Question, constants: Constants) -> Load:
    unit = constants.kinds[kind]
    if silence is not None:
        held_s, how = silence.held_s, f"{silence.connections} probes and their windows"
        unit = _times(unit, silence.connections / unit.connections)
    elif kind == UNANSWERED:
        held_s, how = question.connect_timeout_s, "connect timeout"
        asks = max(1, sum(at < question.connect_timeout_s for at in constants.syn_at_s))
        size = unit.bytes_sent / unit.packets_sent
        unit = replace(unit, packets_sent=float(asks), bytes_sent=asks * size)
    else:
        held_s = TRIPS[kind] * question.rtt_s + unit.windows * question.banner_window_s
        how = f"{TRIPS[kind]} × {question.rtt_s:g} s"
        if unit.windows:
            how += f" + {unit.windows} × {question.banner_window_s:g} s"
    if further := question.post.get(kind, 0):
        unit = _times(unit, 1 + further / unit.connections)
        held_s, how = held_s + further * 2 * question.rtt_s, f"{how} + {further} × 2 × {question.rtt_s:g} s"
    if question.service_timeout_s and held_s > question.service_timeout_s:
        if silence is not None:  # what it would have taken later it no longer does
            unit = _times(unit, question.service_timeout_s / held_s)
        held_s, how = question.service_timeout_s, "service timeout"
    if question.differ:
        unit = replace(unit, worker_us=unit.worker_us + unit.match_us)
    return Load(kind, count, unit, held_s, how)


def _times(unit: Kind, factor: float) -> Kind:
    """With so many times the connections; a row stays one row."""
    return replace(
        unit,
        worker_us=unit.worker_us * factor,
        connections=unit.connections * factor,
        packets_sent=unit.packets_sent * factor,
        packets_received=unit.packets_received * factor,
        bytes_sent=unit.bytes_sent * factor,
        bytes_received=unit.bytes_received * factor,
    )
