"""Which RPC program answers on a port: the RPC grinder, and the portmapper's list of programs.

A NULL call with a version that no program has makes a server tell about any program number: PROG_UNAVAIL, it is not
served here; PROG_MISMATCH with the lowest and highest version, it is. So every known number is asked until one is
found, the numbers of a batch in one go and the batches by up to four connections. Of several programs on one port the
first in the table's order is the answer, however the calls overtake one another.

Source: RFC 5531 (ONC RPC), RFC 1833 (portmapper); the order and the form of the answer are those of Nmap's script.
"""

import asyncio
import contextlib
import random
import re
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from engine.model import Json, ServiceResult
from engine.post.base import identified, noted
from engine.transports.dial import DialError, Dialler, Stream
from matcher import nmap_file

SYSTEM_FILE = Path("/etc/rpc")
NMAP_FILE = "nmap-rpc"
# The name of 100000 is the one in probe databases, where /etc/rpc says portmapper. What is common is asked first, so
# that most ports take one batch; it also serves where no table is installed.
WELL_KNOWN = {
    100000: "rpcbind",
    100003: "nfs",
    100005: "mountd",
    100021: "nlockmgr",
    100024: "status",
    100011: "rquotad",
    100227: "nfs_acl",
    100004: "ypserv",
    100007: "ypbind",
    100009: "yppasswdd",
    100001: "rstatd",
    100002: "rusersd",
    100008: "walld",
    100012: "sprayd",
    100026: "bootparam",
    100083: "ttdbserverd",
}
PORTMAPPER = 100000
CONNECTIONS = 4
BATCH = len(WELL_KNOWN)  # calls that wait for their replies on one connection
SILENCE_S = 1.0
UNLIKELY = (12345, 123456789)  # versions
RECORD = 1 << 16  # bytes; longer replies are none of ours
FRAGMENTS = 256  # of one record
LISTED = 256  # entries of a portmapper that are taken
GROUPS = 96  # of program, protocol and port that are shown

CALL, REPLY, RPC_VERSION, ACCEPTED, SUCCESS, PROG_MISMATCH = 0, 1, 2, 0, 0, 2
NULL, DUMP = 0, 4  # procedures
LAST_FRAGMENT = 1 << 31
PROTOCOLS = {6: "tcp", 17: "udp"}

_ROW = re.compile(r"([^\s#]+)\s+(\d{1,10})\b")


@cache
def program_names() -> dict[int, str]:
    """Number -> name, in the order in which to ask: well-known ones, then Nmap's table and the system's."""
    names = dict(WELL_KNOWN)
    for path in _tables():
        try:
            content = path.read_text(encoding="latin-1")
        except OSError:
            continue
        for line in content.splitlines():
            row = _ROW.match(line)
            if row is not None and int(row[2]) < 1 << 32:
                names.setdefault(int(row[2]), row[1])
    return names


def _tables() -> Iterator[Path]:
    installed = nmap_file(NMAP_FILE)
    if installed is not None:
        yield installed
    yield SYSTEM_FILE


class Reply:
    """What of a reply matters here. arguments: what follows the accept status."""

    def __init__(self, message: bytes) -> None:
        """Raises ValueError, struct.error for what is no accepted reply."""
        self.xid, kind, state, _, length = struct.unpack_from(">5I", message)
        if kind != REPLY or state != ACCEPTED:
            raise ValueError("not an accepted reply")
        at = 20 + (length + 3 & ~3)
        (self.status,) = struct.unpack_from(">I", message, at)
        self.arguments = message[at + 4 :]

    @property
    def versions(self) -> tuple[int, int] | None:
        """Lowest and highest version of a program that is there, just not in the version asked for."""
        if self.status != PROG_MISMATCH:
            return None
        low, high = struct.unpack_from(">2I", self.arguments)
        return low, high


class Caller:
    """Calls over one stream, TCP (as records) or UDP (as datagrams)."""

    def __init__(self, stream: Stream, proto: str) -> None:
        self._stream = stream
        self._records = proto == "tcp"
        self._xid = random.randrange(1 << 31)

    def call(self, program: int, version: int, procedure: int = NULL) -> tuple[int, bytes]:
        """The xid and the message as it goes out, with no credentials."""
        self._xid += 1
        message = struct.pack(">10I", self._xid, CALL, RPC_VERSION, program, version, procedure, 0, 0, 0, 0)
        if self._records:
            message = struct.pack(">I", LAST_FRAGMENT | len(message)) + message
        return self._xid, message

    async def send(self, messages: Iterable[bytes]) -> None:
        if self._records:
            await self._stream.send(b"".join(messages))
        else:
            for message in messages:
                await self._stream.send(message)

    async def message(self) -> bytes:
        """The next message that comes. Raises DialError."""
        if not self._records:
            return await self._stream.recv(timeout_s=SILENCE_S)
        message = b""
        for _ in range(FRAGMENTS):
            (mark,) = struct.unpack(">I", await self._stream.exactly(4, SILENCE_S))
            size = mark & ~LAST_FRAGMENT
            if len(message) + size > RECORD:
                break
            message += await self._stream.exactly(size, SILENCE_S)
            if mark & LAST_FRAGMENT:
                return message
        raise DialError("no RPC record")

    async def speaks_rpc(self) -> bool:
        """Whether a NULL call is replied to, in whatever way."""
        xid, message = self.call(PORTMAPPER, 2)
        await self.send((message,))
        return (await self.message())[:8] == struct.pack(">2I", xid, REPLY)

    async def ask(self, programs: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Those of the programs that are served here, with their versions. Asks twice what was not answered."""
        found: dict[int, tuple[int, int]] = {}
        open_questions = list(programs)
        for _ in range(2):
            calls = {program: self.call(program, random.randint(*UNLIKELY)) for program in open_questions}
            waiting = {xid: program for program, (xid, _) in calls.items()}
            await self.send(message for _, message in calls.values())
            try:
                while waiting:
                    message = await self.message()
                    (xid,) = struct.unpack_from(">I", message.ljust(4, b"\0"))
                    program = waiting.pop(xid, None)
                    if program is not None and (versions := _versions(message)):
                        found[program] = versions
            except DialError as error:
                if not found and self._records and len(waiting) == len(calls):
                    raise DialError("no reply") from error
            if found or not waiting:
                break
            open_questions = list(waiting.values())
        return found

    async def dump(self) -> list[Json]:
        """The portmapper's list. Raises DialError, ValueError, struct.error."""
        xid, message = self.call(PORTMAPPER, 2, DUMP)
        await self.send((message,))
        while (reply := Reply(await self.message())).xid != xid:
            continue  # a late reply to a NULL call
        if reply.status != SUCCESS:
            return []
        return _listing(reply.arguments)


def _versions(message: bytes) -> tuple[int, int] | None:
    try:
        return Reply(message).versions
    except (ValueError, struct.error):
        return None


def _listing(data: bytes) -> list[Json]:
    names = program_names()
    groups: dict[tuple[int, int, int], set[int]] = {}
    for at in range(0, 20 * LISTED, 20):
        follows, *entry = struct.unpack_from(">5I", data.ljust(at + 20, b"\0"), at)
        if not follows:
            break
        program, version, protocol, port = entry
        if (program, protocol, port) in groups or len(groups) < GROUPS:
            groups.setdefault((program, protocol, port), set()).add(version)
    return [
        {
            "program": program,
            "name": names.get(program, ""),
            "versions": sorted(versions),
            "proto": PROTOCOLS.get(protocol, str(protocol)),
            "port": port,
        }
        for (program, protocol, port), versions in groups.items()
    ]


class Grind:
    """The search of one port: which numbers come next, and the best find so far."""

    def __init__(self, programs: Iterable[int]) -> None:
        self._programs = list(programs)
        self._next = 0
        self._best = len(self._programs)
        self._versions = (0, 0)

    @property
    def found(self) -> tuple[int, int, int] | None:
        """Program, lowest and highest version."""
        return (self._programs[self._best], *self._versions) if self._best < len(self._programs) else None

    @property
    def exhausted(self) -> bool:
        return self._next >= self._best

    async def ask_next(self, caller: Caller) -> None:
        batch = range(self._next, min(self._next + BATCH, len(self._programs)))
        self._next = batch.stop
        served = await caller.ask(self._programs[index] for index in batch)
        for index in batch:
            if index < self._best and (versions := served.get(self._programs[index])):
                self._best, self._versions = index, versions

    async def work(self, caller: Caller) -> None:
        """Ask until nothing is left to ask. A connection that fails ends its own work only."""
        try:
            while not self.exhausted:
                await self.ask_next(caller)
        except DialError:
            return


class Rpc:
    """An Asker. unrecognised: look at undetermined ports instead of those that the scan found to speak RPC."""

    def __init__(self, *, unrecognised: bool = False) -> None:
        self.name = "rpc-unknown" if unrecognised else "rpc"
        self.services = frozenset[str]() if unrecognised else frozenset(("rpcbind",))
        self.undetermined = unrecognised

    def applies(self, result: ServiceResult) -> bool:
        return not result.version

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open(result.proto, result.tunnel) as stream:
            caller = Caller(stream, result.proto)
            if self.undetermined and not await caller.speaks_rpc():
                return result
            grind = Grind(program_names())
            await grind.ask_next(caller)
            if not grind.exhausted:
                helpers = (_help(grind, result, dial) for _ in range(0 if dial.is_single else CONNECTIONS - 1))
                await asyncio.gather(grind.work(caller), *helpers)
            if grind.found is None:
                return result
            program, low, high = grind.found
            result = _named(result, program, low, high)
            if program == PORTMAPPER:
                with contextlib.suppress(DialError, ValueError, struct.error):  # it may keep its list to itself
                    result = noted(result, "rpcbind", await caller.dump())
            return result


async def _help(grind: Grind, result: ServiceResult, dial: Dialler) -> None:
    """Another connection for the same search; going without it is no harm."""
    try:
        with await dial.open(result.proto, result.tunnel) as stream:
            await grind.work(Caller(stream, result.proto))
    except DialError:
        return


def _named(result: ServiceResult, program: int, low: int, high: int) -> ServiceResult:
    return identified(
        result,
        name=program_names()[program],
        version=f"{low}-{high}" if low != high else str(low),
        extrainfo=f"RPC #{program}",
        fingerprint="",
    )
