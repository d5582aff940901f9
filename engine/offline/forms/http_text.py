"""HTTP responses put together again from their parts, as zgrab2 keeps them.

`headers_raw` holds what was sent up to the body, where zgrab2 was told to keep it. Otherwise the headers are an object
in an order of its own, and their names are in lower case with `_` for `-`. Match lines ask for names as servers spell
them, so names are spelled as they are registered (IANA's HTTP Field Name Registry), or, unregistered, as the software
that sends them does; any other word is capitalised. Names that have capitals are left as they are.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from engine.offline.forms.base import from_base64

REGISTERED = """
    A-IM ALPN AMP-Cache-Transform Accept-CH C-PEP C-PEP-Info CDN-Cache-Control CDN-Loop CMCD-Object CMCD-Request
    CMCD-Session CMCD-Status CMSD-Dynamic CMSD-Static CTA-Common-Access-Token Content-DPR Content-ID Content-MD5
    Critical-CH DASL DAV DNT DPoP DPoP-Nonce DPR ECT EDIINT-Features ETag GetProfile HTTP2-Settings IM MIME-Version NEL
    OData-EntityId OData-Isolation OData-MaxVersion OData-Version OSCORE OSLC-Core-Version P3P PEP Pep-Info PICS-Label
    ProfileObject RTT SLUG SOAPAction Sec-CH-UA Sec-GPC Sec-WebSocket-Accept Sec-WebSocket-Extensions Sec-WebSocket-Key
    Sec-WebSocket-Protocol Sec-WebSocket-Version SourceMap Status-URI TCN TE TTL URI WWW-Authenticate
"""
CUSTOMARY = """
    CF-Cache-Status CF-RAY DAAP-Server DPAP-Server EXT MicrosoftSharePointTeamServices MS-Author-Via SPRequestGuid
    X-AspNet-Version X-AspNetMvc-Version X-CSRF-Token X-DNS-Prefetch-Control X-FEServer X-Hudson-CLI-Port
    X-MS-InvokeApp X-OWA-Version X-RateLimit-Limit X-RateLimit-Remaining X-RateLimit-Reset X-SSH-Endpoint
    X-UA-Compatible X-WebKit-CSP X-XRDS-Location X-XSS-Protection
"""
SPELLINGS = {name.lower(): name for name in (REGISTERED + CUSTOMARY).split()}
_VERSION = re.compile(r"[A-Z]{2,8}/\d{1,3}(?:\.\d{1,3})?")


def http_bytes(response: dict[str, Any]) -> bytes:
    """response: with a `status_code` that is a number; any other part may be missing or be of any kind."""
    return _above_the_body(response) + _body(response)


@lru_cache(1 << 10)
def spelled(name: str) -> str:
    """A header's name as servers write it, from the name with `_` for `-`."""
    if not name.islower():
        return name
    name = name.replace("_", "-")
    return SPELLINGS.get(name) or "-".join(part.capitalize() for part in name.split("-"))


def _above_the_body(response: dict[str, Any]) -> bytes:
    raw = from_base64(response.get("headers_raw"))
    if raw:
        return raw if raw.endswith((b"\n\r\n", b"\n\n")) else raw.rstrip(b"\r\n") + b"\r\n\r\n"
    return "\r\n".join([_status_line(response), *_headers(response.get("headers")), "", ""]).encode()


def _status_line(response: dict[str, Any]) -> str:
    status = str(response.get("status_line") or response["status_code"])
    if _VERSION.match(status):
        return status
    match response:
        case {"protocol": str(name) | {"name": str(name)}} if _VERSION.fullmatch(name):
            version = name
        case {"protocol": {"major": int(major), **rest}}:
            version = f"HTTP/{major}.{rest.get('minor', 0)}"
        case {"protocol_major": int(major), **rest}:
            version = f"HTTP/{major}.{rest.get('protocol_minor', 0)}"
        case _:
            version = "HTTP/1.1"
    return f"{version} {status}"


def _headers(headers: object) -> Iterator[str]:
    """headers: lists of values by name; those that zgrab2 has no name for as `unknown`, a list of `key` and `value`."""
    for name, values in headers.items() if isinstance(headers, dict) else ():
        if name == "unknown" and isinstance(values, list):
            pairs = [(str(item.get("key")), item.get("value")) for item in values if isinstance(item, dict)]
        else:
            pairs = [(name, values)]
        for key, texts in pairs:
            yield from (f"{spelled(key)}: {text}" for text in (texts if isinstance(texts, list) else [texts]))


def _body(response: dict[str, Any]) -> bytes:
    """A body that is no text is kept in base64, and `body_length` tells so."""
    text = str(response.get("body") or "")
    body = text.encode()
    length = response.get("body_length")
    if isinstance(length, int) and length != len(body):
        binary = from_base64(text)
        if binary is not None and len(binary) == length:
            return binary
    return body
