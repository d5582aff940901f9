"""File descriptors, of which every conversation needs one: how many there are, and what that allows."""

import resource

from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.pool.limits import share

LEAST_DESCRIPTORS = 32  # for one conversation and everything around it
POST_CONVERSATIONS = 100  # of post-processing, at once in one worker, beside the scan's
SPARE_DESCRIPTORS = 64 + POST_CONVERSATIONS  # for the loop, logs, libraries
WAITING_RESULTS = 4096
MAX_INFLIGHT = 20_000  # over all workers, where the user did not say
MAX_INFLIGHT_PROXY = 256  # likewise, where all of them are connections to one proxy


def inflight_limit(config: ScanConfig) -> int:
    """Conversations at once in one worker: what was asked for, within what its descriptors allow.

    Raises ConfigError where they do not allow a single one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_DESCRIPTORS:
        raise ConfigError(f"{hard} file descriptors are too few; let ulimit -n allow at least {LEAST_DESCRIPTORS}")
    usual = MAX_INFLIGHT_PROXY if config.proxy else MAX_INFLIGHT
    wanted = int(share(config.max_inflight or usual, config.workers))
    return max(1, min(wanted, soft - SPARE_DESCRIPTORS))


def window(config: ScanConfig) -> int:
    """Targets that a worker is given and has not done: enough for no slot to stay empty, and for a line of results
    that wait to be asked further, which hold no slot."""
    return 2 * inflight_limit(config) + WAITING_RESULTS


def descriptor_limit() -> int:
    """How many this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptor_limit() -> None:
    """Take as many as the hard limit gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
