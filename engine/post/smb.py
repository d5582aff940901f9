"""What an SMB server tells in its answer to NEGOTIATE: dialect, signing, identifier, clock, and with SMB1 its names.

`Smb` reads the answer that the scan has got already. `Smb2` asks once more, in SMB2, which every server since 2006
answers with more. Source: [MS-CIFS] 2.2.4.52.2, [MS-SMB] 2.2.4.5.2, [MS-SMB2] 2.2.1, 2.2.3, 2.2.4.
"""

import os
import struct
import uuid
from datetime import UTC, datetime

from engine.model import Json, ServiceResult
from engine.post.base import noted, text
from engine.transports.dial import DialError, Dialler

SERVICES = frozenset(("microsoft-ds", "netbios-ssn"))
NETBIOS_PORT = 139  # wants a session request with the server's name first; not asked
LARGEST = 1 << 16  # bytes of an answer
NAMES = 1024  # bytes of the names in it

SMB1 = b"\xffSMB\x72\0\0\0\0"  # NEGOTIATE, status 0
SMB1_WORDS = struct.Struct("<HBHHIIIIQhB")  # of dialect NT LM 0.12
SMB1_EXTENDED = 1 << 31  # capabilities: an identifier follows instead of names
SMB2 = b"\xfeSMB"
SMB2_HEADER = 64  # bytes
SMB2_ANSWER = struct.Struct("<HHHH16sIIIIQQ")
DIALECTS = {0x0202: "2.0.2", 0x0210: "2.1", 0x02FF: "2.???", 0x0300: "3.0", 0x0302: "3.0.2", 0x0311: "3.1.1"}
OFFERED = (0x0202, 0x0210, 0x0300, 0x0302, 0x0311)
SIGNING = {0: "disabled", 1: "enabled", 2: "required", 3: "required"}  # SMB2's two bits
EPOCH = 116_444_736_000_000_000  # 1970 in units of 100 ns since 1601


class Smb:
    """A Reader."""

    name = "smb"
    services = SERVICES
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        facts = negotiated(response)
        return noted(result, self.name, facts) if facts else result


class Smb2:
    """An Asker."""

    name = "smb2"
    services = SERVICES
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp" and result.port != NETBIOS_PORT

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("tcp") as stream:
            await stream.send(negotiate())
            (size,) = struct.unpack(">I", await stream.exactly(4))
            if size > LARGEST:
                raise DialError("no SMB message")
            facts = smb2_facts(await stream.exactly(size))
        return noted(result, "smb", facts)


def negotiate() -> bytes:
    """An SMB2 NEGOTIATE that offers every dialect, for 3.1.1 with the one context that it demands (SHA-512)."""
    header = struct.pack("<4sHHIHHIIQIIQ16x", SMB2, 64, 0, 0, 0, 31, 0, 0, 0, 0, 0, 0)
    dialects = struct.pack(f"<{len(OFFERED)}H", *OFFERED)
    fixed = 36
    offset = SMB2_HEADER + fixed + len(dialects)
    pad = -offset % 8
    body = struct.pack("<HHHHI16sIHH", fixed, len(OFFERED), 1, 0, 0x7F, os.urandom(16), offset + pad, 1, 0)
    preauthentication = struct.pack("<HHH", 1, 32, 1) + os.urandom(32)
    context = struct.pack("<HHI", 1, len(preauthentication), 0) + preauthentication
    message = header + body + dialects + bytes(pad) + context
    return struct.pack(">I", len(message)) + message


def negotiated(response: bytes) -> dict[str, Json]:
    """The facts of an answer with its NetBIOS header, SMB1 or SMB2; none of anything else."""
    message = response[4:]
    try:
        if message.startswith(SMB2):
            return smb2_facts(message)
        if message.startswith(SMB1):
            return smb1_facts(message)
    except (struct.error, IndexError, DialError):
        pass
    return {}


def smb2_facts(message: bytes) -> dict[str, Json]:
    """Raises DialError, struct.error for what is no successful answer."""
    if message[:4] != SMB2 or message[8:14] != bytes(6):
        raise DialError("not an SMB2 answer")
    _, mode, dialect, _, guid, _, _, _, _, clock, started = SMB2_ANSWER.unpack_from(message, SMB2_HEADER)
    facts: dict[str, Json] = {
        "dialect": DIALECTS.get(dialect, f"0x{dialect:04x}"),
        "signing": SIGNING[mode & 3],
        "guid": str(uuid.UUID(bytes_le=guid)),
    }
    return facts | _times(clock, started)


def smb1_facts(message: bytes) -> dict[str, Json]:
    """Raises struct.error where the answer is cut. A server that refuses SMB1 says so in the first word."""
    words = message[32]
    if words < 17:
        return {"dialect": "none of SMB1"} if message[33:35] == b"\xff\xff" else {}
    _, mode, _, _, _, _, _, capabilities, clock, _, key = SMB1_WORDS.unpack_from(message, 33)
    facts: dict[str, Json] = {
        "dialect": "NT LM 0.12",
        "signing": "required" if mode & 8 else "enabled" if mode & 4 else "disabled",
    }
    data = message[33 + SMB1_WORDS.size + 2 :]
    if capabilities & SMB1_EXTENDED:
        if len(data) >= 16:
            facts["guid"] = str(uuid.UUID(bytes_le=data[:16]))
    else:
        domain, _, rest = data[key : key + NAMES].decode("utf-16-le", "ignore").partition("\0")
        for name, value in (("domain", domain), ("server", rest.partition("\0")[0])):
            if value:
                facts[name] = text(value.encode())
    return facts | _times(clock)


def _times(clock: int, started: int = 0) -> dict[str, Json]:
    facts: dict[str, Json] = {}
    for name, ticks in (("time", clock), ("started", started)):
        seconds = (ticks - EPOCH) // 10_000_000
        if 0 < seconds < 1 << 33:
            facts[name] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return facts
