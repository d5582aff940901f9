"""What a scan found, in numbers: rows in DuckDB -> `Report`, which every form of output prints and none counts again.

`rows` is the table that `insight.rows.load_rows` makes: the columns of a result row, and `source`. A port counts
as *recognised* where a line of the database has matched (hardmatched, softmatched); the rest of what is open is
*unknown*. Certificates are judged at the time of the newest row, not at the time at which the report is written, so
that the same rows give the same report.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.insight.report.told import Certificate, Count, Product, Report, Source, Unknown, Version
from engine.insight.report.versions import comparable, compare, version_key

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PRODUCTS = 200  # told of, the most frequent first
VERSIONS = 30  # told of each product
COMPARED = 200_000  # versions; of more, the most frequent
GROUPS = 60  # of what nobody recognised
CERTIFICATES = 100  # told of, those that end first
HEAT_PORTS, HEAT_SERVICES = 24, 16
SHORT = 40  # lines of the other tables

WAITS = (("expired", 0), ("within 7 days", 7), ("within 30 days", 30), ("within 90 days", 90), ("within a year", 365))
LATER = "later"


# One place says what a row is to people; the page's table and the tickets read it, too.
FACTS = r"""
CREATE OR REPLACE VIEW facts AS SELECT *, rowid AS row,
    coalesce(nullif(ip, ''), host, '') AS address,
    coalesce(verdict IN ('hardmatched', 'softmatched'), false) AS is_known,
    NOT is_known AND coalesce(state, '') IN ('open', '') AND verdict IN ('nomatch', 'tcpwrapped') AS is_unknown,
    CASE WHEN tunnel = 'ssl' THEN 'ssl/' ELSE '' END || coalesce(nullif(name, ''), 'unknown')
        || CASE WHEN state = 'open' AND conf <= 5 AND name <> '' AND name <> 'unknown' THEN '?' ELSE '' END AS service,
    CASE WHEN ip LIKE '%:%' THEN '[' || ip || ']' ELSE coalesce(nullif(ip, ''), host, '') END || ':' || port
        || CASE WHEN proto = 'tcp' THEN '' ELSE '/' || proto END AS place,
    port || '/' || proto AS port_name
FROM rows
"""

# The same beside what the comparison of versions says of a row, once it is made.
JUDGED = """
CREATE OR REPLACE VIEW judged AS SELECT facts.*, compared.newest, coalesce(compared.is_old, false) AS is_old
FROM facts LEFT JOIN compared USING (product, version)
"""

# What the first probe that got an answer got: of the fingerprint, which is broken into lines that begin with `SF:`.
_ANSWER = r"""regexp_extract(replace(fingerprint, chr(10) || 'SF:', ''),
    '%r\((\w+),[0-9A-F]+,"((?:[^"\\]|\\.)*)"', ['probe', 'answer'], 's')"""
_DATES = r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b"
_SAID = r"replace(left(found.answer, 600), '\x20', ' ')"
_FOLDED = (
    f"regexp_replace(regexp_replace(regexp_replace({_SAID}, '{_DATES}', '@', 'g'),"
    r" '[0-9a-fA-F]{8,}', '#', 'g'), '[0-9]+', '#', 'g')"
)


def gather(connection: "DuckDBPyConnection", sources: Iterable[Source]) -> Report:
    """All that is told of the table `rows`. Leaves the views `facts` and `judged`: with words for people."""
    connection.execute(FACTS)
    return _Gathering(connection, Report(list(sources))).report()


class _Gathering:
    def __init__(self, connection: "DuckDBPyConnection", report: Report) -> None:
        self._report = report
        self._connection = connection

    def report(self) -> Report:
        self._whole()
        self._services()
        self._products()
        self._tls()
        self._unknowns()
        return self._report

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return found

    def _counts(self, name: str, where: str = "true", limit: int = SHORT, more: str = "''") -> list[Count]:
        """name, more: SQL of what is counted, and of what is said beside it."""
        found = self._all(
            f"SELECT {name} AS name, count(*), count(DISTINCT address), coalesce({more}, '') AS more FROM facts "
            f"WHERE {where} GROUP BY ALL ORDER BY 2 DESC, name, more LIMIT {limit}"
        )
        return [Count(*values) for values in found]

    def _whole(self) -> None:
        report = self._report
        (numbers,) = self._all(
            "SELECT count(*), count(DISTINCT address), count(DISTINCT port_name), count(*) FILTER (is_known), "
            "count(*) FILTER (is_unknown), count(*) FILTER (reason = 'cancelled'), "
            "count(*) FILTER (pseudo IS NOT NULL), "
            f"{as_time('min(started)')}, {as_time('max(started)')} FROM facts"
        )
        report.rows, report.hosts, report.ports, report.recognised, report.unknown = numbers[:5]
        report.cancelled, report.pseudo, report.first, report.last = numbers[5:]
        report.outcomes = self._counts("verdict", more="reason")
        report.databases = self._counts("database.name", "database IS NOT NULL", more="database.sha256")

    def _services(self) -> None:
        report = self._report
        report.services = self._counts("service", "is_known")
        report.systems = self._counts("ostype", "ostype <> ''")
        report.devices = self._counts("devicetype", "devicetype <> ''")
        report.heat = [
            (port, service, rows)
            for port, service, rows in self._all(
                "WITH seen AS (SELECT port, proto, port_name, service, count(*) AS rows FROM facts "
                "  WHERE is_known OR is_unknown GROUP BY ALL), "
                "ports AS (SELECT port_name FROM seen GROUP BY ALL ORDER BY sum(rows) DESC, port_name LIMIT ?), "
                "services AS (SELECT service FROM seen GROUP BY ALL ORDER BY sum(rows) DESC, service LIMIT ?) "
                "SELECT port_name, service, rows FROM seen SEMI JOIN ports USING (port_name) "
                "SEMI JOIN services USING (service) ORDER BY port, proto, service",
                HEAT_PORTS,
                HEAT_SERVICES,
            )
        ]

    def _products(self) -> None:
        report = self._report
        seen: dict[str, dict[str, int]] = {}
        found = self._all(
            "SELECT product, version, count(*) FROM facts WHERE product <> '' AND version <> '' "
            f"GROUP BY ALL ORDER BY 3 DESC, 1, 2 LIMIT {COMPARED + 1}"
        )
        if len(found) > COMPARED:
            report.notes.append(f"Of all versions, the {COMPARED:,} most frequent were compared.")
        for product, version, rows in found[:COMPARED]:
            seen.setdefault(product, {})[version] = rows
        judged = self._judged(seen)
        told = self._all(
            "SELECT product, mode(name), count(*), count(DISTINCT address) FROM facts WHERE product <> '' "
            "GROUP BY product ORDER BY 3 DESC, 1"
        )
        report.product_count = len(told)
        for at, (product, service, rows, hosts) in enumerate(told):
            versions = seen.get(product, {})
            newest, old = judged.get(product, ("", set()))
            behind = sum(versions[version] for version in old)
            report.old += behind
            if at >= PRODUCTS:
                continue
            most = sorted(versions, key=lambda version: -versions[version])[:VERSIONS]
            if newest and newest not in most:
                most[-1] = newest
            lines = [Version(version, versions[version], version in old) for version in sorted(most, key=version_key)]
            current = sum(versions[version] for version in comparable(versions) - old)
            left = len(versions) - len(most)
            report.products.append(Product(product, service or "", rows, hosts, newest, behind, current, lines, left))

    def _judged(self, seen: dict[str, dict[str, int]]) -> dict[str, tuple[str, set[str]]]:
        """By product, what `compare` says; also as a table, for whoever tells of single rows."""
        judged = {product: compare(versions) for product, versions in seen.items()}
        lines = [
            (product, version, judged[product][0], version in judged[product][1])
            for product, versions in seen.items()
            for version in versions
        ]
        columns = "unnest(?::VARCHAR[]) AS product, unnest(?::VARCHAR[]) AS version, unnest(?::VARCHAR[]) AS newest"
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE compared AS SELECT {columns}, unnest(?::BOOLEAN[]) AS is_old",
            [list(column) for column in zip(*lines, strict=True)] or [[], [], [], []],
        )
        self._connection.execute(JUDGED)
        return judged

    def _tls(self) -> None:
        tls = self._report.tls
        has_tls = "tls IS NOT NULL"
        (numbers,) = self._all(
            "SELECT count(*), count(DISTINCT tls.sha256), count(*) FILTER (tls.self_signed) FROM facts WHERE " + has_tls
        )
        tls.rows, tls.certificates, tls.self_signed = numbers
        tls.protocols = self._counts("tls.protocol", "tls.protocol <> ''")
        tls.keys = self._counts("tls.key", "tls.key <> ''")
        days = "date_diff('second', (SELECT max(started) FROM facts), tls.not_after) / 86400.0"
        steps = " ".join(f"WHEN days < {end} THEN '{name}'" for name, end in WAITS)
        ends = f"WITH ends AS (SELECT *, {days} AS days FROM facts WHERE tls.not_after IS NOT NULL) "
        found = self._all(
            ends + f"SELECT CASE {steps} ELSE '{LATER}' END, count(*), count(DISTINCT address) FROM ends GROUP BY 1"
        )
        counts = {name: (rows, hosts) for name, rows, hosts in found}
        if counts:
            tls.expiry = [Count(name, *counts.get(name, (0, 0))) for name in (*dict(WAITS), LATER)]
        tls.ending = [
            Certificate(subject, place, rows, end, int(left // 1), own)
            for subject, end, left, rows, place, own in self._all(
                ends + "SELECT coalesce(nullif(tls.subject, ''), tls.names[1], ''), "
                f"{as_time('tls.not_after')}, min(days), count(*), min_by(place, row), "
                "bool_or(coalesce(tls.self_signed, false)) FROM ends "
                f"WHERE days < 90 GROUP BY 1, 2, tls.sha256 ORDER BY 2, 4 DESC, 1, tls.sha256 LIMIT {CERTIFICATES}"
            )
        ]

    def _unknowns(self) -> None:
        report = self._report
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE shapes AS "
            f"WITH answers AS (SELECT row, place, address, bytes, name, is_known, {_ANSWER} AS found FROM facts "
            "  WHERE is_unknown OR (is_known AND fingerprint <> '')) "
            f"SELECT CASE WHEN is_known THEN name ELSE '' END AS service, coalesce(found.probe, '') AS probe, "
            f"CASE WHEN coalesce(found.answer, '') <> '' THEN {_FOLDED} WHEN bytes > 0 THEN '' END AS answer, "
            "count(*) AS rows, count(DISTINCT address) AS hosts, min(row) AS first, min_by(place, row) AS place "
            "FROM answers GROUP BY 1, 2, 3"
        )
        ((report.unknown_groups,),) = self._all("SELECT count(*) FROM shapes")
        report.unknowns = [
            Unknown(service or "", probe, _answer(answer), rows, hosts, place, fingerprint or "")
            for service, probe, answer, rows, hosts, place, fingerprint in self._all(
                "SELECT told.service, probe, answer, told.rows, hosts, told.place, facts.fingerprint FROM "
                f"(FROM shapes ORDER BY rows DESC, first LIMIT {GROUPS}) AS told "
                "JOIN facts ON facts.row = first ORDER BY told.rows DESC, first"
            )
        ]


def _answer(answer: str | None) -> str:
    if answer is None:
        return "(no answer)"
    return answer or "(an answer that the rows do not hold)"


def as_time(moment: str) -> str:
    """SQL of a time to the second, as people read it; an empty text for none. moment: SQL of it."""
    return f"coalesce(strftime(make_timestamp(epoch_us({moment})), '%Y-%m-%d %H:%M:%S UTC'), '')"
