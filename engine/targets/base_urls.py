"""URLs, which are no targets but come close: scheme, host and port of one, and what to write instead.

A URL names a page, and its scheme says what is believed to be there; a target is a host and a port, and the scan finds
out. So a URL among plain targets is refused with the target that was probably meant.
"""

import re

from msgspec import Struct

from engine.targets.base_hosts import canonical_address
from engine.targets.base_ports import Proto, Unreadable, parse_port, quoted

# Usual ports by scheme: RFC 3986's registry of schemes and the registries of the protocols.
_TCP = {
    "amqp": 5672, "amqps": 5671, "dict": 2628, "finger": 79, "ftp": 21, "ftps": 990, "git": 9418, "gopher": 70,
    "http": 80, "https": 443, "imap": 143, "imaps": 993, "ipp": 631, "ipps": 631, "irc": 6667, "ircs": 6697,
    "ldap": 389, "ldaps": 636, "mongodb": 27017, "mqtt": 1883, "mqtts": 8883, "mssql": 1433, "mysql": 3306, "nfs": 2049,
    "nntp": 119, "nntps": 563, "pop": 110, "pop3": 110, "pop3s": 995, "postgres": 5432, "postgresql": 5432, "rdp": 3389,
    "redis": 6379, "rediss": 6379, "rsync": 873, "rtmp": 1935, "rtsp": 554, "rtsps": 322, "scp": 22, "sftp": 22,
    "sips": 5061, "smb": 445, "smtp": 25, "smtps": 465, "ssh": 22, "submission": 587, "svn": 3690, "telnet": 23,
    "telnets": 992, "vnc": 5900, "ws": 80, "wss": 443, "xmpp": 5222,
}  # fmt: skip
_UDP = {"coap": 5683, "dns": 53, "ntp": 123, "quic": 443, "sip": 5060, "snmp": 161, "syslog": 514, "tftp": 69}
_ENDS_AUTHORITY = re.compile(r"[/?#\\]")
_NO_PORT = "PORT"


class Url(Struct, frozen=True):
    """scheme: lower case, may be empty; host: without brackets; port: as it is written, empty where there is none."""

    scheme: str
    host: str
    port: str

    @property
    def proto(self) -> Proto:
        return "udp" if self.scheme == "udp" or self.scheme in _UDP else "tcp"

    @property
    def usual_port(self) -> int | None:
        """Of the scheme."""
        return _TCP.get(self.scheme) or _UDP.get(self.scheme)


def is_url(text: str) -> bool:
    return "://" in text or text.startswith("//")


def parse_url(text: str) -> Url:
    """The parts of `scheme://user:password@host:port/path`, of which only the host must be there. Never raises."""
    scheme, is_full, rest = text.partition("://")
    if not is_full:
        scheme, rest = "", text.removeprefix("//")
    authority = _ENDS_AUTHORITY.split(rest, maxsplit=1)[0].rpartition("@")[2]
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
    elif authority.count(":") > 1:  # IPv6 that somebody forgot to put into brackets
        host, port = authority, ""
    else:
        host, _, port = authority.partition(":")
    return Url(scheme.lower(), host.replace("%25", "%"), port.removeprefix(":"))


def instead_of(text: str) -> str:
    """Why a URL is refused, and what to write for it."""
    url = parse_url(text)
    if not url.host:
        return f"a URL is no target, and {quoted(text)} names no host: write HOST:PORT"
    host = f"[{url.host}]" if ":" in canonical_address(url.host) else url.host if url.host.isprintable() else "HOST"
    port, why = url.port, ""
    if not port:
        port = str(url.usual_port or _NO_PORT)
    else:
        try:
            port = str(parse_port(port))
        except Unreadable as reason:
            port, why = _NO_PORT, f" ({reason})"
    suffix = "/udp" if url.proto == "udp" else ""
    return f"a URL is no target: write {host[:80]}:{port}{suffix}{why}"
