"""Where workers run: in this process, in a pool of processes, on a cluster. Each is a small file behind `Runner`."""

from engine.pool.runners.base import Deliver, NodeStatus, Runner, Source, deadline

__all__ = ["Deliver", "NodeStatus", "Runner", "Source", "deadline"]
