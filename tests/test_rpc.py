"""The RPC grinder against a responder of our own: which program, which versions, in whatever order replies come."""

import asyncio
import random
import struct
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from peers import dialler, enriched, row, run, tcp_peer, udp_peer

from engine.model import Proto, ServiceResult, Verdict
from engine.post import PostProcessing, rpc
from engine.transports.dial import DialError

UNAVAILABLE, MISMATCH, SUCCESS, PROCEDURE_UNAVAILABLE = 1, 2, 0, 3
Programs = dict[int, tuple[int, int]]
Responder = Callable[[bytes], list[bytes]]


def accepted(xid: int, status: int, arguments: bytes = b"", verifier: bytes = b"") -> bytes:
    return struct.pack(">5I", xid, 1, 0, 0, len(verifier)) + verifier + struct.pack(">I", status) + arguments


def answer(message: bytes, programs: Programs, listing: bytes = b"") -> bytes:
    """What a server that serves `programs` says to a call."""
    xid, kind, rpc_version, program, version, procedure, *credentials = struct.unpack(">10I", message)
    assert (kind, rpc_version, credentials) == (0, 2, [0, 0, 0, 0])
    if program not in programs:
        return accepted(xid, UNAVAILABLE)
    low, high = programs[program]
    if not low <= version <= high:
        return accepted(xid, MISMATCH, struct.pack(">2I", low, high))
    return accepted(xid, SUCCESS, listing if procedure == rpc.DUMP else b"")


def server(programs: Programs, listing: bytes = b"") -> Responder:
    return lambda message: [answer(message, programs, listing)]


def record(message: bytes, size: int = 1 << 20) -> bytes:
    """A message as TCP carries it, in fragments of at most `size` bytes."""
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    marks = [len(part) for part in parts]
    marks[-1] |= rpc.LAST_FRAGMENT
    return b"".join(struct.pack(">I", mark) + part for mark, part in zip(marks, parts, strict=True))


def over_tcp(responder: Responder, fragment: int = 1 << 20) -> Callable[[StreamReader, StreamWriter], object]:
    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            (mark,) = struct.unpack(">I", await reader.readexactly(4))
            for message in responder(await reader.readexactly(mark & ~rpc.LAST_FRAGMENT)):
                writer.write(record(message, fragment))

    return talk


async def grind(
    responder: Responder, proto: Proto = "tcp", *, module: str = "rpc", fragment: int = 1 << 20
) -> ServiceResult:
    peer = tcp_peer(over_tcp(responder, fragment)) if proto == "tcp" else udp_peer(responder)  # type: ignore[arg-type]
    async with peer as port:
        known = row("rpcbind", port, proto) if module == "rpc" else row("x", port, proto, verdict=Verdict.NOMATCH)
        return await enriched(module, known)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """A table of programs that does not depend on what is installed: the well-known ones and 600 more."""
    names = rpc.WELL_KNOWN | {number: f"program{number}" for number in range(200_000, 200_600)}
    monkeypatch.setattr(rpc, "program_names", lambda: names)
    return names


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({100008: (1, 1)}, ("walld", "1", "RPC #100008")),
        ({100003: (2, 4)}, ("nfs", "2-4", "RPC #100003")),
        ({200_599: (7, 9)}, ("program200599", "7-9", "RPC #200599")),
        ({200_321: (3, 3), 100227: (3, 3), 200_599: (1, 1)}, ("nfs_acl", "3", "RPC #100227")),
    ],
    ids=["one version", "several versions", "the last of the table", "the first of several"],
)
def test_a_program_is_found(
    table: dict[int, str], proto: Proto, programs: Programs, found: tuple[str, str, str]
) -> None:
    result = run(grind(server(programs), proto))
    assert (result.name, result.version, result.extrainfo) == found
    assert (result.method, result.conf, result.verdict) == ("probed", 10, Verdict.HARDMATCHED)
    assert result.connections <= rpc.CONNECTIONS


def test_an_unrecognised_port_is_asked_once_and_then_ground(table: dict[int, str]) -> None:
    result = run(grind(server({100024: (1, 1)}), module="rpc-unknown"))
    assert (result.name, result.version, result.extrainfo) == ("status", "1", "RPC #100024")
    assert (result.method, result.conf) == ("probed", 10)


def test_what_does_not_speak_rpc_gets_one_call(table: dict[int, str]) -> None:
    calls: list[bytes] = []

    def echo(message: bytes) -> list[bytes]:
        calls.append(message)
        return [message]

    result = run(grind(echo, module="rpc-unknown"))
    assert (result.name, result.method, result.conf, result.connections) == ("x", "table", 3, 1)
    assert len(calls) == 1


def test_nothing_found_leaves_the_result(table: dict[int, str]) -> None:
    asked: set[int] = set()

    def refuses(message: bytes) -> list[bytes]:
        asked.add(struct.unpack_from(">I", message, 12)[0])
        return [answer(message, {})]

    result = run(grind(refuses))
    assert (result.name, result.version, result.extrainfo) == ("rpcbind", "", "")
    assert asked == set(table)


def test_versions_asked_for_are_unlikely(table: dict[int, str]) -> None:
    """A call in a version that the program has would be executed, though it is only NULL."""
    versions: list[int] = []

    def note(message: bytes) -> list[bytes]:
        versions.append(struct.unpack_from(">I", message, 16)[0])
        return [answer(message, {})]

    run(grind(note))
    assert len(versions) == len(table)
    assert rpc.UNLIKELY[0] <= min(versions) <= max(versions) <= rpc.UNLIKELY[1]
    assert len(set(versions)) > len(versions) // 2


@pytest.mark.parametrize("status", [SUCCESS, PROCEDURE_UNAVAILABLE, 4, 5])
def test_other_accept_states_say_nothing(table: dict[int, str], status: int) -> None:
    def odd(message: bytes) -> list[bytes]:
        xid, program = struct.unpack_from(">I8xI", message)
        if program == 100003:
            return [accepted(xid, status, bytes(8))]
        return [answer(message, {100024: (1, 1)})]

    assert run(grind(odd)).name == "status"


def test_replies_out_of_order_with_verifiers_and_strangers_between(table: dict[int, str]) -> None:
    """A reply belongs to the call with its xid, and nothing else tells which program it is about."""
    held: list[bytes] = []

    def shuffle(message: bytes) -> list[bytes]:
        (xid,) = struct.unpack_from(">I", message)
        reply = answer(message, {100009: (1, 1)})
        held.append(accepted(xid, struct.unpack_from(">I", reply, 20)[0], reply[24:], b"verify"[:5] + bytes(3)))
        if len(held) < rpc.BATCH:
            return []
        replies = [accepted(1, MISMATCH, bytes(8)), b"\0", *held]
        random.shuffle(replies)
        held.clear()
        return replies

    result = run(grind(shuffle))
    assert (result.name, result.version) == ("yppasswdd", "1")


@pytest.mark.parametrize("fragment", [1, 5, 24])
def test_records_in_fragments(table: dict[int, str], fragment: int) -> None:
    assert run(grind(server({100012: (1, 2)}), fragment=fragment)).version == "1-2"


def test_a_lost_datagram_is_asked_for_again(table: dict[int, str]) -> None:
    seen: set[int] = set()

    def forgetful(message: bytes) -> list[bytes]:
        (program,) = struct.unpack_from(">I", message, 12)
        if program == 100001 and program not in seen:
            seen.add(program)
            return []
        return [answer(message, {100001: (2, 4)})]

    assert run(grind(forgetful, "udp")).name == "rstatd"


class Told(rpc.Caller):
    """A Caller that is told what to find, and when."""

    def __init__(self, found: dict[int, tuple[int, int]], delay_s: float) -> None:
        self._found = found
        self._delay_s = delay_s

    async def ask(self, programs: Iterable[int]) -> dict[int, tuple[int, int]]:
        asked = set(programs)
        await asyncio.sleep(self._delay_s)
        return {program: versions for program, versions in self._found.items() if program in asked}


@pytest.mark.parametrize("delays", [(0.05, 0.0), (0.0, 0.05)])
def test_the_first_in_the_table_wins_whichever_reply_comes_first(delays: tuple[float, float]) -> None:
    async def test() -> tuple[int, int, int] | None:
        grind = rpc.Grind(range(10 * rpc.BATCH))
        found = {3: (1, 1), rpc.BATCH + 1: (2, 2)}
        await asyncio.gather(*(grind.work(Told(found, delay)) for delay in delays))
        return grind.found

    assert run(test()) == (3, 1, 1)


def test_a_record_of_endless_fragments_is_given_up() -> None:
    class Empty:
        async def exactly(self, size: int, timeout_s: float) -> bytes:
            return bytes(size)

    with pytest.raises(DialError, match="no RPC record"):
        run(rpc.Caller(Empty(), "tcp").message())  # type: ignore[arg-type]


LISTING = b"".join(
    struct.pack(">5I", 1, *entry)
    for entry in ((100000, 4, 6, 111), (100000, 2, 6, 111), (100024, 1, 17, 711), (77, 5, 99, 0))
) + struct.pack(">I", 0)


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_the_portmapper_lists_its_programs(table: dict[int, str], proto: Proto) -> None:
    result = run(grind(server({100000: (2, 4)}, LISTING), proto))
    assert (result.name, result.version, result.connections) == ("rpcbind", "2-4", 1 if proto == "tcp" else 0)
    assert result.post == {
        "rpcbind": [
            {"program": 100000, "name": "rpcbind", "versions": [2, 4], "proto": "tcp", "port": 111},
            {"program": 100024, "name": "status", "versions": [1], "proto": "udp", "port": 711},
            {"program": 77, "name": "", "versions": [5], "proto": "99", "port": 0},
        ]
    }


def test_a_list_without_end_is_cut(table: dict[int, str]) -> None:
    endless = struct.pack(">5I", 1, 100024, 1, 6, 9) * (rpc.LISTED + 50)
    result = run(grind(server({100000: (2, 2)}, endless)))
    assert result.post is not None
    assert len(result.post["rpcbind"]) == 1


async def _silent(reader: StreamReader, writer: StreamWriter) -> None:
    await asyncio.sleep(60)


async def _garbage(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(random.randbytes(4096))
        await writer.drain()


async def _huge_record(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(struct.pack(">I", rpc.LAST_FRAGMENT | 0x7FFFFFFF))
    await asyncio.sleep(60)


async def _empty_fragments(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def _hangs_up(reader: StreamReader, writer: StreamWriter) -> None:
    await reader.read(1)


@pytest.mark.parametrize("talk", [_silent, _garbage, _huge_record, _empty_fragments, _hangs_up])
@pytest.mark.parametrize("module", ["rpc", "rpc-unknown"])
def test_hostile_peers_do_no_harm(table: dict[int, str], talk: object, module: str) -> None:
    async def test() -> tuple[ServiceResult, ServiceResult]:
        async with tcp_peer(talk) as port:  # type: ignore[arg-type]
            known = row("rpcbind", port) if module == "rpc" else row("x", port, verdict=Verdict.NOMATCH)
            post = PostProcessing((module,))
            return known, await post.enrich(known, b"", dialler(port, 1.0))

    began = time.monotonic()
    known, result = run(test())
    assert time.monotonic() - began < 30
    assert (result.name, result.version, result.method, result.post) == (known.name, "", known.method, None)


def test_below_intensity_7_nothing_is_ground() -> None:
    known = row("rpcbind", 111)
    assert PostProcessing(("rpc",), intensity=7).wants(known)
    assert not PostProcessing(("rpc",), intensity=6).wants(known)


def test_the_table_is_read_where_nmap_and_the_system_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nmap's names before the system's; the name of the portmapper is the one that probe databases use."""
    (tmp_path / "nmap-rpc").write_text("# comment\nfirst\t500001\talias # why\nportmap 100000\n3270_x 500002\n")
    system = tmp_path / "rpc"
    system.write_text("second\t500001\nthird 500003 # x\nbroken x\nhuge 99999999999\n")
    monkeypatch.setenv("NMAPDIR", str(tmp_path))
    monkeypatch.setattr(rpc, "SYSTEM_FILE", system)
    rpc.program_names.cache_clear()
    try:
        names = rpc.program_names()
    finally:
        rpc.program_names.cache_clear()
    assert names == rpc.WELL_KNOWN | {500001: "first", 500002: "3270_x", 500003: "third"}
    assert next(iter(names)) == 100000


def test_without_any_table_the_well_known_programs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: Iterable[Path] = ()
    monkeypatch.setattr(rpc, "_tables", lambda: tables)
    rpc.program_names.cache_clear()
    try:
        assert run(grind(server({100005: (1, 3)}))).name == "mountd"
    finally:
        rpc.program_names.cache_clear()
