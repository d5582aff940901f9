"""Whether a port speaks both TLS and something in the clear: by a multiplexer, or a server that tells the two apart.

A scan finds one of them and stops there. This asks for the other, on one connection: a service in TLS is sent a request
of HTTP in the clear, and any other a ClientHello. Where a line called a service TLS by its words in the clear, and
nobody has shaken its hand, both are done. Much of what answers in the clear only says that TLS is wanted: an alert, an
HTTP error, a redirection; that is told apart.

Source: RFC 9112 (the request), RFC 8446 section 6 (alerts); what nginx, Apache and Go answer to HTTP on a TLS port.
"""

import re

from msgspec.structs import replace

from engine.model import Json, ServiceResult, TlsFacts, Tunnel, Verdict
from engine.post.base import EVERY, noted, text
from engine.transports.certificates import tls_facts
from engine.transports.dial import DialError, Dialler, DialTimeoutError

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
ANSWER = 4096  # bytes
SILENCE_S = 1.0
SAYS = 80  # characters of an answer that is none of the known ones

_HTTP = re.compile(rb"HTTP/\d\.\d (\d{3})\b")
_ERRORS = frozenset((b"400", b"403", b"426", b"497"))  # with which a request in the clear is refused
_OF_TLS = re.compile(rb"https|\bssl\b|\btls\b|ssl-enabled", re.IGNORECASE)
_TO_TLS = re.compile(rb"\nlocation[ \t]*:[ \t]*https://", re.IGNORECASE)
_ALERTED = re.compile("ALERT|TLSV1_")  # OpenSSL's names of alerts, some of which do not say that they are one
_ALERT = re.compile(rb"\x15\x03[\0-\x04]\0\x02[\x01\x02](.)", re.DOTALL)


class Sharing:
    """An Asker."""

    name = "sharing"
    services = EVERY
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        called_tls = result.tunnel is Tunnel.SSL or result.name == "ssl"
        facts: dict[str, Json] = {}
        if called_tls:
            facts = await _in_the_clear(dial)
        elif result.verdict is not Verdict.NOMATCH:
            facts["plain"] = result.name
        if called_tls and result.tls is not None:
            return noted(result, self.name, {"tls": True, **facts})
        shaken, found = await _in_tls(dial, result)
        return replace(noted(result, self.name, {**shaken, **facts}), tls=result.tls or found)


async def _in_tls(dial: Dialler, result: ServiceResult) -> tuple[dict[str, Json], TlsFacts | None]:
    """Whether hands can be shaken, and what that tells; nothing where nobody says no."""
    with await dial.open("tcp") as stream:
        try:
            await stream.start_tls()
        except DialTimeoutError:
            return {}, None  # it may be slow
        except DialError as error:
            if _ALERTED.search(str(error)):  # which nothing says that does not speak TLS
                return {"tls": True, "error": text(str(error).encode())}, None
            return {"tls": False}, None
        assert stream.session is not None
        return {"tls": True}, tls_facts(stream.session, result.host)


async def _in_the_clear(dial: Dialler) -> dict[str, Json]:
    """What answers to a request without TLS; nothing where nobody does."""
    with await dial.open("tcp") as stream:
        await stream.send(REQUEST)
        return told(await stream.everything(ANSWER, SILENCE_S))


def told(answer: bytes) -> dict[str, Json]:
    """plain: what spoke, `http ssh alert text binary`; status, alert: its number; wants_tls: nothing but that."""
    if alert := _ALERT.match(answer):
        return {"plain": "alert", "alert": alert[1][0], "wants_tls": True}
    if http := _HTTP.match(answer):
        facts: dict[str, Json] = {"plain": "http", "status": int(http[1])}
        if (http[1] in _ERRORS and _OF_TLS.search(answer)) or (http[1][:1] == b"3" and _TO_TLS.search(answer)):
            facts["wants_tls"] = True
        return facts
    if answer.startswith(b"SSH-"):
        return {"plain": "ssh"}
    line = answer[: 4 * SAYS].splitlines()[0] if answer else b""
    if line and not re.search(rb"[\0-\x08\x0e-\x1f]", line):
        return {"plain": "text", "says": text(line, SAYS)}
    return {"plain": "binary"} if answer else {}
