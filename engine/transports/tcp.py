"""TCP over the reactor: one non-blocking socket, edge-triggered, one system call per event where the peer allows it."""

import socket
from errno import EAGAIN, ECONNRESET, EINPROGRESS

from engine.transports.base import MAX_READ, Receiver
from engine.transports.base_local import ANYWHERE, RESET_ON_CLOSE, Local
from engine.transports.reactor import BROKEN, READ, Reactor

CHUNK = 65536  # bytes asked of one recv(); a shorter answer means the socket is drained
WRITABLE = 4  # EPOLLOUT


class TcpTransport:
    """A connection attempt that begins with its construction.

    local: where it begins on this machine. reset: end with RST instead of FIN; spares the TIME_WAIT of
    connections that we end first. Raises OSError when the kernel refuses at once.
    """

    __slots__ = ("_connecting", "_fd", "_idle_s", "_reactor", "_receiver", "_socket", "_unsent")

    def __init__(
        self,
        reactor: Reactor,
        receiver: Receiver,
        host: str,
        port: int,
        *,
        local: Local = ANYWHERE,
        reset: bool = False,
    ) -> None:
        self._reactor = reactor
        self._receiver = receiver
        self._connecting = True
        self._unsent = b""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            if local is not ANYWHERE:
                local.settle(sock)
            error = sock.connect_ex((host, port))
            if error not in (0, EINPROGRESS):
                raise OSError(error, "connect")
        except OSError:
            sock.close()
            raise
        self._socket: socket.SocketType | None = sock
        self._fd = sock.fileno()
        self._idle_s = reactor.idle_s
        reactor.register(self._fd, self)

    def send(self, data: bytes) -> None:
        if self._socket is None:  # it broke, and somebody above has not heard of it yet
            raise OSError(ECONNRESET, "send")
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent = data[sent:]

    def close(self) -> None:
        if self._socket is not None:
            self._reactor.unregister(self._fd)
            self._socket.close()
            self._socket = None

    def ready(self, mask: int, now: float) -> None:
        sock = self._socket
        if sock is None:
            return
        if self._connecting:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & BROKEN else 0
            if error and error != ECONNRESET:
                self._break(OSError(error, "connect"), now)
                return
            if not mask & (WRITABLE | BROKEN):
                return
            self._connecting = False
            load = self._reactor.load
            load.connects += 1
            load.connect_s += self._reactor.idle_s - self._idle_s
            self._receiver.connected(now)
            if self._socket is None:
                return
            if error:
                # Nobody resets what was never made: the connection came and went before we looked. What was received
                # before the reset is still there; the error itself is not, because asking for it has cleared it.
                self._read(sock, hung_up=True, now=now, failure=OSError(error, "read"))
                return
        if self._unsent and mask & WRITABLE:
            unsent, self._unsent = self._unsent, b""
            try:
                self.send(unsent)
            except OSError as error:
                self._break(error, now)
                return
        if mask & (READ | BROKEN):
            self._read(sock, hung_up=bool(mask & ~(WRITABLE | 1)), now=now)

    def _read(self, sock: socket.SocketType, *, hung_up: bool, now: float, failure: OSError | None = None) -> None:
        """Take what is there. hung_up: an end or an error waits behind the data; it is reported after the data.

        failure: that error, where it is known already.
        """
        chunks = []
        size = 0
        ended = False
        while True:
            try:
                chunk = sock.recv(CHUNK)
            except OSError as error:
                if error.errno != EAGAIN:
                    failure = error
                break
            if not chunk:
                ended = True
                break
            chunks.append(chunk)
            size += len(chunk)
            if len(chunk) < CHUNK and not hung_up:
                break
            if size >= MAX_READ:
                self._reactor.rearm(self._fd)
                break
        if chunks:
            self._receiver.received(chunks[0] if len(chunks) == 1 else b"".join(chunks), now)
            if self._socket is None:
                return
        if failure is not None:
            self._break(failure, now)
        elif ended:
            self._receiver.ended(now)

    def crashed(self, error: Exception, now: float) -> None:
        self.close()
        self._receiver.crashed(error, now)

    def _break(self, error: OSError, now: float) -> None:
        self.close()
        self._receiver.broken(error, now)
