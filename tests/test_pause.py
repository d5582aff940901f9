"""A process that is stopped for a while and goes on finds what it would have found without that."""

import asyncio
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback import Farm, Visit, collect, config, database_file, second_visit
from peers import HOST, dialler, run, speak_tls

from engine.model import ServiceResult, Tunnel, Verdict
from engine.pool.runners.processes import ProcessRunner
from engine.transports.dial import DialError
from engine.transports.reactor import PAUSE_S

PAUSE = 6.0  # longer than every window below, and long enough to be taken for a pause
THINKING_S = 0.8  # from a question to its answer, of all services
CROWD = 25
DATABASE = rb"""Probe TCP NULL q||
totalwaitms 1500
tcpwrappedms 1200
match hello m|^HELLO ([\d.]+)| p/Hello/ v/$1/
match ssl m|^TLS PLEASE|
match amqp m|^BROKER| p/Something/
Probe TCP Ask q|ASK\r\n|
rarity 1
totalwaitms 1500
match asked m|^ASKED ([\d.]+)| p/Asked/ v/$1/
Probe UDP Ping q|PING|
rarity 1
totalwaitms 1500
match pong m|^PONG ([\d.]+)| p/Pong/ v/$1/
"""


async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await asyncio.sleep(THINKING_S)
    writer.write(b"HELLO 1.0\r\n")
    await reader.read()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await asyncio.sleep(THINKING_S)


async def answers_in_two_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await reader.read(100)
    writer.write(b"ASK")
    await asyncio.sleep(THINKING_S)
    writer.write(b"ED 2.0")
    await reader.read()


async def shakes_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await asyncio.sleep(THINKING_S)
    await speak_tls(reader, writer, b"HELLO 3.0\r\n")


async def names_itself(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    await reader.readexactly(8)
    await asyncio.sleep(THINKING_S)
    properties = b"\x07productS" + struct.pack(">I", 6) + b"Rabbit"
    frame = struct.pack(">HHBBI", 10, 10, 0, 9, len(properties)) + properties + struct.pack(">I", 5) + b"PLAIN"
    writer.write(struct.pack(">BHI", 1, 0, len(frame)) + frame + b"\xce")


@contextmanager
def pongs(asked: list[float]) -> Iterator[int]:
    """A UDP service in a thread; notes when it was asked."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    _, peer = sock.recvfrom(100)
                except TimeoutError:
                    continue
                asked.append(time.monotonic())
                time.sleep(THINKING_S)
                sock.sendto(b"PONG 4.0", peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_a_worker_that_is_stopped(tmp_path: Path) -> None:
    """While it waits for banners, answers, handshakes, hang-ups, datagrams and in post-processing: the rows are those
    of a scan without a pause, and budgets that are shorter than the pause do not end it."""
    settings = config(
        database_file(tmp_path, DATABASE), workers=1, post=("amqp",), service_timeout_s=5.0, tls_timeout_s=3.0
    )
    addresses = [f"127.63.0.{last}" for last in range(1, CROWD + 1)]
    asked: list[float] = []
    farms = {
        "banner": (Farm(greets), 1),
        "hang-up": (Farm(hangs_up), 1),
        "answer": (Farm(answers_in_two_parts), 1),
        "tls": (Farm(second_visit(b"TLS PLEASE\r\n", shakes_hands)), 2),
        "post": (Farm(second_visit(b"BROKER\r\n", names_itself)), 2),
    }

    async def stop(runner: ProcessRunner) -> None:
        waiting = time.monotonic() + 20
        while not asked or any(len(farm.visits) < visits * CROWD for farm, visits in farms.values()):
            assert time.monotonic() < waiting
            await asyncio.sleep(0.01)
        (pid,) = runner.pids
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(PAUSE)
        os.kill(pid, signal.SIGCONT)

    async def scanned(targets: list[str]) -> list[ServiceResult]:
        runner = ProcessRunner(settings)
        stopping = asyncio.create_task(stop(runner))
        rows, _ = await collect(targets, runner, 60)
        await stopping
        return rows

    with pongs(asked) as udp_port:
        targets = [f"{HOST}:{udp_port}/udp"]
        for farm, _ in farms.values():
            farm.__enter__()
            targets += farm.targets(*addresses)
        try:
            rows = asyncio.run(scanned(targets))
        finally:
            for farm, _ in farms.values():
                farm.__exit__(None, None, None)

    kinds = {farm.port: kind for kind, (farm, _) in farms.items()}
    found = {(kinds.get(row.port, "udp"), row.verdict, row.name, row.version, row.connections) for row in rows}
    assert len(rows) == len(targets)
    assert found == {
        ("banner", Verdict.HARDMATCHED, "hello", "1.0", 1),
        ("hang-up", Verdict.TCPWRAPPED, "tcpwrapped", "", 1),
        ("answer", Verdict.HARDMATCHED, "asked", "2.0", 1),
        ("tls", Verdict.HARDMATCHED, "hello", "3.0", 2),
        ("post", Verdict.HARDMATCHED, "amqp", "", 2),
        ("udp", Verdict.HARDMATCHED, "pong", "4.0", 0),
    }
    assert {row.product for row in rows if row.name == "amqp"} == {"Rabbit"}
    assert {row.tunnel for row in rows if row.version == "3.0"} == {Tunnel.SSL}


# -- conversations of post-processing, whose limits are not the reactor's


@pytest.mark.parametrize("held_up_s", [0.6, PAUSE_S + 0.5], ids=["busy", "paused"])
def test_what_waits_counts_though_the_limit_is_past(held_up_s: float) -> None:
    async def speaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await asyncio.sleep(0.2)
        writer.write(b"in time")
        await reader.read()

    async def test(port: int) -> None:
        with await dialler(port).open("tcp") as stream:
            asyncio.get_running_loop().call_later(0.05, time.sleep, held_up_s)
            assert await stream.recv(timeout_s=0.4) == b"in time"
            with pytest.raises(DialError, match="timed out"):
                await stream.recv(timeout_s=0.1)

    with Farm(speaks) as farm:
        run(test(farm.port))


def test_a_pause_is_no_time_of_a_dialler() -> None:
    """Several streams notice the same pause, and its length is added once."""

    async def test(port: int) -> None:
        dial = dialler(port, 1.5)
        with await dial.open("tcp") as one, await dial.open("tcp") as other:
            began = dial.time()
            asyncio.get_running_loop().call_later(0.1, time.sleep, PAUSE_S + 1.0)
            assert await asyncio.gather(one.recv(), other.recv()) == [b"late", b"late"]
            assert 0.5 <= dial.time() - began <= 1.5
            with pytest.raises(DialError, match="timed out"):
                await one.recv(timeout_s=60)
            assert dial.time() - began < 2.5

    async def speaks_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await asyncio.sleep(PAUSE_S + 1.6)
        writer.write(b"late")
        await reader.read()

    with Farm(speaks_late) as farm:
        run(test(farm.port))
