"""What HTTP answers tell beyond the match: status, Server, title; and, when asked for, the page and its favicon's hash.

`Http` reads what the scan has got already, the response that matched or the fingerprint's copies, and contacts nobody.
Where nothing but the port's number says HTTP, an HTTP answer confirms it; where no line named the product, the Server
header does. UPnP that a line recognised is left without one, as by Nmap's http-server-header: before a product, the
header names a system and a library there. `Web` makes one request for the page and one for its icon, and gives the
hashes of both.

Source: RFC 9110 and 9112 (requests are HTTP/1.0, so that the end of the connection is the end of the answer); the
favicon hash is the one that Shodan, FOFA and Censys index: MurmurHash3 (x86, 32 bit, seed 0, signed) over the icon's
base64 in lines of 76; the page's is over its bytes, as Shodan's `http.html_hash` is.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

from engine.conversation.fingerprint import responses
from engine.model import Json, ServiceResult
from engine.post.base import (
    AGENT,
    HEAD,
    HTTP_SERVICES,
    ONLY_HTTP2,
    authority,
    identified,
    noted,
    page_facts,
    text,
)
from engine.transports.dial import DialError, Dialler, Stream
from engine.transports.quic_packets import version_name

PORTS = frozenset((80, 443, 631, 5800, 7080, 8000, 8008, 8080, 8088, 8180, 8443))  # where a web server is expected
STATUS_LINE = 64  # bytes, in which an answer has to say that it is HTTP
PAGE = 262_144  # bytes of a page; hashing it takes 18 ms
ICON = 131_072  # bytes of an icon; hashing a longer one would hold up the others

HTTP3_SETTINGS = {  # RFC 9114, 9204, 9220, 9297. The numbers 31 n + 2 stand there so that nobody chokes on them
    0x1: "qpack_max_table_capacity",
    0x6: "max_field_section_size",
    0x7: "qpack_blocked_streams",
    0x8: "enable_connect_protocol",
    0x33: "h3_datagram",
}

_STATUS = re.compile(rb"HTTP/\d\.\d +(\d{3})\b")
_HEADER = re.compile(
    rb"\n(server|location|content-length|content-type|transfer-encoding)[ \t]*:([^\r\n]*)", re.IGNORECASE
)
_ICON_LINK = re.compile(rb"<link\b[^>]{0,500}\brel\s*=\s*[\"']?(?:shortcut )?icon\b[^>]{0,500}>", re.IGNORECASE)
_HREF = re.compile(rb"href\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE)


class Answer(NamedTuple):
    """One HTTP answer, as far as it came. headers: those of interest, of several the first; complete: all of body."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes
    complete: bool = False

    def facts(self) -> dict[str, Json]:
        return page_facts(self.status, self.headers, self.body)


def parse(data: bytes) -> Answer | None:
    """None where the bytes do not begin as an HTTP answer."""
    status = _STATUS.match(data)
    if status is None:
        return None
    for end in (b"\r\n\r\n", b"\n\n"):
        head, ended, body = data.partition(end)
        if ended:
            break
    headers: dict[bytes, bytes] = {}
    for name, value in _HEADER.findall(head, 0, HEAD):
        headers.setdefault(name.lower(), value.strip())
    length = headers.get(b"content-length", b"")
    if ended and length.isdigit() and len(body) >= int(length[:9]):
        return Answer(int(status[1]), headers, body[: int(length[:9])], True)
    return Answer(int(status[1]), headers, body)


class Http:
    """A Reader."""

    name = "http"
    services = HTTP_SERVICES
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        known = [*responses(result.fingerprint), response] if result.fingerprint else [response]
        parsed = [answer.facts() for data in known if (answer := parse(data))]
        if not parsed:
            return result
        facts = parsed[0]
        server = next((other["server"] for other in parsed if "server" in other), "")
        if server:
            facts["server"] = server
        result = noted(result, self.name, facts)
        if result.method != "probed" and not (result.name in HTTP_SERVICES or result.port in PORTS):
            return result
        if result.product or (result.name == "upnp" and result.method == "probed"):
            return result
        return identified(result, product=server) if server or result.method != "probed" else result


class Web:
    """An Asker."""

    name = "web"
    services = HTTP_SERVICES | {"quic"}
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return (result.proto == "udp") == (result.name == "quic") and result.extrainfo != ONLY_HTTP2

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        if result.proto == "udp":
            return await over_quic(result, dial)
        page = await get(result, dial, "/", PAGE)
        result = noted(result, "http", page.facts() | (body(page.body) if page.complete else {}))
        path = icon_path(page.body)
        try:
            icon = await get(result, dial, path, ICON)
        except DialError:
            return result
        if icon.status != 200 or not icon.body or not icon.complete:
            return result
        if icon.headers.get(b"content-type", b"").startswith(b"text/"):
            return result
        return noted(result, "favicon", favicon(path, icon.body))


async def over_quic(result: ServiceResult, dial: Dialler) -> ServiceResult:
    """The page in HTTP/3. Raises DialError where the server has agreed to nothing, or to something else."""
    try:
        from engine.transports.quic import HTTP3, SUPPORTED, Conversation
    except ImportError:  # without the extra there is no QUIC, and who asks for `web` means TCP
        return result
    agreed = (result.post or {}).get("quic", {}).get("version")  # where it was asked before
    versions = [version for version in SUPPORTED if version_name(version) == agreed] or SUPPORTED[:1]
    with await dial.open("udp") as stream:
        talk = Conversation(stream, dial, versions, (HTTP3,), result.host)
        try:
            if (await talk.shake()).alpn != HTTP3:
                raise DialError("no HTTP/3")
            answer, settings = await talk.get(authority(result), AGENT)
        finally:
            await talk.close()
    if settings:
        known = {HTTP3_SETTINGS.get(name, f"0x{name:x}"): value for name, value in settings.items() if name % 31 != 2}
        result = noted(result, "http3", {"settings": known})
    if not answer.status:
        return result
    facts = page_facts(answer.status, answer.headers, answer.body)
    result = noted(result, "http", facts)
    return result if result.product or "server" not in facts else identified(result, product=str(facts["server"]))


async def get(result: ServiceResult, dial: Dialler, path: str, limit: int) -> Answer:
    """Raises DialError where the answer is not HTTP."""
    request = f"GET {path} HTTP/1.0\r\nHost: {authority(result)}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\n\r\n"
    with await dial.open("tcp", result.tunnel) as stream:
        await stream.send(request.encode("latin-1", "replace"))
        return await _answer(stream, limit)


async def _answer(stream: Stream, limit: int) -> Answer:
    data = b""
    answer = None
    while len(data) < limit:
        try:
            more = await stream.recv(limit - len(data))
        except DialError:
            break
        data += more
        answer = parse(data)
        if answer is None:
            if more and len(data) < STATUS_LINE and b"\n" not in data:
                continue  # some write it in pieces
            break
        if answer.complete:
            break
        if not more:
            unmarked = not answer.headers.keys() & {b"content-length", b"transfer-encoding"}
            answer = answer._replace(complete=unmarked)
            break
    if answer is None:
        raise DialError("not HTTP")
    return answer


def icon_path(page: bytes) -> str:
    """Where the page says its icon is, if that is on the same server; else the usual place."""
    link = _ICON_LINK.search(page[:HEAD])
    href = _HREF.search(link[0]) if link else None
    path = text(href[1]) if href else ""
    if not path or ":" in path or path.startswith("//") or not path.isascii():
        return "/favicon.ico"
    return path if path.startswith("/") else "/" + path


def body(page: bytes) -> dict[str, Json]:
    return {
        "body_bytes": len(page),
        "body_mmh3": mmh3(page),
        "body_sha256": hashlib.sha256(page).hexdigest(),
    }


def favicon(path: str, icon: bytes) -> dict[str, Json]:
    return {
        "path": path,
        "bytes": len(icon),
        "mmh3": mmh3(base64.encodebytes(icon)),
        "md5": hashlib.md5(icon, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(icon).hexdigest(),
    }


def mmh3(data: bytes) -> int:
    """MurmurHash3, x86, 32 bit, seed 0, as a signed number."""
    digest = 0
    whole = len(data) & ~3
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        digest ^= _scramble(block)
        digest = ((digest << 13 | digest >> 19) * 5 + 0xE6546B64) & 0xFFFFFFFF
    digest ^= _scramble(int.from_bytes(data[whole:], "little")) ^ len(data)
    digest = (digest ^ digest >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    digest = (digest ^ digest >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    digest ^= digest >> 16
    return digest - (1 << 32) if digest >> 31 else digest


def _scramble(block: int) -> int:
    block = block * 0xCC9E2D51 & 0xFFFFFFFF
    return (block << 15 | block >> 17) * 0x1B873593 & 0xFFFFFFFF
