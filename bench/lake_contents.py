"""What a reader finds in a sink, whatever its form: the keys of its rows, read by other people's programs.

`keys(url)` gives an Arrow table of ip, port and proto, read through pyarrow, deltalake, pyiceberg, PostgreSQL's driver
or a Kafka consumer that sees committed messages only; `summary` boils it down to what can be compared.
"""

import json
import os
from collections.abc import Iterator
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import zstandard
from msgspec import Struct

COLUMNS = ["ip", "port", "proto"]
SCHEMA = pa.schema([("ip", pa.string()), ("port", pa.int32()), ("proto", pa.string())])


class Summary(Struct, frozen=True):
    """Of a table of keys. keys: a digest of the set of (ip, port, proto); distinct: how many these are."""

    rows: int
    ports: int
    distinct: int
    keys: str


def summary(table: pa.Table) -> Summary:
    import duckdb

    with duckdb.connect() as connection:
        connection.register("found", table)
        ports, distinct, digest = connection.execute(
            "SELECT coalesce(sum(port), 0), count(DISTINCT (ip, port, proto)), "
            "(SELECT coalesce(bit_xor(hash(ip, port, proto)), 0) FROM (SELECT DISTINCT ip, port, proto FROM found)) "
            "FROM found"
        ).fetchall()[0]
    return Summary(table.num_rows, int(ports), distinct, f"{digest:x}")


def keys(url: str) -> pa.Table:
    """Nothing is there yet: no rows."""
    form, _, where = url.partition(":")
    return _READERS[form](where)


def _parquet(where: str) -> pa.Table:
    system, path = _file_system(where)
    tables = [
        pa.parquet.read_table(name, filesystem=system, columns=COLUMNS, partitioning=None).cast(SCHEMA)
        for name in _files(system, path, ".parquet")
    ]
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def _ndjson(where: str) -> pa.Table:
    system, path = _file_system(where)
    rows = []
    for name in _files(system, path, ".ndjson.zst"):
        with system.open_input_file(name) as file:
            text = zstandard.ZstdDecompressor().stream_reader(file.read()).read()
        if not text.endswith(b"\n"):
            raise ValueError(f"{name}: half a line")
        rows += [{column: row[column] for column in COLUMNS} for row in map(json.loads, text.splitlines())]
    return pa.Table.from_pylist(rows, SCHEMA)


def _delta(where: str) -> pa.Table:
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        table = DeltaTable(where)
    except TableNotFoundError:
        return SCHEMA.empty_table()
    return pa.table(table.to_pyarrow_dataset().to_table(columns=COLUMNS)).cast(SCHEMA)


def _iceberg(where: str) -> pa.Table:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchTableError

    target, _, query = where.partition("?")
    catalog, _, name = target.partition("/")
    properties = dict(parse_qsl(query))
    if "s3://" in query:  # pyiceberg does not look into the environment for it
        properties |= {"s3.endpoint": os.environ["AWS_ENDPOINT_URL"], "s3.region": os.environ["AWS_REGION"]}
    try:
        table = load_catalog(catalog, **properties).load_table(name)
    except NoSuchTableError:
        return SCHEMA.empty_table()
    return table.scan(selected_fields=tuple(COLUMNS)).to_arrow().cast(SCHEMA)


def _kafka(where: str) -> pa.Table:
    """What is committed, from all partitions."""
    from confluent_kafka import Consumer, TopicPartition

    brokers, _, topic = where.partition("?")[0].rpartition("/")
    settings = {"bootstrap.servers": brokers, "group.id": "bench", "isolation.level": "read_committed"}
    consumer = Consumer(settings | {"enable.partition.eof": True, "log_level": 0})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    rows, ends = [], 0
    while ends < len(partitions):
        for message in consumer.consume(10_000, timeout=1.0):
            if message.error() is not None:
                ends += 1
            else:
                row = json.loads(message.value())
                rows.append({column: row[column] for column in COLUMNS})
    consumer.close()
    return pa.Table.from_pylist(rows, SCHEMA)


def _postgres(where: str) -> pa.Table:
    import psycopg

    url, _, query = where.partition("?")
    table = dict(parse_qsl(query))["table"]
    with psycopg.connect(f"postgres:{url}") as connection:
        exists = connection.execute("SELECT to_regclass(%s)", [table]).fetchall()[0][0]
        rows = connection.execute(f"SELECT ip, port, proto FROM {table}").fetchall() if exists else []
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], SCHEMA)


def _file_system(where: str) -> tuple[pa.fs.FileSystem, str]:
    if "://" not in where:
        return pa.fs.LocalFileSystem(), where
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    return pa.fs.S3FileSystem(endpoint_override=endpoint, scheme="http"), where.removeprefix("s3://")


def _files(system: pa.fs.FileSystem, path: str, suffix: str) -> Iterator[str]:
    selector = pa.fs.FileSelector(path, recursive=True, allow_not_found=True)
    return (entry.path for entry in system.get_file_info(selector) if entry.path.endswith(suffix))


_READERS = {
    "parquet": _parquet,
    "ndjson+zstd": _ndjson,
    "delta": _delta,
    "iceberg": _iceberg,
    "kafka": _kafka,
    "postgres": _postgres,
}
