"""Which of the targets a config asks for: ports for hosts without one, who may be contacted, whose share it is.

One place for the command line and for Python, so that a scan from either is equally polite.
"""

import logging
from collections.abc import Callable
from functools import reduce
from operator import or_
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ConfigError, InputError
from engine.model import NAMING_PROXIES, ScanConfig, Target
from engine.targets.base_hosts import Family, Names, family_of
from engine.targets.base_ports import PortSpec, Unreadable, parse_ports
from engine.targets.permutation import Shard, parse_shard
from engine.targets.prefixes import AddressFilter, PrefixSet, load_prefixes, parse_prefixes, reserved_networks

log = logging.getLogger("probemill.targets")


class Selection(Struct, frozen=True):
    """ports: for bare hosts. admit: which targets may be contacted at all, None: all.

    seed, family, names: as in TargetSource.
    """

    ports: PortSpec | None = None
    admit: Callable[[Target], bool] | None = None
    seed: int | None = None
    family: Family = 0
    names: Names = Names.HERE

    def has(self, address: str) -> bool:
        """Whether a literal address, network or range is of the family that is wanted."""
        return self.family in {0, family_of(address)}


def select(config: ScanConfig) -> Selection:
    """What `config` says of targets. Raises ConfigError, and InputError for a line of a list that cannot be used."""
    try:
        ports = parse_ports(config.ports) if config.ports else None
    except Unreadable as error:
        raise ConfigError(f"ports: {error}") from error
    if config.proxy and ports is not None and ports.at(len(ports) - 1)[1] == "udp":
        raise ConfigError("ports: UDP does not go through a proxy; name TCP ports alone")
    return Selection(ports, admission(config), config.seed, names=_names(config))


def of_family(selection: Selection, family: Family) -> Selection:
    """The same, for addresses of IPv4 (4) or IPv6 (6) alone; names are looked up for these."""
    wanted, admit = replace(selection, family=family), selection.admit

    def admits(target: Target) -> bool:
        return (not target.host or wanted.has(target.host)) and (admit is None or admit(target))

    return replace(wanted, admit=admits, names=Names.UNSEEN if selection.names is Names.FAR else selection.names)


def _names(config: ScanConfig) -> Names:
    """Who looks names up. Behind a proxy nobody here does: that would be a packet past it."""
    if not config.proxy:
        return Names.HERE
    if config.proxy[-1].partition("://")[0] not in NAMING_PROXIES:
        return Names.NOWHERE
    return Names.UNSEEN if config.blocklist or config.allowlist or config.exclude_reserved else Names.FAR


class _TcpAlone:
    """Behind a proxy: UDP is left out, because it would go past it. Said once."""

    def __init__(self, admit: Callable[[Target], bool] | None) -> None:
        self._admit = admit
        self._told = False

    def __call__(self, target: Target) -> bool:
        if target.proto == "tcp":
            return self._admit is None or self._admit(target)
        if not self._told:
            self._told = True
            log.warning("UDP targets are left out: a proxy carries TCP alone, and nothing goes past it")
        return False


def admission(config: ScanConfig) -> Callable[[Target], bool] | None:
    """Who may be contacted, by proxy, lists, reserved networks and shard. Raises ConfigError, InputError."""
    admit = _admission(config)
    return _TcpAlone(admit) if config.proxy else admit


def _admission(config: ScanConfig) -> Callable[[Target], bool] | None:
    addresses = address_filter(config)
    shard = parse_shard(config.shard) if config.shard else Shard()
    if addresses is None:
        return None if shard.count == 1 else lambda target: shard.keeps(target.name or target.host)
    permits = addresses.permits
    # A name without an address concerns no list: its row says that it has none.
    if shard.count == 1:
        return lambda target: not target.host or permits(target.host)
    return lambda target: shard.keeps(target.name or target.host) and (not target.host or permits(target.host))


def address_filter(config: ScanConfig) -> AddressFilter | None:
    """The lists alone, and reserved networks; None where there are none. Raises ConfigError, InputError."""
    blocked, allowed = lists(config)
    return AddressFilter(blocked, allowed) if blocked is not None or allowed is not None else None


def lists(config: ScanConfig) -> tuple[PrefixSet | None, PrefixSet | None]:
    """What may not be contacted, reserved networks included, and what alone may be. Raises ConfigError, InputError."""
    blocked = [prefixes_of("blocklist", entry) for entry in config.blocklist]
    if config.exclude_reserved:
        blocked.append(reserved_networks())
    allowed = [prefixes_of("allowlist", entry) for entry in config.allowlist]
    for entry, prefixes in zip(config.allowlist, allowed, strict=True):
        if not len(prefixes):
            raise ConfigError(f"{entry}: an allowlist without an entry allows nothing")
    return _union(blocked), _union(allowed)


def prefixes_of(field: str, entry: str) -> PrefixSet:
    """The addresses of a network, or of a file of them; what is both is the network, `./192.0.2.0` the file.

    Raises ConfigError for what is neither, InputError for a line of a file that is no network.
    """
    try:
        network = parse_prefixes([entry], field)
    except InputError as error:
        if not Path(entry).exists():
            raise ConfigError(f"{field}: no file {entry!r}, and no network: {error.reason}") from None
    else:
        if len(network):
            return network
    return load_prefixes(Path(entry))


def _union(sets: list[PrefixSet]) -> PrefixSet | None:
    return reduce(or_, sets) if sets else None
