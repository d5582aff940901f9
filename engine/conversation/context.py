"""A ScanConfig made ready to scan with: the database read, the matcher opened, the options in the core's own terms.

Takes less than a tenth of a second when the cache is warm; every worker does it once, before its first target. The
matcher's sets are made ready in a thread while the first connections are under way, but for that of the NULL probe.
"""

import logging
import platform
import sysconfig
import time
from collections.abc import Callable

from engine import __version__
from engine.conversation.opinion import DatabaseOpinion
from engine.conversation.scan import ScanContext
from engine.conversation.timing import TIMINGS
from engine.databases import SharedMatcher, open_matcher, service_table, shared_matcher
from engine.model import ScanConfig
from engine.services import ServiceTable
from matcher import Match, Probe, ProbeDatabase

log = logging.getLogger("probemill.worker")

MakeContext = Callable[[ScanConfig], ScanContext]
"""What a runner calls, in a thread, to be ready."""

MatchFunction = Callable[[Probe, bytes], Match | None]

RECOG = "recog"  # in place of a second database
REMEMBERED = 4096  # responses whose match is kept
REMEMBERED_BYTES = 512  # longer ones hardly repeat


def scan_context(
    config: ScanConfig,
    shared: SharedMatcher | None = None,
    services: ServiceTable | None = None,
) -> ScanContext:
    """Database, matcher and options made ready. Raises MatcherError, ConfigError.

    shared, services: of the databases that the config names, to be used in place of own ones.
    """
    services = services or service_table(config.probes)
    matcher = shared.matcher if shared else open_matcher(config.probes, config.matcher)
    matcher.preload()
    if not matcher.database.probes:
        log.warning("%s has no Probe line: nothing is asked, every port is called tcpwrapped", matcher.database.name)
    return ScanContext(
        matcher.database,
        remembered(shared.match if shared else matcher.match),
        failures=matcher.stats.failures,
        intensity=config.intensity,
        timing=TIMINGS[config.timing](),
        excluded=not config.allports,
        service_name=services.name,
        connect_s=config.connect_timeout_s,
        tls_connect_s=config.tls_timeout_s,
        max_bytes=config.max_bytes,
        dtls=config.generation != "7.93",
        wall_offset=time.time() - time.monotonic(),
        version=__version__,
        opinion=_second_opinion(config, matcher.database),
        platform=sysconfig.get_config_var("HOST_GNU_TYPE") or f"{platform.machine()}-{platform.system().lower()}",
    )


def _second_opinion(config: ScanConfig, first: ProbeDatabase) -> DatabaseOpinion | None:
    """Of the database that the config names; Recog is not one. Its sets are made when they are first needed."""
    if config.second_opinion in {"", RECOG}:
        return None
    second = shared_matcher((config.second_opinion,), config.matcher)
    return DatabaseOpinion(first, second.matcher.database, remembered(second.match))


def remembered(match: MatchFunction, size: int = REMEMBERED) -> MatchFunction:
    """`match` with a memory of short responses: whole networks greet with the same few banners."""
    known: dict[tuple[int, bytes], Match | None] = {}

    def matched(probe: Probe, response: bytes) -> Match | None:
        if len(response) > REMEMBERED_BYTES:
            return match(probe, response)
        key = probe.index, response
        if key in known:
            return known[key]
        if len(known) >= size:
            known.clear()
        found = known[key] = match(probe, response)
        return found

    return matched
