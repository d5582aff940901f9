"""Bytes to a file or to standard output, a piece at a time, all of it or nothing.

The only place of this package that knows errno: a reader that went away is `SinkClosed`, everything else `OutputError`.
Unbuffered, because pieces are big already: what `write` took is with the system when it returns.
"""

import contextlib
import os
import select
import stat

from engine.errors import OutputError, SinkClosed

STDOUT = "-"


class Output:
    """An open destination. What is written after `SinkClosed` or `close` is dropped without a word."""

    def __init__(self, path: str) -> None:
        """path: a file, which is begun anew, or `-` for standard output. Raises OutputError."""
        self._name = "standard output" if path == STDOUT else path
        self._gone = False
        try:
            if path == STDOUT:
                self._fd = os.dup(1)
            else:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as exc:
            raise self._error(exc) from exc

    def write(self, data: bytes) -> None:
        """Write all of `data`. When that fails, a regular file ends where it ended before.

        Blocks as long as a reader is slow. Raises SinkClosed, OutputError; after OutputError one may try again.
        """
        if self._gone:
            return
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                try:
                    written += os.write(self._fd, view[written:])
                except BlockingIOError:  # a terminal or pipe that somebody else has set to non-blocking
                    select.select([], [self._fd], [])
        except (BrokenPipeError, ConnectionResetError) as exc:
            self._gone = True
            raise SinkClosed(f"{self._name}: nobody reads") from exc
        except OSError as exc:
            self._take_back(written)
            raise self._error(exc) from exc

    def close(self) -> None:
        """Give the file back. Raises OutputError where the system tells of a lost write only now (NFS, quotas)."""
        if self._fd < 0:
            return
        fd, self._fd, self._gone = self._fd, -1, True
        try:
            os.close(fd)
        except OSError as exc:
            raise self._error(exc) from exc

    def _take_back(self, written: int) -> None:
        """Cut the last `written` bytes, if this is a file and nobody else has written behind them."""
        with contextlib.suppress(OSError):  # the error that brought us here is the one to report
            status = os.fstat(self._fd)
            if stat.S_ISREG(status.st_mode) and os.lseek(self._fd, 0, os.SEEK_CUR) == status.st_size:
                os.ftruncate(self._fd, os.lseek(self._fd, -written, os.SEEK_CUR))

    def _error(self, exc: OSError) -> OutputError:
        return OutputError(f"{self._name}: {exc.strerror or exc}")
