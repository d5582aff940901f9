"""Short conversations outside the version scan, as awaitables: what post-processing talks through.

A `Dialler` belongs to one target and one deadline; its streams, TCP with or without TLS inside, or UDP, never wait
beyond that deadline and never take more bytes than allowed. Everything that can go wrong on the way - refused, silent,
hung up too early, a handshake that fails, too many bytes - is a DialError.

Sockets and the loop's `sock_*` calls rather than asyncio's streams: a conversation here can end at any moment and then
leaves nothing behind, no buffer, no transport that has yet to close, no callback.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from math import inf
from types import TracebackType
from typing import Any, Literal, TypeVar

from engine.model import Tunnel

READ = 65536  # bytes asked of the socket at once; no datagram is longer
RECORD = 16384  # bytes; TLS's largest record
SILENCE_S = 2.0  # how long to wait for the next bytes, where the caller does not say
MAX_BYTES = 1 << 20  # received per Dialler

_T = TypeVar("_T")


class DialError(Exception):
    """The conversation did not come about or broke off; the text says why."""


class Dialler:
    """Opens streams to one port. Counts the TCP connections, and all bytes received.

    deadline: loop time at which everything here is over. name: for SNI, or "". source: local address, or "".
    pace: called before each connection; how many seconds it has to wait for its turn.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        deadline: float,
        *,
        name: str = "",
        source: str = "",
        max_bytes: int = MAX_BYTES,
        pace: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.host = host
        self.port = port
        self.connections = 0
        self.bytes = 0
        self.deadline = deadline
        self._context = context
        self._name = name
        self._source = source
        self._max_bytes = max_bytes
        self._pace = pace

    async def open(self, proto: Literal["tcp", "udp"], tunnel: Tunnel = Tunnel.NONE) -> "Stream":
        """A stream of either kind, connected, and with TLS inside where the tunnel says so. Raises DialError."""
        await self._turn()
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            sock = socket.socket(family, kind)
        except OSError as error:
            raise DialError(f"no socket: {error.strerror}") from error
        stream = Stream(sock, self)
        try:
            sock.setblocking(False)
            await self.within(SILENCE_S, self._connect(sock))
            self.connections += proto == "tcp"
            if tunnel is not Tunnel.NONE:
                await stream.start_tls()
        except BaseException:
            stream.close()
            raise
        return stream

    async def within(self, limit_s: float, step: Coroutine[Any, Any, _T]) -> _T:
        """The result of a step that gets `limit_s` seconds, and not beyond the deadline. Raises DialError."""
        try:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + limit_s, self.deadline)):
                return await step
        except TimeoutError as error:
            raise DialError("timed out") from error
        except OSError as error:
            raise DialError(error.strerror or str(error)) from error

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        return self._context.wrap_bio(incoming, outgoing, server_hostname=self._name or None)

    def count(self, received: int) -> None:
        """Raises DialError when these bytes are more than allowed."""
        self.bytes += received
        if self.bytes > self._max_bytes:
            raise DialError(f"more than {self._max_bytes} bytes")

    async def _turn(self) -> None:
        wait_s = self._pace()
        if wait_s <= 0:
            return
        if asyncio.get_running_loop().time() + wait_s >= self.deadline:
            raise DialError("its turn would come too late")
        await asyncio.sleep(wait_s)

    async def _connect(self, sock: socket.socket) -> None:
        if self._source:
            sock.bind((self._source, 0))
        await asyncio.get_running_loop().sock_connect(sock, (self.host, self.port))


class Stream:
    """One open conversation; a context manager that closes it. With UDP every read is one datagram.

    session: the TLS layer, once `start_tls` has succeeded.
    """

    def __init__(self, sock: socket.socket, dialler: Dialler) -> None:
        self.session: ssl.SSLObject | None = None
        self._socket = sock
        self._dialler = dialler
        self._buffer = b""  # received and not yet asked for
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        """Write all of it, inside TLS if there is some; UDP: as one datagram. Raises DialError."""
        if self.session is None:
            await self._write(data)
            return
        try:
            self.session.write(data)
        except ssl.SSLError as error:
            raise DialError(f"TLS: {error.reason}") from error
        await self._write(self._outgoing.read())

    async def recv(self, limit: int = READ, timeout_s: float = SILENCE_S) -> bytes:
        """What comes next, at most `limit` bytes; b"" when the peer has ended. Raises DialError."""
        if not self._buffer:
            self._buffer = await self._dialler.within(timeout_s, self._more())
        taken, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return taken

    async def exactly(self, size: int, timeout_s: float = SILENCE_S) -> bytes:
        """The next `size` bytes. Raises DialError when the peer ends before."""
        return await self._fill(lambda buffer: size if len(buffer) >= size else None, timeout_s)

    async def until(self, end: bytes, limit: int = READ, timeout_s: float = SILENCE_S) -> bytes:
        """Everything up to `end`, which is included. Raises DialError when it does not come within `limit` bytes."""

        def found(buffer: bytes) -> int | None:
            at = buffer.find(end, 0, limit)
            if at < 0 and len(buffer) >= limit:
                raise DialError(f"no {end!r} in {limit} bytes")
            return at + len(end) if at >= 0 else None

        return await self._fill(found, timeout_s)

    async def everything(self, limit: int = READ, timeout_s: float = SILENCE_S) -> bytes:
        """What comes until the peer ends, falls silent, breaks off, or has sent `limit` bytes."""
        parts = []
        with contextlib.suppress(DialError):
            while limit > 0 and (part := await self.recv(limit, timeout_s)):
                parts.append(part)
                limit -= len(part)
        return b"".join(parts)

    async def exchange(self, data: bytes, limit: int = READ, timeout_s: float = SILENCE_S) -> bytes:
        """Send, and give what comes first."""
        await self.send(data)
        return await self.recv(limit, timeout_s)

    async def start_tls(self) -> None:
        """Shake hands. What the peer sent in the clear beyond the last read is dropped: it is not part of TLS."""
        self._buffer = b""
        try:
            session = self._dialler.wrap(self._incoming, self._outgoing)
        except ValueError as error:  # a host name that cannot be an SNI name
            raise DialError(str(error)) from error
        await self._dialler.within(inf, self._shake_hands(session))
        self.session = session

    # -- below

    async def _fill(self, found: Callable[[bytes], int | None], timeout_s: float) -> bytes:
        """Read until `found` tells how many bytes of the buffer are wanted, and take them."""
        while (size := found(self._buffer)) is None:
            more = await self._dialler.within(timeout_s, self._more())
            if not more:
                raise DialError("ended too early")
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _write(self, data: bytes) -> None:
        await self._dialler.within(SILENCE_S, asyncio.get_running_loop().sock_sendall(self._socket, data))

    async def _read(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._socket, READ)
        self._dialler.count(len(data))
        return data

    async def _more(self) -> bytes:
        if self.session is None:
            return await self._read()
        while True:
            try:
                return self.session.read(RECORD)
            except ssl.SSLWantReadError:
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise DialError(f"TLS: {error.reason}") from error

    async def _shake_hands(self, session: ssl.SSLObject) -> None:
        while True:
            try:
                session.do_handshake()
            except ssl.SSLWantReadError:
                await self._feed()
                continue
            except ssl.SSLError as error:
                raise DialError(f"TLS: {error.reason}") from error
            await self._flush()
            return

    async def _feed(self) -> None:
        """The TLS layer wants bytes: give it the next ones, after its own have gone out."""
        await self._flush()
        data = await self._read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
