"""Stored responses as Arrow: record batches in, the same with a column `match` out. The answers of `probemill match`.

What every data engine can call: plain functions that may be pickled, in any process and in several threads. The
database is compiled once in a process. Needs the extra `lake`.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

import pyarrow as pa
from msgspec.structs import fields

from engine.databases import shared_matcher
from engine.model import ScanConfig
from engine.offline.answers import Answers, MatchRow
from engine.offline.forms.base import latin1_bytes
from engine.results.batches import Batches, cells, is_bytes, is_text, record_batches

ROWS = 1 << 16  # answered together, so that no batch, however long, takes more memory
PROBE, PROTO = "probe", "proto"  # columns that may be missing

_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int32(),
    tuple[str, ...]: pa.list_(pa.string()),
}
MATCH = pa.struct([pa.field(field.name, _TYPES[field.type]) for field in fields(MatchRow)])
"""Of the column `match`. As in tables of results, what is empty is null."""

_Known = Answers[MatchRow | Literal[False]]


def match_schema(schema: pa.Schema) -> pa.Schema:
    """Of what `match_batches` gives for batches of `schema`, for engines that must know it beforehand."""
    for index in sorted(schema.get_all_field_indices("match"), reverse=True):
        schema = schema.remove(index)
    return schema.append(pa.field("match", MATCH))


def match_batches(
    batches: Batches,
    *,
    probes: tuple[str, ...] = (),
    matcher: str = "auto",
    response: str = "response",
    probe: str = PROBE,
    proto: str = PROTO,
) -> Iterator[pa.RecordBatch]:
    """The same rows and columns, in order, with a column `match` behind them: what the database says of each response.

    batches: RecordBatches, or what streams Arrow (a table, a reader, a frame of polars or pandas); of these, one
    without rows gives one batch without rows. A batch of more than ROWS rows comes back in several. A column `match`
    that is there already goes. probes, matcher: as in ScanConfig. response, probe, proto: names of the columns.

    Responses are binary, or text as `banner` of `probemill match` is: a character per byte (Latin-1), with any
    character above U+00FF taken for UTF-8. Probes and protocols are text; where the value is null, or the column is
    missing that has its usual name, they are `NULL` and `tcp`. `match` is null where no line fits, where there is no
    response, and where the database has no such probe.

    Raises ConfigError, at once for an option and with its batch for a column that cannot be used; MatcherError for an
    unusable database.
    """
    config = ScanConfig(probes=probes, matcher=matcher)  # type: ignore[arg-type]  # says what it cannot use
    return _matched(batches, config, response, probe, proto)


def _matched(batches: Batches, config: ScanConfig, response: str, probe: str, proto: str) -> Iterator[pa.RecordBatch]:
    answers = None
    for batch in record_batches(batches, ROWS):
        responses = cells(batch, response, "binary or text", is_bytes, is_text)
        names = cells(batch, probe, "text", is_text, needed=probe != PROBE)
        protos = cells(batch, proto, "text", is_text, needed=proto != PROTO)
        if answers is None:
            answers = _answers(config.probes, config.matcher)
        schema = match_schema(batch.schema)
        columns = [batch.column(index) for index, name in enumerate(batch.schema.names) if name != "match"]
        yield pa.RecordBatch.from_arrays([*columns, _column(answers, responses, names, protos)], schema=schema)


@lru_cache(maxsize=4)
def _answers(probes: tuple[str, ...], engine: str) -> _Known:
    shared = shared_matcher(probes, engine)
    return Answers(shared.matcher.database, shared.match, lambda row: row or False)


def _column(
    answers: _Known, responses: Iterable[bytes | str | None], names: Iterable[str | None], protos: Iterable[str | None]
) -> pa.StructArray:
    """Each match is written once, however many rows have it."""
    found: list[MatchRow] = []
    places: dict[int, int] = {}  # id of one of these -> its index
    taken: list[int | None] = []
    for response, name, proto in zip(responses, names, protos, strict=True):
        answer: MatchRow | Literal[False] | None = None
        if response is not None:
            data = latin1_bytes(response) if isinstance(response, str) else response
            answer = answers.of(proto.lower() if proto else "tcp", (name or "NULL",), False, data)
        if not answer:
            taken.append(None)
            continue
        place = places.get(id(answer))
        if place is None:
            place = places[id(answer)] = len(found)
            found.append(answer)
        taken.append(place)
    return _structs(found).take(pa.array(taken, pa.int32()))


def _structs(rows: list[MatchRow]) -> pa.StructArray:
    arrays = []
    for field in MATCH:
        values = map(attrgetter(field.name), rows)
        full = pa.types.is_boolean(field.type) or pa.types.is_integer(field.type)
        arrays.append(pa.array(list(values) if full else [value or None for value in values], field.type))
    return pa.StructArray.from_arrays(arrays, fields=list(MATCH))
