r"""Stored responses, line by line: NDJSON rows, zgrab2, masscan, and Nmap's SF-Port fingerprints -> Row.

    {"proto": "tcp", "probe": "NULL", "banner": "SSH-2.0-x\r\n"}      `banner`: text, one character per byte (Latin-1)
    {"proto": "tcp", "probe": "GetRequest", "data": "SFRUUC8xLjEg"}   `data`: base64; it wins over `banner`

`proto` may be left out (tcp), `probe` too (NULL); every other key is carried along. A banner with a character above
U+00FF was text and not bytes: it is read as UTF-8. What a record is shows in its keys, so that one reader serves all:

    zgrab2    `data` is an object of modules: `response` (HTTP, put together again from its status line, headers and
              body, answers GetRequest), `server_id.raw` (SSH), `banner` (NULL; of module `banner`: GenericLines)
    masscan   `rec_type` and `data` (-oD), or `ports` (-oJ): banners of the services in MASSCAN_PROBES; its other
              banners are texts that masscan made up from a response, not responses
    SF-Port   the text of a fingerprint, wrapped or not, in a file of its own, in Nmap's normal output, or as
              `fingerprint` of a result row: a row for every probe that was answered

Contract: `LineReader.read(line)` gives the rows that a line completes, none for a record without a response; a line
that is none of these is a fault with its number and reason. Never raises. No I/O.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import orjson
from msgspec import UNSET, Raw, Struct, UnsetType

from engine.conversation.fingerprint import unescape
from engine.targets import Unreadable

MASSCAN_PROBES = {  # service -> probes its question resembles, best first
    "http": ("GetRequest", "NULL"),
    "ssh": ("NULL",),
    "ftp": ("NULL",),
    "smtp": ("NULL",),
    "pop": ("NULL",),
    "pop3": ("NULL",),
    "imap": ("NULL",),
    "telnet": ("NULL",),
    "unknown": ("NULL",),
    "": ("NULL",),
}
NMAP_TEXT = re.compile(rb"\s*(?:# Nmap |Starting Nmap|Nmap scan report|Nmap done|SF-Port|SF:|={5,}NEXT)")
_FINISHED = b"{finished:1}"  # how masscan before 1.0.5 ends its array
_HEADER = re.compile(rb"SF-Port(\d+)-(TCP|UDP):V=([^%]*)((?:%(?!r\()[^%]*)*)")
_ITEM = re.compile(rb'%r\(([^,()]+),([0-9A-Fa-f]+),"((?:[^"\\]|\\.)*)"\)', re.DOTALL)


class Row(Struct):
    """One response.

    probes: names, of which the first known one counts. head: the JSON object to write, without its closing brace.
    """

    proto: str
    probes: tuple[str, ...]
    data: bytes
    head: bytes


class _Record(Struct):
    """The keys that matter to us; msgspec passes over the others without making objects of them."""

    proto: str = "tcp"
    probe: str | None = None
    data: bytes | dict[str, Any] | None = None
    banner: str | None = None
    fingerprint: str = ""
    rec_type: Raw | UnsetType = UNSET
    ports: Raw | UnsetType = UNSET
    match: Raw | UnsetType = UNSET
    verdict: Raw | UnsetType = UNSET


class LineReader:
    """Reads the lines of one input in order, the first of which is number `line` + 1.

    nmap_text: lines that are neither records nor fingerprints mean nothing. faults: (line, reason) of what was refused.
    """

    def __init__(self, line: int = 0, nmap_text: bool = False) -> None:
        self.faults: list[tuple[int, str]] = []
        self._line = line
        self._nmap_text = nmap_text
        self._decode = msgspec.json.Decoder(_Record).decode
        self._fingerprint = b""  # the lines of one that has not ended yet
        self._began = 0

    def read(self, line: bytes) -> Sequence[Row]:
        """The rows that this line completes."""
        self._line += 1
        if not self._fingerprint and line[:2] != b"SF":
            return self._read_record(line)
        rows: list[Row] = []
        if self._fingerprint and line.startswith(b"SF:"):
            self._fingerprint += line[3:].strip()
        else:
            rows += self.close()
            if not line.startswith(b"SF-Port"):
                return [*rows, *self._read_record(line)]
            self._fingerprint, self._began = line.strip(), self._line
        return rows + self.close() if self._fingerprint.endswith(b'");') else rows

    def close(self) -> list[Row]:
        """The rows of the fingerprint that has been read so far."""
        text, self._fingerprint = self._fingerprint, b""
        rows: list[Row] = []
        try:
            rows.extend(fingerprint_rows(text, {}) if text else ())  # what precedes the damage is kept
        except Unreadable as reason:
            self.faults.append((self._began, str(reason)))
        return rows

    def _read_record(self, line: bytes) -> Sequence[Row]:
        try:
            return self._read_line(line)
        except Unreadable as reason:
            self.faults.append((self._line, str(reason)))
            return ()

    def _read_line(self, line: bytes) -> Sequence[Row]:
        line = line.strip()
        if line[:1] != b"{" or line[-1:] != b"}":
            line = line.strip(b", \t\r")
            if not line or line in (b"[", b"]") or line[:1] == b"#" or (self._nmap_text and line[:1] != b"{"):
                return ()
        try:
            record = self._decode(line)
        except msgspec.DecodeError as error:
            if line.replace(b" ", b"") == _FINISHED:
                return ()
            raise Unreadable(_reason(error, line)) from None
        except UnicodeDecodeError:
            raise Unreadable("not UTF-8") from None
        data = record.data
        if data is None and record.banner is not None:
            data = latin1_bytes(record.banner)
        if isinstance(data, bytes):
            head = line[:-1] if record.match is UNSET else _without_match(line)
            return (Row(record.proto.lower(), (record.probe or "NULL",), data, head),)
        return self._read_foreign(record, orjson.loads(line))

    @staticmethod
    def _read_foreign(record: _Record, row: dict[str, Any]) -> Sequence[Row]:
        if isinstance(record.data, dict):
            read = _masscan_rows if "rec_type" in row else _zgrab2_rows
            return list(read(row))
        if record.ports is not UNSET:
            return list(_masscan_rows(row))
        if record.fingerprint:
            text = record.fingerprint.replace("\nSF:", "").encode()
            row.pop("fingerprint")
            row.pop("match", None)
            return list(fingerprint_rows(text, row))
        if record.rec_type is not UNSET or record.verdict is not UNSET:
            return ()  # a port that said nothing
        raise Unreadable("neither 'data' nor 'banner' in the record")


def latin1_bytes(text: str) -> bytes:
    """One byte per character; text with characters above U+00FF as UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _reason(error: msgspec.DecodeError, line: bytes) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"not a response record: {error}"
    shown = line[:60].decode("latin-1")
    return f"not JSON ({error}): {shown!r}"


def _head(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record)[:-1]


def _without_match(line: bytes) -> bytes:
    """The row of an earlier run, to be answered anew."""
    record = orjson.loads(line)
    del record["match"]
    record.pop("error", None)
    return _head(record)


# -- zgrab2


def _zgrab2_rows(record: dict[str, Any]) -> Iterator[Row]:
    record.pop("match", None)
    for name, module in record["data"].items():
        result = module.get("result") if isinstance(module, dict) else None
        if not isinstance(result, dict):
            continue
        said = _zgrab2_response(result, str(module.get("protocol") or name))
        if said is not None:
            data, probes = said
            yield Row("tcp", probes, data, _head({**record, "data": {name: module}}))


def _zgrab2_response(result: dict[str, Any], protocol: str) -> tuple[bytes, tuple[str, ...]] | None:
    match result:
        case {"response": {"status_code": int()} as response}:
            return _http_text(response), ("GetRequest", "NULL")
        case {"server_id": {"raw": str(raw)}}:
            return latin1_bytes(raw.rstrip("\r\n") + "\r\n"), ("NULL",)
        case {"banner": str(banner)} if banner:
            return latin1_bytes(banner), ("GenericLines", "NULL") if protocol == "banner" else ("NULL",)
    return None


def _http_text(response: dict[str, Any]) -> bytes:
    """A response as it was on the wire, but for the order of its headers and the case of their names."""
    protocol = response.get("protocol")
    version = protocol.get("name") if isinstance(protocol, dict) else None
    status = response.get("status_line") or str(response["status_code"])
    lines = [f"{version or 'HTTP/1.1'} {status}"]
    headers = response.get("headers")
    for key, values in headers.items() if isinstance(headers, dict) else ():
        if key == "unknown" and isinstance(values, list):
            pairs = [(str(item.get("key")), item.get("value")) for item in values if isinstance(item, dict)]
        else:
            pairs = [(key, values)]
        for name, texts in pairs:
            shown = "-".join(part.capitalize() for part in name.split("_"))
            lines += [f"{shown}: {text}" for text in (texts if isinstance(texts, list) else [texts])]
    return latin1_bytes("\r\n".join(lines) + "\r\n\r\n" + str(response.get("body") or ""))


# -- masscan


def _masscan_rows(record: dict[str, Any]) -> Iterator[Row]:
    record.pop("match", None)
    if "rec_type" in record:
        data = record.get("data")
        banner = data.get("banner") if isinstance(data, dict) else None
        yield from _masscan_row(record, record.get("proto"), data and data.get("service_name"), banner)
        return
    ports = record["ports"]
    for entry in ports if isinstance(ports, list) else ():
        service = entry.get("service") if isinstance(entry, dict) else None
        if isinstance(service, dict):
            row = {**record, "ports": [entry]}
            yield from _masscan_row(row, entry.get("proto"), service.get("name"), service.get("banner"))


def _masscan_row(record: dict[str, Any], proto: object, service: object, banner: object) -> Iterator[Row]:
    probes = MASSCAN_PROBES.get(str(service or ""))
    if probes and isinstance(banner, str) and banner:
        yield Row(str(proto or "tcp").lower(), probes, latin1_bytes(banner), _head(record))


# -- fingerprints


def fingerprint_rows(text: bytes, record: dict[str, Any]) -> Iterator[Row]:
    """A row for every response in an unwrapped fingerprint: `record` with the keys that the fingerprint tells.

    `size` is given where the fingerprint holds less than what had been received. Raises Unreadable.
    """
    header = _HEADER.match(text)
    if header is None:
        raise Unreadable(f"not a fingerprint: {text[:40].decode('latin-1')!r}")
    at = header.end()
    tunnel = {"tunnel": "ssl"} if b"%T=SSL" in header[4] else {}
    proto = header[2].decode().lower()
    while item := _ITEM.match(text, at):
        at = item.end()
        probe, size = item[1].decode("latin-1"), int(item[2], 16)
        data = unescape(item[3])
        row = {**record, "proto": proto, "port": int(header[1]), **tunnel, "probe": probe}
        row["data"] = base64.b64encode(data).decode()
        if size > len(data):
            row["size"] = size
        yield Row(proto, (probe,), data, _head(row))
    if text[at:] not in (b"", b";"):
        raise Unreadable(f"damaged fingerprint: {text[at : at + 40].decode('latin-1')!r}")
