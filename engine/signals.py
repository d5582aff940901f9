"""Whose business a signal is: `^C`, `timeout` and service managers signal a whole process group, workers included.

Contract: a process started inside `held_back(...)` never sees these signals, not even while its interpreter starts. Its
parent acts on them; workers end with their link to it.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Block these signals. Child processes inherit that for life; the caller gets at the end what came in between."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
