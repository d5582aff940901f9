"""What post-processing modules have in common: the two interfaces, and how they write down what they found.

A `Reader` looks at what the scan has received already and contacts nobody. An `Asker` holds one more short
conversation. Either takes a result and gives it back, enriched or as it was; either may raise on whatever bytes a peer
sends, and then the result stays as it was.

Nothing gets into a row but through `noted` and `identified`, which let through only what every sink can write: text fit
to be shown, numbers of 64 bits, and no more of it than a row can bear.
"""

import codecs
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from engine.model import Json, ServiceResult, Tunnel, Verdict
from engine.text import one_line
from engine.transports.dial import Dialler

CAPACITY = {"product": 79, "version": 79, "hostname": 79, "extrainfo": 255, "ostype": 31, "devicetype": 31}  # Nmap's
TEXT = 256  # characters of a text from the network that is kept under `post`
HEAD = 16384  # bytes of an answer's header, and of its page, that are looked at
LARGEST = 16384  # bytes of all that a row has under `post`, as JSON
DEEPEST = 8  # lists and objects within each other
AGENT = "Mozilla/5.0 (compatible; probemill)"  # what we say we are, to web servers
ONLY_HTTP2 = "HTTP/2"  # extrainfo of a server that was heard to speak nothing else
EVERY = frozenset(("*",))  # of a module that looks at every service
INT64 = range(-(1 << 63), 1 << 63)

_TITLE = re.compile(rb"<title\b[^>]{0,200}>([^<]{0,1000})<", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_encode = msgspec.json.Encoder().encode


class Module(Protocol):
    """services: the names it looks at, or EVERY.

    undetermined: whether it looks at open ports that nothing recognised, too.
    """

    @property
    def name(self) -> str: ...

    @property
    def services(self) -> frozenset[str]: ...

    @property
    def undetermined(self) -> bool: ...

    def applies(self, result: ServiceResult) -> bool:
        """Whether it has something to do, for a result of one of its services, or undetermined. Cheap."""
        ...


class Reader(Module, Protocol):
    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        """response: what came back for the scan's last probe."""
        ...


class Asker(Module, Protocol):
    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult: ...


def noted(result: ServiceResult, name: str, facts: Json) -> ServiceResult:
    """The result with `facts` under `post`, added to what stands there under this name.

    Raises ValueError for what no row may hold, and for more than it may hold.
    """
    post = dict(result.post or {})
    facts = _fit(facts, DEEPEST)
    if isinstance(facts, Mapping):
        facts = {**post.get(name, {}), **facts}
    post[name] = facts
    if len(_encode(post)) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes under post")
    return replace(result, post=post)


def _fit(value: Json, depth: int) -> Json:
    """The value with its texts made fit to be shown. Raises ValueError for what has no place in a row."""
    kind = type(value)
    if kind is str:
        return value if value.isprintable() else one_line(value, LARGEST)
    if value is None or kind is bool or (kind is int and value in INT64) or (kind is float and isfinite(value)):
        return value
    if depth:
        if kind is dict:
            return {_fit(str(key), 0): _fit(item, depth - 1) for key, item in value.items()}
        if kind is list:
            return [_fit(item, depth - 1) for item in value]
    raise ValueError(f"no {kind.__name__} like this in a row")


def identified(result: ServiceResult, **fields: str) -> ServiceResult:
    """The result as a match would have given it, with these of Nmap's fields set: printable, and no longer than his."""
    cut: dict[str, Any] = {
        name: _UNPRINTABLE.sub(".", value)[: CAPACITY.get(name)].strip() for name, value in fields.items()
    }
    return replace(result, method="probed", conf=10, verdict=Verdict.HARDMATCHED, reason=None, **cut)


def text(data: bytes, limit: int = TEXT) -> str:
    """Bytes of unknown encoding as one line of printable text: UTF-8 where it is, else Latin-1."""
    start = data[: 4 * limit]
    try:
        decoded, _ = codecs.utf_8_decode(start, "strict", len(start) == len(data))  # a character may be cut
    except UnicodeDecodeError:
        decoded = start.decode("latin-1")
    return one_line(decoded, limit)


def heading(page: bytes) -> bytes:
    """What stands in a page's <title>; empty without one, or where it is cut."""
    found = _TITLE.search(page, 0, HEAD)
    return found[1] if found else b""


def title(page: bytes) -> str:
    """The same as one line of text."""
    return text(heading(page))


def authority(result: ServiceResult) -> str:
    """The host of a request, with the port where it is not the usual one."""
    host = result.host or (f"[{result.ip}]" if ":" in result.ip else result.ip)
    default = 443 if result.tunnel is Tunnel.SSL or result.proto == "udp" else 80
    return f"{host}:{result.port}" if result.port != default else host
