"""ServiceScan: one open port from the first byte to the verdict, as a state machine. No sockets, no clock, no regex.

The driver tells what happened - `start connected received closed timed_out failed write_failed abort`, each with the
time `now` in monotonic seconds - and gets one action back:

    Connect(tunnel, deadline)   drop the connection there may be, open a new one, bare or with TLS inside; a UDP
                                "connection" succeeds at once
    Send(payload, deadline)     write to the present connection, then listen until the deadline
    Listen(deadline)            go on reading the present connection
    Finish(result)              close; the conversation is over

The rules, each in exactly one method:

  Which probe next (`_next_probe`, with plan.py). The NULL probe listens for a banner; then come the probes that name
  the port, then the others as rarity and intensity allow. A softmatch restricts what follows to probes that can detect
  the softmatched service. Inside a tunnel the same pass is made once more, with `sslports` in place of `ports`, as far
  as the timing finds a probe useful there.

  Which connection (`_advance`). The NULL probe and the probe after it share a connection and the buffer: the banner
  stays in front of the answer. Every further probe gets a connection of its own and an empty buffer. Where the timing
  hurries, the NULL probe is not waited for (`_said_at_once`); who then hangs up unheard may be looked at again
  (`_looks_again`). Where it knows which probe tells the services there, that one has a connection before all others,
  and unless its answer is a hard match, all begins anew (`_begin_anew`).

  How long (`_deadline`). A window begins with the connect, or with sending on a shared connection. Under Nmap's timing
  data does not lengthen it; 4096 unmatched bytes end it.

  What a match does (`_take`). The first softmatch gives its name and fields and is never replaced by another
  softmatch; a hard match ends the scan, its non-empty fields winning over the soft ones. A hard match named `ssl`
  or `dtls` starts the tunnel and forgets everything; `ssl/x` means x inside TLS without looking.

  Tcpwrapped (`_finish`). `_wrap_ok` is true until a byte, a read timeout or a match has been seen. A peer that hangs up
  on the NULL probe early is tcpwrapped, and so is, at the end, every port that never got that far. The first connect
  failing on a port that no port scan called open is reported for what it is: closed or filtered. Of a port that was
  never contacted (excluded, cancelled, a name without an address) no state is claimed beyond what the input said.

Source: the behaviour observed on Nmap 7.93 and the 2026 development head; tests/cases has the observations as tables.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, auto
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.conversation.fingerprint import Fingerprint
from engine.conversation.opinion import DatabaseOpinion
from engine.conversation.plan import Plan, Planner
from engine.conversation.timing import NmapTiming, Pace, Timing
from engine.errors import ScanStateError
from engine.model import BARE, DatabaseRef, Evidence, Reason, ServiceResult, Target, TlsFacts, Tunnel, Verdict
from matcher import Confidence, Confidences, Match, Probe, ProbeDatabase, Proto, VersionInfo

ENOUGH_UNMATCHED = 4096  # bytes; a buffer this long that no line fits is not waited upon any further
FINGERPRINT_INTENSITY = 7  # below it only a NOMATCH shows its fingerprint
UNLIMITED = 1 << 30  # probes
CONNECT_S = 5.0
TLS_CONNECT_S = 8.0  # TCP connect and handshake together


class Connect(Struct, frozen=True):
    """Open a connection, dropping the present one; report `connected` or `failed` by the deadline."""

    tunnel: Tunnel
    deadline: float


class Send(Struct, frozen=True):
    """Write `payload` to the present connection, then listen until the deadline."""

    payload: bytes
    deadline: float


class Listen(Struct, frozen=True):
    """Go on reading the present connection until the deadline."""

    deadline: float


class Finish(Struct, frozen=True):
    """Close the connection; this is the row."""

    result: ServiceResult


Action = Connect | Send | Listen | Finish


class Stage(Enum):
    """What the scan waits for."""

    NEW = auto()
    CONNECTING = auto()
    LISTENING = auto()
    FINISHED = auto()


# Python 3.11 looks a member up in its class five times as slowly as a global, and a conversation does it thirty times.
_NEW, _CONNECTING, _LISTENING, _FINISHED = Stage
_HARDMATCHED, _SOFTMATCHED, _TCPWRAPPED, _INCOMPLETE = (
    Verdict.HARDMATCHED,
    Verdict.SOFTMATCHED,
    Verdict.TCPWRAPPED,
    Verdict.INCOMPLETE,
)


class ScanContext:
    """What all scans of a worker share: the database, how to match, which probes, how patiently.

    match: (probe, response) -> Match or None. failures: how often it had to try every line because a set could
    not answer, by cause; live. service_name: (port, proto) -> the services table's name, or "".
    wall_offset: what to add to a monotonic `now` to get seconds since the epoch. max_bytes: received per service.
    dtls: whether what is called `dtls`, or `ssl` over UDP, is asked again inside a tunnel; Nmap 7.93 does not.
    opinion: of a second database, for whoever finishes rows.
    """

    def __init__(
        self,
        database: ProbeDatabase,
        match: Callable[[Probe, bytes], Match | None],
        *,
        failures: Mapping[str, int] = MappingProxyType({}),
        intensity: int = 7,
        timing: Timing | None = None,
        service_name: Callable[[int, Proto], str] = lambda port, proto: "",
        excluded: bool = True,
        connect_s: float = CONNECT_S,
        tls_connect_s: float = TLS_CONNECT_S,
        max_bytes: int = 1 << 23,
        dtls: bool = True,
        wall_offset: float = 0.0,
        version: str = "",
        platform: str = "",
        opinion: DatabaseOpinion | None = None,
    ) -> None:
        self.database = database
        self.null_probe = database.null_probe
        self.opinion = opinion
        self.reference = DatabaseRef(database.name, database.sha256)
        self.match = match
        self.failures = failures
        self.confidences = Confidences(database)
        self.planner = Planner(database, intensity)
        self.intensity = intensity
        self.timing = timing or NmapTiming()
        self.service_name = service_name
        self.excluded = {"tcp": set(database.exclude_tcp), "udp": set(database.exclude_udp)} if excluded else {}
        self.connect_s = connect_s
        self.tls_connect_s = tls_connect_s
        self.max_bytes = max_bytes
        self.dtls = dtls
        self.wall_offset = wall_offset
        self.version = version
        self.platform = platform


_NO_INFO = VersionInfo()
_UNSURE = Confidence(None)
_FIELDS = VersionInfo.__struct_fields__


class ServiceScan:
    """One target's conversation; the module's docstring has the rules.

    max_probes: how many probes may be sent at most; 0 listens for a banner and says nothing, and leaves UDP alone.
    """

    __slots__ = (
        "_again_s",
        "_ahead",
        "_answer",
        "_buffer",
        "_bytes",
        "_connections",
        "_contacted",
        "_context",
        "_cursor",
        "_evidence",
        "_fingerprint",
        "_heard",
        "_idle_s",
        "_info",
        "_name",
        "_pace",
        "_plan",
        "_probe",
        "_probes_left",
        "_shared_since",
        "_soft",
        "_started",
        "_state",
        "_sure",
        "_t0",
        "_tunnel",
        "_window",
        "_wrap_ok",
        "stage",
        "target",
        "tls",
    )

    def __init__(self, target: Target, context: ScanContext, *, max_probes: int = UNLIMITED) -> None:
        self.target = target
        self.stage = _NEW
        self.tls: TlsFacts | None = None  # set by the driver after a handshake
        self._context = context
        self._probes_left = max_probes
        self._plan: Plan | None = None
        self._cursor = -1  # -1: the NULL probe comes next
        self._ahead: bool | None = None  # what tells is asked before all else; None: that is to be seen
        self._probe: Probe | None = None
        self._buffer = b""
        self._answer = b""  # the last buffer that was not empty, of the probes before
        self._t0 = 0.0
        self._window = 0.0  # when the present window ends
        self._idle_s = 0.0
        self._heard = False  # a byte has arrived in the present window
        self._shared_since: float | None = None  # the connect, while the connection is the one with the NULL probe
        self._again_s = 0.0  # what the NULL probe gets in a second look; 0 before there is one
        self._pace = Pace()
        self._name: str | None = None
        self._soft = False
        self._info = _NO_INFO
        self._tunnel = BARE
        self._wrap_ok = True
        self._fingerprint: Fingerprint | None = None
        self._evidence: Evidence | None = None
        self._sure: Confidence = _UNSURE
        self._state: str = target.state
        self._started = 0.0
        self._contacted = False
        self._connections = 0
        self._bytes = 0

    @property
    def probe(self) -> str:
        """The name of the current probe."""
        return self._probe.name if self._probe is not None else ""

    @property
    def response(self) -> bytes:
        """What has been received for the last probe that drew anything."""
        return self._buffer or self._answer

    # -- events

    def start(self, now: float) -> Action:
        """Begin. The first action is a Connect, or a Finish where there is nothing to send."""
        self._expect(_NEW, "started")
        self._started = now
        target = self.target
        if not target.host:
            self._wrap_ok = False
            return self._finish(_INCOMPLETE, now, Reason.UNRESOLVED)
        excluded = self._context.excluded.get(target.proto)
        if (excluded and target.port in excluded) or (target.proto == "udp" and not self._probes_left):
            self._wrap_ok = False
            return self._finish(Verdict.EXCLUDED, now)
        return self._connect_next(now)

    def dialled(self, now: float) -> None:
        """The connection asked for begins only now; what it waited for before is no round trip."""
        self._t0 = now

    def opened(self) -> None:
        """A TCP connection stands, and TLS begins to shake hands in it. Told in tunnels only, before the outcome."""
        self._connections += 1

    def connected(self, now: float) -> Action:
        """The connection stands, with TLS inside where a tunnel was asked for."""
        self._expect(_CONNECTING, "connected")
        self.stage = _LISTENING
        tcp = self.target.proto == "tcp"
        if tcp or self._tunnel is not BARE:
            self._pace.connected(now - self._t0, self._tunnel)
        if tcp and self._tunnel is BARE:
            self._state = "open"
            self._connections += 1
        probe = self._probe
        assert probe is not None
        greeting_s = 0.0
        if probe.is_null:
            self._shared_since = now
            if (said := self._said_at_once()) is not None:
                # Who says nothing is heard as long as elsewhere: after the teller all begins anew.
                greeting_s = 0.0 if self._ahead else self._context.timing.silence_s(probe, self._pace)
                self._probe = probe = said
        deadline = self._open_window(probe, now)
        if probe.payload:
            return Send(probe.payload, min(self._window, deadline + greeting_s))
        if self._again_s:
            self._wrap_ok = True
            deadline = min(self._window, max(deadline, now + self._again_s))
        return Listen(deadline)

    def received(self, data: bytes, now: float) -> Action:
        """At least one byte arrived."""
        self._expect(_LISTENING, "bytes received")
        self._wrap_ok = False
        self._state = "open"
        self._bytes += len(data)
        probe = self._probe
        assert probe is not None
        if not self._heard:
            self._heard = True
            timing = self._context.timing
            timing.heard(probe, self._pace, now - self._t0)
            if self._shared_since is not None and not self._ahead:
                timing.greeted(self.target.port, self._tunnel, probe.is_null)
        buffer = self._buffer = self._buffer + data if self._buffer else data
        match = self._context.match(probe, buffer)
        was_guessed = self._soft and not self._ahead
        if match is not None and self._take(match, probe):
            if self.target.proto == "tcp" and not was_guessed:
                teller = match.probe if match.probe.is_null else probe
                self._context.timing.told(self.target.port, self._tunnel, teller)
            if self._starts_tunnel():
                return self._connect_next(now)
            return self._finish(_HARDMATCHED, now)
        if self._bytes > self._context.max_bytes:
            self._keep_fingerprint(now)
            return self._finish(_INCOMPLETE, now, Reason.BUDGET)
        if now < self._window and len(buffer) < ENOUGH_UNMATCHED:
            return Listen(min(self._window, now + self._idle_s))
        self._keep_fingerprint(now)
        return self._advance(now, restart=False)

    def timed_out(self, now: float) -> Action:
        """The deadline of the last action has passed."""
        if self.stage is _CONNECTING:
            return self.failed(Reason.TIMEOUT, now)
        self._expect(_LISTENING, "timed out")
        self._wrap_ok = False
        if self._probe is not None and self._probe.payload:
            self._pace.expired += 1
        self._keep_fingerprint(now)
        return self._advance(now, restart=False)

    def closed(self, now: float) -> Action:
        """The peer ended its side: EOF, or an empty datagram."""
        self._expect(_LISTENING, "closed")
        if self._buffer:
            self._keep_fingerprint(now)
            self._wrap_ok = False
        return self._hung_up(now)

    def failed(self, reason: Reason, now: float) -> Action:
        """The connection could not be made, or broke while reading."""
        if reason is Reason.PROXY:
            self._wrap_ok = False  # it was not reached, and nothing is said of it
        if self.stage is _CONNECTING:
            if self._again_s and self._probe is self._context.null_probe:
                return self._advance(now, restart=True)  # a second look at nothing says nothing
            return self._finish(_INCOMPLETE, now, reason)
        self._expect(_LISTENING, f"failed ({reason.value})")
        if reason in {Reason.UNREACHABLE, Reason.PROXY}:
            self._wrap_ok = False
            return self._finish(_INCOMPLETE, now, reason)
        if reason is Reason.REFUSED and self._wrap_ok and not self._state:
            # A port nobody called open, and its host says there is nothing: what a port scan would have called closed.
            return self._finish(_INCOMPLETE, now, reason)
        return self._hung_up(now, reset=reason in (Reason.RESET, Reason.REFUSED))

    def write_failed(self, reason: Reason, now: float) -> Action:
        """The payload of a Send could not be written. Ends the service, as in Nmap."""
        self._expect(_LISTENING, f"write failed ({reason.value})")
        if self._ahead:
            return self._begin_anew(now)
        return self._finish(_INCOMPLETE, now, reason)

    def abort(self, reason: Reason, now: float) -> Finish:
        """A budget ran out or the run is being cancelled: end now with what is known. Possible before the end only."""
        if self.stage is _FINISHED:
            raise ScanStateError(f"{self.stage.name}: aborted after the verdict")
        if self.stage is _NEW:
            self._started = now
        self._wrap_ok = False
        self._keep_fingerprint(now)
        return self._finish(_INCOMPLETE, now, reason)

    def put_off(self, pause_s: float) -> None:
        """We have not run for so long: what is being measured began later, and ends later, by that much."""
        self._t0 += pause_s
        self._window += pause_s
        if self._shared_since is not None:
            self._shared_since += pause_s

    def crashed(self, now: float) -> ServiceResult:
        """The least there is to say, where the state of the conversation can no longer be trusted."""
        self.stage = _FINISHED
        context = self._context
        started = rfc3339(self._started + context.wall_offset)
        return replace(
            crashed_row(self.target, context.reference, started, state=self._state or self._unanswered()),
            elapsed_ms=round((now - self._started) * 1000),
            connections=self._connections,
            bytes=self._bytes,
        )

    # -- rules

    def _expect(self, stage: Stage, event: str) -> None:
        if self.stage is not stage:
            raise ScanStateError(f"{self.stage.name}: {event}; expected only in {stage.name}")

    def _next_probe(self) -> Probe | None:
        """The next probe to send, or None when they are exhausted."""
        context = self._context
        target = self.target
        cursor = self._cursor
        if cursor < 0:
            self._cursor = cursor = 0
            if context.null_probe is not None and target.proto == "tcp":
                return context.null_probe
        if self._probes_left <= 0:
            return None
        self._probes_left -= 1
        if self._plan is None:
            self._plan = context.planner.plan(target.proto, self._tunnel, target.port)
        soft = self._name if self._soft else None
        queue = self._plan.queue
        while cursor < len(queue):
            probe, listed = queue[cursor]
            cursor += 1
            if not context.planner.allows(probe, listed, soft):
                continue
            if listed or soft or self._tunnel is BARE or context.timing.useful(probe, self._pace):
                self._cursor = cursor
                return probe
        self._cursor = cursor
        return None

    def _connect_next(self, now: float) -> Action:
        """A new connection, an empty buffer, the next probe."""
        self._pace.over(self._buffer, self._answer)
        if self._buffer:
            self._answer, self._buffer = self._buffer, b""
        self._shared_since = None
        self._probe = self._next_probe()
        if self._probe is None:
            return self._exhausted(now)
        return self._connect(now)

    def _connect(self, now: float) -> Connect:
        self.stage = _CONNECTING
        self._contacted = True
        self._t0 = now
        context = self._context
        limit = context.connect_s if self._tunnel is BARE else context.tls_connect_s
        return Connect(self._tunnel, now + limit)

    def _advance(self, now: float, *, restart: bool) -> Action:
        """The current probe is over. restart: its connection is no longer of use."""
        assert self._probe is not None
        if self._ahead:
            return self._begin_anew(now)
        if restart or not self._probe.is_null:
            return self._connect_next(now)
        probe = self._next_probe()
        if probe is None:
            return self._exhausted(now)
        self._probe = probe
        return Send(probe.payload, self._open_window(probe, now))

    def _open_window(self, probe: Probe, now: float) -> float:
        """The window of a probe begins now; returns when silence ends it."""
        timing = self._context.timing
        self._t0 = now
        self._heard = False
        self._window = now + probe.totalwait_s
        self._idle_s = timing.idle_s(probe, self._pace)
        return min(self._window, now + timing.silence_s(probe, self._pace))

    def _said_at_once(self) -> Probe | None:
        """The probe that would follow the NULL probe, if it names a port where nobody greets; or the one that tells."""
        if self._again_s:
            return None
        timing, port, tunnel = self._context.timing, self.target.port, self._tunnel
        if timing.hurries(port, tunnel):
            queue = self._context.planner.plan(self.target.proto, tunnel, port).queue
            if queue and queue[0][1]:
                return self._next_probe()
        if self._ahead is not None or self._probes_left <= 0:
            return None
        teller = timing.teller(port, tunnel)
        self._ahead = teller is not None
        return teller

    def _begin_anew(self, now: float) -> Action:
        """The probe that tells the services here has not told this one, which is seen as if nothing were known."""
        self._ahead = False
        self._forget()
        self._buffer = self._answer = b""
        self._wrap_ok = self._tunnel is BARE
        return self._connect_next(now)

    def _forget(self) -> None:
        """What has been found out and what has been sent."""
        self._name = None
        self._soft = False
        self._info = _NO_INFO
        self._evidence = None
        self._sure = _UNSURE
        self._fingerprint = None
        self._plan = None
        self._cursor = -1
        self._again_s = 0.0
        self._pace = Pace()

    def _exhausted(self, now: float) -> Finish:
        return self._finish(_SOFTMATCHED if self._soft else Verdict.NOMATCH, now)

    def _hung_up(self, now: float, *, reset: bool = True) -> Action:
        """The peer left: tcpwrapped if it did so early and silently, else the next probe on a new connection."""
        probe = self._probe
        assert probe is not None
        if self._ahead:
            return self._begin_anew(now)
        if reset and self._wrap_ok and probe.is_null and now - self._t0 < probe.tcpwrapped_s:
            return self._finish(_TCPWRAPPED, now)
        if self._looks_again(now):
            self._wrap_ok = False  # Nmap would have seen the NULL probe's window run out; until we have looked
            self._probe = self._context.null_probe
            return self._connect(now)
        return self._advance(now, restart=True)

    def _looks_again(self, now: float) -> bool:
        """Whether a peer that has just hung up may have done so unasked: it was asked while Nmap would have waited."""
        context, since = self._context, self._shared_since
        null_probe = context.null_probe
        if null_probe is None or since is None or self._bytes or self._again_s or self._probe is null_probe:
            return False
        after_s = now - since
        if after_s < min(null_probe.totalwait_s, null_probe.tcpwrapped_s):
            self._again_s = context.timing.second_look_s(after_s)
        return self._again_s > 0

    def _take(self, match: Match, sent: Probe) -> bool:
        """Note what a line said. True: it was a hard match."""
        signature = match.signature
        if match.probe is not sent and match.probe.is_null and self._shared_since is not None:
            self._context.timing.greeted(self.target.port, self._tunnel, True)
        if signature.soft and self._name is not None:
            return False
        self._name = signature.service
        self._soft = signature.soft
        self._pace.expired = 0  # what is asked from now on is meant for this service
        if self._info is _NO_INFO:
            self._info = match.info
        else:
            new, old = match.info, self._info
            self._info = VersionInfo(*[getattr(new, field) or getattr(old, field) for field in _FIELDS])
        self._sure = self._context.confidences.of(signature)
        self._evidence = Evidence(
            match.probe.name,
            signature.line,
            signature.soft,
            sent.name if sent is not match.probe else "",
            signature.file if signature.file != self._context.database.name else "",
        )
        return not signature.soft

    def _starts_tunnel(self) -> bool:
        """After a hard match: whether it leads into TLS or DTLS. `ssl/x` is settled here, without a connection."""
        assert self._name is not None
        if self._name.startswith("ssl/"):
            self._tunnel = Tunnel.SSL
            self._name = self._name[4:]
            return False
        older = self._name == "ssl" and self.target.proto == "tcp"
        newer = self._name in ("ssl", "dtls") and self._context.dtls
        if self._tunnel is not BARE or not (older or newer):
            return False
        self._tunnel = Tunnel.SSL
        self._ahead = None
        self._forget()
        return True

    def _keep_fingerprint(self, now: float) -> None:
        if self._buffer:
            assert self._probe is not None
            context, target = self._context, self.target
            if self._fingerprint is None:
                self._fingerprint = Fingerprint(
                    target.port,
                    target.proto,
                    version=context.version,
                    intensity=context.intensity,
                    platform=context.platform,
                    tunnel=self._tunnel,
                )
            self._fingerprint.add(self._probe.name, self._buffer, now + context.wall_offset)

    def _finish(self, verdict: Verdict, now: float, reason: Reason | None = None) -> Finish:
        """The end. Where nothing was ever heard, whatever the verdict would be, the port is tcpwrapped."""
        self.stage = _FINISHED
        target, context = self.target, self._context
        state = self._state
        if self._wrap_ok:
            if reason is None or state:
                verdict, reason = _TCPWRAPPED, None
            else:
                state = "closed" if reason is Reason.REFUSED else "filtered"
        state = state or self._unanswered()
        name = self._name or ""
        method: Literal["probed", "table", ""] = "probed"
        conf = 10
        if verdict is _TCPWRAPPED:
            name, conf = name or "tcpwrapped", 8
        elif verdict not in (_HARDMATCHED, _SOFTMATCHED):
            method, conf = "table", 3
            if self._name is None:
                name = context.service_name(target.port, target.proto)
        fingerprint = self._given_fingerprint(verdict)
        if not name and self._name is None:
            if fingerprint or self._tunnel is not BARE:
                name = "unknown"
            else:
                method, conf = "", 0
        if not state and verdict is _INCOMPLETE:
            name, method, conf = "", "", 0  # nobody has looked, and the input did not say that it is open
        info = self._info
        return Finish(
            ServiceResult(
                ip=target.address,
                port=target.port,
                proto=target.proto,
                host=target.name,
                state=state,
                name=name,
                product=info.product,
                version=info.version,
                extrainfo=info.extrainfo,
                hostname=info.hostname,
                ostype=info.ostype,
                devicetype=info.devicetype,
                cpe=info.cpe,
                tunnel=self._tunnel,
                method=method,
                conf=conf,
                verdict=verdict,
                reason=reason,
                evidence=self._evidence,
                confidence=self._sure.value,
                reasons=self._sure.reasons,
                fingerprint=fingerprint,
                tls=self.tls,
                database=context.reference,
                started=rfc3339(self._started + context.wall_offset),
                elapsed_ms=round((now - self._started) * 1000),
                connections=self._connections,
                bytes=self._bytes,
            )
        )

    def _unanswered(self) -> str:
        """The state of a port that has not answered: none is claimed where nobody has asked."""
        return "open|filtered" if self.target.proto == "udp" and self._contacted else ""

    def _given_fingerprint(self, verdict: Verdict) -> str:
        if self._fingerprint is None or verdict is _HARDMATCHED:
            return ""
        if verdict is not Verdict.NOMATCH and self._context.intensity < FINGERPRINT_INTENSITY:
            return ""
        return self._fingerprint.text


@lru_cache(4)
def _rfc3339_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(64)
def _rfc3339_millisecond(milliseconds: int) -> str:
    second, rest = divmod(milliseconds, 1000)
    return f"{_rfc3339_second(second)}.{rest:03d}Z"


def rfc3339(epoch: float) -> str:
    """Seconds since the epoch as rows have them: UTC, to the millisecond."""
    return _rfc3339_millisecond(int(epoch * 1000))


def crashed_row(target: Target, database: DatabaseRef, started: str, *, state: str) -> ServiceResult:
    """The least there is to say of a target at which our own program failed."""
    return ServiceResult(
        ip=target.address,
        port=target.port,
        proto=target.proto,
        host=target.name,
        state=state,
        verdict=_INCOMPLETE,
        reason=Reason.CRASHED,
        database=database,
        started=started,
    )
