"""What a cluster may be called until a person knows better: by a softmatch, its protocol's first words, a product.

Contract: a service name that a line of a database can hold, and a word that a file can be called.
"""

import re

from engine.insight.learn.shapes import Shape
from matcher.tools.aligned import Aligned

UNKNOWN = "unknown"
_LONGEST = 32
_OTHERS = re.compile(r"[^a-z0-9]+")
_GRAMMARS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), name)
    for pattern, name in (
        (rb"SSH-\d", "ssh"),
        (rb"HTTP/\d", "http"),
        (rb"RTSP/\d", "rtsp"),
        (rb"SIP/\d", "sip"),
        (rb"RFB \d", "vnc"),
        (rb"@RSYNCD:", "rsync"),
        (rb"\+OK ", "pop3"),
        (rb"\* (?:OK|PREAUTH) ", "imap"),
        (rb"220[ -].*smtp", "smtp"),
        (rb"220[ -].*ftp", "ftp"),
        (rb"20[01] .*(?:nntp|news)", "nntp"),
        (rb"(?::[^ ]+ )?NOTICE ", "irc"),
        (rb"<\?xml.*<stream:stream", "xmpp"),
        (rb"\xff[\xfb-\xfe]", "telnet"),
    )
)


def service_name(shape: Shape, response: bytes, made: Aligned) -> str:
    """The name of the service for its line. response: one of the cluster's."""
    soft = max(shape.softs, key=lambda name: (shape.softs[name], name), default="")
    if soft:
        return soft
    told = next((name for pattern, name in _GRAMMARS if pattern.match(response)), "")
    return told or slug(made.product.decode("latin-1")) or UNKNOWN


def file_name(service: str, product: str) -> str:
    """One word of both."""
    return slug(service if slug(service) == slug(product) else f"{service} {product}") or UNKNOWN


def slug(text: str) -> str:
    """Small letters, digits and single dashes; empty where there are none."""
    return _OTHERS.sub("-", text.lower())[:_LONGEST].strip("-")
