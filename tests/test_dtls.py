"""UDP services inside DTLS: asked again there as TCP's are inside TLS, at the same cost, whatever the peer does."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from dtls_peers import DATABASE, HOST, DtlsServer, UdpServer, certificate_sha256
from loopback import database_file
from peers import run

from engine.conversation.scan import Connect, ScanContext, ServiceScan
from engine.model import Proto, Reason, ScanConfig, ServiceResult, Target, Tunnel, Verdict
from engine.pool import worker
from engine.transports.base import MAX_OVERHEAD
from engine.transports.dial import DialError, Dialler
from engine.transports.dtls import MAX_FLIGHTS, DtlsTransport
from engine.transports.tls import client_context
from matcher import compile_matcher, parse_database
from probemill import scan_sync


def cookie_requests() -> Callable[[bytes], list[bytes]]:
    """A server that wants another cookie each time: HelloVerifyRequests without end (RFC 6347, 4.2.1)."""
    numbers = count()

    def answer(datagram: bytes) -> list[bytes]:
        if datagram == b"HELLO?":
            return [b"DTLS PLEASE"]
        if datagram[:1] != b"\x16":
            return []
        number = next(numbers)
        body = b"\xfe\xff\x04" + number.to_bytes(4, "big")
        size = len(body).to_bytes(3, "big")
        message = b"\x03" + size + number.to_bytes(2, "big") + bytes(3) + size + body
        return [b"\x16\xfe\xff\0\0" + number.to_bytes(6, "big") + len(message).to_bytes(2, "big") + message]

    return answer


def junk(datagram: bytes) -> list[bytes]:
    """A server that answers a hello with more than anybody takes."""
    if datagram == b"HELLO?":
        return [b"DTLS PLEASE"]
    return [b"\x16\xfe\xff" + bytes(1397)] * 250 if datagram[:1] == b"\x16" else []


def deaf(datagram: bytes) -> list[bytes]:
    """A server that says it speaks DTLS, and does not."""
    return [b"DTLS PLEASE"] if datagram == b"HELLO?" else []


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path, DATABASE)


def scan(database: str, *servers: UdpServer, **options: object) -> list[ServiceResult]:
    """Their rows, in their order."""
    targets = [
        Target(at, HOST, server.port, "udp", name="one.example", state="open|filtered")
        for at, server in enumerate(servers)
    ]
    rows = {row.port: row for row in scan_sync(targets, ScanConfig(probes=(database,), **options))}  # type: ignore[arg-type]
    assert len(rows) == len(servers)
    return [rows[server.port] for server in servers]


@pytest.mark.parametrize(
    ("how", "protocol"), [({}, "DTLSv1.2"), ({"cookies": True}, "DTLSv1.2"), ({"oldest": True}, "DTLSv1")], ids=str
)
def test_a_service_is_asked_again_inside(database: str, how: dict[str, bool], protocol: str) -> None:
    """It gets the probes whose `sslports` name the port; the row has what the handshake told, as one in TLS has it."""
    with DtlsServer(**how) as server:  # type: ignore[arg-type]
        [row] = scan(database, server)
    assert (row.name, row.product, row.version, row.tunnel) == ("asked", "Asked", "2.0", Tunnel.SSL)
    assert (row.verdict, row.method, row.conf, row.state) == (Verdict.HARDMATCHED, "probed", 10, "open")
    assert row.tls is not None
    assert (row.tls.protocol, row.tls.sha256, row.tls.key) == (protocol, certificate_sha256(), "ec secp256r1")
    assert row.tls.cipher
    assert "CN=dtls.test" in row.tls.subject
    assert server.heard == [b"ASK\r\n"]
    assert row.bytes == len(b"DTLS PLEASE") * 2 + len(b"ASKED 2.0\r\n")


def test_every_probe_has_a_handshake_from_a_port_of_its_own(database: str) -> None:
    """A server may still hold the last one's state by the address it came from; and each is told goodbye."""
    with DtlsServer(lambda said: [b"what?"]) as server:
        [row] = scan(database, server)
        assert row.verdict is Verdict.NOMATCH
        assert (row.name, row.tunnel, row.method, row.conf) == ("unknown", Tunnel.SSL, "table", 3)
        assert "%T=SSL" in row.fingerprint
        assert server.heard == [b"ASK\r\n", b"HELLO?", b"OPEN"]
        plain = {peer for peer, datagram, _ in server.arrived if datagram[:1].isalpha()}
        assert len(set(server.hellos) - plain) == 3
    assert server.farewells == 3


def test_the_older_generation_takes_the_name_for_the_answer(database: str) -> None:
    """Nmap 7.93 does, and nothing is sent that it would not send."""
    with DtlsServer() as server:
        [row] = scan(database, server, generation="7.93")
    assert (row.name, row.tunnel, row.verdict, row.tls) == ("dtls", Tunnel.NONE, Verdict.HARDMATCHED, None)
    assert [datagram for _, datagram, _ in server.arrived] == [b"OPEN", b"HELLO?"]


def test_who_speaks_no_dtls_gets_not_one_datagram_more() -> None:
    """Of either generation, with the database of the package. An empty datagram ends each probe at once."""
    arrived = []
    for generation in ("newest", "7.93"):
        with UdpServer(lambda datagram: [b""]) as server:
            rows = scan("builtin", server, generation=generation)
            assert rows[0].tunnel is Tunnel.NONE
        arrived.append([datagram for _, datagram, _ in server.arrived])
    assert arrived[0] == arrived[1]
    assert len(arrived[0]) > 10


def test_a_scan_without_dtls_does_not_load_it(database: str) -> None:
    code = (
        "import sys; from probemill import scan_sync, ScanConfig, Target\n"
        f"list(scan_sync([Target(0, '127.0.0.1', 9, 'udp')], ScanConfig(probes=({database!r},), intensity=0)))\n"
        "assert 'OpenSSL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("lost", [1, 2])
def test_what_is_lost_is_sent_again(database: str, lost: int) -> None:
    """The first datagrams of either side never arrive."""
    with DtlsServer(lost=lost) as server:
        [row] = scan(database, server)
    assert (row.name, row.tunnel) == ("asked", Tunnel.SSL)
    assert row.elapsed_ms >= 1000  # RFC 6347, 4.2.4.1: the first flight is repeated after a second


def test_a_peer_that_falls_silent(database: str) -> None:
    """The handshake has the time of one in TLS, and what the match had told is gone with it."""
    with UdpServer(deaf) as server:
        [row] = scan(database, server, tls_timeout_s=1.5)
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.TIMEOUT)
    assert (row.name, row.tunnel, row.conf, row.state) == ("unknown", Tunnel.SSL, 3, "open")
    assert len(server.hellos) == 2


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_at_once_leave_nothing_behind(database: str) -> None:
    """Neither a descriptor nor a session."""
    with DtlsServer() as server:
        before = descriptors()
        targets = [Target(at, HOST, server.port, "udp") for at in range(100)]
        rows = list(scan_sync(targets, ScanConfig(probes=(database,), per_host=0, pseudo_ports=0)))
        assert {(row.name, row.tunnel) for row in rows} == {("asked", Tunnel.SSL)}
        assert len(rows) == len(targets)
        assert descriptors() <= before
    gc.collect()
    assert not [found for found in gc.get_objects() if isinstance(found, DtlsTransport)]


def test_cookies_without_end(database: str) -> None:
    """Each answer costs us a flight; there are so many and no more."""
    with UdpServer(cookie_requests()) as server:
        [row] = scan(database, server)
    assert (row.verdict, row.reason, row.tunnel) == (Verdict.INCOMPLETE, Reason.TLS, Tunnel.SSL)
    assert 3 <= len(server.hellos) <= MAX_FLIGHTS
    assert row.elapsed_ms < 8000


def test_a_handshake_that_goes_on_and_on(database: str) -> None:
    """A ServerHello that drips in byte by byte has the time of a handshake and no more."""
    numbers = count()

    class Dripping(UdpServer):
        def rest(self) -> None:
            for peer in set(self.hellos):
                number = next(numbers)
                fragment = b"\2\0\3\xe8\0\0" + number.to_bytes(3, "big") + b"\0\0\1."
                self.send(b"\x16\xfe\xfd\0\0" + number.to_bytes(6, "big") + b"\0\x0d" + fragment, peer)

    with Dripping(deaf) as server:
        [row] = scan(database, server, tls_timeout_s=1.0)
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.TIMEOUT)
    assert row.elapsed_ms < 4000


def test_bytes_without_end(database: str) -> None:
    """What is no data has a bound in here, too."""
    assert len(junk(b"\x16")) * 1400 > MAX_OVERHEAD
    with UdpServer(junk) as server:
        [row] = scan(database, server, tls_timeout_s=6.0)
    assert (row.verdict, row.tunnel) == (Verdict.INCOMPLETE, Tunnel.SSL)
    assert row.reason in (Reason.TLS, Reason.TIMEOUT)  # the kernel may drop some of them
    assert len(server.hellos) <= MAX_FLIGHTS


def test_data_without_end(database: str) -> None:
    """A service that never ceases to speak is left when it has said enough."""
    with DtlsServer(lambda said: [b"." * 1000] * 200) as server:
        [row] = scan(database, server, max_bytes=6000)
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.BUDGET)
    assert row.bytes < 20_000


def test_nobody_there_any_more(database: str) -> None:
    """A port that has closed before the handshake."""
    server = UdpServer(deaf)
    server.answers = 2
    with server:
        [row] = scan(database, server)
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.REFUSED)


def test_so_many_handshakes_at_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of DTLS count with those of TLS."""
    monkeypatch.setattr(worker, "TLS_HANDSHAKES", 1)
    with UdpServer(deaf) as one, UdpServer(deaf) as other:
        rows = scan(database, one, other, tls_timeout_s=1.0)
    assert {row.reason for row in rows} == {Reason.TIMEOUT}
    first, second = sorted(
        [at for _, datagram, at in server.arrived if datagram[:1] == b"\x16"] for server in (one, other)
    )
    assert first[-1] <= second[0]


def test_a_rate_holds_for_them(database: str) -> None:
    """Each handshake is a connection, like each probe outside."""
    with DtlsServer(lambda said: [b"what?"]) as server:
        [row] = scan(database, server, rate=4.0)
    assert row.tunnel is Tunnel.SSL
    assert row.elapsed_ms >= 1000  # five connections


def test_post_processing_goes_not_into_the_tunnel(database: str) -> None:
    """Its dialogues speak no DTLS; TLS over UDP would be nonsense."""
    with DtlsServer(lambda said: []) as server:
        [row] = scan(database, server, post=("all",))
        assert row.tunnel is Tunnel.SSL
        assert server.heard == [b"ASK\r\n", b"HELLO?", b"OPEN"]

    async def dial() -> None:
        dialler = Dialler(HOST, 9, client_context(), asyncio.get_running_loop().time() + 5)
        with pytest.raises(DialError, match="DTLS"):
            await dialler.open("udp", Tunnel.SSL)

    run(dial())


@pytest.mark.parametrize(
    ("line", "proto", "inside"),
    [
        ("match ssl m|^yes|", "tcp", (True, True)),
        ("match dtls m|^yes|", "tcp", (True, False)),
        ("match ssl m|^yes|", "udp", (True, False)),
        ("match dtls m|^yes|", "udp", (True, False)),
        ("softmatch dtls m|^yes|", "udp", (False, False)),
        ("softmatch ssl m|^yes|", "tcp", (False, False)),
    ],
)
def test_what_leads_into_a_tunnel(line: str, proto: Proto, inside: tuple[bool, bool]) -> None:
    """Hard matches, by generation: the newer one's, the older one's."""
    database = parse_database(f"Probe {proto.upper()} A q|AAA|\nrarity 1\n{line}\n".encode(), "cases")
    for dtls, expected in zip((True, False), inside, strict=True):
        scan = ServiceScan(
            Target(0, HOST, 9, proto), ScanContext(database, compile_matcher(database, "reference").match, dtls=dtls)
        )
        scan.start(0.0)
        scan.connected(0.0)
        action = scan.received(b"yes", 0.0)
        assert (action == Connect(Tunnel.SSL, 8.0)) is expected
