"""One worker process, seen from outside: how one talks with it, how it ends. engine/ahead.py is how it starts.

Contract: it ends when its link closes. Writing to a dead one is harmless: its death is noticed where it is read.
"""

import asyncio
import subprocess
from contextlib import suppress

from engine import ahead
from engine.pool.wire import Kind, frame, receive
from engine.threads import in_thread

GRACE_S = 2.0  # for a worker to end by itself once its link is closed
STREAM_LIMIT = 1 << 22  # bytes that are buffered of a worker's messages


class WorkerProcess:
    """Made by `start`."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> "WorkerProcess":
        process, ours = ahead.take()
        try:
            return cls(process, *await asyncio.open_unix_connection(sock=ours, limit=STREAM_LIMIT))
        except BaseException:  # whoever wanted it has left
            process.kill()
            process.wait()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def write(self, kind: Kind, body: bytes = b"") -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(kind, body))

    async def receive(self) -> tuple[Kind, bytes] | None:
        """Its next message, or None when it is gone."""
        return await receive(self._reader)

    def kill(self) -> None:
        """For a worker that no longer does what it is told. It is read to its end as any other."""
        self._process.kill()

    async def status(self) -> int:
        """How a process that is gone has ended, as subprocess says it."""
        return await in_thread(self._process.wait)

    async def end(self) -> None:
        """Close the link, which ends the process; if it does not, kill it."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()
        await in_thread(self._reap)

    def _reap(self) -> None:
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
