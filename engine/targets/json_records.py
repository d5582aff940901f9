"""JSON records, one a line: our own NDJSON, masscan's JSON and NDJSON, naabu's JSON lines, our result rows.

    {"ip": "192.0.2.7", "port": 443, "proto": "tcp", "name": "www.example.org", "state": "open"}      any of them may
    {"host": "www.example.org", "port": 443}                                               be left out but the host

Each record is read by the keys that it has, so one reader serves them all:

    ip, host, name   `ip` is where to connect; else `host` is, and may be a name or a network. The name reported is
                     `name`, else `host` beside an `ip`.
    port             a number or its digits; an object in older naabu; missing means the ports of -p
    ports            masscan: a list of objects of port, proto, status; or just a list of numbers
    proto, protocol  tcp (default) or udp
    state, status    open or open|filtered, if known; ports in other states are passed over

masscan's array form ends lines with commas, or begins them with one, and older versions close it with a record that is
not JSON; `[`, `]`, commas and that record are passed over. Records of banners repeat a port already reported, and are
passed over too.
"""

from collections.abc import Iterator
from typing import Any, Literal

import orjson

from engine.model import State
from engine.targets.base import Item, LineReader
from engine.targets.base_hosts import canonical_address
from engine.targets.base_ports import Proto, Unreadable, parse_port, parse_proto

_FINISHED = "{finished:1}"  # the last record of masscan before 1.0.5
_NAABU_PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp")  # its numbers, in records that have an object for the port


class JsonReader(LineReader):
    """JSON records, one a line."""

    line_limit = 1 << 20  # a record may carry a banner of 64 KiB with every byte escaped

    def read(self, line: str) -> Iterator[Item]:
        text = line.strip().strip(",").strip()
        if text in ("", "[", "]") or text.startswith("#"):
            return
        try:
            value = orjson.loads(text)
        except ValueError:
            if text.replace(" ", "") == _FINISHED:
                return
            raise Unreadable(f"not a JSON record on a line of its own: {text[:60]!r}") from None
        for record in value if isinstance(value, list) else (value,):
            if not isinstance(record, dict):
                raise Unreadable(f"expected a JSON object, not {str(record)[:60]!r}")
            yield from self._record(record)

    def _record(self, record: dict[str, Any]) -> Iterator[Item]:
        host, name = _host(record)
        if "ports" in record:
            ports = record["ports"]
            if not isinstance(ports, list):
                raise Unreadable("'ports' is not a list")
            for entry in ports:
                yield from self._port(host, name, entry if isinstance(entry, dict) else {**record, "port": entry})
        else:
            yield from self._port(host, name, record)

    def _port(self, host: str, name: str, entry: dict[str, Any]) -> Iterator[Item]:
        state = _state(entry)
        if state is None:
            return
        port, proto = entry.get("port"), entry.get("proto") or entry.get("protocol") or "tcp"
        if isinstance(port, dict):
            proto = _naabu_proto(port.get("Protocol", 0))
            port = port.get("Port")
        if port is not None and (not isinstance(port, int | str) or isinstance(port, bool)):
            raise Unreadable(f"bad port {str(port)[:20]!r}; expected a number from 1 to 65535")
        if not isinstance(proto, str):
            raise Unreadable(f"bad protocol {str(proto)[:20]!r}; expected 'tcp' or 'udp'")
        yield self.item(host, None if port is None else parse_port(str(port)), parse_proto(proto), name, state)


def _host(record: dict[str, Any]) -> tuple[str, str]:
    """Where to connect, and the name to report."""
    ip, host = _text(record, "ip"), _text(record, "host")
    name = "" if "verdict" in record else _text(record, "name")  # in a row of ours `name` is the service
    if not (ip or host):
        raise Unreadable("no 'ip' and no 'host' in the record")
    if not name and ip and host and not canonical_address(host):
        name = host
    return ip or host, name


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise Unreadable(f"{key!r} is not a text: {str(value)[:60]}")
    return value or ""


def _state(entry: dict[str, Any]) -> State | Literal[""] | None:
    """What a port scan said of the port, empty if nothing; None for what is not to be scanned."""
    if entry.get("rec_type") == "banner" or ("service" in entry and "status" not in entry and "state" not in entry):
        return None
    data = entry.get("data")  # masscan's NDJSON keeps the status inside
    match entry.get("state") or entry.get("status") or (data.get("status") if isinstance(data, dict) else None):
        case None:
            return ""
        case "open":
            return "open"
        case "open|filtered":
            return "open|filtered"
    return None


def _naabu_proto(number: object) -> str:
    return _NAABU_PROTOCOLS[number] if isinstance(number, int) and 0 <= number < 2 else str(number)
