"""Ask one service every probe of a database and keep what it answers, as samples.

For whoever writes match lines: slow, thorough, a few conversations at a time, one connection for each probe, in plain
blocking sockets. A scan does it quite differently (see driver.py) and gets the same bytes.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
from msgspec import Struct

from engine.errors import InputError
from engine.model import Target
from engine.targets import Item, TargetSpec
from engine.targets.plain import PlainReader
from matcher import Matcher, Probe
from matcher.database.samples import answer, sample_row

CONNECT_S = 5.0
QUIET_S = 1.5  # after data; a service that says nothing more for so long has said it all
MAX_BYTES = 64 << 10
CONVERSATIONS = 4  # at once; some services take few


class Service(Struct, frozen=True):
    """Where to ask. tls: inside TLS, whatever the certificate."""

    host: str
    port: int
    proto: str = "tcp"
    tls: bool = False


def parse_service(text: str, tls: bool = False) -> Service:
    """`host:port` or `host:port/udp`; the host may be a name. Raises InputError."""
    reader = PlainReader("service")
    items: list[Item] = [*reader.feed(text.encode("utf-8", "replace") + b"\n"), *reader.close()]
    match items:
        case [InputError() as error]:
            raise error
        case [Target() as target]:
            return Service(target.host, target.port, target.proto, tls)
        case [TargetSpec(is_name=True) as spec] if spec.count == 1:
            port, proto = spec.ports.at(0)
            return Service(spec.host, port, proto, tls)
    raise InputError("service", 1, f"{text!r} is not one host and one port")


def ask(service: Service, probe: Probe) -> bytes:
    """What the service answers to one probe; empty where it does not. Raises OSError where it cannot be reached."""
    deadline = time.monotonic() + CONNECT_S + probe.totalwait_s
    kind = socket.SOCK_STREAM if service.proto == "tcp" else socket.SOCK_DGRAM
    family, _, _, _, address = socket.getaddrinfo(service.host, service.port, type=kind)[0]
    with socket.socket(family, kind) as plain:
        plain.settimeout(CONNECT_S)
        plain.connect(address)
        if not service.tls:
            return _converse(plain, probe, deadline)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname=service.host) as secure:
            return _converse(secure, probe, deadline)


def _converse(link: socket.socket, probe: Probe, deadline: float) -> bytes:
    said = b""
    try:
        if probe.payload:
            link.sendall(probe.payload)
        while len(said) < MAX_BYTES:
            left = deadline - time.monotonic()
            link.settimeout(max(0.01, min(left, QUIET_S) if said else min(left, probe.totalwait_s)))
            data = link.recv(MAX_BYTES)
            said += data
            if not data or link.type == socket.SOCK_DGRAM:
                break
    except (TimeoutError, ConnectionError, ssl.SSLError):
        pass  # what has come before counts, and nothing is an answer too
    return said


def capture(
    service: Service, matcher: Matcher, source: str, *, every: bool = False, told: Callable[[], None] = lambda: None
) -> Iterator[dict[str, object]]:
    """Sample rows in the order of the probes, with what the database makes of them as `expect`.

    every: also answers that another probe got before. told: called after each probe. Raises OSError where the service
    cannot be reached even for the first one.
    """
    probes = [probe for probe in matcher.database.probes if probe.proto == service.proto]
    seen: set[bytes] = set()
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        answers = [pool.submit(ask, service, probe) for probe in probes]
        try:
            for number, (probe, future) in enumerate(zip(probes, answers, strict=True)):
                try:
                    said = future.result()
                except OSError:
                    if number == 0:
                        raise
                    said = b""
                told()
                if said and (every or said not in seen):
                    seen.add(said)
                    yield msgspec.to_builtins(sample_row(probe, said, source, answer(matcher.match(probe, said))))
        finally:
            pool.shutdown(cancel_futures=True)
