"""The engine of an SNMPv3 agent: its identifier, vendor, restarts and uptime. One datagram, no credentials.

An agent answers a request for an unknown engine with a report that names its own: discovery, RFC 3414 section 4.
Source: RFC 3412 (message), RFC 3414 (user-based security), RFC 3411 (SnmpEngineID), IANA's enterprise numbers.
"""

from engine.model import Json, ServiceResult, Tunnel
from engine.post.base import identified, noted, text
from engine.transports.dial import DialError, Dialler

INTEGER, OCTETS, SEQUENCE, GET = 0x02, 0x04, 0x30, 0xA0
VERSION_3 = 3
MESSAGE_ID = 0x50726F62
LARGEST = 65507  # bytes of a UDP datagram
MEMBERS = 8  # of a sequence; none here has more
ENGINE = range(1, 33)  # bytes of an SnmpEngineID, RFC 3411; some agents use fewer than the 5 they should
REPORTABLE = b"\x04"
USER_BASED = 3  # security model

# As IANA's register writes them; only the vendors of agents that are often met.
VENDORS = {
    9: "ciscoSystems",
    11: "Hewlett-Packard",
    42: "Sun Microsystems",
    311: "Microsoft",
    1916: "Extreme Networks",
    2011: "HUAWEI Technology Co.,Ltd",
    2636: "Juniper Networks, Inc.",
    8072: "net-snmp",
    14988: "MikroTik",
}


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    return bytes((tag, size) if size < 128 else (tag, 0x82, size >> 8, size & 0xFF)) + value


def _integer(value: int) -> bytes:
    return _tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _sequence(*parts: bytes) -> bytes:
    return _tlv(SEQUENCE, b"".join(parts))


_EMPTY = _tlv(OCTETS, b"")
DISCOVERY = _sequence(
    _integer(VERSION_3),
    _sequence(_integer(MESSAGE_ID), _integer(LARGEST), _tlv(OCTETS, REPORTABLE), _integer(USER_BASED)),
    _tlv(OCTETS, _sequence(_EMPTY, _integer(0), _integer(0), _EMPTY, _EMPTY, _EMPTY)),
    _sequence(_EMPTY, _EMPTY, _tlv(GET, b"".join((_integer(MESSAGE_ID), _integer(0), _integer(0), _sequence())))),
)


def read_tlv(data: bytes, at: int = 0) -> tuple[int, bytes, int]:
    """Tag, value, and where the next one begins. Raises DialError, IndexError for what is not BER."""
    tag, size = data[at], data[at + 1]
    at += 2
    if size >= 128:
        more = size & 0x7F
        size = int.from_bytes(data[at : at + more], "big")
        at += more
    if at + size > len(data):
        raise DialError("cut short")
    return tag, data[at : at + size], at + size


def values(sequence: bytes) -> list[bytes]:
    """The values of a sequence's members. Raises DialError, IndexError for what is not BER, and for too many."""
    found, at = [], 0
    while at < len(sequence):
        _, value, at = read_tlv(sequence, at)
        found.append(value)
        if len(found) > MEMBERS:
            raise DialError("an endless sequence")
    return found


def number(value: bytes) -> int:
    """An INTEGER of 32 bits, which is all that SNMP has. Raises DialError for a longer one."""
    if not 0 < len(value) <= 5:
        raise DialError("no INTEGER of 32 bits")
    return int.from_bytes(value, "big", signed=True)


class Snmp:
    """An Asker."""

    name = "snmp"
    services = frozenset(("snmp",))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "udp" and result.tunnel is Tunnel.NONE

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("udp") as stream:
            facts = engine_facts(await stream.exchange(DISCOVERY))
        result = noted(result, self.name, facts)
        vendor = str(facts.get("vendor", ""))
        if "SNMPv3" in result.product or (vendor and vendor in result.product):
            return result  # the database has said it
        server = f"{vendor} SNMPv3 server".strip()
        return identified(result, product=f"{result.product}; {server}" if result.product else server)


def engine_facts(message: bytes) -> dict[str, Json]:
    """What the report of an agent tells. Raises DialError, ValueError, IndexError for another message."""
    version, header, security, _ = values(read_tlv(message)[1])
    if number(version) != VERSION_3 or number(values(header)[0]) != MESSAGE_ID:
        raise DialError("not an answer to the discovery")
    engine, boots, time_s, *_ = values(read_tlv(security)[1])
    if len(engine) not in ENGINE:
        raise DialError("no SnmpEngineID")
    facts: dict[str, Json] = {"engine_id": engine.hex(), "boots": number(boots), "uptime_s": number(time_s)}
    if len(engine) >= 4:
        enterprise = int.from_bytes(engine[:4], "big") & 0x7FFFFFFF
        facts["enterprise"] = enterprise
        if enterprise in VENDORS:
            facts["vendor"] = VENDORS[enterprise]
    if len(engine) > 5 and engine[0] & 0x80:
        match engine[4], len(engine):
            case 1, 9:
                facts["address"] = ".".join(map(str, engine[5:]))
            case 3, 11:
                facts["mac"] = engine[5:].hex(":")
            case 4, _:
                facts["text"] = text(engine[5:])
    return facts
