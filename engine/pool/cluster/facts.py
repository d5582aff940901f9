"""What a node says of itself before anything is sent there: these functions run on the node (engine.py, `ask`).

Contract: a fact that cannot be found out is None or empty, never an error; only `put` says why it failed. Nothing stays
on the node or in the place of segments once `remove` has been asked for what was put. verdicts.py judges the facts.
Sources: proc(5), the kernel's ip-sysctl and nf_conntrack-sysctl, and cgroup-v2 documents.
"""

import os
import platform
import resource
import time
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import __version__
from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.pool.cluster.supplies import database_of
from engine.pool.cluster.words import Supplies
from engine.state.attempt import Attempt, Staging
from engine.state.elsewhere import Elsewhere
from engine.state.folder import Folder, told
from engine.state.records import Manifest
from engine.transports.local_addresses import own
from matcher import EngineUnavailable, Matcher

NET = Path("/proc/sys/net")
CGROUP = Path("/sys/fs/cgroup")
RAY_PORTS = range(10_002, 20_000)  # where Ray's workers listen unless it is told otherwise


class NodeFacts(Struct, frozen=True, kw_only=True):
    """database: its hash as the node reads it. engine: of matching; empty where the wanted one is not there.

    descriptors: soft and hard limit, -1 for none. ports: lowest and highest; usable_ports: less those reserved.
    ray_ports: whether some that Ray's workers listen on are among them. conntrack: entries now and at most. memory:
    free, in bytes.
    """

    version: str
    python: str
    ray: str
    database: str
    engine: str
    descriptors: tuple[int, int]
    ports: tuple[int, int] | None
    usable_ports: int
    ray_ports: bool
    conntrack: tuple[int, int] | None
    tw_reuse: int | None
    tw_buckets: int | None
    cpus: int
    memory: int | None
    sources: tuple[str, ...]


def facts_for(config: ScanConfig) -> Callable[[Supplies], NodeFacts]:
    """The question that a node is asked before it is to scan with this config."""
    return lambda supplies: gather(config, supplies)


def gather(config: ScanConfig, supplies: Supplies) -> NodeFacts:
    """The facts of the machine and process where it is called. A second or less."""
    ports, usable = _ports()
    return NodeFacts(
        version=__version__,
        python=platform.python_version(),
        ray=_installed("ray"),
        database=_database(supplies),
        engine=_engine(config, supplies),
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE),
        ports=ports,
        usable_ports=len(usable),
        ray_ports=not usable.isdisjoint(RAY_PORTS),
        conntrack=_conntrack(),
        tw_reuse=_number(NET / "ipv4/tcp_tw_reuse"),
        tw_buckets=_number(NET / "ipv4/tcp_max_tw_buckets"),
        cpus=len(os.sched_getaffinity(0)),
        memory=_free_memory(),
        sources=_sources(config),
    )


def clock(_supplies: Supplies) -> float:
    """Seconds since the epoch, by the node's clock."""
    return time.time()


def putting(staging: Staging) -> Callable[[Supplies], Manifest]:
    """The question that makes a node write as its actors will: a segment of one row, which no run knows."""
    return lambda _supplies: put(staging)


def put(staging: Staging) -> Manifest:
    """Raises ConfigError, OutputError."""
    attempt = Attempt()
    attempt.write(b"{}\n", 1, [0])
    return attempt.put(staging)


def removing(staging: Staging, manifest: Manifest) -> Callable[[Supplies], None]:
    """The question that makes a node take back what it has put where only it can see it."""
    return lambda _supplies: remove(staging, manifest)


def seen(staging: Staging, manifest: Manifest) -> bool:
    """Whether what somebody has put is there, whole, as it is seen from here. Raises ConfigError, OutputError."""
    if manifest.key:
        return Elsewhere(staging.where, staging.run).size(manifest.key) == manifest.size
    with told(Path(staging.where)), closing(Folder.open(Path(staging.where))) as folder:
        found = folder.look(manifest.staged)
        return found is not None and found.st_size == manifest.size


def remove(staging: Staging, manifest: Manifest) -> None:
    """What may be there or not. Raises ConfigError, OutputError."""
    if manifest.key:
        Elsewhere(staging.where, staging.run).remove([manifest.key])
        return
    with (
        told(Path(staging.where)),
        suppress(FileNotFoundError),
        closing(Folder.open(Path(staging.where))) as folder,
    ):
        folder.remove(manifest.staged)


# -- how they are found out


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _database(supplies: Supplies) -> str:
    try:
        return database_of(supplies).sha256
    except msgspec.MsgspecError:
        return ""


def _engine(config: ScanConfig, supplies: Supplies) -> str:
    """The engine that a matcher would use here, without making one of the whole database."""
    try:
        return Matcher(replace(database_of(supplies), probes=()), config.matcher).engine
    except (EngineUnavailable, msgspec.MsgspecError):
        return ""


def _sources(config: ScanConfig) -> tuple[str, ...]:
    try:
        return own(config.sources)
    except ConfigError:
        return ()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _ports() -> tuple[tuple[int, int] | None, set[int]]:
    """The range of local ports, and those in it that may be used."""
    try:
        low, high = map(int, _text(NET / "ipv4/ip_local_port_range").split())
        usable = set(range(low, high + 1))
        for part in filter(None, _text(NET / "ipv4/ip_local_reserved_ports").split(",")):
            first, _, last = part.partition("-")
            usable.difference_update(range(int(first), int(last or first) + 1))
    except ValueError:
        return None, set()
    return (low, high), usable


def _conntrack() -> tuple[int, int] | None:
    count, most = (_number(NET / f"netfilter/nf_conntrack_{name}") for name in ("count", "max"))
    return None if count is None or most is None else (count, most)


def _free_memory() -> int | None:
    """What the machine has, or what is left of the limit of our container if that is less; caches count as free."""
    free = _table(Path("/proc/meminfo")).get("MemAvailable:")
    free = None if free is None else free * 1024
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is None or used is None:
        return free
    left = max(0, limit - used + _table(CGROUP / "memory.stat").get("inactive_file", 0))
    return left if free is None else min(free, left)


def _table(path: Path) -> dict[str, int]:
    """`name number` of each line."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
