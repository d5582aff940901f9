"""Choose which probes to send to a port, and in what order.

Pure: the same database, port, tunnel and intensity give the same plan. The order is Nmap's: first the probes that name
the port, in file order and whatever their rarity; then the others, in file order, as far as the intensity allows. A
softmatch replaces both rules by one: only probes that can detect the softmatched service are sent.
Source: the probe choice observed on Nmap 7.93.
"""

from engine.model import Tunnel
from matcher import Probe, ProbeDatabase, Proto

ALL_PROBES = 9  # the intensity that lifts every filter, the softmatch's too


class Plan:
    """The probes of one port. queue: (probe, whether it names the port), first to consider first."""

    __slots__ = ("queue",)

    def __init__(self, queue: tuple[tuple[Probe, bool], ...]) -> None:
        self.queue = queue


class Planner:
    """Plans for one database, cached. Ports that no probe names share one plan, so the cache stays small."""

    def __init__(self, database: ProbeDatabase, intensity: int) -> None:
        if not 0 <= intensity <= ALL_PROBES:
            raise ValueError(f"intensity {intensity}; expected 0 to {ALL_PROBES}")
        self.intensity = intensity
        self._probes = {
            proto: [probe for probe in database.probes if probe.proto == proto and probe.payload]
            for proto in ("tcp", "udp")
        }
        self._plans: dict[tuple[str, Tunnel, int], Plan] = {}
        self._by_listed: dict[tuple[str, tuple[int, ...]], Plan] = {}

    def plan(self, proto: Proto, tunnel: Tunnel, port: int) -> Plan:
        """What may be sent to a port, outside or inside a tunnel; `allows` has the last word on each probe."""
        key = (proto, tunnel, port)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._make(proto, tunnel, port)
        return plan

    def _make(self, proto: Proto, tunnel: Tunnel, port: int) -> Plan:
        probes = self._probes[proto]
        listed = [probe for probe in probes if port in (probe.ports if tunnel is Tunnel.NONE else probe.sslports)]
        key = (proto, tuple(probe.index for probe in listed))
        plan = self._by_listed.get(key)
        if plan is None:
            named = frozenset(key[1])
            rest = [probe for probe in probes if probe.index not in named]
            plan = Plan(tuple((probe, True) for probe in listed) + tuple((probe, False) for probe in rest))
            self._by_listed[key] = plan
        return plan

    def most_connections(self, proto: Proto, port: int) -> int:
        """How many connections a conversation with a port takes at most, outside a tunnel: one per probe."""
        return max(
            1, sum(self.allows(probe, listed, None) for probe, listed in self.plan(proto, Tunnel.NONE, port).queue)
        )

    def allows(self, probe: Probe, listed: bool, soft: str | None) -> bool:
        """Whether this probe is sent now. soft: the softmatched service, or None."""
        if soft is not None:
            return self.intensity >= ALL_PROBES or soft in probe.services
        return listed or probe.rarity <= self.intensity
