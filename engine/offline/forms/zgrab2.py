"""zgrab2's records: `data` is an object of modules, each with what it got in `result`; a row for every response.

What a module keeps, in order of preference (zgrab2's own modules; a module of somebody's that uses the same keys is
read alike):

    response         HTTP: see http_text.py; of mqtt: hexadecimal
    server_id        SSH: `raw`, its greeting without the line end
    raw_packets      MySQL: base64, each without its header of four bytes, which is put back
    raw, raw_response, raw_command_output   base64 or hexadecimal; of modbus without `raw`: only what follows its header
    info_response, ping_response   Redis: text, put back into its protocol
    banner           text; of the module `banner` text, hexadecimal or base64, told apart by `length`

Its text is UTF-8, also where a service sent something else: Go wrote U+FFFD for what it could not read.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import Raw

from engine.offline.forms.base import Item, Nothing, Record, Row, from_base64, from_hex, member, value
from engine.offline.forms.http_text import http_bytes
from engine.targets import Unreadable

QUESTIONS = {  # module -> the probe that asks what it asks; all others wait for a greeting
    "banner": "GenericLines",
    "dnp3": "DNP3LinkStatus",
    "drda": "DRDAExcsat",
    "modbus": "ModbusDeviceID",
    "mqtt": "MQTTConnect",
    "pptp": "PPTPStart",
    "redis": "RedisInfo",
    "socks5": "Socks5Greeting",
}
MODBUS_TRANSACTION = b"ZG\0\0"  # zgrab2's number, unless told otherwise, and the protocol's
MYSQL_BEGINNINGS = (b"\x09", b"\x0a", b"\xff")
BYTES = frozenset(range(256))

Result: TypeAlias = dict[str, Any]


def rows(record: Record, modules: Mapping[str, Raw]) -> Iterator[Item]:
    """modules: the members of `data`. A row holds its own module only."""
    if not modules:
        yield Nothing.SILENT
    for name, text in modules.items():
        changes = {"data": b"{" + member(name, text) + b"}"} if len(modules) > 1 else None
        try:
            yield _item(name, text, record, changes)
        except Unreadable as reason:
            yield reason


def _item(name: str, text: Raw, record: Record, changes: Mapping[str, bytes] | None) -> Item:
    module = value(text)
    if not isinstance(module, dict) or not module.keys() & {"status", "result", "error"}:
        raise Unreadable(f"{name[:40]!r} in 'data' is no module of zgrab2")
    result = module.get("result")
    if not isinstance(result, dict) or not result:
        return Nothing.SILENT
    protocol = str(module.get("protocol") or name)
    question = QUESTIONS.get(protocol, "NULL")
    match result:
        case {"response": {"status_code": int()} as response}:
            said, question = http_bytes(response), "GetRequest"
        case _:
            said = next(filter(None, _said(result, protocol)), b"")
    if not said:
        return Nothing.DERIVED
    probes = (question,) if question == "NULL" else (question, "NULL")
    return Row("tcp", probes, said, record.head(changes))


def _said(result: Result, protocol: str) -> Iterator[bytes | None]:
    """What may be the response, the surest first."""
    match result:
        case {"server_id": {"raw": str(greeting)}}:
            yield greeting.rstrip("\r\n").encode() + b"\r\n"
    match result:
        case {"raw_packets": [first, *_]}:
            yield _mysql_packet(from_base64(first))
    match result:
        case {"raw_command_output": [*outputs]}:
            yield _redis_info([output for output in map(from_base64, outputs) if output])
    raw = result.get("raw")
    yield from (from_hex(raw), from_base64(raw)) if protocol == "drda" else (from_base64(raw), from_hex(raw))
    raw = from_base64(result.get("raw_response")) or from_hex(result.get("raw_response"))
    yield _modbus_frame(raw, result) if raw and protocol == "modbus" else raw
    yield from_hex(result.get("response")) or from_hex(result.get("method_selection"))
    match result:
        case {"info_response": str(answer)}:
            yield _redis_error(answer) or b"$%d\r\n%b\r\n" % (len(answer.encode()), answer.encode())
        case {"ping_response": str(answer)}:
            yield _redis_error(answer) or b"+%b\r\n" % answer.encode()
        case {"control_message": str(message)}:  # of pptp, whose `banner` is what zgrab2 sent
            yield message.encode()
        case {"banner": str(banner)}:
            yield _banner(banner, result.get("length")) if protocol == "banner" else banner.encode()
        case {"response": str(text)}:
            yield text.encode()


def _banner(text: str, length: object) -> bytes:
    """length: of the banner in bytes."""
    said = text.encode()
    if len(said) == length:
        return said
    return next((data for data in (from_hex(text), from_base64(text)) if data and len(data) == length), said)


def _mysql_packet(body: bytes | None) -> bytes | None:
    """The first packet of a server: its length in three bytes, low first, and the number 0, then its body.

    A body begins with the protocol's version or with FF, an error; some have their header already.
    """
    if not body or len(body) >> 24:
        return None
    if body[3:4] == b"\0" and body[4:5] in MYSQL_BEGINNINGS:
        return body
    return len(body).to_bytes(3, "little") + b"\0" + body


def _modbus_frame(data: bytes, result: Result) -> bytes | None:
    """A frame of Modbus/TCP: transaction, protocol 0, length, unit, function, data. data: that, or all of it."""
    if data[2:4] == b"\0\0" and int.from_bytes(data[4:6], "big") == len(data) - 6:
        return data
    match result:
        case {"unit_id": int(unit), "function_code": int(function)} if {unit, function} <= BYTES and not len(
            data
        ) >> 15:
            return MODBUS_TRANSACTION + (len(data) + 2).to_bytes(2, "big") + bytes((unit, function)) + data
    return None


def _redis_info(outputs: list[bytes]) -> bytes | None:
    """Of the answers to all its commands the one to INFO, else the first."""
    return next((output for output in outputs if b"redis_version:" in output), outputs[0] if outputs else None)


def _redis_error(answer: str) -> bytes | None:
    if answer.startswith("(Error: ") and answer.endswith(")"):
        return b"-%b\r\n" % answer[len("(Error: ") : -1].encode()
    return None
