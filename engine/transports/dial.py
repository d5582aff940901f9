"""Short conversations outside the version scan, as awaitables: what post-processing talks through.

A `Dialler` belongs to one target and one deadline; its streams, TCP with or without TLS inside, or UDP, never wait
beyond that deadline and never take more bytes than allowed. Everything that can go wrong on the way - refused, silent,
hung up too early, a handshake that fails, too many bytes - is a DialError.

Time is counted as the reactor counts it: what waits on a socket when a limit is reached still counts, and pauses of the
process do not. So limits are no timers of the loop, which fire before anybody looks at a socket: whoever waits looks at
the clock now and then, and at its socket once more when its time is up.

Sockets of our own rather than asyncio's streams: a conversation here can end at any moment and then leaves nothing
behind, no buffer, no transport that has yet to close, no callback.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from errno import EADDRNOTAVAIL, EALREADY, EINPROGRESS, EISCONN
from functools import partial
from os import strerror
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from engine.model import Tunnel
from engine.transports.base_local import ANYWHERE, Local
from engine.transports.reactor import PAUSE_COUNTS_S, PAUSE_S

READ = 65536  # bytes asked of the socket at once; no datagram is longer
RECORD = 16384  # bytes; TLS's largest record
PROXY_S = 5.0  # for a proxy's answer, which may wait for a connection that it makes
SILENCE_S = 2.0  # how long to wait for the next bytes, where the caller does not say
MAX_BYTES = 1 << 20  # received per Dialler
LOOK_S = 0.25  # between two looks at the clock
AGAIN_S = 0.1  # until the next try for a pair of ports that somebody has
GRACE_S = 0.5  # for a conversation to notice by itself that its time is up

if TYPE_CHECKING:  # loaded where there are proxies
    from engine.transports.base_proxy import Proxy

_T = TypeVar("_T")


class DialError(Exception):
    """The conversation did not come about or broke off; the text says why."""


class DialTimeoutError(DialError):
    """Nothing more came in time."""


class Dialler:
    """Opens streams to one port. Counts the TCP connections, and all bytes received.

    deadline: loop time, without the pauses to come, at which everything here is over. name: for SNI, or "". local:
    where it begins on this machine; of one port there is one TCP stream at a time, and others wait for its end.
    proxies: that lead there, the nearest first; they carry no UDP. pace: called before each connection; how many
    seconds it has to wait for its turn.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        deadline: float,
        *,
        name: str = "",
        local: Local = ANYWHERE,
        proxies: "Sequence[Proxy]" = (),
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
        self._local = local
        self._proxies = proxies
        self._max_bytes = max_bytes
        self._pace = pace
        self._looked = asyncio.get_running_loop().time()
        self._paused_s = 0.0

    async def open(
        self, proto: Literal["tcp", "udp"], tunnel: Tunnel = Tunnel.NONE, tls: ssl.SSLContext | None = None
    ) -> "Stream":
        """A stream of either kind, connected, and with TLS inside where the tunnel says so. Raises DialError.

        tls: for a handshake that is not to be like the others.
        """
        if proto == "udp" and tunnel is not Tunnel.NONE:
            raise DialError("no DTLS in further conversations")
        if self._proxies and proto == "udp":
            raise DialError("UDP does not go through a proxy")
        await self._turn()
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        host, port = (self._proxies[0].host, self._proxies[0].port) if self._proxies else (self.host, self.port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise DialError(f"no socket: {error.strerror}") from error
        stream = Stream(sock, self)
        try:
            await stream.connect((host, port), self._local)
            if self._proxies:
                await stream.pass_through(self._proxies, self.host, self.port)
            self.connections += proto == "tcp"
            if tunnel is not Tunnel.NONE:
                await stream.start_tls(tls)
        except BaseException:
            stream.close()
            raise
        return stream

    @property
    def is_single(self) -> bool:
        """Whether there can be only one stream at a time."""
        return self._local.port > 0

    async def within(self, conversation: Coroutine[Any, Any, _T]) -> _T:
        """What a conversation comes to; it is ended where it has not noticed that the time is up. Raises DialError."""
        task = asyncio.ensure_future(conversation)
        try:
            while not task.done():
                if self.time() >= self.deadline + GRACE_S:
                    raise DialError("timed out")
                await asyncio.wait((task,), timeout=LOOK_S)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    def time(self) -> float:
        """Loop time without our pauses. There was one where nobody has looked for longer than anybody waits."""
        now = asyncio.get_running_loop().time()
        unseen_s, self._looked = now - self._looked, now
        if unseen_s > PAUSE_S:
            self._paused_s += unseen_s - PAUSE_COUNTS_S
        return now - self._paused_s

    def until(self, limit_s: float) -> float:
        """The time at which a wait of `limit_s` seconds ends."""
        return min(self.time() + limit_s, self.deadline)

    async def wait(self, until: float, sock: socket.socket | None = None, *, write: bool = False) -> bool:
        """Wait until the socket can be read (or written), or the time has come. -> whether the socket is ready"""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[bool] = loop.create_future()
        timer: asyncio.TimerHandle

        def wake(ready: bool) -> None:
            if not woken.done():
                woken.set_result(ready)

        def look() -> None:
            nonlocal timer
            left_s = until - self.time()
            if left_s > 0:
                timer = loop.call_later(min(left_s, LOOK_S), look)
            else:
                wake(False)

        timer = loop.call_later(0, look)
        if sock is not None:
            (loop.add_writer if write else loop.add_reader)(sock, wake, True)
        try:
            return await woken
        finally:
            timer.cancel()
            if sock is not None:
                (loop.remove_writer if write else loop.remove_reader)(sock)

    def wrap(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, context: ssl.SSLContext | None = None
    ) -> ssl.SSLObject:
        return (context or self._context).wrap_bio(incoming, outgoing, server_hostname=self._name or None)

    def count(self, received: int) -> None:
        """Raises DialError when these bytes are more than allowed."""
        self.bytes += received
        if self.bytes > self._max_bytes:
            raise DialError(f"more than {self._max_bytes} bytes")

    async def _turn(self) -> None:
        wait_s = self._pace()
        if wait_s <= 0:
            return
        turn_at = self.time() + wait_s
        if turn_at >= self.deadline:
            raise DialError("its turn would come too late")
        await self.wait(turn_at)


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

    async def connect(self, address: tuple[str, int], local: Local) -> None:
        """Raises DialError."""

        def attempt() -> None:
            error = self._socket.connect_ex(address)
            if error in (EINPROGRESS, EALREADY):
                raise BlockingIOError
            if error not in (0, EISCONN):
                raise OSError(error, strerror(error))

        if local is not ANYWHERE:
            try:
                local.settle(self._socket)
            except OSError as error:
                raise DialError(error.strerror) from error
        until = self._dialler.until(SILENCE_S)
        while True:
            try:
                await self._attempt(attempt, until, write=True)
            except DialError as error:
                why = error.__cause__
                if not (local.port and isinstance(why, OSError) and why.errno == EADDRNOTAVAIL):
                    raise
                await self._dialler.wait(self._dialler.until(AGAIN_S))  # a conversation of ours has the pair of ports
            else:
                return

    async def pass_through(self, proxies: "Sequence[Proxy]", host: str, port: int) -> None:
        """Let proxies lead to a destination; from then on it is the other end. Raises DialError."""
        from engine.transports.base_proxy import route

        heard = b""
        for handshake in route(proxies, host, port):
            try:
                said = handshake.feed(heard)
                while not handshake.done:
                    await self._write(said, self._dialler.until(SILENCE_S))
                    heard = await self._read(self._dialler.until(PROXY_S))
                    if not heard:
                        raise handshake.hung_up()
                    said = handshake.feed(heard)
            except OSError as error:
                raise DialError(error.strerror) from error
            heard = handshake.rest
        self._buffer = heard

    async def send(self, data: bytes) -> None:
        """Write all of it, inside TLS if there is some; UDP: as one datagram. Raises DialError."""
        until = self._dialler.until(SILENCE_S)
        if self.session is None:
            await self._write(data, until)
            return
        try:
            self.session.write(data)
        except ssl.SSLError as error:
            raise DialError(f"TLS: {error.reason}") from error
        await self._write(self._outgoing.read(), until)

    async def recv(self, limit: int = READ, timeout_s: float = SILENCE_S) -> bytes:
        """What comes next, at most `limit` bytes; b"" when the peer has ended. Raises DialError."""
        if not self._buffer:
            self._buffer = await self._more(self._dialler.until(timeout_s))
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

    async def start_tls(self, context: ssl.SSLContext | None = None) -> None:
        """Shake hands. What the peer sent in the clear beyond the last read is dropped: it is not part of TLS."""
        self._buffer = b""
        try:
            session = self._dialler.wrap(self._incoming, self._outgoing, context)
        except ValueError as error:  # a host name that cannot be an SNI name
            raise DialError(str(error)) from error
        await self._shake_hands(session, self._dialler.deadline)
        self.session = session

    # -- below

    async def _attempt(self, action: Callable[[], _T], until: float, *, write: bool = False) -> _T:
        """What the action gives when the socket is ready for it, be it at the very moment when the time is up."""
        await asyncio.sleep(0)  # a peer whose bytes never end must not keep the loop
        if self._dialler.time() >= until:
            raise DialTimeoutError("timed out")
        ready = True
        while True:
            try:
                return action()
            except BlockingIOError:
                if not ready:
                    raise DialTimeoutError("timed out") from None
            except OSError as error:
                raise DialError(error.strerror or str(error)) from error
            ready = await self._dialler.wait(until, self._socket, write=write)

    async def _fill(self, found: Callable[[bytes], int | None], timeout_s: float) -> bytes:
        """Read until `found` tells how many bytes of the buffer are wanted, and take them."""
        while (size := found(self._buffer)) is None:
            more = await self._more(self._dialler.until(timeout_s))
            if not more:
                raise DialError("ended too early")
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _write(self, data: bytes, until: float) -> None:
        while data:
            sent = await self._attempt(partial(self._socket.send, data), until, write=True)
            data = data[sent:]

    async def _read(self, until: float) -> bytes:
        data = await self._attempt(partial(self._socket.recv, READ), until)
        self._dialler.count(len(data))
        return data

    async def _more(self, until: float) -> bytes:
        if self.session is None:
            return await self._read(until)
        while True:
            try:
                return self.session.read(RECORD)
            except ssl.SSLWantReadError:
                await self._feed(until)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise DialError(f"TLS: {error.reason}") from error

    async def _shake_hands(self, session: ssl.SSLObject, until: float) -> None:
        while True:
            try:
                session.do_handshake()
            except ssl.SSLWantReadError:
                await self._feed(until)
                continue
            except ssl.SSLError as error:
                raise DialError(f"TLS: {error.reason}") from error
            await self._write(self._outgoing.read(), until)
            return

    async def _feed(self, until: float) -> None:
        """The TLS layer wants bytes: give it the next ones, after its own have gone out."""
        await self._write(self._outgoing.read(), until)
        data = await self._read(until)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
