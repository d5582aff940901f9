"""What one service of each kind cost where it was measured: the constants that a forecast is made from.

`measured.json` beside this file is written by `python -m bench.constants` and says itself where and when it was made;
nothing in it is typed by hand. The reader knows its form and nothing else.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from engine.errors import ConfigError

FILE = Path(__file__).with_name("measured.json")


class Kind(Struct, frozen=True, kw_only=True):
    """What one service of a kind takes. packets, bytes: on the wire at an MTU of 1500, IP headers included.

    worker_us, driver_us: CPU time in the worker and in the command itself, microseconds. match_us: further time of the
    worker where the answer is one that it has not seen before. windows: banner windows that run to their end.
    row_bytes: of its row as NDJSON in zstd.
    """

    worker_us: float
    driver_us: float
    match_us: float
    connections: float
    packets_sent: float
    packets_received: float
    bytes_sent: float
    bytes_received: float
    windows: int
    row_bytes: float


class Place(Struct, frozen=True, kw_only=True):
    """Where the constants were measured, and when (UTC day). versions: of the libraries that count."""

    machine: str
    cores: int
    kernel: str
    python: str
    versions: dict[str, str]
    database: str
    matcher: str
    date: str

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.machine}, {self.cores} cores, {self.kernel}, Python {self.python}, {versions}, "
            f"{self.matcher}, {self.database}, {self.date}"
        )


class Constants(Struct, frozen=True, kw_only=True):
    """start_s: from the command's start to its first connection, and its end. driver_bytes, worker_bytes: resident
    memory of a process at rest; conversation_bytes: of a conversation in flight, without the kernel's. slots:
    conversations at once where nobody says otherwise. ports: ephemeral ones of a source address; time_wait_s: how long
    each stays taken. syn_at_s: when a connection that nobody answers asks, seconds from its start.
    """

    place: Place
    start_s: float
    driver_bytes: int
    worker_bytes: int
    conversation_bytes: int
    slots: int
    ports: int
    time_wait_s: float
    syn_at_s: tuple[float, ...]
    kinds: dict[str, Kind]


KINDS = ("banner", "http", "tls", "silent")  # of services that answer; tls: HTTP inside TLS
REFUSED, UNANSWERED = "refused", "unanswered"  # what a target that is no open port does


def read_constants(path: Path = FILE) -> Constants:
    """Raises ConfigError for a file that is not there, or that is not one of constants."""
    try:
        constants = msgspec.json.decode(path.read_bytes(), type=Constants)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{path}: no constants of a forecast: {error}; write them by python -m bench.constants"
        ) from None
    missing = {*KINDS, REFUSED, UNANSWERED} - constants.kinds.keys()
    if missing:
        raise ConfigError(f"{path}: lacks what these kinds cost: {', '.join(sorted(missing))}")
    return constants
