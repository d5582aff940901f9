"""Whether proxies can be used at all, before a scan relies on them: one connection, as far as the last of them.

Blocking. The last proxy is asked for nothing: with SOCKS 5 its login is tried, otherwise it is only connected to.
"""

import socket
import time
from collections.abc import Sequence

from msgspec.structs import replace

from engine.errors import EngineError
from engine.transports.base_local import Local
from engine.transports.base_proxy import Proxy, is_address, route

READ = 4096  # bytes at once


def resolved(proxy: Proxy) -> Proxy:
    """The first proxy of a chain with its address, by the system's resolver. Raises EngineError."""
    if is_address(proxy.host):
        return proxy
    try:
        answers = socket.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EngineError(
            f"proxy 1, {proxy}: {getattr(error, 'strerror', None) or 'its name cannot be resolved'}"
        ) from error
    return replace(proxy, host=str(answers[0][4][0]))


def reach(proxies: Sequence[Proxy], local: Local, timeout_s: float) -> None:
    """Go through all but the last, and to that. Each may take so long. Raises HopError."""
    first, last = proxies[0], len(proxies)
    handshakes = route(proxies, "192.0.2.1", 9)  # the last is not told where to
    with socket.socket(socket.AF_INET6 if ":" in first.host else socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            local.settle(sock)
            sock.settimeout(timeout_s)
            sock.connect((first.host, first.port))
        except OSError as error:
            raise handshakes[0].broken(error) from error
        for handshake in handshakes:
            until = time.monotonic() + timeout_s
            said = handshake.feed()
            while not (handshake.done or (handshake.asked and handshake.hop == last)):
                try:
                    sock.sendall(said)
                    sock.settimeout(max(until - time.monotonic(), 0.001))
                    heard = sock.recv(READ)
                except TimeoutError:
                    raise handshake.fault("it does not answer") from None
                except OSError as error:
                    raise handshake.broken(error) from error
                if not heard:
                    raise handshake.hung_up()
                try:
                    said = handshake.feed(heard)
                except OSError as error:  # what it says of its destination is the next one's
                    raise handshakes[min(handshake.hop, last - 1)].broken(error) from error
