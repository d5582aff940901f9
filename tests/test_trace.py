"""The lines of `--version-trace`, for whole conversations."""

from collections.abc import Callable

import pytest

from engine.conversation.scan import Action, ScanContext, ServiceScan
from engine.conversation.trace import Trace, TracedScan
from engine.model import Reason, Target
from matcher import Match, PortSet, Probe, ProbeDatabase, Signature, SignatureId, Templates, VersionInfo

ANY = PortSet(((0, 65535),))


def signature(line: int, service: str, *, soft: bool = False) -> Signature:
    return Signature(SignatureId(line), "db", line, service, soft, b"", templates=Templates())


LINES = [
    signature(3, "foo", soft=True),
    signature(4, "bar", soft=True),
    signature(7, "foo"),
    signature(9, "ssl"),
    signature(10, "baz"),
]
NULL = Probe(0, "NULL", "tcp", b"", tuple(LINES), totalwait_s=0.3)
ASK = Probe(1, "Ask", "tcp", b"AAA", ports=ANY, sslports=ANY, services=frozenset({"foo"}))
DGRAM = Probe(2, "Dgram", "udp", b"DDDD", tuple(LINES), ports=ANY)
DATABASE = ProbeDatabase("db", "00", (NULL, ASK, DGRAM), null_index=0, exclude_tcp=PortSet(((9100, 9107),)))

# What is recognised: response -> line, probe in whose list it stands, fields.
ANSWERS = {
    b"soft": Match(LINES[0], NULL, VersionInfo()),
    b"softother": Match(LINES[1], NULL, VersionInfo()),
    b"softhard": Match(LINES[2], ASK, VersionInfo(product="Foo", version="1.0", extrainfo="x")),
    b"tls": Match(LINES[3], NULL, VersionInfo()),
    b"inner": Match(LINES[4], NULL, VersionInfo(version="2")),
}
CONTEXT = ScanContext(DATABASE, lambda _probe, response: ANSWERS.get(response))

Events = Callable[[ServiceScan], Action]


def told(*events: Events, host: str = "192.0.2.1", port: int = 23, proto: str = "tcp", state: str = "") -> list[str]:
    """The lines of a conversation. The clock starts at 100 and the run began two seconds before."""
    lines: list[str] = []
    scan = TracedScan(Target(0, host, port, proto, state=state), CONTEXT, Trace(lines.append, began=98.0))  # type: ignore[arg-type]
    scan.start(100.0)
    for event in events:
        event(scan)
    return lines


def opened(iod: int, eid: int, at: float, peer: str = "192.0.2.1:23") -> list[str]:
    """The lines of a TCP connection that is accepted at once."""
    return [
        f"NSOCK INFO [{at:.4f}s] nsock_iod_new2(): nsock_iod_new (IOD #{iod})",
        f"NSOCK INFO [{at:.4f}s] nsock_connect_tcp(): TCP connection requested to {peer} (IOD #{iod})"
        f" (timeout: 5000ms) EID {eid}",
        f"NSOCK INFO [{at:.4f}s] nsock_trace_handler_callback(): Callback: CONNECT SUCCESS for EID {eid} [{peer}]",
    ]


def test_soft_then_hard() -> None:
    """A banner that is softmatched, a second softmatch that comes too late, a probe, and the hard match."""
    assert told(
        lambda scan: scan.connected(100.0),
        lambda scan: scan.received(b"soft", 100.1),
        lambda scan: scan.received(b"other", 100.2),
        lambda scan: scan.timed_out(100.3),
        lambda scan: scan.timed_out(105.3),
    )[3:13] == [
        "Service scan sending probe NULL to 192.0.2.1:23 (tcp)",
        "NSOCK INFO [2.0000s] nsock_read(): Read request from IOD #1 [192.0.2.1:23] (timeout: 300ms) EID 2",
        "NSOCK INFO [2.1000s] nsock_trace_handler_callback(): Callback: READ SUCCESS for EID 2 [192.0.2.1:23]"
        " (4 bytes): soft",
        "Service scan soft match (Probe NULL matched with NULL line 3): 192.0.2.1:23 is foo.  Version: ||||",
        "NSOCK INFO [2.1000s] nsock_read(): Read request from IOD #1 [192.0.2.1:23] (timeout: 200ms) EID 3",
        "NSOCK INFO [2.2000s] nsock_trace_handler_callback(): Callback: READ SUCCESS for EID 3 [192.0.2.1:23]"
        " (5 bytes): other",
        "Service scan soft match (Probe NULL matched with NULL line 4): 192.0.2.1:23 is bar.  Version: ||||",
        "WARNING: Service 192.0.2.1:23 had already soft-matched foo, but now soft-matched bar; ignoring second value",
        "NSOCK INFO [2.2000s] nsock_read(): Read request from IOD #1 [192.0.2.1:23] (timeout: 100ms) EID 4",
        "NSOCK INFO [2.3000s] nsock_trace_handler_callback(): Callback: READ TIMEOUT for EID 4 [192.0.2.1:23]",
    ]


def test_a_probe_is_written_and_answered() -> None:
    """On the connection of the NULL probe; the match says which probe was sent and in whose list the line stands."""
    lines = told(
        lambda scan: scan.connected(100.0),
        lambda scan: scan.received(b"soft", 100.1),
        lambda scan: scan.timed_out(100.3),
        lambda scan: scan.received(b"hard", 100.4),
    )
    assert lines[:3] == opened(1, 1, at=2.0)
    assert lines[9:] == [
        "Service scan sending probe Ask to 192.0.2.1:23 (tcp)",
        "NSOCK INFO [2.3000s] nsock_write(): Write request for 3 bytes to IOD #1 EID 4 [192.0.2.1:23]",
        "NSOCK INFO [2.3000s] nsock_read(): Read request from IOD #1 [192.0.2.1:23] (timeout: 5000ms) EID 5",
        "NSOCK INFO [2.4000s] nsock_trace_handler_callback(): Callback: READ SUCCESS for EID 5 [192.0.2.1:23]"
        " (4 bytes): hard",
        "Service scan hard match (Probe Ask matched with Ask line 7): 192.0.2.1:23 is foo.  Version: |Foo|1.0|x|",
        "NSOCK INFO [2.4000s] nsock_iod_delete(): nsock_iod_delete (IOD #1)",
    ]


def test_into_the_tunnel() -> None:
    """The connection inside TLS is told as such, and so is what is found there."""
    lines = told(
        lambda scan: scan.connected(100.0),
        lambda scan: scan.received(b"tls", 100.1),
        lambda scan: scan.connected(100.2),
        lambda scan: scan.received(b"inner", 100.3),
    )
    assert lines[6:] == [
        "Service scan hard match (Probe NULL matched with NULL line 9): 192.0.2.1:23 is ssl.  Version: ||||",
        "NSOCK INFO [2.1000s] nsock_iod_delete(): nsock_iod_delete (IOD #1)",
        "NSOCK INFO [2.1000s] nsock_iod_new2(): nsock_iod_new (IOD #2)",
        "NSOCK INFO [2.1000s] nsock_connect_ssl(): SSL connection requested to 192.0.2.1:23/tcp (IOD #2)"
        " (timeout: 8000ms) EID 3",
        "NSOCK INFO [2.2000s] nsock_trace_handler_callback(): Callback: SSL-CONNECT SUCCESS for EID 3 [192.0.2.1:23]",
        "Service scan sending probe NULL to 192.0.2.1:23 (tcp)",
        "NSOCK INFO [2.2000s] nsock_read(): Read request from IOD #2 [192.0.2.1:23] (timeout: 300ms) EID 4",
        "NSOCK INFO [2.3000s] nsock_trace_handler_callback(): Callback: READ SUCCESS for EID 4 [192.0.2.1:23]"
        " (5 bytes): inner",
        "Service scan hard match (Probe NULL matched with NULL line 10): 192.0.2.1:23 is SSL/baz.  Version: ||2||",
        "NSOCK INFO [2.3000s] nsock_iod_delete(): nsock_iod_delete (IOD #2)",
    ]


@pytest.mark.parametrize(
    ("event", "what", "status"),
    [
        (lambda scan: scan.failed(Reason.REFUSED, 101.0), "CONNECT ERROR [Connection refused (111)]", "ERROR"),
        (lambda scan: scan.failed(Reason.TIMEOUT, 101.0), "CONNECT TIMEOUT", "TIMEOUT"),
        (lambda scan: scan.timed_out(101.0), "CONNECT TIMEOUT", "TIMEOUT"),
    ],
    ids=["refused", "the system gave up", "we gave up"],
)
def test_no_connection(event: Events, what: str, status: str) -> None:
    """Told once, whichever way it came about."""
    assert told(event)[2:] == [
        f"NSOCK INFO [3.0000s] nsock_trace_handler_callback(): Callback: {what} for EID 1 [192.0.2.1:23]",
        f"Got nsock CONNECT response with status {status} - aborting this service",
        "NSOCK INFO [3.0000s] nsock_iod_delete(): nsock_iod_delete (IOD #1)",
    ]


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (lambda scan: scan.closed(103.0), "READ EOF"),
        (lambda scan: scan.failed(Reason.RESET, 103.0), "READ ERROR [Connection reset by peer (104)]"),
        (lambda scan: scan.failed(Reason.TIMEOUT, 103.0), "READ ERROR [Connection timed out (110)]"),
    ],
    ids=["EOF", "reset", "the system gave up"],
)
def test_the_peer_leaves(event: Events, what: str) -> None:
    """The next probe gets a connection of its own."""
    lines = told(lambda scan: scan.connected(100.0), event)
    assert lines[5:] == [
        f"NSOCK INFO [5.0000s] nsock_trace_handler_callback(): Callback: {what} for EID 2 [192.0.2.1:23]",
        "NSOCK INFO [5.0000s] nsock_iod_delete(): nsock_iod_delete (IOD #1)",
        *opened(2, 3, at=5.0)[:2],
    ]


def test_a_write_fails() -> None:
    """Told with the request of the write, not of the read behind it."""
    lines = told(
        lambda scan: scan.connected(100.0),
        lambda scan: scan.timed_out(100.3),
        lambda scan: scan.write_failed(Reason.RESET, 100.3),
    )
    assert lines[9:] == [
        "NSOCK INFO [2.3000s] nsock_trace_handler_callback(): Callback: WRITE ERROR [Connection reset by peer (104)]"
        " for EID 3 [192.0.2.1:23]",
        "Got nsock WRITE response with status ERROR - aborting this service",
        "NSOCK INFO [2.3000s] nsock_iod_delete(): nsock_iod_delete (IOD #1)",
    ]


@pytest.mark.parametrize(
    ("data", "shown"),
    [(b"a\0\r\n\xff~\x7f", " (7 bytes): a....~."), (b"x" * 79, f" (79 bytes): {'x' * 79}"), (b"x" * 80, " (80 bytes)")],
    ids=["dots", "79", "80"],
)
def test_data_is_shown_if_short(data: bytes, shown: str) -> None:
    """Below 80 bytes, with a dot for what is not printable."""
    lines = told(lambda scan: scan.connected(100.0), lambda scan: scan.received(data, 100.1))
    assert lines[5].endswith(f"READ SUCCESS for EID 2 [192.0.2.1:23]{shown}")


def test_udp_over_ipv6() -> None:
    """Addresses with colons stand in brackets."""
    lines = told(lambda scan: scan.connected(100.0), host="2001:db8::1", port=53, proto="udp")
    assert lines[1] == (
        "NSOCK INFO [2.0000s] nsock_connect_udp(): UDP connection requested to [2001:db8::1]:53 (IOD #1)"
        " (timeout: 5000ms) EID 1"
    )
    assert lines[3:5] == [
        "Service scan sending probe Dgram to [2001:db8::1]:53 (udp)",
        "NSOCK INFO [2.0000s] nsock_write(): Write request for 4 bytes to IOD #1 EID 2 [[2001:db8::1]:53]",
    ]


def test_excluded_and_aborted() -> None:
    """What is not contacted has no connection; what is cut short gives its connection back."""
    assert told(port=9100) == ["EXCLUDING 9100/tcp"]
    lines = told(lambda scan: scan.abort(Reason.CANCELLED, 100.5))
    assert lines[2:] == ["NSOCK INFO [2.5000s] nsock_iod_delete(): nsock_iod_delete (IOD #1)"]
