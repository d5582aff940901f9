"""Conversations in TLS with nothing around them: the yardstick of tls_table.py.

A connection is a generator, resumed when its socket has something, over one epoll. The handshakes go through memory
buffers and the context that the caller gives, sockets are closed with RST, and nothing is looked at: no deadlines, no
certificate, no matching, no rows. Nothing here survives a peer that does not do as it should.
"""

import gc
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable

from engine.transports.reactor import EDGE
from engine.transports.tcp import CHUNK, RESET_ON_CLOSE

INFLIGHT = 100
PATIENCE_S = 10.0
NO_HELLO = b"\x16\x03\x01\x00\x28\x01\x00\x00\x24" + bytes(36)  # what only looks like one is answered with an alert
REQUEST = b"GET / HTTP/1.0\r\n\r\n"

Talk = Generator[socket.socket | None, None, None]  # yields a socket that is new, or None to wait for what it waits for
Kind = Callable[[ssl.SSLContext, tuple[str, int]], Talk]


def handshake(context: ssl.SSLContext, address: tuple[str, int]) -> Talk:
    """Connect, shake hands, close."""
    sock, *_ = yield from _shaken(context, address)
    sock.close()


def conversation(context: ssl.SSLContext, address: tuple[str, int]) -> Talk:
    """What a scan says to a web server in TLS, and when.

    A question in the clear, answered with an alert; the handshake on a connection of its own; the tickets that the
    server sends unasked; a request and its answer.
    """
    sock = yield from _connected(address)
    sock.send(NO_HELLO)
    yield from _received(sock)
    sock.close()
    sock, session, incoming, outgoing = yield from _shaken(context, address)
    asked = False
    while True:
        incoming.write((yield from _received(sock)))
        try:
            session.read(CHUNK)
            break
        except ssl.SSLWantReadError:
            if not asked:
                session.write(REQUEST)
                sock.send(outgoing.read())
                asked = True
    sock.close()


def cpu_s(kind: Kind, context: ssl.SSLContext, hosts: Iterable[str], port: int) -> float:
    """CPU seconds of one conversation with each host, `INFLIGHT` at a time. Raises TimeoutError."""
    waiting = iter(hosts)
    epoll = select.epoll()
    talks: dict[int, Talk] = {}

    def resume(talk: Talk) -> bool:
        """Whether it goes on."""
        try:
            new = next(talk)
        except StopIteration:
            return False
        if new is not None:
            talks[new.fileno()] = talk
            epoll.register(new.fileno(), EDGE)
        return True

    def fill(going: int) -> int:
        """Together, once a turn: the processor's caches make it a tenth cheaper."""
        while going < INFLIGHT and (host := next(waiting, "")):
            going += resume(kind(context, (host, port)))
        return going

    gc.collect()
    gc.disable()
    began = time.process_time()
    going = fill(0)
    while going:
        events = epoll.poll(PATIENCE_S)
        if not events:
            raise TimeoutError(f"{going} conversations wait for their peer")
        going = fill(going - sum(not resume(talks[fd]) for fd, _ in events))
    taken = time.process_time() - began
    gc.enable()
    epoll.close()
    return taken


def _connected(address: tuple[str, int]) -> Generator[socket.socket | None, None, socket.socket]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.connect_ex(address)
    yield sock
    return sock


def _received(sock: socket.socket) -> Generator[socket.socket | None, None, bytes]:
    while True:
        yield None
        try:
            return sock.recv(CHUNK)
        except BlockingIOError:
            pass


def _shaken(
    context: ssl.SSLContext, address: tuple[str, int]
) -> Generator[socket.socket | None, None, tuple[socket.socket, ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]]:
    sock = yield from _connected(address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            if outgoing.pending:
                sock.send(outgoing.read())
            incoming.write((yield from _received(sock)))
    sock.send(outgoing.read())
    return sock, session, incoming, outgoing
