"""Who a Windows server says it is, by NTLM: names, domain, build, clock, over RDP, mail, news or HTTP. No credentials.

One connection, in which a login is begun and not gone on with: the server's CHALLENGE comes before anybody has to name
himself. Over HTTP it may take two, one for each scheme that NTLM goes by; over SMTP the question goes into TLS where
the server wants it so.

Source: [MS-NLMP] and base_ntlm.py (messages); [MS-CSSP] 2.2.1 (RDP), [MS-SMTPNTLM], [MS-OXIMAP] and RFC 9051 (IMAP),
[MS-POP3] and RFC 5034, [MS-NNTP] (AUTHINFO GENERIC), [MS-NTHT] and RFC 4559 (HTTP).
"""

import base64
import re
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from engine.model import ServiceResult, Tunnel
from engine.post.base import HEAD, authority, noted
from engine.post.base_ntlm import NEGOTIATE, challenge_facts
from engine.post.base_rdp import NLA, negotiate
from engine.transports.certificates import tls_facts
from engine.transports.dial import DialError, Dialler, Stream

LINE = 4096  # bytes; a CHALLENGE in base64 has some 400
LINES = 64  # of one reply
LARGEST = 8192  # bytes of a TSRequest
TOKEN = base64.b64encode(NEGOTIATE)
HTTP = ("http", "https", "http-alt", "https-alt", "soap", "webdav")
SCHEMES = ("NTLM", "Negotiate")

_LAST = re.compile(rb"\+|-|a |\d{3} ")  # begins the last line of a reply: IMAP's and POP3's; SMTP's and NNTP's
_OFFER = re.compile(rb"^250[- ]AUTH\b[^\n]*\bNTLM\b", re.IGNORECASE | re.MULTILINE)
_CHALLENGED = re.compile(
    rb"^www-authenticate[ \t]*:[ \t]*(?:ntlm|negotiate)\b[ \t]*([\w+/=]*)", re.IGNORECASE | re.MULTILINE
)


async def _reply(stream: Stream) -> bytes:
    """All lines of one; the last is the one that counts."""
    reply = b""
    for _ in range(LINES):
        line = await stream.until(b"\n", LINE)
        reply += line
        if _LAST.match(line):
            return reply
    raise DialError("an endless reply")


async def _asked(stream: Stream, command: bytes) -> bytes:
    await stream.send(command)
    return await _reply(stream)


async def _login(command: bytes, prefix: bytes, stream: Stream) -> bytes:
    """Begin it with a command, and give what answers to the token, decoded; empty where the command is refused.

    prefix: what stands before the token. Raises ValueError for what is not base64.
    """
    if not _last(await _asked(stream, command)).startswith((b"+", b"3")):
        return b""
    answer = _last(await _asked(stream, prefix + TOKEN + b"\r\n")).split()
    return base64.b64decode(answer[1]) if len(answer) == 2 and answer[0].startswith((b"+", b"3")) else b""


def _last(reply: bytes) -> bytes:
    return reply.splitlines()[-1]


async def _greeted(command: bytes, prefix: bytes, stream: Stream) -> bytes:
    await stream.until(b"\n", LINE)
    return await _login(command, prefix, stream)


async def _smtp(stream: Stream) -> bytes:
    await _reply(stream)
    offers = await _asked(stream, b"EHLO probemill\r\n")
    if not _OFFER.search(offers) and b"STARTTLS" in offers.upper() and stream.session is None:
        if not _last(await _asked(stream, b"STARTTLS\r\n")).startswith(b"220"):
            return b""
        await stream.start_tls()
        offers = await _asked(stream, b"EHLO probemill\r\n")
    return await _login(b"AUTH NTLM\r\n", b"", stream) if _OFFER.search(offers) else b""


async def _rdp(stream: Stream) -> bytes:
    if (await negotiate(stream, NLA)).protocol != NLA:
        return b""
    await stream.start_tls()
    await stream.send(TS_REQUEST)
    head = await stream.exactly(2)
    size = head[1]
    if size & 0x80:
        size = int.from_bytes(await stream.exactly(size & 0x7F), "big")
    if size > LARGEST:
        raise DialError("no TSRequest")
    return await stream.exactly(size)


async def _http(result: ServiceResult, dial: Dialler) -> bytes:
    """Raises DialError for what is not HTTP, ValueError for what is not base64."""
    for scheme in SCHEMES:
        request = f"GET / HTTP/1.1\r\nHost: {authority(result)}\r\nAuthorization: {scheme} {TOKEN.decode()}\r\n\r\n"
        with await dial.open("tcp", result.tunnel) as stream:
            await stream.send(request.encode("latin-1", "replace"))
            head = await stream.until(b"\r\n\r\n", HEAD)
        if not head.startswith(b"HTTP/"):
            raise DialError("not HTTP")
        tokens = _CHALLENGED.findall(head)
        if token := max(tokens, key=len, default=b""):
            return base64.b64decode(token)
        if not tokens:
            break
    return b""


def _der(tag: int, value: bytes) -> bytes:
    assert len(value) < 0x80
    return bytes((tag, len(value))) + value


_SEQUENCE, _OCTETS, _INTEGER, _VERSION, _TOKENS = 0x30, 0x04, 0x02, 0xA0, 0xA1
TS_REQUEST = _der(
    _SEQUENCE,
    _der(_VERSION, _der(_INTEGER, b"\x06"))
    + _der(_TOKENS, _der(_SEQUENCE, _der(_SEQUENCE, _der(0xA0, _der(_OCTETS, NEGOTIATE))))),
)
DIALOGUES: dict[str, Callable[[Stream], Awaitable[bytes]]] = {
    "ms-wbt-server": _rdp,
    "smtp": _smtp,
    "imap": partial(_greeted, b"a AUTHENTICATE NTLM\r\n", b""),
    "pop3": partial(_greeted, b"AUTH NTLM\r\n", b""),
    "nntp": partial(_greeted, b"AUTHINFO GENERIC NTLM\r\n", b"AUTHINFO GENERIC "),
}


class Ntlm:
    """An Asker."""

    name = "ntlm"
    services = frozenset((*DIALOGUES, *HTTP))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp" and (result.name != "ms-wbt-server" or result.tunnel is Tunnel.NONE)

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        if result.name in HTTP:
            facts = challenge_facts(await _http(result, dial))
        else:
            with await dial.open("tcp", result.tunnel) as stream:
                facts = challenge_facts(await DIALOGUES[result.name](stream))
                if stream.session is not None and result.tls is None:
                    result = replace(result, tls=tls_facts(stream.session, result.host))
        return noted(result, self.name, {"offered": False} if facts is None else {"offered": True} | facts)
