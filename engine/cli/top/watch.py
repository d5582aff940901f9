"""A source, looked at again and again in a thread of its own, so that one who is slow to answer holds up nobody.

The thread is a daemon: neither the end of the screen nor that of the process waits for it.
"""

import time
from threading import Event, Thread

from engine.cli.top.view import Source, UnseenError, View, closed

GONE = "nobody answers any more"
OLD_S = 3.0  # beyond the usual, before numbers are said to be old


class Watch:
    """latest: the last view there was. looks: how many there have been, for whoever wants to know of a new one."""

    def __init__(self, source: Source, first: View, every_s: float) -> None:
        self.latest = first
        self.looks = 0
        self._source = source
        self._every_s = every_s
        self._seen_at = time.monotonic()
        self._unseen: UnseenError | None = None
        self._over = Event()

    def start(self) -> None:
        Thread(target=self._work, name="watch", daemon=True).start()

    def close(self) -> None:
        """No more looks."""
        self._over.set()

    def state(self) -> str:
        """What is to be said of the run or of the numbers, in one line; empty where all is as it should be."""
        old_s = time.monotonic() - self._seen_at
        unseen = self._unseen
        if unseen is not None:
            return f"the run has ended: {GONE}" if unseen.gone else f"{unseen}; the numbers are {old_s:.0f} s old"
        if self.latest.ended:
            return f"the run has ended: {self.latest.ended}"
        if old_s > self._every_s + OLD_S:
            return f"no answer for {old_s:.0f} s; the numbers are old"
        return ""

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                view = self._source.look()
            except UnseenError as unseen:
                self._unseen = unseen
                if unseen.gone:
                    self.latest = closed(self.latest, GONE)
            except Exception as error:  # a fault of ours is shown, and the next look may be better
                self._unseen = UnseenError(f"{self._source.where}: {type(error).__name__}")
            else:
                self.latest, self._seen_at, self._unseen = view, time.monotonic(), None
            self.looks += 1
