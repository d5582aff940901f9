"""The rows of the page's table, column by column, small enough for one file and quick to search: for page/store.js.

A column of *words* has each distinct text once, in the order in which the column sorts, an empty one first, and a
number a row into them: a search looks through the texts and then for their numbers, and sorting is counting. A column
of *numbers* has a number a row, less the least of them. Numbers are little-endian, of as few bytes as they need (8
bytes: a float), and, where they never fall, each less the one before it; where all are the same, there are none. Texts
are JSON. Both are gzip, in base64.

Long texts (fingerprints, certificates, what post-processing found) are told only where they have room: `ROOM`
characters of distinct texts a column, the most frequent first; the page says that others were left out. Of a text that
is longer than `LONGEST`, the page has the beginning; of one that is JSON, what `shortened` leaves.
"""

import base64
import gzip
import json
import sys
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.insight.report.shortened import shortened
from engine.insight.report.versions import version_key

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROOM = 48_000_000  # characters of the distinct texts of a long column
LONGEST = 16_384  # characters of one text
SORTED_BY_HAND = 400_000  # distinct versions; beyond, their texts sort
LEFT_OUT = "\0"  # stands for a text that had no room; page/store.js knows it
_LEVEL = 6


class Field(Struct, frozen=True):
    """A column of the blob. text: SQL over `judged`. kind: `words`, `long` or `number`. order: SQL that sorts words.

    title: of a column of the table; others are told only of the row that is looked at. searched: without being named.
    """

    name: str
    text: str
    kind: str = "words"
    title: str = ""
    order: str = "text"
    searched: bool = False

    def sql(self) -> str:
        return f"coalesce({self.text}, 0)" if self.kind == "number" else f"left(coalesce({self.text}, ''), {LONGEST})"


_EXPIRES = (
    "CASE WHEN tls.not_after IS NULL THEN '' ELSE strftime(make_timestamp(epoch_us(tls.not_after)), '%Y-%m-%d') END"
)
_CERTIFICATE = "concat_ws(' ', nullif(tls.subject, ''), nullif(array_to_string(tls.names, ' '), ''))"


def _bounded(said: str) -> str:
    """said: SQL of JSON."""
    return f"CASE WHEN length({said}) > {LONGEST} THEN shortened({said}) ELSE {said} END"


def _json(name: str) -> str:
    return _bounded(f"CAST(to_json({name}) AS VARCHAR)")


FIELDS = (
    Field("address", "address", title="Address", order="least NULLS FIRST, text", searched=True),
    Field("port", "port_name", title="Port", order="port, text", searched=True),
    Field("state", "state", title="State"),
    Field("service", "service", title="Service", searched=True),
    Field("product", "product", title="Product", searched=True),
    Field("version", "version", title="Version", searched=True),
    Field("info", "extrainfo", title="Info", searched=True),
    Field("host", "coalesce(nullif(hostname, ''), host, '')", title="Host name", searched=True),
    Field("expires", _EXPIRES, title="TLS until"),
    Field("verdict", "verdict", searched=True),
    Field("reason", "reason", searched=True),
    Field("os", "ostype", searched=True),
    Field("device", "devicetype", searched=True),
    Field("method", "method"),
    Field("cpe", "array_to_string(cpe, ' ')", searched=True),
    Field("certificate", _CERTIFICATE, "long", searched=True),
    Field("evidence", _json("evidence")),
    Field("tls", _json("tls"), "long"),
    Field("post", _bounded("post"), "long"),
    Field("pseudo", _json("pseudo")),
    Field("fingerprint", "fingerprint", "long"),
    Field("given", "host"),
    Field("newest", "newest"),
    Field("age", "CASE WHEN is_old THEN 'older' END"),
    Field("database", "database.name"),
    Field("conf", "conf", "number"),
    Field("source", "source", "number"),
    Field("started", "epoch_ms(started)", "number"),
    Field("elapsed_ms", "elapsed_ms", "number"),
    Field("connections", "connections", "number"),
    Field("bytes", "bytes", "number"),
)


class Blob(Struct):
    """layout: JSON values for page/store.js. parts: base64, by names of the layout. notes: what is missing."""

    layout: dict[str, Any]
    parts: dict[str, str]
    notes: list[str]


def blob_of(connection: "DuckDBPyConnection", most: int) -> Blob:
    """The rows of `judged`, by address and port. most: rows; beyond, those that were answered come first."""
    ((rows,),) = connection.execute("SELECT count(*) FROM judged").fetchall()
    limit = f"ORDER BY verdict = 'incomplete', ip_bytes NULLS FIRST, address, row LIMIT {most}" if rows > most else ""
    columns = ", ".join(f"{field.sql()} AS {field.name}" for field in FIELDS)
    connection.create_function("shortened", lambda text: shortened(text, LONGEST), ["VARCHAR"], "VARCHAR")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE told AS SELECT row_number() OVER () AS nth, * FROM (SELECT {columns}, "
        f"ip_bytes AS sort_address, port AS sort_port FROM (FROM judged {limit}) "
        "ORDER BY sort_address NULLS FIRST, address, sort_port, proto, row)"
    )
    connection.remove_function("shortened")
    told = min(rows, most)
    blob = Blob({"rows": told, "all": rows, "fields": []}, {}, [])
    if told < rows:
        blob.notes.append(f"The table holds {told:,} of {rows:,} rows, those that were answered first.")
    for field in FIELDS:
        _Column(connection, blob, field).add()
    return blob


class _Column:
    """One column on its way into the blob."""

    def __init__(self, connection: "DuckDBPyConnection", blob: Blob, field: Field) -> None:
        self._connection = connection
        self._blob = blob
        self._field = field

    def add(self) -> None:
        field = self._field
        layout: dict[str, Any] = {"name": field.name, "title": field.title, "searched": field.searched}
        if field.kind == "number":
            layout |= self._numbers(self._fetch(field.name, ""))
        else:
            texts = self._texts()
            codes = self._fetch("code", f"JOIN texts ON text = {field.name}")
            if field.name == "version" and len(texts) <= SORTED_BY_HAND:
                texts, codes = _by_version(texts, codes)
            words = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
            layout |= self._numbers(codes) | {"words": self._part("words", words.encode(errors="replace"))}
        self._blob.layout["fields"].append(layout)

    def _fetch(self, code: str, join: str) -> Any:
        """A number for each row that is told, in their order, as an Arrow array."""
        found = self._connection.sql(f"SELECT {code}::BIGINT AS code FROM told {join} ORDER BY nth")
        return found.to_arrow_table().column(0).combine_chunks()

    def _texts(self) -> list[str]:
        """The distinct texts in order; the table `texts` has the number of each."""
        is_long = self._field.kind == "long"
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE texts AS SELECT text, "
            f"row_number() OVER ordered - 1 AS code, sum(length(text)) OVER ordered AS filled FROM (SELECT "
            f"{self._field.name} AS text, count(*) AS n, min(sort_address) AS least, min(sort_port) AS port "
            "FROM told GROUP BY 1) "
            f"WINDOW ordered AS (ORDER BY {'n DESC, text' if is_long else self._field.order} ROWS UNBOUNDED PRECEDING)"
        )
        told = ROOM if is_long else sys.maxsize
        query = "SELECT text FROM texts WHERE filled <= ? ORDER BY code"
        texts = [text for (text,) in self._connection.execute(query, (told,)).fetchall()]
        ((count,),) = self._connection.execute("SELECT count(*) FROM texts").fetchall()
        if len(texts) < count:
            self._connection.execute("UPDATE texts SET code = ? WHERE filled > ?", (len(texts), told))
            held = f"the page holds the {len(texts):,} most frequent"
            self._blob.notes.append(f"Of {count:,} different texts of `{self._field.name}`, {held}.")
            texts.append(LEFT_OUT)
        return texts

    def _numbers(self, values: Any) -> dict[str, Any]:
        """What the layout says of a column's numbers, an Arrow array; adds them to the parts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        least, most = (pc.min_max(values)[end].as_py() or 0 for end in ("min", "max"))
        if least == most:
            return {"least": least, "width": 0}
        steps = pc.fill_null(pc.pairwise_diff(values), 0)  # the first has none before it
        rising = pc.min(steps).as_py() >= 0
        values = steps if rising else pc.subtract(values, least)
        most = pc.max(values).as_py()
        kinds = ((1, pa.uint8()), (2, pa.uint16()), (4, pa.uint32()))
        width, kind = next((found for found in kinds if most < 1 << 8 * found[0]), (8, pa.float64()))
        data = pc.cast(values, kind, safe=False).buffers()[1].to_pybytes()[: len(values) * width]
        return {"least": least, "rising": rising, "width": width, "numbers": self._part("numbers", data)}

    def _part(self, kind: str, data: bytes) -> str:
        name = f"{self._field.name}-{kind}"
        self._blob.parts[name] = base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode()
        return name


def _by_version(texts: list[str], codes: Any) -> tuple[list[str], Any]:
    """The texts in the order of versions, none before all, and the numbers, an Arrow array, into them."""
    import pyarrow as pa

    order = sorted(range(len(texts)), key=lambda code: (texts[code] != "", version_key(texts[code])))
    places = [0] * len(texts)
    for place, code in enumerate(order):
        places[code] = place
    return [texts[code] for code in order], pa.array(places, pa.int64()).take(codes)
