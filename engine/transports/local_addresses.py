"""The local addresses that connections are made from, in turn, those of each IP version by themselves."""

import socket
from collections.abc import Sequence
from itertools import cycle

from engine.errors import ConfigError
from matcher import shown


class Sources:
    """addresses: literal ones; a version of IP that has none is left to the system."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._v4 = cycle([address for address in addresses if ":" not in address] or [""])
        self._v6 = cycle([address for address in addresses if ":" in address] or [""])

    def towards(self, host: str) -> str:
        """The next address to reach `host` from, or "" for any."""
        return next(self._v6 if ":" in host else self._v4)


def check_sources(addresses: Sequence[str]) -> None:
    """Raises ConfigError for an address that this machine does not have: connecting from it would never succeed."""
    for address in addresses:
        if reason := _why_not(address):
            raise ConfigError(f"source address {shown(address) or repr(address)}: {reason}")


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
