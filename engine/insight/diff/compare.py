"""Two scans, joined target by target in DuckDB: who differs, and in what.

    def job(place):
        comparison = compare(place, "monday.ndjson.zst", "tuesday.state", watch)
        return comparison.counts["version"], list(comparison.findings(("new", "gone")))

    in_workspace("", job)

A target is an address, as bytes and with its zone, with port and protocol; where a row has no address, its host name
stands for it. Where an address was scanned under several names, a name that both scans have is a target of its own: it
may have another certificate. Of several rows for a target, the one begun last counts, among equals the last in the
input. What a row says of its port:

    open        it was reached and answers: verdict and fields count
    silent      it was reached, and is `closed`, `filtered` or `open|filtered`
    unreached   nobody knows: `incomplete` or `excluded`, whatever the state. It is counted, and never a finding;
                neither is a target whose name the other scan could not resolve

All rules stand in `_CONDITIONS`. Rows lie in DuckDB's file and its memory is bounded, so ours does not grow with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.errors import InputError
from engine.insight.diff.kinds import all_kinds
from engine.insight.rows import Loaded, Workspace, load_rows
from engine.offline.reading import Watch
from engine.state.journal import read_journal
from engine.state.records import ended

_ALWAYS = ("state", "name", "product", "version", "tunnel")  # texts
_COLUMNS = (*_ALWAYS, "reason", "tls")
_LISTS = ("cpe",)
_TLS = ("subject", "issuer", "names", "not_after", "sha256")
_FETCHED = 1000  # findings at a time

_UNREACHED = ("cancelled", "budget", "crashed", "unresolved", "proxy")
_STANDING = f"""CASE
    WHEN reason IN {_UNREACHED} OR verdict = 'excluded' THEN 'unreached'
    WHEN state IN ('closed', 'filtered', 'open|filtered') THEN 'silent'
    WHEN verdict = 'incomplete' THEN 'unreached'
    ELSE 'open' END"""

_ADDRESS = """coalesce(
    CASE WHEN contains(ip, '%') THEN ip_bytes || encode(regexp_extract(ip, '%.*')) ELSE ip_bytes END,
    encode(repeat(' ', 17) || lower(coalesce(host, ''))))"""  # a name is never 16 bytes
_RDN = r"(?:[^,+\\]|\\.)"  # a character of a name's part, escaped or not, as RFC 4514 has it
_ORGANISATION = f"nullif(regexp_extract({{}}.tls.issuer, '^(?:{_RDN}*[,+])*?O=({_RDN}+)', 1), '')"
_SAME_NAMES = """o.tls.subject IS NOT DISTINCT FROM n.tls.subject
    AND list_sort(coalesce(o.tls.names, [])) = list_sort(coalesce(n.tls.names, []))"""
_SAME_ISSUER = f"""(o.tls.issuer IS NOT DISTINCT FROM n.tls.issuer
    OR coalesce({_ORGANISATION.format("o")} = {_ORGANISATION.format("n")}, false))"""
_RENEWED = f"({_SAME_NAMES} AND {_SAME_ISSUER} AND coalesce(n.tls.not_after > o.tls.not_after, false))"
_BOTH_OPEN = "o.standing = 'open' AND n.standing = 'open'"
_CONDITIONS: Mapping[str, str] = {
    "new": "o.standing IS NULL AND n.standing = 'open'",
    "gone": "o.standing = 'open' AND n.standing IS NULL",
    "state": "o.standing <> n.standing AND o.standing <> 'unreached' AND n.standing <> 'unreached'",
    "service": f"{_BOTH_OPEN} AND o.name IS DISTINCT FROM n.name",
    "product": f"{_BOTH_OPEN} AND o.product IS DISTINCT FROM n.product",
    "version": f"{_BOTH_OPEN} AND o.product IS NOT DISTINCT FROM n.product AND o.version IS DISTINCT FROM n.version",
    "certificate": f"{_BOTH_OPEN} AND o.tls.sha256 <> n.tls.sha256 AND NOT {_RENEWED}",
    "renewed": f"{_BOTH_OPEN} AND o.tls.sha256 <> n.tls.sha256 AND {_RENEWED}",
    "tls": f"{_BOTH_OPEN} AND o.tunnel IS DISTINCT FROM n.tunnel",
}


class Facts(Struct, frozen=True):
    """What one scan says of a target: what was compared, in the words of rows. values: what is absent is left out."""

    values: dict[str, Any]
    tls: dict[str, Any]

    def get(self, name: str) -> Any:
        return self.values.get(name, "")


class Finding(Struct, frozen=True):
    """kinds: what differs, in the order of KINDS. old, new: None where there is no row.

    doubtful: the other scan was not read, or not done, to its end, so that nobody knows whether it is new, or gone.
    """

    ip: str
    port: int
    proto: str
    host: str
    kinds: tuple[str, ...]
    old: Facts | None
    new: Facts | None
    doubtful: bool = False


class Side(Struct):
    """One of the scans. rows: read; doubled: further rows for a target; unreached: targets of which nobody knows.

    damage: why it is not the whole scan, for people; empty where it is.
    """

    name: str
    rows: int
    doubled: int
    unreached: int
    damage: str = ""


class Comparison(Struct):
    """targets: that both scans reached. counts: findings by kind, all kinds that were looked for.

    Its findings can be had as long as the workspace is open.
    """

    old: Side
    new: Side
    targets: int
    counts: dict[str, int]
    _place: Workspace
    _also: tuple[str, ...]

    def findings(self, kinds: Sequence[str], limit: int = 0) -> Iterator[Finding]:
        """All that are of one of the kinds, with these kinds alone, in order of address, port and protocol.

        limit: how many at most; 0 for all. One such iteration at a time.
        """
        names = tuple(self.counts)
        mask = sum(1 << names.index(kind) for kind in kinds)
        rows = self._place.connection.execute(
            _FINDINGS.format(columns=", ".join(_columns(self._also)), limit=f"LIMIT {limit}" if limit else ""), [mask]
        )
        while some := rows.fetchmany(_FETCHED):
            for ip, port, proto, host, found, *values in some:
                told = tuple(name for at, name in enumerate(names) if found & mask & 1 << at)
                half = len(values) // 2
                yield Finding(
                    *(ip, port, proto, host, told),
                    self._facts(values[:half]),
                    self._facts(values[half:]),
                    bool(("new" in told and self.old.damage) or ("gone" in told and self.new.damage)),
                )

    def _facts(self, values: Sequence[Any]) -> Facts | None:
        there, tls, *others = values
        if there is None:
            return None
        named = zip((*_ALWAYS, *self._also), others, strict=True)
        return Facts({name: value for name, value in named if value}, {k: v for k, v in (tls or {}).items() if v})


_FINDINGS = """
SELECT coalesce(n.ip, o.ip), coalesce(n.port, o.port), coalesce(n.proto, o.proto), coalesce(n.host, o.host, ''), kinds,
    {columns}
FROM pairs LEFT JOIN old_side o ON pairs.old = o.id LEFT JOIN new_side n ON pairs.new = n.id
WHERE kinds & ? <> 0
ORDER BY coalesce(n.address, o.address), 2, 3, 4
{limit}
"""


def _columns(also: Sequence[str]) -> Iterator[str]:
    for side in ("o", "n"):
        tls = ", ".join(f"{name}: {side}.tls.{name}" for name in _TLS)
        yield from (f"{side}.id", f"CASE WHEN {side}.tls IS NOT NULL THEN {{{tls}}} END")
        yield from (f"{side}.{name}" for name in (*_ALWAYS, *also))


def compare(place: Workspace, old: str, new: str, watch: Watch, also: Sequence[str] = ()) -> Comparison:
    """Two inputs, each as `convert` takes them. also: of kinds.ALSO.

    Raises ConfigError, InputError for an input of which nothing can be used, OutputError. What can be read in part is
    told to `watch`, and noted in `damage`.
    """
    damages = [_load(place, name, path, watch, also) for name, path in (("old", old), ("new", new))]
    place.connection.execute(_SHARED)
    sides = _side(place, "old", old, damages[0]), _side(place, "new", new, damages[1])
    return Comparison(*sides, *_pair(place, also), place, tuple(also))


def _load(place: Workspace, name: str, path: str, watch: Watch, also: Sequence[str]) -> str:
    """A view `{name}_all` of all rows. -> why it is not the whole scan"""
    loaded = load_rows(place, f"{name}_rows", [path], watch, (*_COLUMNS, *also))
    damage = _damage(loaded)
    if damage and not loaded.rows:
        raise InputError(path, 0, f"has no row that can be compared ({damage})")
    fields = ", ".join(map(_field, (*_ALWAYS, *also)))
    place.connection.execute(
        f"CREATE VIEW {name}_all AS SELECT rowid AS id, ip, {_ADDRESS} AS address, port, proto, nullif(host, '') AS "
        f"host, {_STANDING} AS standing, started, tls, {fields} FROM {name}_rows"
    )
    return damage


def _side(place: Workspace, name: str, path: str, damage: str) -> Side:
    """A view `{name}_side`, one row a target."""
    execute = place.connection.execute
    execute(_SIDE.format(name))
    (doubled,) = execute(_DOUBLED.format(name)).fetchone()
    rows, unreached = execute(f"SELECT count(*), count(*) FILTER (standing = 'unreached') FROM {name}_side").fetchone()
    return Side(path, rows + doubled, doubled, unreached, damage)


def _field(name: str) -> str:
    """A column of a side: what says nothing is null."""
    if name in _LISTS:
        return name
    text = f"nullif({name}, '')"
    return f"nullif({text}, 'unknown') AS name" if name == "name" else f"{text} AS {name}"


_SHARED = """
CREATE TABLE shared AS
WITH several AS (
    SELECT address, port, proto FROM old_all GROUP BY ALL HAVING count(*) > 1
    UNION SELECT address, port, proto FROM new_all GROUP BY ALL HAVING count(*) > 1
)
SELECT address, port, proto, lower(host) AS shared_name FROM old_all SEMI JOIN several USING (address, port, proto)
INTERSECT SELECT address, port, proto, lower(host) FROM new_all SEMI JOIN several USING (address, port, proto)
"""
"""Names that both scans have for an address of which one has several rows."""

_SIDE = """
CREATE TABLE {0}_doubled (id BIGINT);
CREATE VIEW {0}_side AS SELECT a.*, coalesce(shared_name, '') AS name_of
FROM {0}_all a LEFT JOIN shared s
    ON a.address = s.address AND a.port = s.port AND a.proto = s.proto AND lower(a.host) = shared_name
WHERE id NOT IN (SELECT id FROM {0}_doubled)
"""

_DOUBLED = """
INSERT INTO {0}_doubled
SELECT id FROM {0}_side SEMI JOIN (
    SELECT address, port, proto, name_of FROM {0}_side GROUP BY ALL HAVING count(*) > 1
) USING (address, port, proto, name_of)
QUALIFY row_number() OVER (PARTITION BY address, port, proto, name_of ORDER BY started DESC, id DESC) > 1
"""


def _damage(loaded: Loaded) -> str:
    """Why an input is not the whole scan, as far as anybody can know."""
    reasons = [] if loaded.whole else ["not all of it could be read"]
    for source in loaded.sources:
        if source.state:
            end = ended(read_journal(Path(source.name))[1])
            reasons.append(end.words() if end is not None else "its run has not ended, or was killed")
    return "; ".join(filter(None, reasons))


def _pair(place: Workspace, also: Sequence[str]) -> tuple[int, dict[str, int]]:
    """The table `pairs`: the two rows of each target, and what differs as bits of `kinds`.

    -> how many both reached, findings by kind
    """
    names = all_kinds(also)
    conditions = dict(_CONDITIONS) | {name: f"{_BOTH_OPEN} AND o.{name} IS DISTINCT FROM n.{name}" for name in also}
    kinds = " | ".join(f"CASE WHEN {conditions[name]} THEN {1 << at} ELSE 0 END" for at, name in enumerate(names))
    execute = place.connection.execute
    execute(
        f"CREATE TABLE pairs AS SELECT o.id AS old, n.id AS new, {kinds} AS kinds, "
        "o.standing <> 'unreached' AND n.standing <> 'unreached' AS reached "
        "FROM old_side o FULL JOIN new_side n ON o.address = n.address AND o.port = n.port AND o.proto = n.proto "
        "AND o.name_of = n.name_of"
    )
    for kind, there, other in (("new", "new", "old"), ("gone", "old", "new")):
        execute(_UNRESOLVED.format(there=there, other=other, bit=1 << names.index(kind)))
    sums = ", ".join(f"coalesce(sum((kinds & {1 << at}) // {1 << at}), 0)" for at in range(len(names)))
    targets, *counts = execute(f"SELECT coalesce(sum(reached::INT), 0), {sums} FROM pairs").fetchone()
    return int(targets), dict(zip(names, map(int, counts), strict=True))


_UNRESOLVED = """
UPDATE pairs SET kinds = 0 WHERE kinds & {bit} <> 0 AND {there} IN (
    SELECT there.id FROM {there}_side there SEMI JOIN {other}_side other ON lower(there.host) = lower(other.host)
        AND there.port = other.port AND there.proto = other.proto AND other.ip = '' AND other.standing = 'unreached'
)"""
