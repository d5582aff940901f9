"""UDP over the reactor: one connected socket per conversation, so that the host's ICMP errors find their way back."""

import socket
from errno import EAGAIN

from engine.reactor import BROKEN, READ, Reactor
from engine.transports.base import Receiver

LARGEST = 65536  # bytes; no datagram is longer


class UdpTransport:
    """A socket that is ready at once; the caller reports it as connected. Raises OSError."""

    __slots__ = ("_fd", "_reactor", "_receiver", "_socket")

    def __init__(self, reactor: Reactor, receiver: Receiver, host: str, port: int, *, source: str = "") -> None:
        self._reactor = reactor
        self._receiver = receiver
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.SocketType(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if source:
                sock.bind((source, 0))
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        self._socket: socket.SocketType | None = sock
        self._fd = sock.fileno()
        reactor.register(self._fd, self)

    def send(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.send(data)
        except BlockingIOError:
            pass  # the local queue is full: lost as any datagram may be
        except ConnectionRefusedError:
            # The error belongs to an earlier datagram; reading it cleared it, so this one can go.
            self._socket.send(data)

    def close(self) -> None:
        if self._socket is not None:
            self._reactor.unregister(self._fd)
            self._socket.close()
            self._socket = None

    def ready(self, mask: int, now: float) -> None:
        if not mask & (READ | BROKEN):
            return
        while self._socket is not None:
            try:
                datagram = self._socket.recv(LARGEST)
            except OSError as error:
                if error.errno != EAGAIN:
                    self._receiver.broken(error, now)
                return
            if datagram:
                self._receiver.received(datagram, now)
            else:
                self._receiver.ended(now)
