"""Where workers run: in this process, or in a pool of processes. Each runner is a small file behind `Runner`."""

from engine.pool.runners.base import Deliver, Runner, Source, deadline

__all__ = ["Deliver", "Runner", "Source", "deadline"]
