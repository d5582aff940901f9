"""A second opinion from Recog's fingerprints, on what the probe database left open.

Contract: `SecondOpinion.on(result, response)` gives the result with product, version, host name, operating system,
kind of device and CPE filled in where they were empty, and the fingerprint's name in the evidence; or the result as it
was. Nothing that a line of the database said is changed, an opinion on another product than the line's is not taken,
and nobody is contacted.
Source: what the fingerprint files say of the texts they match; the protocols' documents for where these texts stand.
"""

import logging
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from msgspec.structs import replace

from engine.conversation.fingerprint import responses
from engine.conversation.opinion import is_judged, judged
from engine.model import Also, Evidence, ServiceResult, Verdict
from engine.post.base import HEAD, identified, title
from matcher import Recog, RecogMatch, load_recog

log = logging.getLogger("probemill.recog")

Reading = tuple[str, bytes]
"""A text and its key, which says in Recog's words what the text is."""

SHOWN = 20  # skipped fingerprints that are named; the rest is counted
OPEN_VERDICTS = (Verdict.HARDMATCHED, Verdict.SOFTMATCHED, Verdict.NOMATCH)

_HEADERS = {
    b"HTTP/": {
        b"server": "http_header.server",
        b"www-authenticate": "http_header.wwwauth",
        b"x-powered-by": "http_header.x-powered-by",
        b"set-cookie": "http_header.cookie",
    },
    b"RTSP/": {b"server": "rtsp_header.server"},
    b"SIP/2": {b"server": "sip_header.server", b"user-agent": "sip_header.user_agent"},
}
_SSDP = {b"server": "ssdp_header.server"}
_SSH = re.compile(rb"SSH-[\d.]+-([^\r\n]*)")
_FIELD = re.compile(rb"\n([\w-]+)[ \t]*:[ \t]*([^\r\n]*)")
_REPLY = re.compile(rb"^220([ -]?)([^\r\n]*)", re.MULTILINE)
_POP3 = re.compile(rb"(?:\+OK|-ERR)[ \t]+([^\r\n]*)")
_IMAP = re.compile(rb"\* (?:OK|PREAUTH|BYE) (?:(\[[^\]\r\n]*\]) ?)?([^\r\n]*)")
_NNTP = re.compile(rb"20[01][ -]([^\r\n]*)")
_MYSQL = re.compile(rb".{3}\0(?:\x0a([^\0]{1,100})\0|\xff..([^\0]{1,512}))", re.DOTALL)
_TELNET_COMMAND = re.compile(rb"\xff(?:\xfa.*?\xff\xf0|[\xfb-\xfe].|.)", re.DOTALL)  # RFC 854
_SYS_DESCR = re.compile(rb"\x06\x08\x2b\x06\x01\x02\x01\x01\x01\0\x04")  # the object's name, then a string
_VERSION_BIND = re.compile(  # the end of the question, then the answer's name, type, class, time to live and sizes
    rb"\0\x10\0\x03(?:\xc0.|\x07version\x04bind\0)\0\x10\0\x03.{6}(.)", re.DOTALL | re.IGNORECASE
)
_NTP_CONTROL, _NTP_HEADER = 6, 12  # the mode, in the first byte's lowest bits; bytes before the variables

_SERVICES = {  # key -> the service that such a text proves
    "ssh.banner": "ssh",
    "http_header.server": "http",
    "http_header.wwwauth": "http",
    "http_header.x-powered-by": "http",
    "http_header.cookie": "http",
    "html_title": "http",
    "ssdp_header.server": "upnp",
    "rtsp_header.server": "rtsp",
    "sip_header.server": "sip",
    "sip_header.user_agent": "sip",
    "ftp.banner": "ftp",
    "smtp.banner": "smtp",
    "pop3.banner": "pop3",
    "imap4.banner": "imap",
    "nntp.banner": "nntp",
    "mysql.banners": "mysql",
    "mysql.error": "mysql",
    "telnet.banner": "telnet",
    "telnet_banners": "telnet",  # the same file before it had a key of its own
    "snmp.sys_description": "snmp",
    "ntp.readvar": "ntp",
    "dns.versionbind": "domain",
}
KEYS = frozenset((*_SERVICES, "favicon.md5", "x509.subject", "x509.issuer"))

# Words that many products share: they do not make two names the same product.
_COMMON = frozenset(
    {"and", "client", "daemon", "device", "directory", "dns", "ftp", "ftpd", "http", "httpd", "imap", "imapd", "linux"}
    | {"internet", "mail", "nntp", "ntp", "open", "pop", "pop3", "pop3d", "proxy", "rtsp", "rtspd", "secure", "server"}
    | {"service", "sip", "smtp", "smtpd", "snmp", "ssh", "sshd", "telnet", "telnetd", "the", "unix", "web", "windows"}
)
_WORD = re.compile(r"[a-z0-9]{2,}")


def _greeting(key: str) -> Callable[[bytes], Iterator[Reading]]:
    """Of a service that greets with code 220: each of its lines. Some files want the hyphen that goes on, too."""

    def readings(response: bytes) -> Iterator[Reading]:
        for mark, line in _REPLY.findall(response, 0, HEAD):
            yield key, line.rstrip()
            if mark == b"-":
                yield key, mark + line.rstrip()

    return readings


def _first(key: str, pattern: re.Pattern[bytes]) -> Callable[[bytes], Iterator[Reading]]:
    """Of a service that begins with one line: what the pattern's group holds."""

    def readings(response: bytes) -> Iterator[Reading]:
        if found := pattern.match(response):
            yield key, found[1].rstrip()

    return readings


def _imap(response: bytes) -> Iterator[Reading]:
    if found := _IMAP.match(response):
        yield "imap4.banner", found[2].rstrip()
        if found[1]:
            yield "imap4.banner", found[1] + b" " + found[2].rstrip()


def _mysql(response: bytes) -> Iterator[Reading]:
    if found := _MYSQL.match(response):
        yield ("mysql.banners", found[1]) if found[1] else ("mysql.error", found[2])


def _telnet(response: bytes) -> Iterator[Reading]:
    if text := _TELNET_COMMAND.sub(b"", response[:HEAD]).strip():
        yield "telnet.banner", text
        yield "telnet_banners", text


def _snmp(response: bytes) -> Iterator[Reading]:
    if (found := _SYS_DESCR.search(response)) and found.end() < len(response):
        at = found.end()
        size, at = response[at], at + 1
        if size >= 0x80:  # BER's long form: so many bytes of length follow
            size, at = int.from_bytes(response[at : at + size - 0x80], "big"), at + size - 0x80
        yield "snmp.sys_description", response[at : at + size]


def _ntp(response: bytes) -> Iterator[Reading]:
    if response[0] & 7 == _NTP_CONTROL:
        yield "ntp.readvar", response[_NTP_HEADER:].rstrip(b"\0")


def _domain(response: bytes) -> Iterator[Reading]:
    if found := _VERSION_BIND.search(response):
        yield "dns.versionbind", response[found.end() : found.end() + found[1][0]]


_BY_SERVICE: dict[str, Callable[[bytes], Iterator[Reading]]] = {
    "ftp": _greeting("ftp.banner"),
    "smtp": _greeting("smtp.banner"),
    "pop3": _first("pop3.banner", _POP3),
    "imap": _imap,
    "nntp": _first("nntp.banner", _NNTP),
    "mysql": _mysql,
    "telnet": _telnet,
    "snmp": _snmp,
    "ntp": _ntp,
    "domain": _domain,
}
_ALIASES = {"submission": "smtp", "smtps": "smtp", "ftps": "ftp", "pop3s": "pop3", "imaps": "imap", "nntps": "nntp"}


def readings(service: str, proto: str, response: bytes) -> Iterator[Reading]:
    """The texts of an answer that fingerprints know. What begins unmistakably is believed before the service's name."""
    if not response:
        return
    if banner := _SSH.match(response):
        yield "ssh.banner", banner[1].rstrip()
    elif headers := _HEADERS.get(response[:5]):
        yield from _head(_SSDP if proto == "udp" and response.startswith(b"HTTP/") else headers, response[:HEAD])
        if response.startswith(b"HTTP/") and (heading := title(response)):
            yield "html_title", heading.encode()
    elif known := _BY_SERVICE.get(_ALIASES.get(service, service)):
        yield from known(response)


def _head(keys: dict[bytes, str], response: bytes) -> Iterator[Reading]:
    """The headers that have a key, in the keys' order."""
    head = response.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    fields = [(name.lower(), value.rstrip()) for name, value in _FIELD.findall(head)]
    for wanted, key in keys.items():
        yield from ((key, value) for name, value in fields if name == wanted)


def _surroundings(result: ServiceResult) -> Iterator[Reading]:
    """The texts of what post-processing and the TLS handshake found."""
    post = result.post or {}
    if heading := post.get("http", {}).get("title"):
        yield "html_title", heading.encode()
    if digest := post.get("favicon", {}).get("md5"):
        yield "favicon.md5", digest.encode()
    if result.tls is not None:
        yield "x509.subject", result.tls.subject.encode()
        yield "x509.issuer", result.tls.issuer.encode()


class SecondOpinion:
    """Fingerprints at hand; holds nothing of the results it is asked about."""

    def __init__(self, recog: Recog) -> None:
        self._recog = recog

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        """The result with what was empty filled in. response: what the scan received last."""
        if (result.product and result.cpe) or result.verdict not in OPEN_VERDICTS:
            return result
        try:
            return self._best(result, response)
        except Exception:  # whatever a hostile answer does to a parser: the row goes on as it was
            return result

    def _best(self, result: ServiceResult, response: bytes) -> ServiceResult:
        """By the first text that gives the product, else by the first that gives anything."""
        best = result
        for key, text in self._readings(result, response):
            match = self._recog.identify(key, text)
            if match is None:
                continue
            filled = _filled(result, key, match)
            if filled is not result and filled.product:
                return filled
            if best is result:
                best = filled
        return best

    @staticmethod
    def _readings(result: ServiceResult, response: bytes) -> Iterator[Reading]:
        yield from readings(result.name, result.proto, response)
        if result.fingerprint:
            for copy in responses(result.fingerprint):
                yield from readings(result.name, result.proto, copy)
        yield from _surroundings(result)


class Beside:
    """What the fingerprints say of a result, beside it instead of in it."""

    def __init__(self, opinion: SecondOpinion) -> None:
        self._opinion = opinion

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        """The result with `also` and `reasons` as a second database would give them; as it was where nobody knows."""
        if result.also is not None or is_judged(result):
            return result
        bare = replace(result, product="", version="", cpe=())
        said = self._opinion.on(bare, response)
        if not said.product or said.evidence is None:
            return result
        source = said.evidence.recog
        also = Also(name=said.name, product=said.product, version=said.version, line=0, database="recog", recog=source)
        return judged(result, also, said.cpe)


@lru_cache(maxsize=2)
def open_opinion(folder: str) -> SecondOpinion:
    """The fingerprints of a folder, ready. Raises MatcherError. What had to be left out is said in one line."""
    recog = load_recog(Path(folder).expanduser(), KEYS)
    if recog.skipped:
        named = "; ".join(map(str, recog.skipped[:SHOWN]))
        more = f"; and {len(recog.skipped) - SHOWN} more" if len(recog.skipped) > SHOWN else ""
        log.info(
            "%s: %d fingerprints, %d skipped for their patterns: %s%s",
            folder,
            recog.size,
            len(recog.skipped),
            named,
            more,
        )
    return SecondOpinion(recog)


def _filled(result: ServiceResult, key: str, match: RecogMatch) -> ServiceResult:
    """The result with what the match says of its empty fields; the same object where that is nothing."""
    said = match.fields
    if result.product and not _same_product(result.product, said):
        return result
    changes = {name: value for name, value in _opinion(said).items() if value and not getattr(result, name)}
    cpe = _joined(result.cpe, said)
    if not changes and cpe == result.cpe:
        return result
    evidence = replace(result.evidence or Evidence("", 0), recog=match.source)
    filled = replace(identified(result, **changes), cpe=cpe, evidence=evidence)
    if "product" in changes and (result.method == "probed" or key in _SERVICES):
        return filled if result.method == "probed" else replace(filled, name=_SERVICES[key])
    return replace(filled, method=result.method, conf=result.conf, verdict=result.verdict, reason=result.reason)


def _opinion(said: dict[str, str]) -> dict[str, str]:
    """Nmap's fields out of Recog's. Where no software is named, the device is the product."""
    thing = "service" if _named(said, "service") else "hw"
    return {
        "product": _named(said, thing),
        "version": said.get(f"{thing}.version", ""),
        "hostname": said.get("host.name", ""),
        "ostype": _known(said, "os.product") or _known(said, "os.family"),
        "devicetype": _device(_known(said, "hw.device") or _known(said, "os.device")),
    }


def _known(said: dict[str, str], name: str) -> str:
    """A value that is one, and that the fingerprint stands by."""
    value = said.get(name, "")
    doubtful = said.get(name.partition(".")[0] + ".certainty") in ("0", "0.0")
    return "" if doubtful or value in ("Unknown", "General") else value


def _named(said: dict[str, str], thing: str) -> str:
    """The product with its vendor before it: many of Recog's products are called no more than `HTTPD`."""
    product, vendor = _known(said, thing + ".product"), _known(said, thing + ".vendor")
    return product if not product or vendor.lower() in product.lower() else f"{vendor} {product}"


def _device(kind: str) -> str:
    """As Nmap writes kinds of devices: `router`, but `WAP`."""
    return kind if kind.isupper() else kind.lower()


def _joined(cpe: tuple[str, ...], said: dict[str, str]) -> tuple[str, ...]:
    """One name for application, hardware and operating system each, the result's own first."""
    parts = {name[5]: name for name in cpe}
    for thing in ("service", "hw", "os"):
        name = _known(said, thing + ".cpe23") or _known(said, thing + ".cpe")
        if re.fullmatch(r"cpe:/[aho]:[\x21-\x7e]+", name):
            parts.setdefault(name[5], re.sub(r"(?::-?)+$", "", name))
    return tuple(parts[part] for part in "aho" if part in parts)


def _same_product(product: str, said: dict[str, str]) -> bool:
    """Whether the opinion is on the product that is known already: they share a word that means something."""
    thing = "service" if _named(said, "service") else "hw"
    words = _words(said, f"{thing}.product", f"{thing}.family") or _words(said, f"{thing}.vendor")
    return bool(words & set(_WORD.findall(product.lower())))


def _words(said: dict[str, str], *names: str) -> set[str]:
    return {word for name in names for word in _WORD.findall(said.get(name, "").lower())} - _COMMON
