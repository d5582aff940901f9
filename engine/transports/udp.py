"""UDP over the reactor: many conversations on few sockets.

A `UdpHub` owns a handful of unconnected sockets. A conversation takes the first of them that has no other conversation
with the same address and port, so that every datagram that comes back belongs to exactly one. ICMP errors come back as
well: the sockets ask for them (IP_RECVERR), and the kernel's error queue names the destination that they are about.
Only a socket per conversation with the *same* port of the same host is needed, and tens of thousands fit on one. Who
must not meet what an earlier conversation left behind at the peer talks from a port of its own.

Where the local port is chosen, each conversation has a socket of its own, connected: other sockets of this machine have
the same port, and the kernel tells datagrams apart by where they come from.
"""

import socket
import struct
from errno import EACCES, EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, ENOPROTOOPT, EPROTO

from engine.transports.base import Receiver
from engine.transports.base_local import ANYWHERE, Local
from engine.transports.reactor import BROKEN, Reactor

LARGEST = 65536  # bytes; no datagram is longer
BUFFER = 4 << 20  # bytes of datagrams that may wait for us in the kernel
PER_TURN = 4096  # datagrams, and as many errors, that are taken at once: nobody's flood keeps the others waiting
ERRORS_BEFORE_US = 16  # other conversations' errors that one send may run into
READABLE = 1  # EPOLLIN
_RECVERR = {  # family -> (level, option and control message type), Linux's numbers
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_ABOUT_A_PEER = frozenset((ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EPROTO, EACCES, ENOPROTOOPT, EMSGSIZE))
_ERROR = struct.Struct("I")  # the errno at the head of struct sock_extended_err


class _Shared:
    """One socket of the hub, and who talks through it by (address, port).

    only: the one peer that it is for. passing: closed with its conversation, as it is where it has but one peer.
    """

    def __init__(
        self,
        reactor: Reactor,
        family: int,
        local: Local,
        only: tuple[str, int] | None = None,
        *,
        passing: bool = False,
    ) -> None:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._recverr = _RECVERR[socket.AddressFamily(family)]
            sock.setsockopt(*self._recverr, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            local.settle(sock)
            if only is not None:
                sock.connect(only)
        except OSError:
            sock.close()
            raise
        self.socket = sock
        self.talks: dict[tuple[str, int], UdpTransport] = {}
        self.only = only
        self._passing = passing or only is not None
        self._reactor = reactor
        reactor.register(sock.fileno(), self)

    def leave(self, key: tuple[str, int]) -> None:
        """A conversation is over."""
        del self.talks[key]
        if self._passing:
            self.close()

    def close(self) -> None:
        self._reactor.unregister(self.socket.fileno())
        self.socket.close()

    def ready(self, mask: int, now: float) -> None:
        drained = True
        if mask & BROKEN:
            drained = self._read_errors(now)
        if mask & READABLE:
            drained &= self._read(now)
        if not drained:
            self._reactor.rearm(self.socket.fileno())

    def crashed(self, error: Exception, now: float) -> None:
        """Nobody's conversation: the next datagrams may fare better."""
        self._reactor.rearm(self.socket.fileno())
        raise error

    def _read(self, now: float) -> bool:
        """Hand out what waits. -> whether that was all"""
        for _ in range(PER_TURN):
            try:
                datagram, peer = self.socket.recvfrom(LARGEST)
            except OSError as error:
                if error.errno in _ABOUT_A_PEER:
                    continue  # reported here once, too; whom it is about stands in the error queue
                return True  # drained, or closed by what the last datagram led to
            talk = self.talks.get(peer[:2])
            if talk is not None:
                try:
                    talk.heard(datagram, now)
                except Exception as error:
                    self._reactor.crash(talk, error, now)
        return False

    def _read_errors(self, now: float) -> bool:
        """Hand out the ICMP errors that wait. -> whether those were all"""
        level, kind = self._recverr
        for _ in range(PER_TURN):
            try:
                _, messages, _, peer = self.socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return True
            talk = self.talks.get(peer[:2]) if peer else None
            for message_level, message_kind, data in messages:
                if talk is not None and (message_level, message_kind) == (level, kind):
                    try:
                        talk.failed(OSError(_ERROR.unpack_from(data)[0], "datagram"), now)
                    except Exception as error:
                        self._reactor.crash(talk, error, now)
        return False


class UdpHub:
    """The sockets of one worker. Local ends are told apart: a conversation keeps the one it was begun with."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._sockets: dict[tuple[int, Local], list[_Shared]] = {}

    def open(
        self, receiver: Receiver, host: str, port: int, local: Local = ANYWHERE, *, alone: bool = False
    ) -> "UdpTransport":
        """A conversation, ready at once; the caller reports it as connected. Raises OSError.

        alone: from a local port that nobody else uses, where the port is not chosen.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if alone and not local.port:
            return UdpTransport(_Shared(self._reactor, family, local, passing=True), receiver, host, port)
        sockets = self._sockets.setdefault((family, local), [])
        only = (host, port) if local.port else None
        if only is not None:
            sockets[:] = [shared for shared in sockets if shared.talks]
            if any(shared.only == only for shared in sockets):
                raise OSError(EADDRNOTAVAIL, "datagram")  # until the one that goes on there has ended
        for shared in sockets if only is None else ():
            if (host, port) not in shared.talks:
                break
        else:
            shared = _Shared(self._reactor, family, local, only)
            sockets.append(shared)
        return UdpTransport(shared, receiver, host, port)

    def close(self) -> None:
        for sockets in self._sockets.values():
            for shared in sockets:
                if shared.only is None or shared.talks:
                    shared.close()
        self._sockets.clear()


class UdpTransport:
    """One conversation on a shared socket."""

    __slots__ = ("_key", "_receiver", "_shared")

    def __init__(self, shared: _Shared, receiver: Receiver, host: str, port: int) -> None:
        self._shared: _Shared | None = shared
        self._receiver = receiver
        self._key = (host, port)
        shared.talks[self._key] = self

    def send(self, data: bytes) -> None:
        assert self._shared is not None
        for again in reversed(range(ERRORS_BEFORE_US)):
            try:
                self._shared.socket.sendto(data, self._key)
            except BlockingIOError:
                return  # the local queue is full: lost as any datagram may be
            except OSError as error:
                if error.errno in _ABOUT_A_PEER and again:
                    continue  # likely an ICMP error about somebody else's datagram; asking has cleared it
                raise
            return

    def close(self) -> None:
        if self._shared is not None:
            self._shared.leave(self._key)
            self._shared = None

    def crashed(self, error: Exception, now: float) -> None:
        self.close()
        self._receiver.crashed(error, now)

    def heard(self, datagram: bytes, now: float) -> None:
        if datagram:
            self._receiver.received(datagram, now)
        else:
            self._receiver.ended(now)

    def failed(self, error: OSError, now: float) -> None:
        self._receiver.broken(error, now)
