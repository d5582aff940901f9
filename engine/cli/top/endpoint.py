"""A run seen through its metrics endpoint: `probemill scan --metrics`, answering `/metrics` and `/log`.

Contract: only the place that was named is contacted: no redirect is followed, no proxy used. A look ends within
`LIMIT_S`, whatever is there and however slowly it answers, and reads at most `MAX_BYTES`. Whatever it answers becomes a
View or an UnseenError. The metrics are those of cli/metrics.py.
"""

import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from math import isfinite
from threading import Timer
from urllib.parse import urlsplit

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from engine.cli.metrics import LOG, PREFIX
from engine.cli.tail import KEPT
from engine.cli.top.view import Asked, History, Load, UnseenError, View
from engine.errors import ConfigError
from matcher import shown

LIMIT_S = 5.0
MAX_BYTES = 2 << 20  # of an answer: some ten thousand numbers
METRICS = "/metrics"
NODE_COLUMNS = {  # as they are to be shown, the most important first
    "inflight": "in flight",
    "done": "done",
    "silent_seconds": "silent s",
    "actors": "actors",
    "outstanding": "given",
}
TROUBLE = {
    "worker_restarts_total": "worker restarts",
    "starved_total": "starved of sockets",
    "engine_fallbacks_total": "engine fallbacks",
    "sink_segments_behind": "segments that sinks lack",
}

_Labels = dict[str, str]


class Place(Struct, frozen=True):
    """Where an endpoint is. path: of the metrics."""

    secure: bool
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return shown(f"http{'s' * self.secure}://{host}:{self.port}{self.path}")


def place_of(text: str) -> Place:
    """`9464` on loopback, `HOST:PORT`, or a URL. Raises ConfigError."""
    url = f"127.0.0.1:{text}" if re.fullmatch("[0-9]{1,5}", text) else text
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
        plain = re.fullmatch(r"[\x21-\x7e]+", parts.path + (parts.hostname or " "))
        usable = parts.scheme in {"http", "https"} and parts.username is None and plain is not None
    except ValueError:
        usable, port = False, None
    if "://" in url and port is None and usable:
        port = 443 if parts.scheme == "https" else 80
    if not usable or not port:
        raise ConfigError(
            f"{shown(text)}: is no PORT, HOST:PORT, http://HOST:PORT/metrics or folder of a run with --state"
        )
    return Place(parts.scheme == "https", parts.hostname or "", port, parts.path.rstrip("/") or METRICS)


class Endpoint:
    """The source."""

    def __init__(self, place: Place) -> None:
        self.where = str(place)
        self._place = place
        self._history = History()

    def look(self) -> View:
        """Raises UnseenError."""
        try:
            numbers = _Numbers(self._get(self._place.path))
            view = self._view(numbers)
        except (ValueError, KeyError, ArithmeticError) as error:
            raise UnseenError(f"{self.where}: what answers is no scan of probemill") from error
        with suppress(UnseenError):  # the numbers are more than nothing
            log = self._get(self._place.path.rpartition("/")[0] + LOG)
            view.log = log.splitlines()[-KEPT:]
        return view

    def _get(self, path: str) -> str:
        place = self._place
        kind = HTTPSConnection if place.secure else HTTPConnection
        connection = kind(place.host, place.port, timeout=LIMIT_S)
        try:
            with _limited(connection):
                connection.request("GET", path, headers={"Accept": "text/plain", "Connection": "close"})
                with connection.getresponse() as answer:
                    body = answer.read(MAX_BYTES + 1)
        except ConnectionRefusedError:
            raise UnseenError(f"{self.where}: nobody answers there; a scan does with --metrics", gone=True) from None
        except TimeoutError:
            raise UnseenError(f"{self.where}: no answer within {LIMIT_S:g} s") from None
        except (OSError, HTTPException, UnicodeError) as error:
            said = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
            gone = isinstance(error, ConnectionResetError | BrokenPipeError)
            raise UnseenError(f"{self.where}: no answer ({shown(said)})", gone=gone) from None
        finally:
            connection.close()
        if answer.status != 200 or len(body) > MAX_BYTES:
            said = f"answers {answer.status}" if answer.status != 200 else f"says more than {MAX_BYTES >> 20} MB"
            raise UnseenError(f"{self.where}: {said}, and is no scan of probemill")
        return body.decode("utf-8", "replace")

    def _view(self, numbers: "_Numbers") -> View:
        """Raises KeyError for what a scan always says."""
        done, elapsed_s = int(numbers.one("targets_done_total")), numbers.one("elapsed_seconds")
        open_now = numbers.by("conversations", "worker")
        nodes = {column: numbers.by("node_" + name, "node") for name, column in NODE_COLUMNS.items()}
        in_flight = sum(open_now.values()) or sum(nodes["in flight"].values())
        self._history.add(elapsed_s, done, in_flight)
        windows, hits = numbers.by("probe_windows_total", "probe"), numbers.by("probe_hits_total", "probe")
        spent = numbers.by("probe_milliseconds_total", "probe")
        given = numbers.by("outstanding", "worker")
        return View(
            where=self.where,
            done=done,
            read=int(numbers.one("targets_read_total")),
            input_ended=numbers.one("input_ended") > 0,
            in_flight=in_flight,
            elapsed_s=elapsed_s,
            rate=self._history.rate(),
            rates=self._history.rates(),
            open=self._history.open(),
            verdicts=numbers.by("verdicts_total", "verdict"),
            reasons=numbers.by("reasons_total", "reason"),
            services=numbers.by("services_total", "service"),
            probes={name: Asked(windows.get(name), spent.get(name), hits.get(name, 0)) for name in {**windows, **hits}},
            slow=sorted(numbers.by("slow_host_milliseconds", "host").items(), key=lambda item: item[1], reverse=True),
            workers=[
                Load(name, {"in flight": f"{open_now.get(name, 0):,}", "given": f"{given.get(name, 0):,}"})
                for name in {**given, **open_now}
            ],
            nodes=[
                Load(name, {column: f"{counts.get(name, 0):,}" for column, counts in nodes.items()})
                for name in nodes["actors"]
            ],
            trouble={text: count for name, text in TROUBLE.items() if (count := int(numbers.sum(name)))},
        )


class _Numbers:
    """The numbers of a scan, by metric and labels."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what are no metrics."""
        self._all: dict[str, list[tuple[_Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(PREFIX) and isfinite(sample.value):
                    self._all[sample.name.removeprefix(PREFIX)].append((sample.labels, sample.value))

    def one(self, name: str) -> float:
        """Raises KeyError."""
        if not self._all[name]:
            raise KeyError(name)
        return self._all[name][0][1]

    def sum(self, name: str) -> float:
        return sum(value for _, value in self._all[name])

    def by(self, name: str, label: str) -> dict[str, int]:
        return {labels.get(label, ""): int(value) for labels, value in self._all[name]}


@contextmanager
def _limited(connection: HTTPConnection) -> Iterator[None]:
    """Nothing inside takes longer, not even with somebody who sends one byte a second. Raises TimeoutError then.

    The connection is there when what is inside begins.
    """
    connection.connect()
    line = connection.sock  # which an answer takes over from its connection
    late = []

    def hang_up() -> None:
        late.append(True)
        with suppress(OSError):  # it is closed already
            line.shutdown(socket.SHUT_RDWR)

    timer = Timer(LIMIT_S, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException):
        if not late:
            raise
    finally:
        timer.cancel()
    if late:
        raise TimeoutError
