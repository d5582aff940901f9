"""What the driver reads for all actors, so that nodes need no files: databases, port names, lists, fingerprints."""

from pathlib import Path

import msgspec

from engine.databases import open_database, service_table
from engine.model import ScanConfig
from engine.pool.cluster.words import Supplies
from engine.targets.selection import address_filter
from matcher import ProbeDatabase


def gathered(config: ScanConfig) -> Supplies:
    """Raises ConfigError, InputError, MatcherError."""
    services = service_table(config.probes)
    database = msgspec.msgpack.encode(open_database(config.probes))
    recog = {}
    if config.recog:
        folder = Path(config.recog).expanduser()
        recog = {path.name: path.read_bytes() for path in sorted(folder.glob("*.xml")) or folder.glob("xml/*.xml")}
    return Supplies(database, (list(services.rows()), services.source), recog, address_filter(config))


def database_of(supplies: Supplies) -> ProbeDatabase:
    return msgspec.msgpack.decode(supplies.database, type=ProbeDatabase)
