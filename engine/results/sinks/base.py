"""What every sink is, and what sinks share: the rows of a blob, and hosts put together within bounds.

A sink takes *blobs*: NDJSON lines as the workers encoded them, each line one `ServiceResult`, the last one ended by a
newline. A sink that writes NDJSON hands the bytes on without looking at them; every other sink decodes them.

A sink raises `OutputError` when its destination fails (one line: what, where), and `SinkClosed` when nobody reads any
more; both may come from `close` too, where a sink writes what it held back. After `SinkClosed` it is silent.
"""

import ipaddress
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.model import NOT_SCANNED, Reason, ServiceResult
from engine.results.ending import Ending
from engine.results.paint import Paint, plain

BUFFERED_ROWS = 65_536  # rows that a sink holds back to put hosts together; about 50 MB when all are full

_decoder = msgspec.json.Decoder(ServiceResult)


class Run(Struct, frozen=True):
    """The run that the rows come from. version: ours; args: the command as typed; started: seconds since the epoch.

    streaming: the input may never end, so people want to see each row as it comes, not tables at the end.
    full: NDJSON rows have every field.

    watched: somebody looks on at a terminal, and wants to see what is found before the tables come.
    paint: the colours of the text form; `plain` for all but terminals.
    """

    version: str
    args: str
    started: float
    streaming: bool = False
    full: bool = False
    watched: bool = False
    paint: Paint = plain


class Summary(Struct, frozen=True):
    """How the run ended. finished: seconds since the epoch. error: one line, what failed; empty otherwise."""

    finished: float
    error: str = ""
    ending: Ending = Ending()

    @property
    def trouble(self) -> str:
        """Why this is not the whole scan, and what is missing, as one line; empty where it is."""
        return (replace(self.ending, why=self.error) if self.error else self.ending).words()


class Sink(Protocol):
    """Where rows go."""

    def write(self, blob: bytes, rows: int) -> None:
        """Take `rows` complete NDJSON lines; they may be held back until `close`."""

    def close(self, summary: Summary) -> None:
        """Write what was held back and the tail of the form, and let go of the destination. Once is enough."""


def decode_rows(blob: bytes) -> list[ServiceResult]:
    """The rows of a blob."""
    return _decoder.decode_lines(blob)


def host_label(row: ServiceResult) -> str:
    """`name (address)`, or what there is of the two."""
    return f"{row.host} ({row.ip})" if row.host and row.ip else row.ip or row.host


def place(row: ServiceResult) -> str:
    """The address, or the name of a host whose address only a proxy knows."""
    return row.ip or row.host


def unresolved(row: ServiceResult) -> str:
    """What is said of a host name that has no address, in Nmap's words; empty for a host that has one."""
    proxied = row.host and row.reason is not Reason.UNRESOLVED
    return "" if row.ip or proxied else f'Failed to resolve "{row.host}".'


def reached(rows: list[ServiceResult]) -> list[ServiceResult]:
    """Without those whose conversation the end of the run has cut off, or kept from beginning: nobody knows of them."""
    return [row for row in rows if row.reason not in NOT_SCANNED]


def not_reached(ports: int, hosts: int = 0) -> str:
    """`5 ports not reached`, or `5 ports of 2 other hosts not reached`; empty for no port."""
    of = f" of {hosts:,} other host{'s' * (hosts != 1)}" if hosts else ""
    return f"{ports:,} port{'s' * (ports != 1)}{of} not reached" if ports else ""


def moment(epoch: float) -> str:
    """`Sat Nov 21 06:38:13 2026`, in local time, to the second."""
    return datetime.fromtimestamp(int(epoch)).ctime()


def scanned(hosts: int, run: Run, summary: Summary) -> str:
    """`2 hosts scanned in 8.50 seconds`."""
    return f"{hosts} host{'s' * (hosts != 1)} scanned in {summary.finished - run.started:.2f} seconds"


def port_order(row: ServiceResult) -> tuple[str, int]:
    """TCP before UDP, then by number."""
    return row.proto, row.port


class HostBuffer:
    """Rows by host, so that a host comes out in one piece although its rows come in any order.

    One address under two names counts as two hosts, because TLS may answer them differently. When more than `bound`
    rows are held, the hosts that were quiet longest go out until half is left; a row that comes later for such a host
    makes it appear a second time.
    """

    def __init__(self, emit: Callable[[list[ServiceResult]], None], bound: int = BUFFERED_ROWS) -> None:
        """emit: called with the rows of one host, in port order."""
        self._emit = emit
        self._bound = bound
        self._rows = 0
        self._hosts: dict[tuple[str, str], list[ServiceResult]] = {}

    def add(self, row: ServiceResult) -> None:
        key = row.ip, row.host
        rows = self._hosts.pop(key, [])
        rows.append(row)
        self._hosts[key] = rows  # again at the end: the first key is always the one that was quiet longest
        self._rows += 1
        if self._rows > self._bound:
            while self._rows > self._bound // 2:
                self._emit_host(next(iter(self._hosts)))

    def drain(self) -> None:
        """Emit all that is held, in order of address and name; what has no address comes last."""
        for key in sorted(self._hosts, key=_address_order):
            self._emit_host(key)

    def take(self) -> Iterator[ServiceResult]:
        """Give up all rows, host by host, without emitting them."""
        hosts, self._hosts, self._rows = self._hosts, {}, 0
        for rows in hosts.values():
            yield from rows

    def __len__(self) -> int:
        return self._rows

    def _emit_host(self, key: tuple[str, str]) -> None:
        rows = self._hosts.pop(key)
        self._rows -= len(rows)
        self._emit(sorted(rows, key=port_order))


def _address_order(key: tuple[str, str]) -> tuple[int, int, str]:
    if not key[0]:
        return 9, 0, key[1]
    address = ipaddress.ip_address(key[0])
    return address.version, int(address), key[1]
