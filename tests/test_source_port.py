"""The local port and interface that were asked for, as servers see them; what cannot be had is said at the start."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from daemons import free_port
from loopback import Farm, Visit, config, database_file, scan
from peers import HOST, dialler, run

from engine.api import make_runner
from engine.errors import ConfigError
from engine.transports.base_local import Local

UDP = rb"""Probe TCP NULL q||
totalwaitms 100
match hello m|^HELLO|
Probe TCP Ask q|ASK\r\n|
rarity 1
totalwaitms 200
match asked m|^ASKED|
Probe TCP More q|MORE\r\n|
rarity 1
totalwaitms 200
match more m|^MORE|
Probe UDP Udp q|UDP?|
rarity 1
totalwaitms 300
match answered m|^ANSWER (\d+)| v/$1/
"""
Peer = tuple[str, int]
IP_PKTINFO = 8  # Linux: which address a datagram came to, and where an answer is to come from


@contextmanager
def server(kind: socket.SocketKind) -> Iterator[tuple[int, list[Peer]]]:
    """On all of loopback; says its last word to whoever asks for More, and answers every datagram. -> port, peers"""
    peers: list[Peer] = []
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        sock.bind(("", 0))
        ended = threading.Event()

        def datagrams() -> None:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            sock.settimeout(0.1)
            while not ended.is_set():
                with suppress(TimeoutError):
                    _, ancillary, _, peer = sock.recvmsg(64, 64)
                    peers.append(peer)
                    asked_at = [(level, what, bytes(4) + data[8:] + bytes(4)) for level, what, data in ancillary]
                    sock.sendmsg([b"ANSWER %d" % peer[1]], asked_at, 0, peer)

        def visits() -> None:
            sock.listen(256)
            sock.settimeout(0.1)
            while not ended.is_set():
                with suppress(TimeoutError):
                    visitor, peer = sock.accept()
                    peers.append(peer)
                    threading.Thread(target=visit, args=(visitor,), daemon=True).start()

        def visit(visitor: socket.socket) -> None:
            with visitor, suppress(OSError):
                while said := visitor.recv(64):
                    if said.startswith(b"MORE"):
                        visitor.sendall(b"MORE\r\n")

        thread = threading.Thread(target=datagrams if kind is socket.SOCK_DGRAM else visits)
        thread.start()
        try:
            yield sock.getsockname()[1], peers
        finally:
            ended.set()
            thread.join()


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path, UDP)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_connection_has_the_port(workers: int, database: str) -> None:
    """To many targets at once, and several to each, one after the other: none waits for a TIME_WAIT to end."""
    ours = free_port()
    with server(socket.SOCK_STREAM) as (port, peers):
        began = time.monotonic()
        targets = [f"127.3.0.{number}:{port}" for number in range(1, 41)]
        rows, _ = scan(targets, config(database, source_port=ours, workers=workers))
        assert time.monotonic() - began < 20
    assert {row.name for row in rows} == {"more"}
    assert len(peers) == 80
    assert {peer[1] for peer in peers} == {ours}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_datagram_has_the_port(workers: int, database: str) -> None:
    """Each answer reaches the conversation that it belongs to."""
    ours = free_port()
    with server(socket.SOCK_DGRAM) as (port, peers):
        targets = [f"127.3.0.{number}:{port}/udp" for number in range(1, 41)]
        rows, _ = scan(targets, config(database, source_port=ours, workers=workers))
    assert {(row.name, row.version) for row in rows} == {("answered", str(ours))}
    assert {peer[1] for peer in peers} == {ours}
    assert len(peers) == 40


def test_a_closed_udp_port_is_told(database: str) -> None:
    """ICMP errors reach a socket that has its port chosen, too."""
    (row,), _ = scan([f"127.3.0.1:{free_port()}/udp"], config(database, source_port=free_port()))
    assert row.reason is not None
    assert (row.state, row.reason.value) == ("closed", "refused")


def test_the_same_target_twice(database: str) -> None:
    """Its conversations follow one another: a pair of ports is one connection."""
    ours = free_port()
    with server(socket.SOCK_DGRAM) as (port, _):
        rows, _ = scan([f"127.3.0.1:{port}/udp"] * 3, config(database, source_port=ours))
    assert [row.name for row in rows] == ["answered"] * 3
    with server(socket.SOCK_STREAM) as (port, _):
        rows, _ = scan([f"127.3.0.1:{port}"] * 3, config(database, source_port=ours))
    assert [row.name for row in rows] == ["more"] * 3


def test_what_is_asked_further_waits_for_the_port_too() -> None:
    """The scan of a target that is named twice may have it while the first one is being asked."""

    async def test(ours: Local) -> float:
        loop = asyncio.get_running_loop()
        with Farm(echo) as farm, socket.socket() as other:
            ours.settle(other)
            other.connect((HOST, farm.port))
            loop.call_later(0.3, other.close)
            began = loop.time()
            with await dialler(farm.port, local=ours).open("tcp") as stream:
                assert stream._socket.getsockname()[1] == ours.port
                assert await stream.exchange(b"MORE") == b"MORE"
            return loop.time() - began

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        while said := await reader.read(64):
            writer.write(said)

    assert 0.25 < run(test(Local("", free_port()))) < 1.5


def test_both_versions_of_ip_have_the_port(database: str) -> None:
    ours = free_port()
    with server(socket.SOCK_STREAM) as (port, peers), socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        scan([f"127.3.0.1:{port}", f"[::1]:{other.getsockname()[1]}"], config(database, source_port=ours))
        visitor, peer = other.accept()
        visitor.close()
    assert {peer[1], peers[0][1]} == {ours}


def test_address_and_port_together(database: str) -> None:
    ours = free_port()
    with server(socket.SOCK_STREAM) as (port, peers):
        scan([f"127.3.0.1:{port}"], config(database, source_port=ours, sources=("127.9.9.9",)))
    assert set(peers) == {("127.9.9.9", ours)}


def test_what_cannot_be_had_is_said_before_the_scan(database: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="a program on this machine has it"):
            make_runner(config(database, source_port=taken.getsockname()[1]))
    with pytest.raises(ConfigError, match="interface nosuch0: there is no such network interface"):
        make_runner(config(database, interface="nosuch0"))
    with pytest.raises(ConfigError, match="interface"):
        make_runner(config(database, interface="far-too-long-for-an-interface"))
    with pytest.raises(ConfigError, match="source_port: not with a proxy"):
        make_runner(config(database, source_port=20000, proxy=("socks5://127.0.0.1:1",)))


def test_a_port_without_the_right_to_it(database: str) -> None:
    if os.getuid():
        pytest.skip("only root can be somebody else")
    program = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from engine.transports.local_addresses import check_door\ncheck_door(53, '')"
    )
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not start.exists() or int(start.read_text()) <= 53:
        pytest.skip("any port may be had here")
    done = subprocess.run([sys.executable, "-c", f"import engine.transports.local_addresses\n{program}"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "only root, or who has CAP_NET_BIND_SERVICE, may use port 53" in done.stderr


def test_an_interface_on_loopback(database: str) -> None:
    with server(socket.SOCK_STREAM) as (port, peers):
        (row,), _ = scan([f"127.3.0.1:{port}"], config(database, interface="lo"))
    assert row.name == "more"
    assert len(peers) == 2


# -- two ways between two network namespaces, of which the routes take the first

THERE = "10.99.0.1"
SERVER = """
import socket, threading
peers = []
tcp = socket.create_server(("10.99.0.1", 7001))
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("10.99.0.1", 7002))
def datagrams():
    while True:
        _, peer = udp.recvfrom(64)
        udp.sendto(b"ANSWER 1", peer)
        print("udp", *peer, flush=True)
threading.Thread(target=datagrams, daemon=True).start()
print("ready", flush=True)
while True:
    visitor, peer = tcp.accept()
    visitor.sendall(b"HELLO 1.0\\r\\n")
    print("tcp", *peer, flush=True)
"""


@pytest.fixture
def two_ways() -> Iterator[str]:
    """-> the namespace to scan from; the other one has a server at THERE."""
    ip = shutil.which("ip")
    if ip is None or os.getuid():
        pytest.skip("namespaces need root and iproute2")
    here, there = f"pm-{os.getpid()}-a", f"pm-{os.getpid()}-b"

    def do(line: str) -> None:
        subprocess.run([ip, *line.split()], check=True, capture_output=True)

    try:
        try:
            do(f"netns add {here}")
            do(f"netns add {there}")
            for number in (1, 2):
                do(f"-n {here} link add way{number} type veth peer name way{number} netns {there}")
                for space, last in ((here, 1), (there, 2)):
                    do(f"-n {space} address add 10.98.{number}.{last}/24 dev way{number}")
                    do(f"-n {space} link set way{number} up")
            do(f"-n {here} link set lo up")
            do(f"-n {there} link set lo up")
            do(f"-n {there} address add {THERE}/32 dev lo")
            do(f"-n {here} route add {THERE} via 10.98.1.2 dev way1 metric 1")
            do(f"-n {here} route add {THERE} via 10.98.2.2 dev way2 metric 2")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr!r}")
        yield here
    finally:
        for space in (here, there):
            subprocess.run([ip, "netns", "delete", space], check=False, capture_output=True)


def scanned_from(space: str, database: str, *options: str) -> tuple[list[dict[str, object]], list[str]]:
    """-> the rows, and what the server has seen"""
    other = space[:-1] + "b"
    with subprocess.Popen(
        ["ip", "netns", "exec", other, sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as peer:
        try:
            assert peer.stdout is not None
            assert peer.stdout.readline() == "ready\n"
            program = [sys.executable, "-c", "from engine.cli.start import main; main()"]
            targets = [f"{THERE}:7001", f"{THERE}:7002/udp"]
            done = subprocess.run(
                ["ip", "netns", "exec", space, *program, "scan", *targets, "--probes", database, "-q", *options],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            rows = [json.loads(line) for line in done.stdout.splitlines()]
        finally:
            peer.terminate()
        return rows, peer.stdout.read().splitlines()


def test_everything_goes_over_the_interface(two_ways: str, database: str) -> None:
    """TCP and UDP, whatever the routes say, seen at the server; with a port of our choice as well."""
    rows, seen = scanned_from(two_ways, database)
    assert {line.split()[1] for line in seen} == {"10.98.1.1"}
    rows, seen = scanned_from(two_ways, database, "-e", "way2", "-g", "20053")
    assert sorted(seen) == ["tcp 10.98.2.1 20053", "udp 10.98.2.1 20053"]
    assert {row["name"] for row in rows} == {"hello", "answered"}


def test_an_interface_that_goes_away_filters_no_port(two_ways: str, tmp_path: Path) -> None:
    """Nothing is claimed of targets that could not be asked over it."""
    program = (
        "import subprocess, sys\nfrom engine.api import scan_sync\nfrom engine.model import ScanConfig\n"
        "import engine.api as api\nmake = api.make_runner\n"
        "def gone(*args):\n    runner = make(*args)\n    subprocess.run(['ip', 'link', 'delete', 'way2'], check=True)\n"
        "    return runner\napi.make_runner = gone\n"
        f"config = ScanConfig(probes=({database_file(tmp_path, UDP)!r},), interface='way2', service_timeout_s=0.5)\n"
        f"print(*[(row.state, row.reason.value) for row in scan_sync(['{THERE}:7001'], config)])"
    )
    done = subprocess.run(
        ["ip", "netns", "exec", two_ways, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "('', 'budget')\n", done.stderr
