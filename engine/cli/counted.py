"""How many targets there are, by port: read as a scan reads them, and counted by arithmetic where they are networks.

As with `--dry-run` names are not looked up, and each is a host. Lists are applied inside networks, too, by the sizes of
what they have in common, so that the whole of IPv4 takes no longer than one address.
"""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from engine.cli.scan import COUNTED_HOSTS
from engine.errors import ConfigError, InputError
from engine.model import ScanConfig
from engine.run import Inputs
from engine.targets import TargetSpec
from engine.targets.base_hosts import Network
from engine.targets.prefixes import PrefixSet
from engine.targets.selection import lists, select

NOTHING = "no targets are left: there is nothing to plan"


class Counted(Struct, frozen=True):
    """counts: targets by port. hosts: at most. errors: of lines that could not be read."""

    counts: dict[int, int]
    hosts: int
    errors: list[InputError]


async def counted(config: ScanConfig, texts: tuple[str, ...], files: tuple[str, ...], form: str) -> Counted:
    """The targets of texts and of files. Raises ConfigError, InputError where none is left, or one is not TCP."""
    selection = select(config)
    inputs = Inputs(texts, files, form, selection)
    inside = _Lists(config).inside
    counts, addresses, hosts, errors = Counter[int](), set[str](), 0, list[InputError]()
    async for items in inputs.items():
        for item in items:
            if isinstance(item, InputError):
                errors.append(item)
                continue
            if isinstance(item, TargetSpec):
                kept = inside(item) if item.network is not None else 1
                pairs: Iterable[tuple[int, str]] = (item.ports.at(index) for index in range(len(item.ports)))
            else:
                kept = int(selection.admit is None or selection.admit(item))
                pairs = ((item.port, item.proto),)
            for port, proto in pairs:
                if proto != "tcp":
                    raise ConfigError(f"{item.host} port {port}/{proto}: only TCP is planned for")
                counts[port] += kept
            if kept == 1 and len(addresses) < COUNTED_HOSTS:
                addresses.add(item.host)
            else:
                hosts += kept
    if not counts.total():
        raise errors[0] if errors else ConfigError(NOTHING)
    return Counted(dict(counts), hosts + len(addresses), errors)


class _Lists:
    """How many addresses of a network the lists leave."""

    def __init__(self, config: ScanConfig) -> None:
        blocked, allowed = lists(config)
        self._blocked = blocked or PrefixSet()
        self._either = allowed | self._blocked if allowed is not None else None

    def inside(self, spec: TargetSpec) -> int:
        """Ranges octet by octet are counted whole."""
        network = spec.network
        if not isinstance(network, Network):
            return spec.hosts
        first, last = network.first, network.first + network.size - 1
        either = self._either.overlap(first, last, v6=network.v6) if self._either is not None else network.size
        return either - self._blocked.overlap(first, last, v6=network.v6)
