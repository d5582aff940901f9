"""Where workers run: in this process, in a pool of processes, on a cluster. Each is a small file behind `Runner`."""

from engine.pool.cluster.words import NodeStatus
from engine.pool.runners.base import Deliver, Runner, Source, deadline

__all__ = ["Deliver", "NodeStatus", "Runner", "Source", "deadline"]
