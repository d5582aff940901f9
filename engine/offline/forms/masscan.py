"""masscan's records with banners, one banner each (-oD) or with a list of ports (-oJ).

Its banners are text with one character per byte. Of some services they are what was received; of the others a text
that masscan made up from it (certificates, titles, versions), which no match line reads.
"""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Raw

from engine.offline.forms.base import Item, Nothing, Record, Row, latin1_bytes, value
from engine.targets import Unreadable

PROBES = {  # service -> probes its question resembles, best first
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
_entries = msgspec.json.Decoder(list[Raw]).decode
_NULL = Raw(b"null")


def banner_rows(record: Record, proto: str, data: Mapping[str, Raw]) -> Iterator[Item]:
    """A record of -oD. data: the members of its `data`."""
    yield _item(proto, value(data.get("service_name", _NULL)), value(data.get("banner", _NULL)), record, None)


def port_rows(record: Record, ports: Raw) -> Iterator[Item]:
    """A record of -oJ. ports: its list of ports, each with a `service` that has a name and a banner."""
    try:
        entries = _entries(ports)
    except (msgspec.DecodeError, RecursionError):
        raise Unreadable("'ports' is not a list") from None
    if not entries:
        yield Nothing.SILENT
    for text in entries:
        match value(text):
            case {"service": {"banner": banner, **service}, **entry}:
                only = {"ports": b"[%b]" % bytes(text)} if len(entries) > 1 else None
                yield _item(entry.get("proto"), service.get("name"), banner, record, only)
            case _:
                yield Nothing.SILENT


def _item(proto: object, service: object, banner: object, record: Record, changes: Mapping[str, bytes] | None) -> Item:
    if not isinstance(banner, str) or not banner:
        return Nothing.SILENT
    probes = PROBES.get(str(service or ""))
    if probes is None:
        return Nothing.DERIVED
    return Row(str(proto or "tcp").lower(), probes, latin1_bytes(banner), record.head(changes))
