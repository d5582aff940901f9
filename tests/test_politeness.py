"""Limits, counted by those they protect: what a server on loopback sees of a scan that is told to be polite."""

import asyncio
import json
import re
import socket
import struct
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pytest
from click.testing import CliRunner
from loopback import DATABASE, Farm, Visit, collect, config, database_file, greeting_after, most_at_once, scan, silent
from peers import speak_tls

from engine.cli.main import cli
from engine.model import Reason, Tunnel, Verdict
from engine.pool.limits import BURST_S
from engine.pool.runners.inline import InlineRunner
from engine.targets.permutation import parse_shard
from engine.transports.tcp import TcpTransport
from probemill import scan_sync

IP_LOCAL_PORT_RANGE = 51  # Linux 6.3
PORTS = struct.pack("=I", 60_999 << 16 | 60_990)  # within the system's own range, else they are ignored
HOLD_S = 0.1  # long enough for everything that is allowed at once to come at once


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


def neighbours(count: int, network: str = "127.3.0") -> list[str]:
    return [f"{network}.{last}" for last in range(1, count + 1)]


def command(*arguments: str | Path) -> tuple[int, list[dict[str, object]], str]:
    """Run `probemill scan` in this process. -> exit code, rows, stderr"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.ndjson")
        options = ["-q", "--workers", "0", "--no-post", "-o", str(path)]
        done = CliRunner().invoke(cli, ["scan", *options, *map(str, arguments)])
        rows = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return done.exit_code, rows, done.stderr + str(done.exception or "")


@pytest.mark.parametrize("limit", [1, 7])
def test_max_inflight(database: str, limit: int) -> None:
    with Farm(greeting_after(HOLD_S)) as farm:
        rows, _ = scan(farm.targets(*neighbours(3 * limit + 1)), config(database, max_inflight=limit))
    assert len(rows) == len(farm.visits) == 3 * limit + 1
    assert most_at_once(farm.visits) == limit


def test_max_inflight_over_all_workers(database: str) -> None:
    with Farm(greeting_after(HOLD_S)) as farm:
        rows, _ = scan(farm.targets(*neighbours(40)), config(database, max_inflight=8, workers=2))
    assert len(rows) == len(farm.visits) == 40
    assert 4 < most_at_once(farm.visits) <= 8


def test_per_host(database: str) -> None:
    """The cap is each host's own: two hosts at their caps make twice as many."""
    with Farm(greeting_after(HOLD_S)) as one, Farm(greeting_after(HOLD_S)) as other:
        hosts = ["127.3.1.1", "127.3.2.2"]
        targets = [target for farm in (one, other) for host in hosts for target in farm.targets(*[host] * 4)]
        rows, _ = scan(targets, config(database, per_host=3))
    visits = one.visits + other.visits
    assert len(rows) == len(visits) == 16
    assert [most_at_once(visit for visit in visits if visit.address == host) for host in hosts] == [3, 3]
    assert most_at_once(visits) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_per_prefix(database: str, workers: int) -> None:
    """One cap for a network, however many processes share the scan."""
    with Farm(greeting_after(HOLD_S)) as farm:
        targets = farm.targets(*neighbours(12, "127.3.0"), *neighbours(12, "127.3.9"))
        rows, _ = scan(targets, config(database, per_prefix=4, workers=workers))
    assert len(rows) == len(farm.visits) == 24
    by_network = [[v for v in farm.visits if v.address.startswith(network)] for network in ("127.3.0.", "127.3.9.")]
    assert [most_at_once(visits) for visits in by_network] == [4, 4]


def test_neighbours_take_turns(database: str) -> None:
    """Whole networks one after the other in the input; on the wire no network has more than its share."""
    networks = [f"127.3.{third}" for third in range(5)]
    with Farm(greeting_after(0.0)) as farm:
        targets = farm.targets(*(address for network in networks for address in neighbours(20, network)))
        scan(targets, config(database, max_inflight=1))
    longest = max(len(list(run)) for _, run in groupby(visit.address.rpartition(".")[0] for visit in farm.visits))
    assert len(farm.visits) == 100
    assert longest == 1


def test_rate(database: str) -> None:
    """Reconnects count. A peer that hangs up on every probe gets three connections."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await reader.read(100)

    rate = 60
    with Farm(hang_up) as farm:
        began = time.monotonic()
        rows, _ = scan(farm.targets(*neighbours(20)), config(database, rate=rate))
    assert [row.verdict for row in rows] == [Verdict.NOMATCH] * 20
    assert len(farm.visits) == 20 * 2  # NULL and Ask share the first, More has its own
    arrived = sorted(visit.at - began for visit in farm.visits)
    burst = max(1, int(rate * BURST_S))
    assert all(at >= (number - burst) / rate for number, at in enumerate(arrived, 1))


def test_waiting_for_the_rate_costs_no_window(database: str) -> None:
    """A probe whose connection had to wait for its turn is heard for as long as any other."""

    async def answer_the_last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if await reader.read(100) == b"MORE\r\n":
            writer.write(b"MORE or less")
        else:
            await reader.read()

    with Farm(answer_the_last) as farm:
        rows, _ = scan(farm.targets(*neighbours(4)), config(database, rate=4.0))
    assert [row.name for row in rows] == ["asked"] * 4


def test_host_delay(database: str) -> None:
    delay_s = 0.15
    with Farm(greeting_after(0.0)) as farm:
        hosts = neighbours(6)
        began = time.monotonic()
        rows, _ = scan(farm.targets(*hosts * 4), config(database, host_delay_s=delay_s))
    assert len(rows) == len(farm.visits) == 24
    for host in hosts:
        arrived = sorted(visit.at - began for visit in farm.visits if visit.address == host)
        assert all(at >= number * delay_s for number, at in enumerate(arrived))
    assert max(visit.at for visit in farm.visits) - began < 6 * 4 * delay_s  # hosts do not wait for each other


def test_lists_shards_and_reserved_networks(tmp_path: Path, database: str) -> None:
    (tmp_path / "blocked").write_text("# not these\n127.3.0.4/30\n127.3.0.9 # nor this\n")
    (tmp_path / "allowed").write_text("127.3.0.0/28\n")
    with Farm(greeting_after(0.0)) as farm:
        network = f"127.3.0.0/27:{farm.port}"
        code, rows, _ = command(
            network, "--probes", database, "--blocklist", tmp_path / "blocked", "--allowlist", tmp_path / "allowed"
        )
        expected = {f"127.3.0.{last}" for last in range(16)} - {f"127.3.0.{last}" for last in (4, 5, 6, 7, 9)}
        assert code == 0
        assert {row["ip"] for row in rows} == farm.per_address.keys() == expected

        farm.visits.clear()
        shares = []
        for number in (1, 2, 3):
            code, rows, _ = command(network, "--probes", database, "--shard", f"{number}/3")
            shares.append({row["ip"] for row in rows})
        assert set.union(*shares) == {f"127.3.0.{last}" for last in range(32)}
        assert sum(map(len, shares)) == 32
        assert sum(farm.per_address.values()) == 32

        farm.visits.clear()
        code, rows, said = command(network, "--probes", database, "--exclude-reserved")
        assert (code, rows, said) == (0, [], "")
        assert not farm.visits


def test_a_list_that_cannot_be_read_stops_the_run(tmp_path: Path, database: str) -> None:
    (tmp_path / "blocked").write_text("127.3.0.0/24\nnonsense\n")
    with Farm(greeting_after(0.0)) as farm:
        for path in (tmp_path / "blocked", tmp_path / "missing"):
            code, _, said = command(f"127.9.0.1:{farm.port}", "--probes", database, "--blocklist", path)
            assert code != 0
            assert str(path) in said
    assert not farm.visits


def test_shares_of_names_and_addresses_are_disjoint_and_complete() -> None:
    shards = [parse_shard(f"{number}/7") for number in range(1, 8)]
    hosts = [f"10.{i % 7}.{i % 250}.{i % 199}" for i in range(2000)] + [f"host{i}.example" for i in range(500)]
    assert all(sum(shard.keeps(host) for shard in shards) == 1 for host in hosts)


@pytest.mark.parametrize(("timing", "most"), [("nmap", 512), ("adaptive", 768)])
def test_dry_run_contacts_nobody(database: str, timing: str, most: int) -> None:
    """Adaptive timing may look a second time at a peer that hung up."""
    with Farm(greeting_after(0.0)) as farm:
        options = ["--dry-run", "--probes", database, "--timing", timing]
        done = CliRunner().invoke(cli, ["scan", *options, f"127.3.0.0/24:{farm.port}"])
    assert json.loads(done.stdout) == {"hosts": 256, "ports": 256, "connections_at_most": most}
    assert not farm.visits


def test_spare_fragile(database: str) -> None:
    """Printers and controllers hear nothing; what they say by themselves is still read."""
    printer = 9100
    for fragile, expected in ((True, b""), (False, b"ASK\r\n")):
        received = []
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.3.77.1", printer))
            listener.listen()
            listener.settimeout(10)

            async def serve_and_scan() -> None:
                settings = config(database, spare_fragile=fragile)  # noqa: B023
                runner = InlineRunner(settings)
                scanning = asyncio.create_task(collect([f"127.3.77.1:{printer}"], runner))
                peer, _ = await asyncio.to_thread(listener.accept)
                with peer:
                    peer.settimeout(10)
                    received.append(await asyncio.to_thread(peer.recv, 100))  # noqa: B023
                    await scanning

            asyncio.run(serve_and_scan())
        assert received == [expected]


def test_sources_take_turns(database: str) -> None:
    sources = ("127.8.0.1", "127.8.0.2", "127.8.0.3")
    with Farm(greeting_after(0.0)) as farm:
        scan(farm.targets(*neighbours(30)), config(database, sources=sources))
    assert Counter(visit.peer for visit in farm.visits) == dict.fromkeys(sources, 10)


def test_a_source_that_is_not_ours_is_refused_at_once(database: str) -> None:
    code, rows, said = command("127.3.0.1:9", "--probes", database, "--source", "192.0.2.1")
    assert code != 0
    assert rows == []
    assert "192.0.2.1" in said


def test_deadline(database: str) -> None:
    """What is in flight gets its row, what has not begun is not begun."""
    slow = Path(database).with_name("slow")
    slow.write_bytes(DATABASE.replace(b"totalwaitms 400", b"totalwaitms 20000"))
    with Farm(silent) as farm:
        began = time.monotonic()
        targets = farm.targets(*neighbours(30))
        code, rows, said = command(*targets, "--probes", slow, "--deadline", "500ms", "--max-inflight", "10")
    assert time.monotonic() - began < 15
    assert code == 1
    assert re.search(r"the deadline has passed: \d+ of \d+ done, \d+ not reached", said)
    assert [(row["verdict"], row["reason"]) for row in rows] == [("incomplete", "budget")] * 10
    assert len(farm.visits) == 10


def test_service_timeout(database: str) -> None:
    with Farm(silent) as farm:
        rows, _ = scan(farm.targets("127.3.0.1"), config(database, service_timeout_s=0.5))
    (row,) = rows
    assert (row.verdict, row.reason, row.state) == (Verdict.INCOMPLETE, Reason.BUDGET, "open")
    assert row.elapsed_ms >= 500


def test_host_timeout_keeps_what_was_found(database: str) -> None:
    """Of one host some ports greet and the others are silent: the first are identified, the others marked."""
    with Farm(greeting_after(0.0)) as open_, Farm(silent) as tarpit:
        targets = [*open_.targets("127.3.0.1"), *tarpit.targets(*["127.3.0.1"] * 6), *open_.targets("127.3.0.2")]
        rows, _ = scan(targets, config(database, host_timeout_s=0.5, per_host=2))
    assert len(rows) == 8
    assert {(row.ip, row.name) for row in rows if row.verdict is Verdict.HARDMATCHED} == {
        ("127.3.0.1", "hello"),
        ("127.3.0.2", "hello"),
    }
    assert {row.reason for row in rows if row.verdict is not Verdict.HARDMATCHED} == {Reason.BUDGET}
    assert len(tarpit.visits) <= 4  # the last ones were not even begun


def test_max_bytes(database: str) -> None:
    """Data that matches softly goes on being read, as long as it is not too much."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        writer.write(b"MAYBE " + bytes(3000))
        while True:
            await writer.drain()
            await asyncio.sleep(0.005)
            writer.write(bytes(100_000))

    with Farm(flood) as farm:
        rows, _ = scan(farm.targets("127.3.0.1"), config(database, max_bytes=50_000))
    (row,) = rows
    assert (row.verdict, row.reason, row.name) == (Verdict.INCOMPLETE, Reason.BUDGET, "maybe")
    assert row.bytes > 50_000


@pytest.mark.parametrize("threshold", [5, 0])
def test_pseudo_services(database: str, threshold: int) -> None:
    """The same words on every port: labelled from the threshold on, and asked one probe from then on."""

    async def same_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await reader.read(100)
        writer.write(b"whatever you say")

    path = Path(database)
    path.write_bytes(DATABASE.replace(b"totalwaitms 400", b"totalwaitms 100"))
    with ExitStack() as stack:
        farms = [stack.enter_context(Farm(same_words)) for _ in range(12)]  # a port each
        targets = [target for farm in farms for target in farm.targets("127.3.0.1")]
        rows, _ = scan(targets, config(database, pseudo_ports=threshold, max_inflight=1))
    assert len(rows) == 12
    assert all(row.fingerprint and row.verdict is Verdict.NOMATCH for row in rows)  # data is kept
    if threshold:
        labels = [row.pseudo.ports if row.pseudo else 0 for row in rows]
        assert labels == [0, 0, 0, 0, *range(5, 13)]
        assert len({row.pseudo.hash for row in rows if row.pseudo}) == 1
        assert [row.connections for row in rows] == [2] * 5 + [1] * 7
    else:
        assert not any(row.pseudo for row in rows)
        assert sum(len(farm.visits) for farm in farms) == 24


@pytest.mark.parametrize("number", [99, 24])  # EADDRNOTAVAIL, EMFILE
def test_want_of_sockets_loses_nothing(database: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other connection fails for want of something that this machine has too little of."""
    attempts = 0
    whole = TcpTransport.__init__

    def starving(self: TcpTransport, *args: object, **options: object) -> None:
        nonlocal attempts
        attempts += 1
        if attempts % 2:
            raise OSError(number, "no more of them")
        whole(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TcpTransport, "__init__", starving)
    with Farm(greeting_after(0.0)) as farm:
        rows, tally = scan(farm.targets(*neighbours(24)), config(database))
    assert len(farm.visits) == 24
    assert {row.verdict for row in rows} == {Verdict.HARDMATCHED}
    assert len(rows) == 24
    assert tally["starved"] == attempts - 24


def test_tiny_port_range(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ten ports to one destination: the eleventh conversation waits for one of them."""
    with socket.socket() as probing:
        try:
            probing.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, PORTS)
        except OSError:
            pytest.skip("this kernel has no port range per socket")

    class Narrow(socket.socket):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            self.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, PORTS)

    monkeypatch.setattr(socket, "SocketType", Narrow)
    with Farm(greeting_after(HOLD_S)) as farm:
        rows, tally = scan(farm.targets(*["127.3.0.1"] * 40), config(database, per_host=0, reset=True))
    assert len(rows) == len(farm.visits) == 40
    assert {row.verdict for row in rows} == {Verdict.HARDMATCHED}
    assert most_at_once(farm.visits) <= 10
    assert tally["starved"] > 0


def test_tls_has_its_own_limit(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes wait for each other; those that end while waiting leave their place to others."""
    monkeypatch.setattr("engine.pool.worker.TLS_HANDSHAKES", 3)
    shaking: set[str] = set()

    async def tls_wanted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address not in shaking:
            shaking.add(visit.address)
            writer.write(b"TLS PLEASE\r\n")
        await reader.read()

    async def tls_spoken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address in shaking:
            await speak_tls(reader, writer, b"HELLO 2.0")
        await tls_wanted(reader, writer, visit)

    with Farm(tls_wanted) as farm, Farm(tls_spoken) as honest:
        settings = config(database, tls_timeout_s=0.5, service_timeout_s=1.2, max_inflight=30)
        rows, _ = scan([*farm.targets(*neighbours(30)), *honest.targets("127.3.0.31", "127.3.0.32")], settings)
    by_port = {port: [row for row in rows if row.port == port] for port in (farm.port, honest.port)}
    assert [(row.name, row.tunnel) for row in by_port[honest.port]] == [("hello", Tunnel.SSL)] * 2
    assert len(by_port[farm.port]) == 30
    assert {row.reason for row in by_port[farm.port]} == {Reason.TIMEOUT, Reason.BUDGET}
    assert {row.tunnel for row in by_port[farm.port]} == {Tunnel.SSL}
    assert len(farm.visits) < 50


def test_tarpits_of_post_processing_hold_no_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait to be asked further let others be scanned meanwhile."""
    monkeypatch.setattr("engine.pool.enrichment.POST_CONVERSATIONS", 2)
    database = database_file(
        tmp_path, b"Probe TCP NULL q||\ntotalwaitms 400\nmatch ssh m|^SSH-|\nmatch hello m|^HELLO|\n"
    )
    seen: set[str] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if visit.address.startswith("127.3.5.") or visit.address not in seen:
            seen.add(visit.address)
            writer.write(b"HELLO\r\n" if visit.address.startswith("127.3.5.") else b"SSH-2.0-tar\r\n")
        else:
            await reader.read()  # asked further, it is silent

    with Farm(talk) as farm:
        targets = farm.targets(*neighbours(40, "127.3.4"), *neighbours(40, "127.3.5"))
        settings = config(database, post=("ssh",), max_inflight=4, deadline_s=4.0)
        rows = list(scan_sync(targets, settings))
    assert sum(row.name == "hello" for row in rows) == 40
    assert len(rows) == 80


def test_udp_counts_too(database: str, tmp_path: Path) -> None:
    path = tmp_path / "udp"
    path.write_bytes(b"Probe UDP Ask q|ask|\nrarity 1\ntotalwaitms 300\nmatch asked m|^yes|\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.3.0.1", 0))
        port = server.getsockname()[1]
        rows, _ = scan([f"127.3.0.1:{port}/udp"] * 5, config(str(path), per_host=2))
        server.setblocking(False)
        assert [server.recv(100) for _ in rows] == [b"ask"] * 5
    assert [row.state for row in rows] == ["open|filtered"] * 5
