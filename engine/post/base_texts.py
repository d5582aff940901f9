"""Which texts of an answer, and of a row, Recog's fingerprints know: each with its key, in Recog's words.

Contract: `readings(service, proto, response)` yields the texts of what a service said, `surroundings(result)` those of
what post-processing and the TLS handshake found. What begins unmistakably is believed before the service's name.
Source: the comments in Recog's files for what a key means; the protocols' documents for where these texts stand.
"""

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby

from engine.model import ServiceResult
from engine.post import base_records as records
from engine.post.base import HEAD, heading, title
from engine.post.base_records import Reading

SERVICES = {  # key -> the service that such a text proves; empty: the one that the row names
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
    "smtp_help": "smtp",
    "smtp_ehlo": "smtp",
    "smtp_quit": "smtp",
    "pop3.banner": "pop3",
    "imap4.banner": "imap",
    "nntp.banner": "nntp",
    "mysql.banners": "mysql",
    "mysql.error": "mysql",
    "telnet.banner": "telnet",
    "telnet_banners": "telnet",  # the same file before it had a key of its own
    "snmp.sys_description": "snmp",
    "snmp.sys_object_id": "snmp",
    "ntp.readvar": "ntp",
    "dns.versionbind": "domain",
    "mdns.device-info.txt": "mdns",
    "mdns.workstation.txt": "mdns",
    "ldap.search_result": "ldap",
    "x11.vendor": "X11",
    "smb.native_os": "",
    "smb.native_lm": "",
    "rsh_resp": "",
    "hp_pjl_id": "",
    "dhcp_vendor_class": "",
}
# What tells of the system or of the device, whichever product the service is.
OF_THE_SYSTEM = frozenset(
    {"apache_os", "operating_system.name", "smb.native_os", "mdns.device-info.txt", "hp_pjl_id"}
    | {"snmp.sys_description", "snmp.sys_object_id"}
)
APACHE_OS, APACHE_MODULES = "apache_os", "apache_modules"
KEYS = frozenset((*SERVICES, *OF_THE_SYSTEM, APACHE_MODULES, "favicon.md5", "tls.jarm", "x509.subject", "x509.issuer"))

MODULES = 32  # of a Server header that are looked at

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
_SMTP_REPLY = re.compile(rb"^(2(?!20)\d\d|50\d)[ -][^\r\n]*", re.MULTILINE)
_SMTP_KEYS = {  # by the reply's code: what it may be an answer to
    b"214": ("smtp_help",),
    b"221": ("smtp_quit",),
    b"241": ("smtp_help",),
    b"500": ("smtp_ehlo", "smtp_help"),
    b"502": ("smtp_help",),
}
_POP3 = re.compile(rb"(?:\+OK|-ERR)[ \t]+([^\r\n]*)")
_IMAP = re.compile(rb"\* (?:OK|PREAUTH|BYE) (?:(\[[^\]\r\n]*\]) ?)?([^\r\n]*)")
_NNTP = re.compile(rb"20[01][ -]([^\r\n]*)")
_MYSQL = re.compile(rb".{3}\0(?:\x0a([^\0]{1,100})\0|\xff..([^\0]{1,512}))", re.DOTALL)
_PJL = re.compile(rb"@PJL INFO ID[ \t]*\r?\n\"?([^\"\r\n]+)")
_TELNET_COMMAND = re.compile(rb"\xff(?:\xfa.*?\xff\xf0|[\xfb-\xfe].|.)", re.DOTALL)  # RFC 854
_NTP_CONTROL, _NTP_HEADER = 6, 12  # the mode, in the first byte's lowest bits; bytes before the variables

_RELATIVE_NAME = re.compile(r"(?:[^,\\]|\\.)+", re.DOTALL)  # of a distinguished name
_NAMED = {"2.5.4.5": "SERIALNUMBER", "2.5.4.17": "POSTALCODE"}
_NUMBERED = re.compile(r"[\d.]+")
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_PRINTABLE_STRING, _UTF8_STRING = 0x13, 0x0C
_MANY = frozenset(("O", "OU", "L", "ST", "C", "STREET", "POSTALCODE"))  # kinds whose values are joined


def _lines(key: str) -> Callable[[bytes], Iterator[Reading]]:
    """Of a service that greets with code 220: each of its lines. Some files want the hyphen that goes on, too."""

    def readings(response: bytes) -> Iterator[Reading]:
        for mark, line in _REPLY.findall(response, 0, HEAD):
            yield key, line.rstrip()
            if mark == b"-":
                yield key, mark + line.rstrip()

    return readings


def _first(key: str, pattern: re.Pattern[bytes]) -> Callable[[bytes], Iterator[Reading]]:
    """Of a service whose answer is one line: what the pattern's group holds."""

    def readings(response: bytes) -> Iterator[Reading]:
        if found := pattern.match(response):
            yield key, found[1].rstrip()

    return readings


def _whole(key: str) -> Callable[[bytes], Iterator[Reading]]:
    def readings(response: bytes) -> Iterator[Reading]:
        yield key, response

    return readings


def _smtp(response: bytes) -> Iterator[Reading]:
    """The greeting, then what came to further commands, with its code."""
    yield from _lines("smtp.banner")(response)
    for found in _SMTP_REPLY.finditer(response, 0, HEAD):
        yield from ((key, found[0].rstrip()) for key in _SMTP_KEYS.get(found[1], ()))


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


def _ntp(response: bytes) -> Iterator[Reading]:
    if response[0] & 7 == _NTP_CONTROL:
        yield "ntp.readvar", response[_NTP_HEADER:].rstrip(b"\0")


_BY_SERVICE: dict[str, Callable[[bytes], Iterator[Reading]]] = {
    "ftp": _lines("ftp.banner"),
    "smtp": _smtp,
    "pop3": _first("pop3.banner", _POP3),
    "imap": _imap,
    "nntp": _first("nntp.banner", _NNTP),
    "mysql": _mysql,
    "telnet": _telnet,
    "snmp": records.snmp,
    "ntp": _ntp,
    "domain": records.domain,
    "mdns": records.mdns,
    "ldap": _whole("ldap.search_result"),
    "X11": records.x11,
    "smb": records.smb,
    "rsh": _whole("rsh_resp"),
    "hp-pjl": _first("hp_pjl_id", _PJL),
    "dhcps": records.dhcp,
}
_ALIASES = {
    **{"submission": "smtp", "smtps": "smtp", "ftps": "ftp", "pop3s": "pop3", "imaps": "imap", "nntps": "nntp"},
    **{"microsoft-ds": "smb", "netbios-ssn": "smb", "login": "rsh", "shell": "rsh", "exec": "rsh", "x11": "X11"},
    **{"zeroconf": "mdns", "jetdirect": "hp-pjl", "dhcp": "dhcps", "ldapssl": "ldap", "ldaps": "ldap"},
}


def readings(service: str, proto: str, response: bytes) -> Iterator[Reading]:
    """The texts of an answer; of one that breaks off within a record, those before."""
    if not response:
        return
    if banner := _SSH.match(response):
        yield "ssh.banner", banner[1].rstrip()
    elif headers := _HEADERS.get(response[:5]):
        yield from _head(_SSDP if proto == "udp" and response.startswith(b"HTTP/") else headers, response[:HEAD])
        if response.startswith(b"HTTP/"):
            yield from _title(response)
    elif known := _BY_SERVICE.get(_ALIASES.get(service, service)):
        with suppress(IndexError, struct.error):
            yield from known(response)


def _head(keys: dict[bytes, str], response: bytes) -> Iterator[Reading]:
    """The headers that have a key, in the keys' order."""
    head = response.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    fields = [(name.lower(), value.rstrip()) for name, value in _FIELD.findall(head)]
    for wanted, key in keys.items():
        for value in (value for name, value in fields if name == wanted):
            yield key, value
            if key == "http_header.server" and b"apache" in value.lower():
                yield APACHE_OS, value
                yield from ((APACHE_MODULES, module) for module in value.split(maxsplit=MODULES)[1:MODULES])


def _title(page: bytes) -> Iterator[Reading]:
    """A page's title in UTF-8, as it stands there, and if that is another text, with its white space folded."""
    if written := heading(page):
        try:
            written.decode()
        except UnicodeDecodeError:
            written = written.decode("latin-1").encode()
        yield "html_title", written
        if (folded := title(page).encode()) != written:
            yield "html_title", folded


def surroundings(result: ServiceResult) -> Iterator[Reading]:
    """The texts that are not in the answer itself."""
    post = result.post or {}
    if found := post.get("http", {}).get("title"):
        yield "html_title", found.encode()
    if digest := post.get("favicon", {}).get("md5"):
        yield "favicon.md5", digest.encode()
    if isinstance(jarm := post.get("jarm"), str):
        yield "tls.jarm", jarm.encode()
    if result.tls is not None:
        yield from (("x509.subject", name.encode()) for name in _names(result.tls.subject))
        yield from (("x509.issuer", name.encode()) for name in _names(result.tls.issuer))
    if result.ostype:
        yield "operating_system.name", result.ostype.encode()


def _names(name: str) -> tuple[str, ...]:
    """A distinguished name of RFC 4514 as Recog writes it, and as it stands in the row where that is another text."""
    written = distinguished_name(name)
    return (written,) if written == name else (written, name)


def distinguished_name(name: str) -> str:
    """A name of RFC 4514 as Recog writes it.

    Serial numbers are named; values of kinds without a name are hexadecimal DER; values of one kind that follow each
    other are joined by a plus sign, in the certificate's order, which RFC 4514 turns round.
    """
    kinds = [_attribute(part).partition("=") for part in _RELATIVE_NAME.findall(name)]
    parts: list[str] = []
    for kind, group in groupby(kinds, lambda part: part[0]):
        written = ["".join(part) for part in group]
        parts += ["+".join(reversed(written))] if kind in _MANY else written
    return ",".join(parts)


def _attribute(part: str) -> str:
    kind, equals, value = part.partition("=")
    if kind in _NAMED:
        return _NAMED[kind] + equals + value
    if not _NUMBERED.fullmatch(kind) or value.startswith("#"):
        return part
    plain = re.sub(r"\\(.)", r"\1", value)
    data = plain.encode()
    tag = _PRINTABLE_STRING if _PRINTABLE.fullmatch(plain) else _UTF8_STRING
    size = bytes((len(data),)) if len(data) < 0x80 else b"\x82" + len(data).to_bytes(2, "big")
    return f"{kind}=#{(bytes((tag,)) + size + data).hex()}"
