"""Scans through proxies, real ones where they are installed, and hostile ones: whose fault a failure is, and that
nothing goes past them.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from daemons import free_port
from loopback import Farm, Talk, Visit, config, database_file, greeting_after, reset, scan, silent
from peers import speak_tls
from proxies import PROXIES, microsocks, ssh_dynamic, tinyproxy

from engine.cli.main import cli
from engine.errors import EngineError
from engine.model import Reason, ServiceResult, Tunnel, Verdict
from engine.pool import patience
from probemill import scan_sync

TUNNELLED = rb"""Probe TCP NULL q||
totalwaitms 100
Probe TCP Ask q|ASK\r\n|
sslports 1-65535
match ssl m|^TLS PLEASE|
match http m|^HTTP| p/x/
"""
CLOSED = 9  # of loopback; nothing listens there


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


def told(row: ServiceResult) -> dict[str, object]:
    """What a row says of its service, and not of the way there or of time."""
    return {key: value for key, value in row.to_dict().items() if key not in {"started", "elapsed_ms"}}


def by_port(rows: list[ServiceResult]) -> dict[int, ServiceResult]:
    return {row.port: row for row in rows}


# -- real proxies


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_service_behind_a_proxy_has_the_row_that_it_has_without(proxy: str, database: str) -> None:
    """Every connection comes from the proxy, counted at the server."""
    with PROXIES[proxy]() as gate, Farm(greeting_after(0.01)) as farm:
        direct, _ = scan(farm.targets("127.3.0.1"), config(database))
        seen = len(farm.visits)
        rows, _ = scan(farm.targets("127.3.0.1"), config(database, proxy=(gate.url,)))
        assert [told(row) for row in rows] == [told(row) for row in direct]
        assert len(farm.visits) == seen + 1
        if gate.from_address:
            assert farm.visits[-1].peer == gate.from_address


@pytest.mark.parametrize(
    ("proxy", "verdict", "reason", "state"),
    [
        ("microsocks", Verdict.INCOMPLETE, Reason.REFUSED, "closed"),
        ("danted", Verdict.INCOMPLETE, Reason.REFUSED, "closed"),
        ("squid", Verdict.INCOMPLETE, Reason.REFUSED, "closed"),
        ("tinyproxy", Verdict.INCOMPLETE, Reason.UNREACHABLE, "filtered"),  # it says 500 of whatever it is
        ("ssh -D", Verdict.INCOMPLETE, Reason.PROXY, ""),  # it hangs up without a word
    ],
)
def test_a_closed_port_behind_a_proxy(proxy: str, verdict: Verdict, reason: Reason, state: str, database: str) -> None:
    with PROXIES[proxy]() as gate:
        (row,), _ = scan([f"127.3.0.1:{CLOSED}"], config(database, proxy=(gate.url,)))
    assert (row.verdict, row.reason, row.state) == (verdict, reason, state)


@pytest.mark.parametrize("proxy", ["danted", "squid"])
def test_what_a_proxys_rules_forbid(proxy: str, database: str) -> None:
    """Nothing is claimed of the target, and such rows do not end a run."""
    with PROXIES[proxy]() as gate:
        targets = [f"127.66.0.{number}:22" for number in range(1, 40)]
        rows, tally = scan(targets, config(database, proxy=(gate.url,), per_host=0))
    assert len(rows) == len(targets)
    for row in rows:
        assert (row.verdict, row.reason, row.state) == (Verdict.INCOMPLETE, Reason.PROXY, "")
        assert row.post == {"proxy": {"hop": 1, "at": gate.url, "why": "its rules forbid the destination"}}
    assert patience.GIVEN_UP not in tally


def test_hang_ups_of_a_proxy_that_answers_do_not_end_a_run(database: str) -> None:
    """As those of `ssh -D`, at each closed port."""

    async def talk(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
        await reader.readexactly(3)
        writer.write(b"\x05\x00")
        await reader.readexactly(10)

    with Farm(talk) as gate:
        url = f"socks5://127.8.0.1:{gate.port}"
        began = time.monotonic()
        rows, _ = scan([f"127.3.0.{number}:80" for number in range(1, 101)], config(database, proxy=(url,)))
    assert {row.reason for row in rows} == {Reason.PROXY}
    assert time.monotonic() - began < 10


def test_a_chain_of_two_kinds(database: str) -> None:
    """The farm sees the last one; what fails is told with its place in the chain."""
    with microsocks("joe:s3cr") as first, tinyproxy() as second, Farm(greeting_after(0.0)) as farm:
        for chain, last in (((first, second), second), ((second, first), first)):
            urls = tuple(gate.url for gate in chain)
            (row,), _ = scan(farm.targets("127.3.0.1"), config(database, proxy=urls))
            assert (row.name, row.version) == ("hello", "1.0")
            assert farm.visits[-1].peer == last.from_address
        gone = f"socks5://127.0.0.1:{free_port()}"
        (row,), _ = scan(farm.targets("127.3.0.1"), config(database, proxy=(first.url, gone)))
        assert row.reason is Reason.PROXY
        assert row.post == {"proxy": {"hop": 2, "at": gone, "why": "connection refused"}}


def test_tls_and_post_processing_run_inside(tmp_path: Path) -> None:
    """The handshake with the target, and what modules ask, come through the proxy, too."""
    database = database_file(tmp_path, TUNNELLED)
    seen: list[str] = []

    async def talk(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
        seen.append(visit.peer)
        first = await reader.read(1)
        if first == b"A":
            writer.write(b"TLS PLEASE")
            await reader.read()
            return
        # a TLS hello; hand its first byte back
        buffered = reader._buffer  # type: ignore[attr-defined]
        buffered[:0] = first
        await speak_tls(reader, writer, b"HTTP/1.0 200 OK\r\nServer: inside\r\n\r\n<title>Hello</title>")

    with microsocks() as gate, Farm(talk) as farm:
        (row,), _ = scan(farm.targets("127.3.0.1"), config(database, proxy=(gate.url,), post=("http", "web")))
    assert row.tunnel is Tunnel.SSL
    assert row.name == "http"
    assert row.tls is not None
    assert row.tls.subject
    assert row.post is not None
    assert row.post["http"]["title"] == "Hello"
    assert set(seen) == {gate.from_address}
    assert len(seen) >= 3


def test_ssh_leads_to_names(database: str) -> None:
    with ssh_dynamic() as gate, Farm(greeting_after(0.0)) as farm:
        (row,) = scan_sync([f"localhost:{farm.port}"], config(database, proxy=(gate.url,)))
    assert (row.ip, row.host, row.name) == ("", "localhost", "hello")


# -- nothing goes past


def no_resolver(*_: object, **__: object) -> None:
    raise AssertionError("a name was looked up here")


def test_names_are_looked_up_by_the_proxy(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On request: the row has the name, and no address, which nobody here knows."""
    with microsocks() as gate, Farm(greeting_after(0.0)) as farm:
        monkeypatch.setattr(socket, "getaddrinfo", no_resolver)
        (row,) = scan_sync([f"localhost:{farm.port}"], config(database, proxy=(gate.url,)))
        assert (row.ip, row.host, row.name) == ("", "localhost", "hello")
        assert farm.visits[0].peer == gate.from_address
        for refusing in (
            config(database, proxy=(gate.url.replace("socks5h", "socks5"),)),
            config(database, proxy=(gate.url,), blocklist=("10.0.0.0/8",)),
            config(database, proxy=(gate.url,), exclude_reserved=True),
        ):
            with pytest.raises(EngineError, match="localhost: "):
                list(scan_sync([f"localhost:{farm.port}"], refusing))
        assert len(farm.visits) == 1


def test_udp_is_left_out(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nmap would ask it directly. Here the server of the target hears nothing, and one line says why."""
    with microsocks() as gate, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.3.0.1", 0))
        peer.setblocking(False)
        port = peer.getsockname()[1]
        rows = list(scan_sync([f"127.3.0.1:{port}/udp", f"127.3.0.2:{port}/udp"], config(database, proxy=(gate.url,))))
        assert rows == []
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        with pytest.raises(EngineError, match="UDP does not go through a proxy"):
            list(scan_sync(["127.3.0.1"], config(database, proxy=(gate.url,), ports="80,U:53")))
    assert [record.getMessage()[:20] for record in caplog.records].count("UDP targets are left") == 1


# -- hostile proxies


async def hangs_up_at_once(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
    pass


async def hangs_up(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
    await reader.read(1)


async def resets(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
    await reader.read(1)
    reset(writer)


async def endless(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: and more\r\n" * 1000)
        await writer.drain()


async def trickles(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
    """A byte of a header every 50 ms."""
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.05)


def says(answer: bytes) -> Talk:
    async def talk(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()

    return talk


@pytest.mark.parametrize(
    ("scheme", "talk", "why"),
    [
        ("socks5", silent, "it does not answer"),
        ("socks5", hangs_up, "it hung up"),
        ("socks5", resets, "connection reset by peer"),
        ("socks5", says(b"SSH-2.0-OpenSSH_9.2\r\n"), "it does not answer as a SOCKS 5 proxy"),
        ("socks5", endless, "it does not answer as a SOCKS 5 proxy"),
        ("socks4", says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it does not answer as a SOCKS 4 proxy"),
        ("http", hangs_up, "it hung up"),
        ("http", endless, "an answer without an end"),
        ("http", says(b"\x05\x00\r\n\r\n"), "it does not answer as an HTTP proxy"),
        ("http", says(b"HTTP/1.1 407 Login\r\n\r\n"), "it wants a user and a password"),
    ],
)
def test_a_proxy_that_is_none(scheme: str, talk: Talk, why: str, database: str) -> None:
    """Within the connect timeout its targets have rows that blame it, and claim nothing of themselves."""
    with Farm(talk) as farm:
        url = f"{scheme}://127.8.0.1:{farm.port}"
        (row,), _ = scan(["127.3.0.1:80"], config(database, proxy=(url,), connect_timeout_s=0.5))
    assert (row.verdict, row.reason, row.state, row.name) == (Verdict.INCOMPLETE, Reason.PROXY, "", "")
    assert row.post is not None
    assert row.post["proxy"]["why"].startswith(why)


def test_a_proxy_that_trickles_is_no_longer_waited_for_than_a_target(database: str) -> None:
    """Once it has been asked for the target, it is the target's connect timeout that runs."""
    with Farm(trickles) as farm:
        began = time.monotonic()
        (row,), _ = scan(
            ["127.3.0.1:80"], config(database, proxy=(f"http://127.8.0.1:{farm.port}",), connect_timeout_s=0.5)
        )
    assert row.reason is Reason.TIMEOUT
    assert time.monotonic() - began < 10


V5_OK = b"\x05\x00\x00\x01" + bytes(6)
Ends = tuple[StreamReader, StreamWriter]


class Relay:
    """A SOCKS 5 proxy that takes its time: for its greeting, for the connection, and then each way."""

    def __init__(self, greeting_s: float = 0.0, connect_s: float = 0.0) -> None:
        self.greeting_s = greeting_s
        self.connect_s = connect_s

    async def __call__(self, reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
        await reader.readexactly(3)
        await asyncio.sleep(self.greeting_s)
        writer.write(b"\x05\x00")
        request = await reader.readexactly(10)
        await asyncio.sleep(self.connect_s)
        there = await asyncio.open_connection(socket.inet_ntoa(request[4:8]), int.from_bytes(request[8:]))
        for byte in V5_OK:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        await self.pump((reader, writer), there)

    @classmethod
    async def pump(cls, one: Ends, other: Ends) -> None:
        try:
            await asyncio.gather(cls._copy(one[0], other[1]), cls._copy(other[0], one[1]))
        finally:
            other[1].close()

    @staticmethod
    async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.write_eof()


def test_the_way_to_a_proxy_counts_for_the_proxy(database: str) -> None:
    """A slow handshake is no slow target: each hop and the target have the connect timeout for themselves."""
    with Farm(Relay(greeting_s=0.7, connect_s=0.7)) as gate, Farm(greeting_after(0.0)) as farm:
        settings = config(database, proxy=(f"socks5://127.8.0.1:{gate.port}",), connect_timeout_s=1.0)
        (row,), _ = scan(farm.targets("127.3.0.1"), settings)
        assert row.name == "hello"
        slow = Relay(connect_s=5.0)
        with Farm(slow) as other:
            settings = config(database, proxy=(f"socks5://127.8.0.1:{other.port}",), connect_timeout_s=0.5)
            (row,), _ = scan(farm.targets("127.3.0.1"), settings)
            assert row.reason is Reason.TIMEOUT


def test_adaptive_windows_are_those_of_the_whole_way(database: str) -> None:
    """The measured round trip has the wait for the target in it, and not the handshake before."""
    with Farm(Relay(greeting_s=1.0, connect_s=0.0)) as gate, Farm(silent) as farm:
        settings = config(database, proxy=(f"socks5://127.8.0.1:{gate.port}",), timing="adaptive")
        (row,), _ = scan(farm.targets("127.3.0.1"), settings)
    assert row.verdict is Verdict.NOMATCH
    assert row.connections == 2


# -- proxies that die


def test_a_dead_proxy_closes_no_port(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every target has its row, none says that it is closed; after a row of failures targets begin one by one."""
    monkeypatch.setattr(patience, "FIRST_S", 0.01)
    monkeypatch.setattr(patience, "LONGEST_S", 0.01)
    url = f"socks5://127.0.0.1:{free_port()}"
    rows, _ = scan([f"127.3.0.{number}:80" for number in range(1, 61)], config(database, proxy=(url,)))
    assert len(rows) == 60
    assert {(row.verdict, row.reason, row.state) for row in rows} == {(Verdict.INCOMPLETE, Reason.PROXY, "")}


def test_a_proxy_that_is_gone_for_a_while(database: str) -> None:
    """No port is closed by it, and what begins when it is back is scanned as ever."""
    port = free_port()
    targets = [f"127.3.{number >> 8}.{number & 255}" for number in range(400)]
    done: list[list[ServiceResult]] = []
    with Farm(greeting_after(0.1)) as farm:  # who is cut off before that looks like a TCP wrapper
        settings = config(database, proxy=(f"socks5://127.0.0.1:{port}",), max_inflight=16)
        scanning = threading.Thread(target=lambda: done.append(scan(farm.targets(*targets), settings)[0]))
        with microsocks(port=port):
            scanning.start()
            until = time.monotonic() + 20
            while len(farm.visits) < 50 and time.monotonic() < until:
                time.sleep(0.01)
        seen = len(farm.visits)
        time.sleep(0.7)
        with microsocks(port=port):
            scanning.join(30)
    (rows,) = done
    assert len(rows) == len(targets)
    verdicts = Counter((row.verdict, row.reason) for row in rows)
    assert set(verdicts) == {(Verdict.INCOMPLETE, Reason.PROXY), (Verdict.HARDMATCHED, None)}
    assert 0 < verdicts[Verdict.INCOMPLETE, Reason.PROXY] < 80
    assert {row.state for row in rows} <= {"", "open"}
    assert len(farm.visits) > seen


def test_a_tcp_wrapper_behind_a_proxy_that_lives(database: str) -> None:
    """Is one."""
    with microsocks() as gate, Farm(hangs_up_at_once) as farm:
        (row,), _ = scan(farm.targets("127.3.0.1"), config(database, proxy=(gate.url,)))
    assert (row.verdict, row.name, row.state) == (Verdict.TCPWRAPPED, "tcpwrapped", "open")


def test_a_run_ends_when_no_proxy_leads_anywhere(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.5)
    began = time.monotonic()

    async def dies(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
        if len(gate.visits) > 1:  # all but the first look
            return
        await Relay()(reader, writer, visit)

    with Farm(dies) as gate, pytest.raises(EngineError, match="no proxy leads to targets"):
        targets = [f"127.3.{number >> 8}.{number & 255}:80" for number in range(5000)]
        list(scan_sync(targets, config(database, proxy=(f"http://127.8.0.1:{gate.port}",))))
    assert time.monotonic() - began < 20
    assert len(gate.visits) < 1000


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_a_proxy_that_is_not_there_at_the_start(url: str, tmp_path: Path) -> None:
    """One line, exit code 1, and no target is contacted."""
    with Farm(silent) as farm:
        done = command("scan", *farm.targets("127.3.0.1"), "--proxy", url.format(port := free_port()))
        assert not farm.visits
    assert done.returncode == 1
    assert done.stderr == f"probemill: proxy 1, {url.format(port)}: connection refused\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--interface", "nosuch0", "interface nosuch0: there is no such network interface; `ip link` lists them"),
        ("--source", "192.0.2.77", "source address 192.0.2.77: Cannot assign requested address"),
        ("--source-port", "20000", "source_port: not with a proxy, where all connections have the same other end"),
    ],
)
def test_what_is_wrong_on_this_machine_is_said_before_the_proxy_is_contacted(option: str, value: str, why: str) -> None:
    with Farm(silent) as farm:
        (target,) = farm.targets("127.3.0.1")
        done = command("scan", target, "--proxy", f"socks5://{target}", option, value)
        assert not farm.visits
    assert (done.returncode, done.stderr, done.stdout) == (2, f"probemill: {why}\n", "")


def command(*args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "from engine.cli.start import main; main()"]
    return subprocess.run(
        [*program, *args], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )


def test_what_a_proxy_spoilt_is_asked_again_by_the_next_run(tmp_path: Path, database: str) -> None:
    """Those targets, and them alone; and no file of the run has the password."""
    secret = "zx81zx81"
    state, xml, grep = tmp_path / "state", tmp_path / "rows.xml", tmp_path / "rows.gnmap"
    port = free_port()
    url = f"socks5://joe:{secret}@127.0.0.1:{port}"

    async def forbids(reader: StreamReader, writer: StreamWriter, visit: Visit) -> None:
        """Leads to one of the two targets."""
        await reader.readexactly(4)
        writer.write(b"\x05\x02")
        await reader.readexactly(2 + 3 + 1 + len(secret))
        writer.write(b"\x01\x00")
        request = await reader.readexactly(10)
        if request[4:8] == socket.inet_aton("127.3.0.2"):
            writer.write(b"\x05\x02\x00\x01" + bytes(6))
            return
        there = await asyncio.open_connection("127.3.0.1", farm.port)
        writer.write(V5_OK)
        await Relay.pump((reader, writer), there)

    with Farm(greeting_after(0.0)) as farm, Farm(forbids) as gate:
        url = f"socks5://joe:{secret}@127.8.0.1:{gate.port}"
        targets = farm.targets("127.3.0.1", "127.3.0.2")
        common = ("--probes", database, "--state", str(state), "--no-post")
        first = command("scan", *targets, *common, "--proxy", url, "-oX", str(xml), "-oG", str(grep), "-vv")
        assert first.returncode == 1, first.stderr
        assert "a proxy did not lead to all targets: 1 of 2 done, 1 not reached" in first.stderr
        assert "--resume goes on" in first.stderr
        assert farm.per_address == {"127.3.0.1": 1}
        for path in (xml, grep, *state.rglob("*")):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
        assert secret not in first.stderr + first.stdout
        assert "socks5://***@127.8.0.1" in xml.read_text()
        with microsocks() as honest:
            second = command("scan", *targets, *common, "--resume", "--proxy", "env:GATE", GATE=honest.url)
        assert second.returncode == 0, second.stderr
        assert farm.per_address == {"127.3.0.1": 1, "127.3.0.2": 1}
    rows = [json.loads(line) for line in command("convert", str(state), "-").stdout.splitlines()]
    assert {(row["ip"], row["name"]) for row in rows} == {("127.3.0.1", "hello"), ("127.3.0.2", "hello")}


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("text", "Scan report for localhost\n"),
        ("grepable", "Host: localhost (localhost)\tPorts: "),
        ("xml", '<address addr="localhost" addrtype="ipv4"/>'),
        ("csv", ",localhost,"),
    ],
)
def test_a_name_that_the_proxy_looks_up_is_written_in_every_form(form: str, shown: str, database: str) -> None:
    """It has been reached, whatever its address; nobody says that it could not be resolved."""
    with microsocks() as gate, Farm(greeting_after(0.0)) as farm:
        target = f"localhost:{farm.port}"
        done = command("scan", target, "--probes", database, "--proxy", gate.url, "--format", form, "-q")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert "hello" in done.stdout
    assert "resolve" not in done.stdout


def test_the_command_ends_when_no_proxy_leads_anywhere(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says so, the exit code is 1, and what was not reached is for the next run."""
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.5)
    with Farm(hangs_up) as gate:
        targets = tmp_path / "targets"
        targets.write_text("".join(f"127.3.{number >> 8}.{number & 255}:80\n" for number in range(3000)))
        words = ["scan", "-i", str(targets), "--probes", database, "--workers", "0", "-o", str(tmp_path / "o.ndjson")]
        done = CliRunner().invoke(
            cli, [*words, "--state", str(tmp_path / "s"), "--proxy", f"http://127.8.0.1:{gate.port}"]
        )
    assert done.exit_code == 1
    assert "no proxy leads to targets any more: 0 of " in done.output
    assert "--resume goes on" in done.output
    rows = (tmp_path / "o.ndjson").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in rows} <= {"proxy", "cancelled"}
