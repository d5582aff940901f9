"""Records with named fields, from JSON or CSV -> the ports they name, whichever program wrote them.

    {"ip": "192.0.2.7", "port": 443, "proto": "tcp", "name": "www.example.org", "state": "open"}      any of them may
    {"host": "www.example.org", "port": 443}                                               be left out but the host

A record is read by the keys that it has, so one reader serves them all:

    where to connect   ip_str (Shodan, whose `ip` is a number), ip, saddr (zmap), addr (ivre), host_ip (httpx); else
                       `host`, an address, a name or a network; a name with `a` and `aaaa` (dnsx) is at each of these
    the name           `name` in a target of ours, where other programs put the service's; else `domain`, else a name in
                       `host`, else the host in `input` (httpx)
    port               a number or its digits; an object in older naabu; zmap's `sport`; else what httpx' `scheme` or
                       zmap's module implies; missing means the ports of -p
    ports, services    a list of numbers, or of objects with port, protocol and state (masscan, ivre; Censys)
    transport          proto, protocol, transport (Shodan), transport_protocol (Censys): the first that is a transport,
                       for in naabu's `proto` and Censys' `protocol` stands what runs on it; tcp where none is given
    state              state, status, state_state (ivre), data.status (masscan's NDJSON): open or open|filtered

An object that names no host but has a list of records inside is read as these records: answers of Shodan's and Censys'
interfaces.

No ports by their nature, and passed over silently: ports in other states, ICMP and ARP answers, banners of a port
that masscan has already reported, failed probes (zmap's `success`, httpx' `failed`, tlsx' `probe_status`), repeats,
masscan's end mark and its JSON status lines.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from engine.model import State
from engine.targets.base import Item, Place, TargetReader
from engine.targets.base_hosts import canonical_address
from engine.targets.base_ports import MAX_PORT, Proto, Unreadable, parse_port, parse_proto, quoted
from engine.targets.base_urls import parse_url

Record = Mapping[str, Any]

HOST_KEYS = ("ip_str", "ip", "saddr", "addr", "host_ip")  # literal addresses, the surest first
_TRANSPORT_KEYS = ("proto", "protocol", "transport", "transport_protocol")
_TRANSPORTS: dict[str, Proto] = {"tcp": "tcp", "udp": "udp", "quic": "udp"}
_PORTLESS = frozenset({"icmp", "icmp6", "icmpv6", "igmp", "arp", "oproto", "ip"})
_FOREIGN = frozenset({"verdict", "timestamp", "tls", "method", "product", "confidence", "conf", "version"})
_NOT_OPEN = frozenset({"closed", "filtered", "unfiltered", "closed|filtered", "up", "down", "unknown"})
_NAABU_PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp")  # its numbers, in records that have an object for the port
_ZMAP_UDP = {"udp": 0, "ntp": 123, "dns": 53, "upnp": 1900, "ssdp": 1900, "bacnet": 47808, "quic": 443, "tftp": 69}
_ZMAP_UDP_FIELDS = frozenset({"udp_pkt_size", "udp_len", "udp_payload", "app_response_str", "app_success"})
_ZMAP_FAILURES = ("rst", "icmp", "unreach", "timxceed", "none", "no-http-header", "other")
_SIMPLE = frozenset({"ip", "port", "ports", "proto", "timestamp", "rec_type", "data", "state", "status"})  # masscan's
_YES: tuple[object, ...] = (1, "1", "true")  # and True, which equals 1
_NO: tuple[object, ...] = (0, "0", "false")


def read_record(reader: TargetReader, record: Record) -> list[Item]:
    """What a record names, numbered by its reader. Raises Unreadable where it names nothing that can be read."""
    if "saddr" in record:
        place = _zmap(record)
        return [] if place is None else [reader.item(*place)]
    if _SIMPLE.issuperset(record):
        hosts, name, ports = [_text(record, "ip")], "", record.get("ports")
        if not hosts[0]:
            raise Unreadable("no 'ip' and no 'host' in the record")
        if record.get("rec_type") == "banner":
            return []
    elif _is_no_port(record):
        return []
    elif not names_a_host(record) and (inner := _enclosed(record)):
        return _read_each(reader, inner)
    else:
        hosts, name = _hosts(record)
        ports = record.get("ports")
        if not ports and ports != [] and isinstance(services := record.get("services"), list):
            ports = services
    if ports is None or ports == "":
        place = _place(hosts[0], name, record, record)
        if place is None:
            return []
        if len(hosts) == 1:
            return [reader.item(*place)]
        return reader.items_of((host, *place[1:]) for host in hosts)
    if not isinstance(ports, list):
        raise Unreadable(f"'ports' is not a list: {shown(ports)}")
    if len(ports) == 1 and len(hosts) == 1:
        place = _entry(hosts[0], name, ports[0], record)
        return [] if place is None else [reader.item(*place)]
    return reader.items_of(_entries(hosts, name, ports, record))


def names_a_host(record: Record) -> bool:
    """Whether a record can be one of ours, rather than a part of another."""
    return "host" in record or any(key in record for key in HOST_KEYS)


def can_be_read(record: Record) -> bool:
    """Whether a record is one that `read_record` knows what to make of."""
    return names_a_host(record) or _is_no_port(record) or bool(_enclosed(record))


def shown(value: object) -> str:
    """A value in a message of one line, however long or deep it is; a text in quotes."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return quoted(value)
    return str(value)


def _is_no_port(record: Record) -> bool:
    if record.get("rec_type") == "banner" or record.get("failed") in _YES or record.get("probe_status") in _NO:
        return True
    return ("finished" in record or "rate" in record) and not names_a_host(record)


def _enclosed(record: Record, depth: int = 2) -> list[Record]:
    """The records in an answer of Shodan's or Censys' interface, which stand in a list some way inside."""
    for value in record.values():
        if (
            isinstance(value, list)
            and value
            and all(isinstance(entry, dict) and names_a_host(entry) for entry in value)
        ):
            return value
        if depth and isinstance(value, dict) and not names_a_host(value) and (inner := _enclosed(value, depth - 1)):
            return inner
    return []


def _read_each(reader: TargetReader, records: list[Record]) -> list[Item]:
    items: list[Item] = []
    for record in records:
        try:
            items += read_record(reader, record)
        except Unreadable as reason:
            items.append(reader.error(str(reason)))
    return items


def _hosts(record: Record) -> tuple[list[str], str]:
    """Where to connect, never empty, and the name to report."""
    address = ""
    for key in HOST_KEYS:
        if key in record and (address := _text(record, key)):
            break
    host = _text(record, "host")
    name = ""
    if "name" in record and _FOREIGN.isdisjoint(record):
        name = _text(record, "name")
    name = name or _text(record, "domain")
    if host and not name and not canonical_address(host):
        name = host
    if address:
        return [address], name
    if not host:
        raise Unreadable("no 'ip' and no 'host' in the record")
    if name == host and (resolved := [*_list(record, "a"), *_list(record, "aaaa")]):
        return resolved, name
    if not name and "input" in record:
        asked = parse_url(_text(record, "input")).host
        name = "" if canonical_address(asked) or "/" in asked else asked
    return [host], "" if name == host else name


def _entries(hosts: list[str], name: str, ports: list[object], record: Record) -> Iterator[Place | Unreadable]:
    """Ports are taken where a list has them; an entry that is wrong comes as what is wrong with it."""
    for host in hosts:
        for entry in ports:
            try:
                place = _entry(host, name, entry, record)
            except Unreadable as reason:
                yield reason
            else:
                if place is not None:
                    yield place


def _entry(host: str, name: str, entry: object, record: Record) -> Place | None:
    """One of a list of ports. None: not to be scanned."""
    if isinstance(entry, dict):
        if "status" not in entry and isinstance(entry.get("service"), dict):
            return None  # masscan's banner
        if entry.get("port") == -1:
            return None  # ivre's scripts of a whole host
        return _place(host, name, entry, entry)
    return _place(host, name, {"port": entry}, record)


def _place(host: str, name: str, entry: Record, rest: Record) -> Place | None:
    """entry: has the port; rest: has its transport and state."""
    state = _state(rest)
    if state is None:
        return None
    port = entry.get("port")
    if isinstance(port, dict):
        proto: Proto | None = _naabu_proto(port.get("Protocol", 0))
        port = port.get("Port")
    else:
        proto = _transport(rest, scanned=bool(state))
    if proto is None:
        return None
    if type(port) is int:
        if not 0 < port <= MAX_PORT:
            parse_port(str(port))  # says what is wrong with it
        return host, port, proto, name, state
    if port is None or port == "":
        scheme = rest.get("scheme")
        port = parse_url(f"{scheme}://").usual_port if isinstance(scheme, str) else None
        return host, port, proto, name, state
    if not isinstance(port, str):
        raise Unreadable(f"bad port '{shown(port)}'; expected a number from 1 to 65535")
    return host, port, proto, name, state


def _naabu_proto(number: object) -> Proto:
    return _NAABU_PROTOCOLS[number] if isinstance(number, int) and 0 <= number < 2 else parse_proto(shown(number))


def _transport(record: Record, *, scanned: bool) -> Proto | None:
    """None for what has no ports, and for what a port scanner found and no version scan speaks."""
    wrong = ""
    for key in _TRANSPORT_KEYS:
        value = record.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise Unreadable(f"bad protocol '{shown(value)}'; expected 'tcp' or 'udp'")
        word = value.lower()
        if word in _TRANSPORTS:
            return _TRANSPORTS[word]
        if word in _PORTLESS or (word == "sctp" and scanned):
            return None
        wrong = wrong or value
    return parse_proto(wrong) if wrong else "tcp"


def _state(entry: Record) -> State | Literal[""] | None:
    """What a port scan said of the port, empty if nothing; None for what is not to be scanned."""
    state = entry.get("state") or entry.get("status") or entry.get("state_state")
    if not state:
        data = entry.get("data")
        state = data.get("status") if isinstance(data, dict) else None
    if state in ("open", "open|filtered"):
        return cast(State, state)
    if not state:
        return ""
    if isinstance(state, str):
        if state.lower() in ("open", "open|filtered"):
            return cast(State, state.lower())
        if state.lower() in _NOT_OPEN:
            return None
    raise Unreadable(f"unknown state {shown(state)}; expected 'open' or 'open|filtered'")


def _zmap(record: Record) -> Place | None:
    """A row of zmap: the host that answered, from which port, and what its module made of the answer."""
    answer = _text(record, "classification").lower()
    if answer.startswith(_ZMAP_FAILURES) or record.get("success") in _NO or record.get("repeat") in _YES:
        return None
    implied = _ZMAP_UDP.get(answer)
    proto: Proto = "tcp" if implied is None and _ZMAP_UDP_FIELDS.isdisjoint(record) else "udp"
    port = record.get("sport")
    if port is None or port == "":
        return _text(record, "saddr"), implied or None, proto, "", "open" if implied else ""
    if isinstance(port, int | str) and not isinstance(port, bool):
        return _text(record, "saddr"), str(port), proto, "", "open"
    raise Unreadable(f"bad port '{shown(port)}'; expected a number from 1 to 65535")


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise Unreadable(f"{key!r} is not a text: {shown(value)}")
    return value or ""


def _list(record: Record, key: str) -> list[str]:
    values = record.get(key)
    if not isinstance(values, list):
        return []
    if not all(isinstance(value, str) for value in values):
        raise Unreadable(f"{key!r} is not a list of texts")
    return values
