"""Where connections of a worker begin: local addresses in turn, those of each IP version by themselves, and the port
and the interface that all of them share.
"""

import socket
from collections.abc import Sequence
from errno import EACCES, EADDRINUSE, ENODEV, EPERM
from itertools import cycle

from engine.errors import ConfigError
from engine.transports.base_local import ANYWHERE, Local
from matcher import shown


class Sources:
    """addresses: literal ones; a version of IP that has none is left to the system. port, interface: as Local's."""

    def __init__(self, addresses: Sequence[str] = (), port: int = 0, interface: str = "") -> None:
        def places(version: bool) -> "cycle[Local]":
            own = [address for address in addresses if (":" in address) == version] or [""]
            return cycle(
                [Local(address, port, interface) if address or port or interface else ANYWHERE for address in own]
            )

        self._v4 = places(False)
        self._v6 = places(True)

    def towards(self, host: str) -> Local:
        """The next place to reach `host` from; ANYWHERE where none was asked for."""
        return next(self._v6 if ":" in host else self._v4)


def check_sources(addresses: Sequence[str]) -> None:
    """Raises ConfigError for an address that this machine does not have: connecting from it would never succeed."""
    for address in addresses:
        if reason := _why_not(address):
            raise ConfigError(f"source address {shown(address) or repr(address)}: {reason}")


def check_door(port: int, interface: str) -> None:
    """Raises ConfigError for a local port or an interface that cannot be used; 0 and "" are none."""
    for local, what in (
        (Local("", 0, interface), f"interface {shown(interface)}"),
        (Local("", port), f"source port {port}"),
    ):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as sock:
                try:
                    local.settle(sock)
                except (OSError, UnicodeError) as error:
                    raise ConfigError(f"{what}: {_hint(error, port)}") from error


def _hint(error: Exception, port: int) -> str:
    number = error.errno if isinstance(error, OSError) else 0
    if number == ENODEV:
        return "there is no such network interface; `ip link` lists them"
    if number == EPERM:
        return "only who has the right to raw sockets (CAP_NET_RAW) may choose it"
    if number == EACCES:
        return f"only root, or who has CAP_NET_BIND_SERVICE, may use port {port}; take one from 1024 on"
    if number == EADDRINUSE:
        return "a program on this machine has it; take another one"
    return getattr(error, "strerror", None) or str(error)


def own(addresses: Sequence[str]) -> tuple[str, ...]:
    """Those that this machine has. Raises ConfigError where there are some, and it has none."""
    found = tuple(address for address in addresses if not _why_not(address))
    if addresses and not found:
        raise ConfigError(f"none of the source addresses is here ({', '.join(map(shown, addresses))})")
    return found


def _why_not(address: str) -> str:
    """Why an address is not one of this machine's; empty if it is."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            if not address:
                raise ValueError("an address is empty")
            sock.bind((address, 0))
        except (OSError, ValueError, TypeError) as error:
            return getattr(error, "strerror", None) or "not an address"
    return ""
