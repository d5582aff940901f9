"""DTLS between memory buffers: whatever datagrams come, in whatever order, the transport keeps its contract."""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from conformance import Recorder
from dtls_peers import certificate_sha256, flight, server_session
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from engine.transports.base import MAX_OVERHEAD, TlsError
from engine.transports.certificates import handshake
from engine.transports.dtls import MTU, DtlsTransport, datagrams
from engine.transports.reactor import Reactor, Timed

DATA = b"answer"
TRANSCRIPTS = 60  # of one test
KINDS = ("as it is", "lost", "twice", "late", "flipped", "cut", "longer", "strange")


class Clock:
    """A reactor whose deadlines come when the test says so."""

    def arm(self, timed: Timed) -> None:
        timed.slot = set()


class Wire:
    """What the client sends. closed: whether it has hung up."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def send(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True

    def take(self) -> list[bytes]:
        sent, self.sent = self.sent, []
        return sent


class Client:
    """A transport with its wire and its record."""

    def __init__(self, name: str = "") -> None:
        self.wire = Wire()
        self.record = Recorder(self._hang_up)
        self.transport = DtlsTransport(cast("Reactor", Clock()), self.record, lambda below: self.wire, name)

    def _hang_up(self) -> None:
        self.transport.close()


def said_by(server: SSL.Connection, client: Client, *, speaks: bool = True) -> Iterator[bytes]:
    """The server's datagrams, each made when the one before has been heard. It says DATA when it has shaken hands."""
    shaken = False
    while heard := client.wire.take():
        for datagram in heard:
            server.bio_write(datagram)
            try:
                server.do_handshake()
                if not shaken and speaks:
                    server.send(DATA)
                shaken = True
                server.recv(MTU)
            except SSL.Error:
                pass
        yield from datagrams(flight(server))


def shake(client: Client, server: SSL.Connection) -> None:
    for datagram in said_by(server, client, speaks=False):
        client.transport.received(datagram, 0.0)
    assert client.record.events == ["connected"]


@pytest.mark.parametrize("cookies", [False, True])
def test_a_handshake_and_data(cookies: bool) -> None:
    client, server = Client("one.example"), server_session(cookies=cookies)
    for datagram in said_by(server, client):
        client.transport.received(datagram, 0.0)
    assert client.record.events == ["connected", DATA]
    assert client.transport.slot is None  # nothing is waited for any more
    assert server.get_servername() == b"one.example"
    client.transport.close()
    assert client.wire.closed
    for datagram in client.wire.take():
        server.bio_write(datagram)
    with pytest.raises(SSL.ZeroReturnError):
        server.recv(MTU)


def test_a_server_without_a_certificate() -> None:
    client = Client()
    shake(client, server_session(anonymous=True))
    facts, der = handshake(client.transport.session)
    assert (facts.protocol, facts.cipher, facts.alpn, der) == ("DTLSv1.2", "AECDH-AES128-SHA", "", None)


def test_a_chain_that_takes_many_datagrams() -> None:
    """The first of its certificates is the server's."""
    client, server = Client(), server_session(chain=60)
    shake(client, server)
    _, der = handshake(client.transport.session)
    assert der is not None
    assert hashlib.sha256(der).hexdigest() == certificate_sha256()


@pytest.mark.parametrize("name", ["", "ünicode.example", "x" * 300])
def test_a_name_that_sni_cannot_carry(name: str) -> None:
    """It is not told."""
    client, server = Client(name), server_session()
    shake(client, server)
    assert server.get_servername() is None


def test_the_end_that_the_peer_says() -> None:
    client, server = Client(), server_session()
    shake(client, server)
    server.shutdown()
    client.transport.received(flight(server), 0.0)
    assert client.record.events == ["connected", "ended"]
    assert client.wire.closed


def test_an_empty_datagram_is_no_end() -> None:
    client, server = Client(), server_session()
    shake(client, server)
    client.transport.ended(0.0)
    server.send(DATA)
    client.transport.received(flight(server), 0.0)
    assert client.record.events == ["connected", DATA]


def test_records_of_one_datagram_are_reported_one_by_one() -> None:
    """And none of them after the receiver has hung up."""
    client, server = Client(), server_session()
    shake(client, server)
    for said in (b"one", b"two"):
        server.send(said)
    both = flight(server)
    assert len(list(datagrams(both))) == 1
    client.transport.received(both, 0.0)
    assert client.record.events == ["connected", b"one", b"two"]
    heard: Callable[[bytes, float], None] = lambda data, now: client.transport.close()  # noqa: E731
    client.record.received = heard  # type: ignore[method-assign]
    for said in (b"three", b"four"):
        server.send(said)
    client.transport.received(flight(server), 0.0)
    assert client.wire.closed


def test_a_deadline_that_comes_too_early() -> None:
    """OpenSSL's clock decides; until then it is waited for again."""
    client = Client()
    first = client.wire.take()
    assert client.transport.slot is not None
    assert client.transport.deadline > 0
    early, client.transport.slot = client.transport.deadline, None
    client.transport.expired(early)
    assert client.wire.take() == []
    assert client.transport.slot is not None
    client.transport.put_off(5.0)
    assert client.transport.deadline >= early + 5.0
    assert len(first) == 1


def test_bytes_that_are_no_data_have_a_bound() -> None:
    """Before and after the handshake."""
    for shaken in (False, True):
        client = Client()
        if shaken:
            shake(client, server_session())
        for _ in range(MAX_OVERHEAD // 1000 + 1):
            client.transport.received(b"\x16\xfe\xff" + bytes(997), 0.0)
            if client.wire.closed:
                break
        assert client.wire.closed
        assert client.record.events[-1] == 5  # EIO


def test_data_does_not_count_as_overhead() -> None:
    client, server = Client(), server_session()
    shake(client, server)
    for _ in range(2 * MAX_OVERHEAD // 1000):
        server.send(b"." * 1000)
        client.transport.received(flight(server), 0.0)
    assert len(client.record.data) > MAX_OVERHEAD
    assert not client.wire.closed


def test_a_message_that_is_too_long_cannot_be_written() -> None:
    client = Client()
    shake(client, server_session())
    with pytest.raises(TlsError):
        client.transport.send(b"x" * 20_000)


def test_a_transport_below_that_cannot_be_made_is_the_callers_to_report() -> None:
    def refused(below: object) -> Wire:
        raise OSError(24, "no socket")

    with pytest.raises(OSError, match="no socket"):
        DtlsTransport(cast("Reactor", Clock()), Recorder(lambda: None), refused)


def test_a_fault_is_told_once_and_ends_it() -> None:
    client = Client()
    client.transport.crashed(LookupError("ours"), 0.0)
    assert client.wire.closed
    assert client.record.events == ["LookupError"]


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(min_value=1, max_value=400))
def test_flights_are_cut_where_records_begin(bodies: list[bytes], mtu: int) -> None:
    """Nothing is lost, no record is cut, and only a record that is longer by itself makes a datagram longer."""
    records = [b"\x16" + bytes(10) + len(body).to_bytes(2, "big") + body for body in bodies]
    cut = list(datagrams(b"".join(records), mtu))
    assert b"".join(cut) == b"".join(records)
    left = list(records)
    for datagram in cut:
        first = left.pop(0)
        assert datagram.startswith(first)
        rest = datagram[len(first) :]
        assert len(datagram) <= mtu or not rest
        while rest:
            assert rest.startswith(left[0])
            rest = rest[len(left.pop(0)) :]
    assert not left


@given(st.binary(max_size=100))
def test_what_is_no_record_is_cut_somehow(records: bytes) -> None:
    """And nothing of it is lost."""
    assert b"".join(datagrams(records, 40)) == records


def check_contract(client: Client) -> None:
    """At most one `connected`, data only after it, and nothing after the end."""
    events = client.record.events
    assert events.count("connected") <= 1
    ends = [at for at, event in enumerate(events) if event in ("ended", 5)]
    assert not ends or (ends == [len(events) - 1] and client.wire.closed)
    assert all("connected" in events[:at] for at, event in enumerate(events) if isinstance(event, bytes))
    assert not any(event for event in events if isinstance(event, str) and event not in ("connected", "ended"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=30))
def test_any_datagrams(said: list[bytes]) -> None:
    client = Client()
    for datagram in said:
        if not client.wire.closed:
            client.transport.received(datagram, 0.0)
    check_contract(client)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda kind, version, epoch, number, body: (
                bytes((kind,)) + version + epoch.to_bytes(2, "big") + number.to_bytes(6, "big") + body
            ),
            st.integers(min_value=20, max_value=26),
            st.sampled_from([b"\xfe\xff", b"\xfe\xfd", b"\xfe\xfc", b"\1\0"]),
            st.integers(min_value=0, max_value=1),
            st.integers(min_value=0, max_value=3),
            st.binary(max_size=80).map(lambda body: len(body).to_bytes(2, "big") + body),
        ),
        max_size=12,
    )
)
def test_any_records(said: list[bytes]) -> None:
    """Well-formed outside: alerts, handshake messages and others that nobody would send."""
    client = Client()
    for datagram in said:
        if not client.wire.closed:
            client.transport.received(datagram, 0.0)
    check_contract(client)


def spoiled(datagram: bytes, chance: random.Random) -> list[bytes]:
    at = chance.randrange(len(datagram))
    match chance.choice(KINDS):
        case "lost":
            return []
        case "twice":
            return [datagram, datagram]
        case "flipped":
            return [datagram[:at] + bytes((datagram[at] ^ 1 << chance.randrange(8),)) + datagram[at + 1 :]]
        case "cut":
            return [datagram[:at]] if at else []
        case "longer":
            return [datagram + chance.randbytes(50)]
        case "strange":
            return [chance.randbytes(at + 1), datagram]
        case _:
            return [datagram]


@pytest.mark.parametrize("seed", range(TRANSCRIPTS))
def test_a_spoiled_handshake(seed: int) -> None:
    """Real flights that are lost, doubled, reordered and changed on the way."""
    chance = random.Random(seed)
    client, server = Client(), server_session(cookies=bool(seed % 2))
    late: list[bytes] = []
    for datagram in said_by(server, client):
        for heard in spoiled(datagram, chance):
            if chance.random() < 0.1:
                late.append(heard)
            elif not client.wire.closed:
                client.transport.received(heard, 0.0)
    for heard in late:
        if not client.wire.closed:
            client.transport.received(heard, 0.0)
    check_contract(client)
