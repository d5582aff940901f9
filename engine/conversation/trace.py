"""`--version-trace`: what happens between us and a service, line by line, in the words that Nmap uses for it.

    NSOCK INFO [0.3240s] nsock_read(): Read request from IOD #1 [192.0.2.1:22] (timeout: 6000ms) EID 3
    Service scan hard match (Probe NULL matched with NULL line 120): 192.0.2.1:22 is ssh.  Version: |OpenSSH|9.2p1||

`TracedScan` is a `ServiceScan` that tells, and does nothing else differently; the worker makes one instead of the
other. An IOD is a connection, an EID a request; both are counted within one worker. That a write succeeded is not told:
the driver reports only writes that fail.
"""

import errno
import os
from collections.abc import Callable

from engine.conversation.scan import UNLIMITED, Action, Connect, Finish, Listen, ScanContext, Send, ServiceScan, Stage
from engine.model import Reason, Target, Tunnel, Verdict
from matcher import Match, Probe

SHOWN_BYTES = 80  # a response this long or longer is only counted

_ERRORS = {
    Reason.REFUSED: errno.ECONNREFUSED,
    Reason.RESET: errno.ECONNRESET,
    Reason.TIMEOUT: errno.ETIMEDOUT,
    Reason.UNREACHABLE: errno.EHOSTUNREACH,
}


class Trace:
    """What the traced scans of a worker share. began: the monotonic second at which the run began."""

    def __init__(self, emit: Callable[[str], object], began: float) -> None:
        """emit: takes one line, without its end."""
        self.emit = emit
        self._began = began
        self._connections = 0
        self._requests = 0

    def event(self, now: float, function: str, text: str) -> None:
        """One line about a socket."""
        self.emit(f"NSOCK INFO [{now - self._began:.4f}s] {function}(): {text}")

    def next_connection(self) -> int:
        self._connections += 1
        return self._connections

    def next_request(self) -> int:
        self._requests += 1
        return self._requests


class TracedScan(ServiceScan):
    """A conversation that is told as it goes."""

    __slots__ = ("_address", "_iod", "_trace", "_waiting", "_writing")

    def __init__(self, target: Target, context: ScanContext, trace: Trace, *, max_probes: int = UNLIMITED) -> None:
        super().__init__(target, context, max_probes=max_probes)
        self._trace = trace
        self._address = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        self._iod = 0  # 0: no connection
        self._waiting = 0  # the request, a connect or a read, that is under way
        self._writing = 0  # the last write

    # -- events

    def start(self, now: float) -> Action:
        return self._tell(super().start(now), now)

    def connected(self, now: float) -> Action:
        self._callback(now, self._waiting, f"{self._connect_word()} SUCCESS")
        action = super().connected(now)
        if type(action) is Listen:  # the NULL probe; one that is sent is told with its Send
            self._tell_probe()
        return self._tell(action, now)

    def received(self, data: bytes, now: float) -> Action:
        shown = f": {printable(data)}" if len(data) < SHOWN_BYTES else ""
        self._callback(now, self._waiting, "READ SUCCESS", f" ({len(data)} bytes){shown}")
        return self._tell(super().received(data, now), now)

    def timed_out(self, now: float) -> Action:
        if self.stage is Stage.CONNECTING:
            return super().timed_out(now)  # goes on as `failed`
        self._callback(now, self._waiting, "READ TIMEOUT")
        return self._tell(super().timed_out(now), now)

    def closed(self, now: float) -> Action:
        self._callback(now, self._waiting, "READ EOF")
        return self._tell(super().closed(now), now)

    def failed(self, reason: Reason, now: float) -> Action:
        error = f"ERROR [{error_text(reason)}]"
        if self.stage is Stage.CONNECTING:
            timeout = reason is Reason.TIMEOUT
            self._callback(now, self._waiting, f"{self._connect_word()} {'TIMEOUT' if timeout else error}")
            self._tell_abort("CONNECT", "TIMEOUT" if timeout else "ERROR")
        else:
            self._callback(now, self._waiting, f"READ {error}")
        return self._tell(super().failed(reason, now), now)

    def write_failed(self, reason: Reason, now: float) -> Action:
        self._callback(now, self._writing, f"WRITE ERROR [{error_text(reason)}]")
        self._tell_abort("WRITE", "ERROR")
        return self._tell(super().write_failed(reason, now), now)

    def abort(self, reason: Reason, now: float) -> Finish:
        action = super().abort(reason, now)
        self._tell(action, now)
        return action

    # -- what is told

    def _take(self, match: Match, sent: Probe) -> bool:
        kind = "soft" if match.soft else "hard"
        info = match.info
        service = f"SSL/{match.service}" if self._tunnel is Tunnel.SSL else match.service
        line = f"{match.probe.name} line {match.signature.line}"
        self._trace.emit(
            f"Service scan {kind} match (Probe {sent.name} matched with {line}): {self._address} is {service}."
            f"  Version: |{info.product}|{info.version}|{info.extrainfo}|"
        )
        if match.soft and self._soft and self._name != match.service:
            self._trace.emit(
                f"WARNING: Service {self._address} had already soft-matched {self._name},"
                f" but now soft-matched {match.service}; ignoring second value"
            )
        return super()._take(match, sent)

    def _tell(self, action: Action, now: float) -> Action:
        match action:
            case Connect(tunnel, deadline):
                self._tell_close(now)
                self._tell_connect(tunnel, deadline - now, now)
            case Send(payload, deadline):
                self._tell_probe()
                self._writing = self._trace.next_request()
                text = (
                    f"Write request for {len(payload)} bytes to IOD #{self._iod} EID {self._writing} [{self._address}]"
                )
                self._trace.event(now, "nsock_write", text)
                self._tell_read(deadline - now, now)
            case Listen(deadline):
                self._tell_read(deadline - now, now)
            case Finish(result):
                self._tell_close(now)
                if result.verdict is Verdict.EXCLUDED:
                    self._trace.emit(f"EXCLUDING {result.port}/{result.proto}")
        return action

    def _tell_connect(self, tunnel: Tunnel, limit_s: float, now: float) -> None:
        trace = self._trace
        self._iod = trace.next_connection()
        self._waiting = trace.next_request()
        trace.event(now, "nsock_iod_new2", f"nsock_iod_new (IOD #{self._iod})")
        proto = self.target.proto
        if tunnel is Tunnel.SSL:
            function, kind, where = "nsock_connect_ssl", "SSL", f"{self._address}/{proto}"
        else:
            function, kind, where = f"nsock_connect_{proto}", proto.upper(), self._address
        how = f"(IOD #{self._iod}) (timeout: {limit_s * 1000:.0f}ms) EID {self._waiting}"
        trace.event(now, function, f"{kind} connection requested to {where} {how}")

    def _tell_read(self, limit_s: float, now: float) -> None:
        self._waiting = self._trace.next_request()
        how = f"(timeout: {limit_s * 1000:.0f}ms) EID {self._waiting}"
        self._trace.event(now, "nsock_read", f"Read request from IOD #{self._iod} [{self._address}] {how}")

    def _tell_close(self, now: float) -> None:
        if self._iod:
            self._trace.event(now, "nsock_iod_delete", f"nsock_iod_delete (IOD #{self._iod})")
            self._iod = 0

    def _tell_probe(self) -> None:
        assert self._probe is not None
        self._trace.emit(f"Service scan sending probe {self._probe.name} to {self._address} ({self.target.proto})")

    def _tell_abort(self, request: str, status: str) -> None:
        self._trace.emit(f"Got nsock {request} response with status {status} - aborting this service")

    def _callback(self, now: float, request: int, what: str, more: str = "") -> None:
        text = f"Callback: {what} for EID {request} [{self._address}]{more}"
        self._trace.event(now, "nsock_trace_handler_callback", text)

    def _connect_word(self) -> str:
        return "CONNECT" if self._tunnel is Tunnel.NONE else "SSL-CONNECT"


def printable(data: bytes) -> str:
    """`data` with a dot for every byte that is not printable ASCII."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)


def error_text(reason: Reason) -> str:
    """The system's words and number for it, `Connection refused (111)`."""
    number = _ERRORS.get(reason, errno.EIO)  # as Nmap says of a failed TLS handshake
    return f"{os.strerror(number)} ({number})"
