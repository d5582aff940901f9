"""The reactor: nobody pays for another's fault, nobody is late who was there in time."""

import asyncio
import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from engine.transports import crashes
from engine.transports.base import Load
from engine.transports.reactor import EVENTS_PER_TURN, PAUSE_S, Reactor, Timed
from engine.transports.tcp import TcpTransport

PATIENCE_S = 10.0
LONG_S = 0.3  # for a moment in which the loop does not run, and less than counts as a pause


class Alarm:
    """A deadline that notes when it expires. told: called then."""

    def __init__(self, reactor: Reactor, after_s: float, told: Callable[[], object] = lambda: None) -> None:
        self.deadline = time.monotonic() + after_s
        self.slot: set[Timed] | None = None
        self.expired_at = 0.0
        self.crashes: list[Exception] = []
        self._told = told
        reactor.arm(self)

    def expired(self, now: float) -> None:
        self.expired_at = now
        self._told()

    def put_off(self, pause_s: float) -> None:
        self.deadline += pause_s

    def crashed(self, error: Exception, now: float) -> None:
        self.crashes.append(error)


class Ear:
    """One end of a pair of sockets, and what it heard. told: called with that."""

    def __init__(self, reactor: Reactor, told: Callable[[bytes], object] = lambda heard: None) -> None:
        self.socket, self.mouth = socket.socketpair()
        self.socket.setblocking(False)
        self.heard: list[bytes] = []
        self.crashes: list[Exception] = []
        self._told = told
        reactor.register(self.socket.fileno(), self)

    def ready(self, mask: int, now: float) -> None:
        if mask & select.EPOLLIN:
            data = self.socket.recv(100)
            self.heard.append(data)
            self._told(data)

    def crashed(self, error: Exception, now: float) -> None:
        self.crashes.append(error)

    def close(self) -> None:
        self.socket.close()
        self.mouth.close()


@contextlib.contextmanager
def reactor(after_turn: Callable[[], None] = lambda: None) -> Iterator[Reactor]:
    made = Reactor(asyncio.get_running_loop(), after_turn)
    try:
        yield made
    finally:
        made.close()


async def until(happened: Callable[[], object]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < limit
        await asyncio.sleep(0.002)


def fail(*_: object) -> None:
    raise LookupError("a stranger's words")


@pytest.fixture(autouse=True)
def fresh_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes.report, "_quiet_until", 0.0)
    monkeypatch.setattr(crashes.report, "_untold", 0)


# -- who raises, raises alone


def test_a_socket_that_raises_leaves_its_batch_alone() -> None:
    """Events are edges: what is dropped from a batch never comes again."""

    async def test() -> None:
        with reactor() as made, contextlib.ExitStack() as stack:
            ears = [Ear(made, fail if number % 10 == 3 else lambda heard: None) for number in range(50)]
            for ear in ears:
                stack.callback(ear.close)
            await asyncio.sleep(0.05)  # the edges of being writable
            for ear in ears:
                ear.mouth.send(b"hello")
            time.sleep(0.05)  # so that one batch has them all
            await until(lambda: all(ear.heard for ear in ears))
            assert [bool(ear.crashes) for ear in ears] == [number % 10 == 3 for number in range(50)]

    asyncio.run(test())


def test_a_deadline_that_raises_leaves_the_wheel_turning() -> None:
    """Those of its slot come, and those of later ones."""

    async def test() -> None:
        with reactor() as made:
            alarms = [Alarm(made, 0.03, fail if number == 2 else lambda: None) for number in range(5)]
            alarms.append(Alarm(made, 0.1))
            await until(lambda: all(alarm.expired_at for alarm in alarms))
            assert [len(alarm.crashes) for alarm in alarms] == [0, 0, 1, 0, 0, 0]

    asyncio.run(test())


def test_work_after_a_turn_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """And it is told once, not a hundred times a second."""

    async def test() -> None:
        with reactor(fail) as made, contextlib.closing(Ear(made)) as ear:
            alarms = [Alarm(made, 0.02), Alarm(made, 0.2)]
            ear.mouth.send(b"hello")
            await until(lambda: ear.heard and all(alarm.expired_at for alarm in alarms))

    asyncio.run(test())
    assert [record.getMessage().partition(" at ")[0] for record in caplog.records] == ["after a turn: LookupError"]


def test_who_raises_at_the_end_too_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with reactor() as made, contextlib.closing(Ear(made, fail)) as ear:
            ear.crashed = fail  # type: ignore[method-assign]
            ear.mouth.send(b"hello")
            await until(lambda: ear.heard)
            alarm = Alarm(made, 0.02)
            await until(lambda: alarm.expired_at)

    asyncio.run(test())
    assert "a Ear that had crashed: LookupError at test_reactor.py" in caplog.text


def test_faults_are_told_without_a_strangers_words(caplog: pytest.LogCaptureFixture) -> None:
    """One line at a time says who, what kind and where, and how many came since."""
    try:
        fail()
    except LookupError as error:
        for now in (100.0, 100.5, 109.0, 100.0 + crashes.EVERY_S):
            crashes.report("192.0.2.1 port 80/tcp", error, now)
    lines = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert lines[0].startswith("192.0.2.1 port 80/tcp: LookupError at test_reactor.py:")
    assert lines[1] == lines[0] + "; 2 more before"
    assert "stranger" not in caplog.text


# -- who was there in time, is in time


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_waits_is_told_before_a_deadline_expires(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """However long nobody looked, and whatever the loop looks at first: the data, then what it has not disarmed."""
    events: list[object] = []

    async def test() -> None:
        with reactor() as made, contextlib.closing(Ear(made, events.append)) as ear:
            await asyncio.sleep(0.05)
            silent = Alarm(made, 0.05, lambda: events.append("silent"))
            answered = Alarm(made, 0.05, lambda: events.append("answered"))
            ear._told = lambda heard: (events.append(heard), made.disarm(answered))
            ear.mouth.send(b"hello")
            time.sleep(LONG_S)
            await until(lambda: silent.expired_at)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())
    assert events == [b"hello", "silent"]


def test_all_that_waits_is_told_before_a_deadline_expires() -> None:
    """Be it more than a batch."""
    events: list[object] = []
    crowd = EVENTS_PER_TURN * 2 + 7

    async def test() -> None:
        with reactor() as made, contextlib.ExitStack() as stack:
            ears = [Ear(made, events.append) for _ in range(crowd)]
            for ear in ears:
                stack.callback(ear.close)
            await asyncio.sleep(0.05)
            alarm = Alarm(made, 0.05, lambda: events.append("late"))
            for ear in ears:
                ear.mouth.send(b"hello")
            time.sleep(LONG_S)
            await until(lambda: alarm.expired_at)

    asyncio.run(test())
    assert events == [b"hello"] * crowd + ["late"]


def test_a_deadline_moved_or_armed_by_what_waited() -> None:
    """Later means later, and a new one comes, too."""

    async def test() -> None:
        with reactor() as made, contextlib.closing(Ear(made)) as ear:
            await asyncio.sleep(0.05)
            moved, other, late = Alarm(made, 0.05), Alarm(made, 0.05), []

            def move(heard: bytes) -> None:
                moved.deadline = time.monotonic() + 0.2
                made.disarm(other)
                other.deadline = time.monotonic() + 0.05
                made.arm(other)
                late.append(Alarm(made, -1.0))

            ear._told = move
            ear.mouth.send(b"hello")
            time.sleep(LONG_S)
            await until(lambda: moved.expired_at)
            assert late[0].expired_at and late[0].expired_at <= other.expired_at <= moved.expired_at
            assert moved.expired_at >= moved.deadline

    asyncio.run(test())


def test_a_pause_is_no_time_that_passes() -> None:
    """All deadlines move by its length, but for a little, which makes them come in any case."""

    async def test() -> None:
        with reactor() as made:
            alarms = [Alarm(made, after_s) for after_s in (0.5, 0.7, 30.0)]
            planned = [alarm.deadline for alarm in alarms]
            await asyncio.sleep(0.02)
            time.sleep(PAUSE_S + 0.5)
            await until(lambda: alarms[1].expired_at)
            for alarm, before in zip(alarms, planned, strict=True):
                assert PAUSE_S + 0.3 <= alarm.deadline - before <= PAUSE_S + 3
            assert [alarm.expired_at >= alarm.deadline for alarm in alarms[:2]] == [True, True]

    asyncio.run(test())


def test_idleness_is_no_pause() -> None:
    """Without a deadline nobody looks at the clock, and the first one after that is not moved."""

    async def test() -> None:
        with reactor() as made, contextlib.closing(Ear(made)) as ear:
            first = Alarm(made, 0.02)
            await until(lambda: first.expired_at)
            await asyncio.sleep(PAUSE_S + 0.2)
            alarm = Alarm(made, 0.05)
            planned = alarm.deadline
            ear.mouth.send(b"hello")
            await until(lambda: alarm.expired_at)
            assert alarm.deadline == planned

    asyncio.run(test())


def test_even_a_process_that_is_always_stopped_comes_to_its_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause counts a tenth of a second."""
    monkeypatch.setattr("engine.transports.reactor.PAUSE_S", 0.2)

    async def test() -> None:
        with reactor() as made:
            alarm = Alarm(made, 0.25)
            stops = 0
            while not alarm.expired_at:
                time.sleep(0.3)
                stops += 1
                assert stops < 10
                await asyncio.sleep(0.012)
            assert stops > 1

    asyncio.run(test())


def test_a_loop_with_nothing_to_do_is_idle() -> None:
    """Waiting for a socket counts as idle, listening to one does not."""

    async def talk() -> None:
        with reactor() as made, contextlib.closing(Ear(made, lambda heard: time.sleep(LONG_S))) as ear:
            began = time.monotonic()
            await asyncio.sleep(LONG_S)
            for number in (1, 2):
                ear.mouth.send(b"a")
                await until(lambda: len(ear.heard) == number)  # noqa: B023 - it is awaited here
            assert made.load.idle_s >= LONG_S
            assert made.load.idle_s < time.monotonic() - began - LONG_S

    asyncio.run(talk())


def test_sockets_that_wait_leave_no_idle_time() -> None:
    """After a turn that took all that it may, more waits: what passes until the next is not for want of work."""

    async def talk() -> None:
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(reactor())
            ears = [stack.enter_context(contextlib.closing(Ear(made))) for _ in range(EVENTS_PER_TURN + 1)]
            for ear in ears:
                ear.mouth.send(b"a")
            made._turn()
            made.load = Load()
            time.sleep(LONG_S)
            made._turn()
            assert made.load.idle_s == 0.0
            time.sleep(LONG_S)
            made._turn()
            assert made.load.idle_s >= LONG_S

    asyncio.run(talk())


def test_a_turn_that_took_all_says_nothing_for_long() -> None:
    """Nothing more may have waited behind it: then only deadlines wake the loop, and it is idle between them."""

    async def talk() -> None:
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(reactor())
            ears = [stack.enter_context(contextlib.closing(Ear(made))) for _ in range(EVENTS_PER_TURN)]
            for ear in ears:
                ear.mouth.send(b"a")
            Alarm(made, PATIENCE_S)
            made._turn()
            made.load = Load()
            made._advance()
            time.sleep(LONG_S)
            made._advance()
            assert made.load.idle_s >= LONG_S

    asyncio.run(talk())


def test_a_deadline_that_came_late_is_told() -> None:
    async def wait() -> None:
        with reactor() as made:
            alarm = Alarm(made, 0.02)
            time.sleep(LONG_S)
            await until(lambda: alarm.expired_at)
            assert made.load.late_s >= LONG_S / 2

    asyncio.run(wait())


def test_a_pause_is_neither_late_nor_idle() -> None:
    """What was not seen while we did not run says nothing of how much there is to do."""

    async def wait() -> None:
        with reactor() as made:
            alarm = Alarm(made, 0.3)
            await asyncio.sleep(0.05)
            made.load = Load()
            time.sleep(PAUSE_S + 0.5)
            await until(lambda: made.paused_s)
            assert made.load.late_s < PAUSE_S / 2
            assert made.load.idle_s < PAUSE_S / 2
            await until(lambda: alarm.expired_at)
            assert made.load.late_s < PAUSE_S / 2

    asyncio.run(wait())


class Caller:
    """Takes a connection and is told nothing more."""

    def __init__(self) -> None:
        self.connected_at = 0.0

    def opened(self) -> None: ...

    def connected(self, now: float) -> None:
        self.connected_at = now

    def received(self, data: bytes, now: float) -> None: ...

    def ended(self, now: float) -> None: ...

    def broken(self, error: OSError, now: float) -> None: ...

    def crashed(self, error: Exception, now: float) -> None: ...


@pytest.mark.parametrize(
    ("how", "counts"), [("idle", True), ("busy", False), ("paused", False)], ids=["idle", "busy", "paused"]
)
def test_a_connection_that_waits_for_us_is_not_slow(how: str, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only while there is nothing to do can it be the network that it waits for."""

    async def connect() -> None:
        with reactor() as made, socket.create_server(("127.0.0.1", 0)) as server:
            Alarm(made, PATIENCE_S)
            caller = Caller()
            transport = TcpTransport(made, caller, "127.0.0.1", server.getsockname()[1])
            try:
                if how == "paused":
                    monkeypatch.setattr("engine.transports.reactor.PAUSE_S", LONG_S / 2)
                if how == "busy":
                    made.after_turn = lambda: time.sleep(LONG_S)
                    made._end_turn()
                    made.after_turn = lambda: None
                else:
                    time.sleep(LONG_S)
                made._turn()
                assert caller.connected_at
                assert made.load.connects == 1
                assert (made.load.connect_s >= LONG_S / 2) is counts
            finally:
                transport.close()

    asyncio.run(connect())
