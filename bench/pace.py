"""Whether concurrency finds itself: `python -m bench.pace [--quick] [banner] [http] [tls] [silent]`.

Each farm is scanned with every hand-picked `--max-inflight` once. The best of them and the default then take turns, and
the medians of whole commands are compared: the default reaches at least 97 % of what the best number does. A figure is
of services a second; its reference is the best number's. Memory is the most that all processes of a scan had together,
of the default beside the best number's. `--quick` scans a fifth.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from msgspec import Struct

from bench.figures import Figure, tell
from bench.native import CompilerError, farm, first_free
from bench.scan_table import ADAPTIVE, BANNER, HTTP, NGINX, Bench, Kind, arguments
from bench.tls_farm import tls_farm

HAND_PICKED = (500, 1000, 2000, 4000, 10_000, 20_000)
ROUNDS = 3
GOAL = 0.97
TLS_PORTS = (443, 8443, 9443, 4443)  # which probes name for TLS


class Farm(Struct):
    """total: services that are scanned, on so many hosts. numbers: worth trying there."""

    kind: Kind
    total: int
    hosts: int = 2000
    numbers: tuple[int, ...] = HAND_PICKED


FARMS = {
    "banner": Farm(BANNER, 100_000),
    "http": Farm(HTTP, 60_000),
    "tls": Farm(Kind("tls", "tls", NGINX, ADAPTIVE, TLS_PORTS), 4000),
    # Every one of these is silent for the six seconds of the NULL window: fewer slots can only take longer.
    "silent": Farm(Kind("silent", "http", NGINX, (), HTTP.ports), 10_000, 10_000, (4000, 10_000, 20_000)),
}


@contextlib.contextmanager
def opened(bench: Bench, kind: Kind) -> Iterator[int]:
    """The farm, as long as the block; gives its port."""
    if kind.mode == "tls":
        port = first_free(kind.ports)
        with tls_farm(port):
            yield port
    else:
        with farm(bench.farm, kind.mode, kind.ports) as port:
            yield port


def measured(name: str, bench: Bench, place: Farm, total: int) -> tuple[Figure, Figure]:
    """Services a second, and megabytes."""
    with opened(bench, place.kind) as port:
        memory: dict[int, list[float]] = {}  # by the number asked for; 0 by default

        def rate(number: int = 0) -> float:
            options = ("--max-inflight", str(number)) if number else ()
            taken = bench.scan(place.kind, port, total, *options, hosts=place.hosts)
            memory.setdefault(number, []).append(taken.megabytes)
            return total / taken.wall

        bench.scan(place.kind, port, 1)  # and what it needs is kept
        tried = {number: rate(number) for number in place.numbers}
        best = max(tried, key=tried.__getitem__)
        found, picked = [], [tried[best]]
        for _ in range(ROUNDS):
            found.append(rate())
            picked.append(rate(best))
    print(f"{name}: " + ", ".join(f"{number:,}: {each:,.0f}/s" for number, each in tried.items()))
    on = f"{bench.database}, best {best:,}"
    mine, theirs = median(memory[0]), median(memory[best])
    return (
        Figure(f"pace.{name}", median(found), "services/s", "more", median(picked), GOAL, on),
        Figure(f"pace.{name}.memory", mine, "MB", reference=theirs, corpus=on),
    )


def main() -> int:
    options = arguments(__doc__, list(FARMS))
    with tempfile.TemporaryDirectory() as name:
        try:
            bench = Bench(Path(name), options)
        except CompilerError as reason:
            print(f"nothing measured: {reason}")
            return 0
        for which in options.which or FARMS:
            total = FARMS[which].total // (5 if options.quick else 1)
            for figure in measured(which, bench, FARMS[which], total):
                tell(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
