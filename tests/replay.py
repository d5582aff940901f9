"""Conversations in virtual time: a ServiceScan against a scripted server, without sockets and without waiting.

`replay(case, context)` drives the scan as the driver would, hands out every event at the time at which it would happen
on a network without delays, and returns the row and what the server received. `cut` hands over the server's bytes in
pieces of that size, all at the same moment.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal

from cases import Case, Step
from cases.script import HalfClose, Hang, Play, Read, Sleep, StartTls, Write, play

from engine.conversation.scan import Action, Connect, Finish, Listen, ScanContext, Send, ServiceScan
from engine.model import Reason, ServiceResult, Target, Tunnel

MAX_ACTIONS = 200_000  # of one conversation; a scan that does not end is a failure, not a hang
UNREGISTERED_PORT = 61999
CLIENT_HELLO = b"\x16\x03\x01"

Event = bytes | Reason | None  # what the client reads: data, a broken connection, or the end


class Peer:
    """The server's side of one connection (udp: of all sockets). Runs its script as far as time and input allow."""

    def __init__(self, steps: Sequence[Step], *, cut: int = 0, datagrams: bool = False) -> None:
        self.received = b""
        self.events: deque[Event] = deque()
        self.wake_at: float | None = None
        self.tls = False
        self.gone = False
        self._cut = cut
        self._datagrams = datagrams
        self._script: Play = play(steps)
        self._reading = False
        self._unread: deque[bytes] = deque()
        self._started = False

    def run(self, now: float, answer: bytes | None = None) -> None:
        """Obey the script until it waits for time or input."""
        self.wake_at = None
        self._reading = False
        while not self.gone:
            try:
                request = self._script.send(answer if self._started else None)
            except StopIteration:
                break
            self._started = True
            answer = b""
            match request:
                case Write(data):
                    step = self._cut if self._cut and not self._datagrams else max(len(data), 1)
                    pieces = [data[at : at + step] for at in range(0, max(len(data), self._datagrams), step)]
                    self.events.extend(piece or None for piece in pieces)
                case Sleep(seconds):
                    self.wake_at = now + seconds
                    return
                case Read(seconds):
                    if self._unread:
                        answer = self._unread.popleft()
                        continue
                    self._reading = True
                    self.wake_at = None if seconds is None else now + seconds
                    return
                case StartTls():
                    self.tls = True
                    answer = b"shaken"
                case HalfClose():
                    self.events.append(None)
                case Hang(reset):
                    self.events.append(Reason.RESET if reset else None)
                    self.gone = True

    def take(self, data: bytes, now: float) -> None:
        """Bytes from the client."""
        if self.gone:
            return
        self.received += data
        self._unread.append(data)
        if self._reading:
            self.run(now, self._unread.popleft())


class Network:
    """Everything beyond the scan's actions: who listens, what they say, and what time it is."""

    def __init__(self, case: Case, *, cut: int = 0) -> None:
        self.now = 0.0
        self._case = case
        self._cut = cut
        self._peers: list[Peer] = []
        self._datagrams: list[bytes] = []
        self._udp = case.proto == "udp"
        if self._udp:
            self._peers.append(Peer(case.server[0], datagrams=True))
            self._peers[0].run(self.now)

    @property
    def sent(self) -> list[bytes]:
        """What the server received: by connection, or by datagram."""
        return self._datagrams if self._udp else [peer.received for peer in self._peers]

    def connect(self, scan: ServiceScan, action: Connect) -> Action:
        """Open the connection, as far as the server plays along; tell the scan."""
        if self._udp:
            self._peers[0].events.clear()
            if action.tunnel is Tunnel.NONE:
                return scan.connected(self.now)
            self.now = action.deadline  # no case speaks DTLS
            return scan.timed_out(self.now)
        case = self._case
        if case.closes_after is not None and len(self._peers) >= case.closes_after:
            return scan.failed(Reason.REFUSED, self.now)
        peer = Peer(case.server[min(len(self._peers), len(case.server) - 1)], cut=self._cut)
        self._peers.append(peer)
        peer.run(self.now)
        if action.tunnel is Tunnel.NONE:
            assert not peer.tls, "a connection without TLS met a TLS server"
            return scan.connected(self.now)
        scan.opened()
        if peer.tls:
            return scan.connected(self.now)
        peer.take(CLIENT_HELLO, self.now)
        peer.received = b""
        if peer.events:
            return scan.failed(Reason.TLS, self.now)
        self.now = action.deadline
        return scan.timed_out(self.now)

    def send(self, payload: bytes) -> None:
        peer = self._peers[-1]
        if not self._udp:
            peer.take(payload, self.now)
        elif self._case.closes_after is not None and len(self._datagrams) >= self._case.closes_after:
            peer.events.append(Reason.REFUSED)
        else:
            self._datagrams.append(payload)
            peer.take(payload, self.now)

    def listen(self, scan: ServiceScan, deadline: float) -> Action:
        """Let time pass until the client has something to read or the deadline has come; tell the scan."""
        peer = self._peers[-1]
        while not peer.events:
            if peer.wake_at is None or peer.wake_at > deadline:
                self.now = deadline
                return scan.timed_out(self.now)
            self.now = max(self.now, peer.wake_at)
            peer.run(self.now, b"")
        event = peer.events.popleft()
        if event is None:
            return scan.closed(self.now)
        if isinstance(event, Reason):
            return scan.failed(event, self.now)
        return scan.received(event, self.now)


def replay(case: Case, context: ScanContext, *, cut: int = 0, port: int = 0) -> tuple[ServiceResult, list[bytes]]:
    """The row of a conversation, and what the server received.

    cut: bytes per read, 0 = as they were sent. port: where the case does not say one.
    """
    state: Literal["open", "open|filtered"] = "open|filtered" if case.proto == "udp" else "open"
    target = Target(0, "127.0.0.1", case.port or port or UNREGISTERED_PORT, case.proto, state=state)
    scan = ServiceScan(target, context)
    network = Network(case, cut=cut)
    action = scan.start(network.now)
    for _ in range(MAX_ACTIONS):
        match action:
            case Finish(result):
                return result, network.sent
            case Connect():
                action = network.connect(scan, action)
            case Send(payload, deadline):
                network.send(payload)
                action = network.listen(scan, deadline)
            case Listen(deadline):
                action = network.listen(scan, deadline)
    raise AssertionError(f"{case.id}: no verdict after {MAX_ACTIONS} actions")
