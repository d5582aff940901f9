"""Shodan's banners: `data` is text, and `_shodan` or `ip_str` tell them from rows of ours, whose `data` is base64.

Bytes that are no text stand in `data` as `\\xHH`. What a UDP service sent stands in `opts.raw`, in hexadecimal; its
`data` is a text about it. The body of an HTTP response stands in `http.html`, apart from its headers. A host with a
list of banners in `data` is read as these banners.
"""

import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from engine.offline.forms.base import Item, Nothing, Record, Row, from_hex, latin1_bytes, value
from engine.targets import Unreadable

QUESTIONS = {  # crawler -> the probe that asks what it asks
    "dns-tcp": "DNSVersionBindTCP",
    "dns-udp": "DNSVersionBind",
    "http": "GetRequest",
    "https": "GetRequest",
    "ntp": "NTPReadVar",
    "redis": "RedisInfo",
    "rtsp-tcp": "RtspOptions",
    "snmp": "SNMPv1Public",
}
NULL = Raw(b"null")
_ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})")


class _Banner(Struct):
    shodan: Raw = msgspec.field(name="_shodan", default=NULL)
    ip_str: Raw = NULL
    data: str | list[Raw] | None = None
    transport: str = "tcp"
    http: Raw = NULL
    opts: Raw = NULL
    match: Raw = NULL


_banner = msgspec.json.Decoder(_Banner).decode


def rows(line: bytes | Raw) -> Iterator[Item] | None:
    """None where the record is none of Shodan's."""
    try:
        banner = _banner(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    return None if banner.shodan is NULL and banner.ip_str is NULL else _rows(banner, line)


def _rows(banner: _Banner, line: bytes | Raw) -> Iterator[Item]:
    if isinstance(banner.data, list):
        if not banner.data:
            yield Nothing.SILENT
        for text in banner.data:
            yield from rows(text) or (Unreadable("a banner in 'data' is none of Shodan's"),)
        return
    shodan, http, opts = value(banner.shodan), value(banner.http), value(banner.opts)
    raw = from_hex(opts.get("raw")) if isinstance(opts, dict) else None
    if raw is None and not banner.data:
        yield Nothing.SILENT
        return
    if raw is None and banner.transport == "udp":
        yield Nothing.DERIVED
        return
    said = raw if raw is not None else _bytes(banner.data or "")
    question = QUESTIONS.get(str(shodan.get("module")), "NULL") if isinstance(shodan, dict) else "NULL"
    if isinstance(http, dict) and said.startswith(b"HTTP/"):
        question = "GetRequest"
        said += str(http.get("html") or "").encode()
    probes = (question,) if question == "NULL" else (question, "NULL")
    yield Row(banner.transport.lower(), probes, said, Record(line, banner.match is not NULL).head())


def _bytes(text: str) -> bytes:
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), latin1_bytes(text))
