"""Whether concurrency finds itself: `python -m bench.pace [--quick] [banner] [http] [tls] [silent]`.

Each farm is scanned with every hand-picked `--max-inflight` once. The best of them and the default then take turns, and
the medians of whole commands are compared: the default reaches at least 97 % of what the best number does. A figure is
of services a second; its reference is the best number's. `--quick` scans a fifth.
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


def measured(name: str, bench: Bench, place: Farm, total: int) -> Figure:
    with opened(bench, place.kind) as port:

        def rate(*options: str) -> float:
            return total / bench.scan(place.kind, port, total, *options, hosts=place.hosts)

        bench.scan(place.kind, port, 1)  # and what it needs is kept
        tried = {number: rate("--max-inflight", str(number)) for number in place.numbers}
        best = max(tried, key=tried.__getitem__)
        found, picked = [], [tried[best]]
        for _ in range(ROUNDS):
            found.append(rate())
            picked.append(rate("--max-inflight", str(best)))
    print(f"{name}: " + ", ".join(f"{number:,}: {each:,.0f}/s" for number, each in tried.items()))
    return Figure(
        f"pace.{name}", median(found), "services/s", "more", median(picked), GOAL, f"{bench.database}, best {best:,}"
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
            tell(measured(which, bench, FARMS[which], total))
    return 0


if __name__ == "__main__":
    sys.exit(main())
