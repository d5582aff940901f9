"""Random events against the state machine: whatever happens in whatever order, one row comes out in bounded time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.conversation.scan import Action, Connect, Finish, Listen, ScanContext, Send, ServiceScan, Stage
from engine.conversation.timing import TACITURN, AdaptiveTiming, NmapTiming, Timing
from engine.errors import ScanStateError
from engine.model import Reason, Target, Tunnel, Verdict
from matcher import compile_matcher, parse_database

CONNECT_S, TLS_S, MAX_BYTES = 5.0, 8.0, 20_000
DATABASE = parse_database(
    rb"""Probe TCP NULL q||
totalwaitms 6000
tcpwrappedms 3000
match hello m|^HELLO|
match ssl m|^TLS|
match ssl/pop3 m|^POPS|
softmatch maybe m|^MAYBE|
Probe TCP Ask q|ASK|
rarity 1
ports 80
sslports 443
match maybe m|^MAYBE yes|
match asked m|^ASKED|
softmatch other m|^OTHER|
Probe TCP Rare q|RARE|
rarity 8
ports 443
match rare m|^RARE|
Probe TCP Big q|BIG|
rarity 3
totalwaitms 7500
fallback Ask
match big m|^BIG|s
Probe UDP Datagram q|d|
rarity 1
match datagram m|^d|
""",
    "states",
)
MATCH = compile_matcher(DATABASE, "reference").match
WORDS = st.sampled_from(
    [b"HELLO", b"TLS", b"POPS", b"MAYBE", b" yes", b"ASKED", b"OTHER", b"RARE", b"BIG", b"d", b"\0"]
)
PROBES = len(DATABASE.probes) + 1
LONGEST_S = 2 * PROBES * (7.5 + TLS_S)  # both passes, bare and in a tunnel: every connect and every window to its end
EVENTS = ("start", "connected", "received", "timed_out", "closed", "failed", "write_failed")


def timing_of(kind: str) -> Timing:
    """hurried: it has seen that no port that a probe names has services that greet."""
    if kind == "nmap":
        return NmapTiming()
    timing = AdaptiveTiming()
    for port in (80, 443) if kind == "hurried" else ():
        for tunnel in Tunnel:
            for _ in range(TACITURN):
                timing.greeted(port, tunnel, False)
    return timing


class Conversation(RuleBasedStateMachine):
    """A driver that obeys deadlines, and a peer that does anything."""

    def __init__(self) -> None:
        super().__init__()
        self.scan: ServiceScan | None = None
        self.now = 1000.0
        self.action: Action | None = None
        self.connects = 0
        self.silent_s = 0.0  # what waiting alone has cost

    @rule(
        port=st.sampled_from([80, 443, 7, 9100]),
        proto=st.sampled_from(["tcp", "udp"]),
        state=st.sampled_from(["", "open"]),
        timing=st.sampled_from(["nmap", "adaptive", "hurried"]),
        intensity=st.integers(0, 9),
        max_probes=st.sampled_from([0, 1, 1 << 30]),
    )
    @precondition(lambda self: self.scan is None)
    def begin(self, **drawn: object) -> None:
        context = ScanContext(
            DATABASE,
            MATCH,
            intensity=drawn["intensity"],  # type: ignore[arg-type]
            timing=timing_of(drawn["timing"]),  # type: ignore[arg-type]
            connect_s=CONNECT_S,
            tls_connect_s=TLS_S,
            max_bytes=MAX_BYTES,
        )
        target = Target(0, "192.0.2.1", drawn["port"], drawn["proto"], state=drawn["state"])  # type: ignore[arg-type]
        self.scan = ServiceScan(target, context, max_probes=drawn["max_probes"])  # type: ignore[arg-type]
        self.began = self.now
        self.note(self.scan.start(self.now))

    def note(self, action: Action) -> None:
        """Every action is one that its driver can obey."""
        assert self.scan is not None
        assert not isinstance(self.action, Finish), "an action after the end"
        self.action = action
        assert isinstance(action, Finish) == (self.scan.stage is Stage.FINISHED)
        if isinstance(action, Connect):
            self.connects += 1
            assert self.scan.stage is Stage.CONNECTING
            assert self.now < action.deadline <= self.now + TLS_S
        elif isinstance(action, Send | Listen):
            assert self.scan.stage is Stage.LISTENING
            assert self.now < action.deadline <= self.now + 7.5
            assert not isinstance(action, Send) or action.payload
        else:
            row = action.result
            assert (row.reason is None) == (row.verdict is not Verdict.INCOMPLETE)
            assert row.elapsed_ms >= 0
            assert row.bytes <= MAX_BYTES + 8192
            assert row.verdict is not Verdict.TCPWRAPPED or (row.bytes == 0 and not row.fingerprint)

    def running(self) -> bool:
        return self.scan is not None and not isinstance(self.action, Finish)

    @rule(share=st.floats(0, 0.99))
    @precondition(running)
    def wait(self, share: float) -> None:
        """Some of the time passes; the deadline stands."""
        assert isinstance(self.action, Connect | Send | Listen)
        self.now += (self.action.deadline - self.now) * share

    @rule()
    @precondition(running)
    def fall_silent(self) -> None:
        assert isinstance(self.action, Connect | Send | Listen)
        assert self.scan is not None
        self.now = self.action.deadline
        self.note(self.scan.timed_out(self.now))

    @rule(reason=st.sampled_from(list(Reason)))
    @precondition(running)
    def fail(self, reason: Reason) -> None:
        assert self.scan is not None
        self.note(self.scan.failed(reason, self.now))

    @rule()
    @precondition(lambda self: isinstance(self.action, Connect))
    def connect(self) -> None:
        assert self.scan is not None
        assert isinstance(self.action, Connect)
        if self.action.tunnel is not Tunnel.NONE:
            self.scan.opened()
        self.note(self.scan.connected(self.now))

    @rule(data=st.one_of(WORDS, WORDS, st.binary(min_size=1, max_size=50), st.just(b"x" * 5000)))
    @precondition(lambda self: isinstance(self.action, Send | Listen))
    def speak(self, data: bytes) -> None:
        assert self.scan is not None
        self.note(self.scan.received(data, self.now))

    @rule()
    @precondition(lambda self: isinstance(self.action, Send | Listen))
    def hang_up(self) -> None:
        assert self.scan is not None
        self.note(self.scan.closed(self.now))

    @rule(reason=st.sampled_from(list(Reason)))
    @precondition(lambda self: isinstance(self.action, Send))
    def refuse_to_read(self, reason: Reason) -> None:
        assert self.scan is not None
        self.note(self.scan.write_failed(reason, self.now))

    @rule(reason=st.sampled_from([Reason.BUDGET, Reason.CANCELLED]))
    @precondition(running)
    def abort(self, reason: Reason) -> None:
        assert self.scan is not None
        action = self.scan.abort(reason, self.now)
        self.note(action)
        assert (action.result.verdict, action.result.reason) == (Verdict.INCOMPLETE, reason)

    @rule(event=st.sampled_from(EVENTS))
    @precondition(lambda self: self.scan is not None)
    def impossible(self, event: str) -> None:
        """What cannot happen now is refused, and changes nothing."""
        assert self.scan is not None
        stage = self.scan.stage
        possible = {
            Stage.CONNECTING: {"connected", "timed_out", "failed"},
            Stage.LISTENING: {"received", "timed_out", "closed", "failed", "write_failed"},
            Stage.FINISHED: set(),
        }[stage]
        if event in possible:
            return
        given = {
            "received": (b"x", self.now),
            "failed": (Reason.RESET, self.now),
            "write_failed": (Reason.RESET, self.now),
        }
        try:
            getattr(self.scan, event)(*given.get(event, (self.now,)))
        except ScanStateError:
            assert self.scan.stage is stage
        else:
            raise AssertionError(f"{event} was taken in {stage}")

    @invariant()
    def bounded(self) -> None:
        assert self.connects <= 2 * PROBES
        if self.scan is not None and not isinstance(self.action, Finish):
            assert self.now - self.began <= LONGEST_S

    def teardown(self) -> None:
        """Left alone it ends by itself, soon."""
        for _ in range(4 * PROBES):
            if not self.running():
                return
            self.fall_silent()
            self.bounded()
        assert not self.running(), "still going on"


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
