"""Nmap's XML reports (`-oX`) as rows: what old scans found, in our form.

What a row takes: the address, the name the user gave, each port that is listed, its state, the whole of `service`, and
the output of the port's scripts, which goes to `post` under the script's id. `started` is the host's `starttime`, else
the run's. Not in a row: PTR names, scripts of hosts, operating systems, counts of ports that are not listed.

Which line matched stands in no report, so `verdict` is concluded: a probed service with a fingerprint was softmatched,
one without hardmatched; a port that is not open is `incomplete`, for the reason that its state gives.

Contract: `feed` gives the rows that the text completed, `close` says whether it was whole. Memory does not grow with
the report; what one port says is held until it ends, and a tag longer than TOKEN_LIMIT is refused. Entities are not
expanded. Reports may follow one another. Damage ends it: what precedes has been given. Characters that XML cannot hold,
which old versions wrote, are read as U+FFFD. Source: the DTD of Nmap 7.94, whose older forms have less.
"""

import codecs
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, cast, get_args
from xml.parsers import expat

from msgspec import Struct

from engine.conversation.fingerprint import wrap
from engine.errors import InputError
from engine.model import DatabaseRef, Json, Reason, ServiceResult, Tunnel, Verdict
from engine.offline.faults import Faults
from engine.results.columns import EXCLUDED
from engine.results.table import address_bytes
from matcher import Proto, shown

TOKEN_LIMIT = 64 << 20  # characters between two tags
MAX_DEPTH = 64  # of tags; a report has some ten
STEP = 1 << 16  # characters parsed at once
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,10}));")
_UNBEARABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # the Char rule of XML 1.0
_HELD_BACK = re.compile(r"(?:&[^;&<>]{0,12}|<(?:/[a-z]{0,7})?)\Z")  # of a reference or of END, cut between two blocks
ROOT = "nmaprun"
END = f"</{ROOT}>"
_REASONS: Mapping[str, Reason] = MappingProxyType(
    {
        "conn-refused": Reason.REFUSED,
        "reset": Reason.REFUSED,
        "no-response": Reason.TIMEOUT,
        "host-unreach": Reason.UNREACHABLE,
        "net-unreach": Reason.UNREACHABLE,
        "port-unreach": Reason.UNREACHABLE,
        "proto-unreach": Reason.UNREACHABLE,
        "admin-prohibited": Reason.UNREACHABLE,
        "host-prohibited": Reason.UNREACHABLE,
        "net-prohibited": Reason.UNREACHABLE,
    }
)
_BY_STATE: Mapping[str, Reason] = MappingProxyType({"closed": Reason.REFUSED, "filtered": Reason.TIMEOUT})
INTERRUPTED = "Interrupted"  # in place of a product, in files of earlier versions
_METHODS = ("probed", "table")
_MOST = 2**31 - 1
UNKNOWN = "1970-01-01T00:00:00.000Z"  # where neither host nor run says when


class NmapRows:
    """One input. name: as people may see it. faults: of ports that cannot be rows; whoever reads them empties them."""

    def __init__(self, name: str) -> None:
        self.faults = Faults()
        self._name = name
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._held = ""
        self._rows: list[ServiceResult] = []
        self._line = 0  # where the present report begins
        self._begin()

    def feed(self, data: bytes) -> list[ServiceResult]:
        """Raises InputError for what is no report; `given` has the rows before it."""
        text = self._held + self._decode(data)
        held = _HELD_BACK.search(text)
        self._held = held[0] if held else ""
        self._read(text[: len(text) - len(self._held)])
        return self.given()

    def given(self) -> list[ServiceResult]:
        """The rows so far that nobody has taken."""
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        """Raises InputError where the last report is not whole."""
        self._read(self._held + self._decode(b"", True))
        if self._begun:
            raise self._error("the report ends in its middle")

    def _begin(self) -> None:
        """A report: the first, or one behind another."""
        self._parser = expat.ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._refuse_entity
        self._begun = False
        self._outside = True  # before the root
        self._since = 0  # bytes since the last tag
        self._depth = 0  # of tags
        self._database = DatabaseRef("nmap", "")
        self._run_started = ""
        self._cpe: list[str] | None = None  # while one is read: its pieces
        self._port: _Port | None = None
        self._begin_host({})

    def _begin_host(self, given: Mapping[str, str]) -> None:
        self._started = _moment(given.get("starttime", "")) or self._run_started or UNKNOWN
        self._ip = self._host = ""

    def _read(self, text: str) -> None:
        if _UNBEARABLE.search(text):
            text = _UNBEARABLE.sub("\ufffd", text)
        if "&#" in text:
            text = _REFERENCE.sub(_bearable, text)
        while text:
            if not self._begun:
                blank = text[: len(text) - len(text.lstrip())]
                self._line += blank.count("\n")
                text = text[len(blank) :]
            end = text.find(END)
            piece = text if end < 0 else text[: end + len(END)]
            text = text[len(piece) :]
            self._parse(piece)
            if end >= 0:
                self._line += self._parser.CurrentLineNumber - 1
                self._begin()

    def _parse(self, text: str) -> None:
        for at in range(0, len(text), STEP):
            self._begun = True
            piece = text[at : at + STEP].encode()
            self._since += len(piece)
            try:
                self._parser.Parse(piece, False)
            except expat.ExpatError as error:
                raise self._error(f"no well-formed XML: {expat.ErrorString(error.code)}") from error
            if self._since > TOKEN_LIMIT:
                raise self._error(f"a tag is longer than {TOKEN_LIMIT >> 20} MiB")

    def _error(self, reason: str) -> InputError:
        return InputError(self._name, self._line + self._parser.CurrentLineNumber, reason)

    def _refuse_entity(self, *_: object) -> None:
        raise self._error("it declares entities, which a report never does")  # and which can grow without bound

    def _start(self, name: str, given: dict[str, str]) -> None:
        self._since = 0
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"its tags are nested more than {MAX_DEPTH} deep")
        if self._outside and name != ROOT:
            raise self._error(f"no report of Nmap: its first tag is {shown(name[:40])!r}")
        match name:
            case "nmaprun":
                self._outside = False
                self._database = DatabaseRef(" ".join(filter(None, (given.get("scanner"), given.get("version")))), "")
                self._run_started = _moment(given.get("start", ""))
            case "host":
                self._begin_host(given)
            case "address" if given.get("addrtype") != "mac":
                self._ip = given.get("addr", "")
            case "hostname" if given.get("type") == "user":
                self._host = given.get("name", "")
            case "port":
                self._port = _Port(given, {}, {}, [], {})
            case "state" if self._port:
                self._port.state = given
            case "service" if self._port:
                self._port.service = given
            case "cpe" if self._port:
                self._cpe = []
            case "script" if self._port and "id" in given:
                self._port.scripts[given["id"]] = given.get("output", "")
            case "hosthint":
                self._begin_host({})

    def _end(self, name: str) -> None:
        self._since = 0
        self._depth -= 1
        if name == "cpe" and self._cpe is not None and self._port:
            self._port.cpe.append("".join(self._cpe))
            self._cpe = None
        elif name == "port" and self._port:
            port, self._port = self._port, None
            try:
                self._rows.append(self._row(port))
            except _NoRow as reason:
                self.faults.add(self._line + self._parser.CurrentLineNumber, str(reason))

    def _characters(self, text: str) -> None:
        if self._cpe is not None:
            self._cpe.append(text)

    def _row(self, port: "_Port") -> ServiceResult:
        """Raises _NoRow."""
        proto = port.given.get("protocol", "")
        if proto not in get_args(Proto):
            raise _NoRow(f"no row can be of protocol {shown(proto[:20])!r}")
        try:
            address = address_bytes(self._ip)
        except (OSError, UnicodeError):
            address = None
        named = self._ip != "" and self._ip == self._host  # of a host whose address only a proxy knows
        if address is None and not named:
            raise _NoRow(f"no address: {shown(self._ip[:50])!r}")
        service = port.service
        tunnel = Tunnel.SSL if service.get("tunnel") == "ssl" else Tunnel.NONE
        method = service.get("method", "")
        verdict, reason, product = _verdict(port)
        version, extrainfo = _rpc(service)
        return ServiceResult(
            ip="" if address is None else self._ip,
            port=_number(port.given.get("portid", ""), 65535),
            proto=cast(Proto, proto),
            host=self._host,
            state=port.state.get("state", ""),
            name=service.get("name", ""),
            product=product,
            version=version,
            extrainfo=extrainfo,
            hostname=service.get("hostname", ""),
            ostype=service.get("ostype", ""),
            devicetype=service.get("devicetype", ""),
            cpe=tuple(port.cpe),
            tunnel=tunnel,
            method=cast(Literal["probed", "table", ""], method if method in _METHODS else ""),
            conf=_number(service.get("conf", "0"), _MOST),
            verdict=verdict,
            reason=reason,
            fingerprint=wrap(service.get("servicefp", "")),
            post=port.scripts or None,
            database=self._database,
            started=self._started,
        )


class _NoRow(Exception):  # noqa: N818 - it says what the port is
    """A port that cannot be a row; the text says why."""


class _Port(Struct):
    """What has been read of a port: the attributes of `port`, `state` and `service`, names, scripts by their id."""

    given: dict[str, str]
    state: dict[str, str]
    service: dict[str, str]
    cpe: list[str]
    scripts: dict[str, Json]


def _verdict(port: _Port) -> tuple[Verdict, Reason | None, str]:
    """How the conversation ended, why it did not, and the product."""
    service, state = port.service, port.state.get("state", "")
    product = service.get("product", "")
    if product == EXCLUDED:
        return Verdict.EXCLUDED, None, ""
    if product == INTERRUPTED:
        return Verdict.INCOMPLETE, Reason.CANCELLED, ""
    if not state.startswith("open"):
        return Verdict.INCOMPLETE, _REASONS.get(port.state.get("reason", ""), _BY_STATE.get(state)), product
    if service.get("name") == "tcpwrapped":
        return Verdict.TCPWRAPPED, None, product
    if service.get("method") != "probed" or service.get("name") in {"", "unknown", None}:
        return Verdict.NOMATCH, None, product
    return Verdict.SOFTMATCHED if service.get("servicefp") else Verdict.HARDMATCHED, None, product


def _rpc(service: Mapping[str, str]) -> tuple[str, str]:
    """Version and further information. Old versions told those of an RPC program in attributes of their own."""
    version, extrainfo = service.get("version", ""), service.get("extrainfo", "")
    if (number := service.get("rpcnum")) and not version and not extrainfo:
        low, high = service.get("lowver", ""), service.get("highver", "")
        return low if low == high else f"{low}-{high}", f"RPC #{number}"
    return version, extrainfo


def _number(text: str, most: int) -> int:
    """Raises _NoRow."""
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) <= most):
        raise _NoRow(f"no number that can be: {shown(text[:20])!r}")
    return int(text)


def _moment(seconds: str) -> str:
    """RFC 3339 from seconds since the epoch; empty for what is none."""
    if not (seconds.isascii() and seconds.isdecimal() and 0 < len(seconds) < 12):
        return ""
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def _bearable(found: re.Match[str]) -> str:
    """A reference to a character that XML can hold, or one to U+FFFD."""
    code = int(found[1], 16) if found[1] else int(found[2])
    bearable = code <= 0x10FFFF and not _UNBEARABLE.match(chr(code))
    return found[0] if bearable else "&#xfffd;"
