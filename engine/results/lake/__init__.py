"""Where committed rows land beside the state folder: tables, topics and folders that other programs read.

`open_lake` opens one by its URL. Each form is one file, imported when it is asked for, because its libraries are large
and belong to the extra `lake`.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from engine.errors import ConfigError
from engine.extras import extra
from engine.results.lake.base import Batch, Delivery, Lake, Unavailable
from engine.results.lake.base_place import canonical

__all__ = ["LAKES", "Batch", "Delivery", "Lake", "Unavailable", "check_url", "open_lake"]

LAKES: Mapping[str, tuple[str, str]] = MappingProxyType(  # scheme -> (class, how its URL goes on)
    {
        "parquet": ("parquet:ParquetLake", "PATH"),
        "ndjson+zstd": ("ndjson:NdjsonLake", "PATH"),
        "delta": ("delta:DeltaLake", "PATH"),
        "iceberg": ("iceberg:IcebergLake", "CATALOG/NAMESPACE.TABLE"),
        "kafka": ("kafka:KafkaLake", "BROKER:PORT/TOPIC"),
        "postgres": ("postgres:PostgresLake", "TABLE"),
    }
)


def check_url(url: str) -> None:
    """What can be said of a URL without opening anything. Raises ConfigError."""
    scheme, colon, rest = url.partition(":")
    if scheme not in LAKES or not colon:
        hint = f"; you may mean parquet:{url}" if "://" in url else ""
        known = ", ".join(f"{name}:{form}" for name, (_, form) in LAKES.items())
        raise ConfigError(f"{url}: is no sink; write one of {known}{hint}")
    if LAKES[scheme][1] == "PATH":
        if not rest or rest.startswith("//"):
            raise ConfigError(f"{url}: write {scheme}:PATH; a path from the root has one slash")
        canonical(rest)
    elif not rest:
        raise ConfigError(f"{url}: write {scheme}:{LAKES[scheme][1]}")


def open_lake(url: str, delivery: Delivery) -> Lake:
    """A lake by its URL. Raises ConfigError for one that cannot be, OutputError where it cannot be reached."""
    check_url(url)
    scheme, _, rest = url.partition(":")
    module, _, name = LAKES[scheme][0].partition(":")
    with extra(scheme):
        made = getattr(import_module(f"{__name__}.{module}"), name)
    lake: Lake = made(rest, delivery)
    return lake
