"""The last lines of a run's log, for whoever looks at the run from elsewhere: the endpoint's `/log`.

Every line is one line of plain text, `12:00:05 WARNING ...` in UTC: what strangers made part of it cannot move
anybody's cursor.
"""

import logging
import time
from collections import deque

from engine.text import one_line

KEPT = 100  # lines
LONGEST = 500  # characters of a line


class LogTail(logging.Handler):
    """Keeps the last records that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.keep(record.levelname, record.getMessage())
        except Exception:
            self.handleError(record)

    def keep(self, level: str, said: str) -> None:
        """A line that did not come by a logger."""
        clock = time.strftime("%H:%M:%S", time.gmtime())
        self._lines.append(f"{clock} {level} {one_line(said, LONGEST)}")

    def lines(self) -> list[str]:
        """Oldest first. For any thread."""
        return list(self._lines.copy())
