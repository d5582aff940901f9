"""What is to be thought of a node by what it says of itself, before anything is sent there. Pure.

Contract: every finding that is not `ok` says in one line how to mend it. `bad`: a scan would fail there, or lose what
it does; `warning`: it would be slower, or less exact. docs/cluster.md has the reasons in full.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from engine.model import ScanConfig
from engine.pool.cluster.engine import Node
from engine.pool.cluster.facts import NodeFacts
from engine.pool.cluster.settings import ClusterSettings, Zones
from engine.pool.descriptors import LEAST_DESCRIPTORS, MAX_INFLIGHT, SPARE_DESCRIPTORS
from engine.pool.limits import share
from engine.state.attempt import Staging

TRACKED_S = 120  # for which a connection is tracked after its end, by Linux's defaults
FAST = 5_000.0  # connections per second that a node should bear where nobody says how many it will be
ACTOR_BYTES = 300_000_000  # of memory, about: an actor with its database and its conversations
CLOCK_S = 2.0  # beyond it the times in rows are misleading
CLOCK_BAD_S = 600.0  # beyond it object stores begin to refuse
ALL = "all nodes"


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Finding(Struct, frozen=True):
    """name: what was looked at; value: what was found, for people; mend: how to mend it, empty where all is well."""

    name: str
    value: str
    verdict: Verdict = Verdict.OK
    mend: str = ""


class Seen(Struct, frozen=True):
    """What a driver has learned of a node. facts: None where it does not answer, and `trouble` says why.

    clock: how many seconds it is ahead, and by how many that may be wrong. put: whether the driver sees what the node
    has put in the place of segments; None where it could not put anything, and `put_trouble` says why.
    """

    node: Node
    facts: NodeFacts | None
    trouble: str = ""
    clock: tuple[float, float] = (0.0, 0.0)
    put: bool | None = None
    put_trouble: str = ""


class Terms(Struct, frozen=True):
    """By what nodes are judged: the scan that is to be. ours: the driver's own facts; nodes: how many have actors."""

    config: ScanConfig
    settings: ClusterSettings
    staging: Staging | None
    ours: NodeFacts
    nodes: int


class NodeReport(Struct, frozen=True):
    """node: its address, or `all nodes`."""

    node: str
    findings: tuple[Finding, ...]
    facts: NodeFacts | None = None


def room(node: Node, config: ScanConfig, settings: ClusterSettings) -> int:
    """The most actors that it may have."""
    most = int(node.cpus / settings.cpus_per_actor)
    return min(most, config.workers) if config.workers else most


def report(seen: Seen, terms: Terms) -> NodeReport:
    """What is to be said of one node."""
    facts = seen.facts
    if facts is None:
        mend = "see that it is alive, and that the same probemill is installed there"
        return NodeReport(seen.node.address, (Finding("answer", seen.trouble, Verdict.BAD, mend),))
    actors = room(seen.node, terms.config, terms.settings)
    findings = [
        *_same(facts, terms.ours),
        _cpus(seen.node, facts, actors),
        *(_resources(facts, actors, terms) if actors else ()),
        _clock(*seen.clock),
        *(_sources(facts, terms.config.sources) if terms.config.sources and actors else ()),
        _zones(seen.node, terms.settings),
        *(_segments(seen, terms.staging) if terms.staging is not None else ()),
    ]
    return NodeReport(seen.node.address, tuple(findings), facts)


def of_all(seen: Sequence[Seen], terms: Terms) -> NodeReport:
    """What can be said of the nodes together only."""
    zones = Zones(terms.settings.zones)
    taken = Counter(
        zone
        for each in seen
        if each.facts and room(each.node, terms.config, terms.settings)
        for zone in zones.of_node(each.node.resources)
    )
    engines = sorted({each.facts.engine for each in seen if each.facts and each.facts.engine})
    findings = []
    if not taken:
        mend = "start a node with CPUs (`ray start --address HEAD:6379 --num-cpus N`)"
        findings.append(Finding("actors", "there is room for none", Verdict.BAD, mend))
    elif not taken[""]:
        mend = "start a node without a `zone:` resource, if there are targets outside of all zones"
        findings.append(Finding("actors", "every node is in a zone", Verdict.WARNING, mend))
    for zone in terms.settings.zones:
        if not taken[zone]:
            mend = f"start one with --resources '{{\"zone:{zone}\": 1}}', or its targets wait, and the scan ends"
            findings.append(Finding(f"zone {zone}", "no node is in it", Verdict.BAD, mend))
    if len(engines) > 1:
        mend = "install the same extras on all nodes; answers are equal, speeds are not"
        findings.append(Finding("matching engines", ", ".join(engines), Verdict.WARNING, mend))
    return NodeReport(ALL, tuple(findings))


def worst(reports: Sequence[NodeReport]) -> Verdict:
    found = {finding.verdict for report in reports for finding in report.findings}
    return next((verdict for verdict in (Verdict.BAD, Verdict.WARNING) if verdict in found), Verdict.OK)


# -- one fact each


def _judged(name: str, value: str, verdict: Verdict, mend: str) -> Finding:
    return Finding(name, value, verdict, "" if verdict is Verdict.OK else mend)


def _same(facts: NodeFacts, ours: NodeFacts) -> Iterator[Finding]:
    minors = [".".join(said.python.split(".")[:2]) for said in (facts, ours)]
    for name, theirs, mine, equal in (
        ("probemill", facts.version, ours.version, facts.version == ours.version),
        ("Python", facts.python, ours.python, minors[0] == minors[1]),
        ("Ray", facts.ray, ours.ray, facts.ray == ours.ray),
    ):
        verdict = Verdict.OK if equal else Verdict.BAD
        yield _judged(name, theirs or "none", verdict, f"install {mine} there, as it is at the driver")
    same = facts.database == ours.database
    value = facts.database[:12] or "cannot be read"
    verdict = Verdict.OK if same else Verdict.BAD
    yield _judged("database", value, verdict, f"the driver has {ours.database[:12]}: install the same probemill there")
    if not facts.engine:
        yield Finding("matching", "not there", Verdict.BAD, "install what --matcher asks for, or leave it out")
        return
    verdict = Verdict.OK if facts.engine == ours.engine else Verdict.WARNING
    mend = f"the driver has {ours.engine}: install the same extras (probemill[fast] has hyperscan)"
    yield _judged("matching", facts.engine, verdict, mend)


def _cpus(node: Node, facts: NodeFacts, actors: int) -> Finding:
    if not actors:
        return Finding("CPUs", f"{node.cpus:g} for Ray, so nothing is scanned there")
    value = f"{node.cpus:g} for Ray of {facts.cpus}, {actors} actor{'s' * (actors != 1)}"
    verdict = Verdict.OK if node.cpus <= facts.cpus else Verdict.WARNING
    return _judged("CPUs", value, verdict, f"start Ray there with --num-cpus {facts.cpus}: actors share cores")


def _resources(facts: NodeFacts, actors: int, terms: Terms) -> Iterator[Finding]:
    """What conversations need."""
    each = max(1, int(share(terms.config.max_inflight or MAX_INFLIGHT, actors)))
    yield _descriptors(facts, each)
    yield _ports(facts, each * actors, max(1, len(facts.sources)))
    yield _conntrack(facts, each * actors, terms)
    yield _time_wait(facts, each * actors)
    if facts.memory is not None:
        needed = actors * ACTOR_BYTES
        verdict = Verdict.OK if facts.memory >= needed else Verdict.WARNING
        mend = f"{actors} actors may take {needed / 1e9:.1f} GB: fewer of them (cpus_per_actor), or more memory"
        yield _judged("memory", f"{facts.memory / 1e9:.1f} GB free", verdict, mend)


def _descriptors(facts: NodeFacts, each: int) -> Finding:
    soft, hard = facts.descriptors
    wanted = each + SPARE_DESCRIPTORS
    shown = ["unlimited" if limit < 0 else f"{limit:,}" for limit in (soft, hard)]
    value = f"{shown[0]} soft, {shown[1]} hard; an actor wants {wanted:,}"
    if hard < 0 or hard >= wanted:
        return Finding("descriptors", value)
    verdict = Verdict.BAD if hard < LEAST_DESCRIPTORS else Verdict.WARNING
    mend = f"`ulimit -Hn {wanted}` or more before `ray start`, or what its service or container runtime has for it"
    return Finding("descriptors", value, verdict, mend)


def _ports(facts: NodeFacts, conversations: int, sources: int) -> Finding:
    if facts.ports is None:
        return Finding("local ports", "not to be seen")
    low, high = facts.ports
    value = f"{facts.usable_ports:,} ({low} to {high})" + f" of each of {sources} sources" * (sources > 1)
    if facts.ray_ports:
        mend = "keep Ray's own out of them: sysctl net.ipv4.ip_local_reserved_ports=10002-19999"
        return Finding("local ports", value, Verdict.WARNING, mend)
    verdict = Verdict.OK if facts.usable_ports * sources >= conversations else Verdict.WARNING
    mend = f"{conversations:,} conversations may want one each: widen net.ipv4.ip_local_port_range, or add a --source"
    return _judged("local ports", value, verdict, mend)


def _conntrack(facts: NodeFacts, conversations: int, terms: Terms) -> Finding:
    if facts.conntrack is None:
        return Finding("connection tracking", "none")
    count, most = facts.conntrack
    rate = share(terms.config.rate, terms.nodes) if terms.config.rate else FAST
    wanted = count + int(rate * TRACKED_S)
    bearable = max(0, most - count) / TRACKED_S
    value = f"{count:,} of {most:,} entries: room for {bearable:,.0f} connections/s" if count else "nothing is tracked"
    if most >= wanted or not count:  # where even this process's own connections have none, nothing is tracked
        return Finding("connection tracking", value)
    verdict = Verdict.BAD if most - count < min(conversations, wanted - count) else Verdict.WARNING
    mend = f"net.netfilter.nf_conntrack_max={wanted} bears {rate:,.0f}/s; or exempt the scan (NOTRACK), or set a --rate"
    return Finding("connection tracking", value, verdict, mend)


def _time_wait(facts: NodeFacts, conversations: int) -> Finding:
    reuse, buckets = facts.tw_reuse, facts.tw_buckets
    if reuse is None and buckets is None:
        return Finding("TIME_WAIT", "not to be seen")
    value = f"tcp_tw_reuse {'?' if reuse is None else reuse}, {'?' if buckets is None else f'{buckets:,}'} buckets"
    if reuse == 0:
        mend = "sysctl net.ipv4.tcp_tw_reuse=1, or scan with --reset: ports stay taken for a minute"
        return Finding("TIME_WAIT", value, Verdict.WARNING, mend)
    verdict = Verdict.WARNING if buckets is not None and buckets < conversations else Verdict.OK
    return _judged("TIME_WAIT", value, verdict, f"sysctl net.ipv4.tcp_max_tw_buckets={conversations} or more")


def _clock(ahead: float, unsure: float) -> Finding:
    off = max(0.0, abs(ahead) - unsure)
    value = "the driver's, within 0.1 s"
    if abs(ahead) + unsure > 0.1:
        value = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the driver's, give or take {unsure:.1f}"
    verdict = Verdict.OK if off <= CLOCK_S else Verdict.WARNING if off <= CLOCK_BAD_S else Verdict.BAD
    return _judged("clock", value, verdict, "let both follow a time server (chrony): rows carry their node's time")


def _sources(facts: NodeFacts, asked: Sequence[str]) -> Iterator[Finding]:
    value = f"{len(facts.sources)} of {len(asked)}: {', '.join(facts.sources)}" if facts.sources else "none of them"
    verdict = Verdict.OK if facts.sources else Verdict.BAD
    yield _judged("sources", value, verdict, "give the node one of the addresses of --source, or name one that it has")


def _zones(node: Node, settings: ClusterSettings) -> Finding:
    zones = [zone for zone in Zones(settings.zones).of_node(node.resources) if zone]
    unknown = [zone for zone in zones if zone not in settings.zones]
    verdict = Verdict.WARNING if unknown else Verdict.OK
    mend = f"name the networks of {', '.join(unknown)} in the file of --ray-options, or nothing is scanned there"
    return _judged("zones", ", ".join(zones) or "none", verdict, mend)


def _segments(seen: Seen, staging: Staging) -> Iterator[Finding]:
    store = "://" in staging.where
    shared = "give it the driver's store, endpoint and credentials"
    if not store:
        shared = "share this folder, under this path, with all nodes (NFS, ReadWriteMany), or say --segments s3://..."
    if seen.put is None:
        yield Finding("segments", f"cannot be put: {seen.put_trouble}", Verdict.BAD, shared)
    elif not seen.put:
        value = f"put there, and not seen at the driver: {staging.where} is another {'store' if store else 'folder'}"
        yield Finding("segments", value, Verdict.BAD, shared)
    else:
        yield Finding("segments", "put there, seen at the driver, and removed")
