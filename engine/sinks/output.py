"""Bytes to a file or to standard output, and what becomes of the file when that fails.

The only place of this package that knows errno: a reader that went away is `SinkClosed`, everything else `OutputError`.
Unbuffered, because blobs are already big: what `write` took is with the system when it returns.
"""

import contextlib
import os
import select
import stat

from engine.errors import OutputError
from engine.sinks.base import SinkClosed

STDOUT = "-"


class Output:
    """An open destination for whole pieces (`write`), which never keeps a broken one where that can be helped.

    When a write to a regular file fails half-way, the file is cut after the last `ending` that went out, so that it
    ends with a complete line or element.
    """

    def __init__(self, path: str, *, append: bool = False) -> None:
        """path: a file, or `-` for standard output. append: go on with a file that is there, behind its last newline.

        Raises OutputError when the file cannot be opened.
        """
        self._name = "standard output" if path == STDOUT else path
        self._failed = False
        try:
            if path == STDOUT:
                self._fd = os.dup(1)
            else:
                how = os.O_RDWR if append else os.O_WRONLY | os.O_TRUNC
                self._fd = os.open(path, how | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._regular = path != STDOUT and stat.S_ISREG(os.fstat(self._fd).st_mode)
            self._end = self._cut_torn_line() if append and self._regular else 0
        except OSError as exc:
            raise self._error(exc) from exc

    def write(self, data: bytes, ending: bytes = b"\n") -> None:
        """Write all of `data`, which ends with `ending`. Raises SinkClosed, OutputError."""
        if self._failed:
            raise SinkClosed(f"{self._name}: nobody reads")
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                try:
                    written += os.write(self._fd, view[written:])
                except BlockingIOError:  # a terminal or pipe that somebody else has set to non-blocking
                    select.select([], [self._fd], [])
        except OSError as exc:
            self._failed = True
            if self._regular:
                whole = data.rfind(ending, 0, written)
                self._cut(self._end + (whole + len(ending) if whole >= 0 else 0))
            if isinstance(exc, BrokenPipeError | ConnectionResetError):
                raise SinkClosed(f"{self._name}: nobody reads") from exc
            raise self._error(exc) from exc
        self._end += written

    @property
    def failed(self) -> bool:
        return self._failed

    def close(self) -> None:
        """Give the file back. Raises OutputError where the system reports a lost write only now (NFS, quotas)."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
        except OSError as exc:
            if not self._failed:
                self._failed = True
                raise self._error(exc) from exc

    def _cut_torn_line(self) -> int:
        """Cut what stands behind the last newline and return the file's size."""
        end = os.lseek(self._fd, 0, os.SEEK_END)
        position = end
        while position > 0:
            step = min(position, 65_536)
            position -= step
            newline = os.pread(self._fd, step, position).rfind(b"\n")
            if newline >= 0:
                position += newline + 1
                break
        if position != end:
            self._cut(position)
        return position

    def _cut(self, size: int) -> None:
        with contextlib.suppress(OSError):  # we are about to report the error that brought us here
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, size, os.SEEK_SET)

    def _error(self, exc: OSError) -> OutputError:
        return OutputError(f"{self._name}: {exc.strerror or exc}")
