"""Several databases as one: `--probes A --probes B`.

Probes that send the same bytes over the same protocol become one, in the place and under the name and times of the
first; its lines are A's, then B's. Only the softmatch lines at the end of A's list step back behind B's hard lines:
otherwise a general "it is http" of A would hide every product that B knows. All other probes follow in file order.
Every signature keeps its file and line, so a result tells which database knew.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import takewhile

from msgspec.structs import replace

from matcher.model import PortSet, Probe, ProbeDatabase, Signature, SignatureId


def merge_databases(databases: Sequence[ProbeDatabase]) -> ProbeDatabase:
    """One database of several, first to count first. One alone is returned as it is."""
    if len(databases) == 1:
        return databases[0]
    places: dict[tuple[str, bytes], int] = {}
    groups: list[list[tuple[ProbeDatabase, Probe]]] = []
    for database in databases:
        for probe in database.probes:
            key = ("" if probe.is_null else probe.proto, probe.payload)
            # A database may hold the same bytes twice on purpose; such twins stay apart.
            twin = key in places and any(owner is database for owner, _ in groups[places[key]])
            if key not in places or twin:
                places[key] = len(groups)
                groups.append([])
            groups[places[key]].append((database, probe))
    moved = {(id(database), probe.index): index for index, group in enumerate(groups) for database, probe in group}
    null_index = next((index for index, group in enumerate(groups) if group[0][1].is_null), None)
    probes = []
    next_id = 0
    for index, group in enumerate(groups):
        lines = _joined([probe.signatures for _, probe in group])
        numbered = tuple(replace(line, id=SignatureId(next_id + place)) for place, line in enumerate(lines))
        next_id += len(numbered)
        first = group[0][1]
        lists = [moved[id(database), other] for database, probe in group for other in probe.lists]
        if null_index is not None and first.proto == "tcp":
            lists = [other for other in lists if other != null_index] + [null_index]
        probes.append(
            replace(
                first,
                index=index,
                signatures=numbered,
                ports=_union(probe.ports for _, probe in group),
                sslports=_union(probe.sslports for _, probe in group),
                rarity=min(probe.rarity for _, probe in group),
                lists=tuple(dict.fromkeys(lists)),
                services=frozenset(line.service for line in numbered),
            )
        )
    return ProbeDatabase(
        name="+".join(database.name for database in databases),
        sha256=hashlib.sha256("".join(database.sha256 for database in databases).encode()).hexdigest(),
        probes=tuple(probes),
        null_index=null_index,
        exclude_tcp=_union(database.exclude_tcp for database in databases),
        exclude_udp=_union(database.exclude_udp for database in databases),
    )


def _union(sets: Iterable[PortSet]) -> PortSet:
    return PortSet(tuple(dict.fromkeys(span for ports in sets for span in ports.ranges)))


def _joined(lists: Sequence[tuple[Signature, ...]]) -> list[Signature]:
    """The lists one after another, the soft tail of each behind the hard lines of those after it."""
    front: list[Signature] = []
    tails: list[Signature] = []
    for lines in lists:
        tail = len(list(takewhile(lambda line: line.soft, reversed(lines))))
        cut = len(lines) - tail
        front += lines[:cut]
        tails += lines[cut:]
    return front + tails
