"""What speaks HTTP/2: which application protocols a TLS service agrees to, the server's settings, its answer's headers.

`read` finds in what the scan has got already the frames with which every HTTP/2 server begins, and contacts nobody.
`ask` makes one connection. Inside TLS it offers `h2`, `http/1.1` and what the port or the service suggests, and notes
what was chosen; where that is h2, or in the clear where a port that nothing recognised has said nothing or has begun
as HTTP/2, it makes a request. A server that answers is named: by its `server` header, or, where it has none, by the
library that opens as it does; one that speaks gRPC is called `grpc`.

Source: RFC 7301 and IANA's "TLS ALPN Protocol IDs" (names), RFC 9113; gRPC's "gRPC over HTTP2" and its health checking
protocol (the second request, made only where the first was not answered as web servers do).
"""

from functools import cache
from ssl import SSLContext

from msgspec.structs import replace

from engine.conversation.fingerprint import responses
from engine.model import Json, ServiceResult, Tunnel, Verdict
from engine.post.base import AGENT, authority, identified, noted, text, title
from engine.transports.base_http import Answer
from engine.transports.certificates import tls_facts
from engine.transports.dial import DialError, Dialler, Stream
from engine.transports.h2_frames import SETTING_NAMES, Opening, opening
from engine.transports.tls import client_context

WEB = frozenset(("http", "https", "http-proxy", "http-alt", "https-alt", "ipp", "soap", "upnp", "webdav", "grpc"))
OFFERED = ("h2", "http/1.1")

# What is offered to a service, and on a port where no service is known, before OFFERED.
SUGGESTED = {
    "ftp": ("ftp",),
    "imap": ("imap",),
    "pop3": ("pop3",),
    "sieve": ("managesieve",),
    "irc": ("irc",),
    "nntp": ("nntp",),
    "mqtt": ("mqtt",),
    "coap": ("coap",),
    "sip": ("sip/2",),
    "domain": ("dot",),
    "postgresql": ("postgresql",),
    "ms-sql-s": ("tds/8.0",),
    "xmpp-client": ("xmpp-client",),
    "xmpp-server": ("xmpp-server",),
    "stun": ("stun.turn", "stun.nat-discovery"),
    "nts": ("ntske/1",),
}
PORTS = {
    563: "nntp",
    853: "domain",
    990: "ftp",
    993: "imap",
    995: "pop3",
    1433: "ms-sql-s",
    4190: "sieve",
    4460: "nts",
    5061: "sip",
    5223: "xmpp-client",
    5269: "xmpp-server",
    5270: "xmpp-server",
    5349: "stun",
    5432: "postgresql",
    5684: "coap",
    6697: "irc",
    8883: "mqtt",
}

GRPC_STATUS = b"grpc-status"
HEALTH = "/grpc.health.v1.Health/Check"
EMPTY_MESSAGE = bytes(5)  # not compressed, no bytes


def offered(result: ServiceResult) -> tuple[str, ...]:
    """The application protocols worth offering there, the likeliest first."""
    service = result.name if result.name in SUGGESTED else PORTS.get(result.port, "")
    return SUGGESTED.get(service, ()) + OFFERED if result.name not in WEB else OFFERED


@cache
def _context(alpn: tuple[str, ...]) -> SSLContext:
    return client_context(alpn)


class Http2:
    """A Reader and an Asker."""

    name = "http2"
    services = WEB | SUGGESTED.keys() | {"http2", "ssl"}
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        if result.proto != "tcp":
            return False
        if result.tunnel is Tunnel.SSL or result.name == "http2":
            return True
        if result.verdict is Verdict.SOFTMATCHED or result.verdict is Verdict.HARDMATCHED:
            return result.name == "grpc"
        return not result.fingerprint or _opening(result, b"") is not None

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        began = _opening(result, response)
        if began is None:
            return result
        result = noted(result, self.name, _facts(began))
        return result if result.method == "probed" else _named(result, began, "http", "")

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        if result.tunnel is Tunnel.NONE:
            with await dial.open("tcp") as stream:
                return await self._requested(result, stream)
        names = offered(result)
        facts: dict[str, Json] = {"offered": list(names)}
        try:
            stream = await dial.open("tcp", Tunnel.SSL, _context(names))
        except DialError as error:
            if not str(error).startswith("TLS"):
                raise
            return noted(result, "alpn", facts | {"error": text(str(error).encode())})
        with stream:
            assert stream.session is not None
            chosen = stream.session.selected_alpn_protocol() or ""
            result = noted(result, "alpn", facts | ({"chosen": text(chosen.encode())} if chosen else {}))
            tls = result.tls or tls_facts(stream.session)
            result = replace(result, tls=replace(tls, alpn=text(chosen.encode())))
            if chosen != "h2":
                return result
            try:
                return await self._requested(result, stream)
            except DialError:
                return result

    async def _requested(self, result: ServiceResult, stream: Stream) -> ServiceResult:
        """Raises DialError where this is no HTTP/2."""
        from engine.transports.h2_dialogue import Conversation

        scheme = "https" if result.tunnel is Tunnel.SSL else "http"
        common = [(":scheme", scheme), (":authority", authority(result)), ("user-agent", AGENT)]
        talk = Conversation(stream)
        answer = await talk.request([(":method", "GET"), (":path", "/"), *common, ("accept", "*/*")])
        if talk.open and not _is_web(answer):
            call = [(":method", "POST"), (":path", HEALTH), *common]
            grpc = [("content-type", "application/grpc"), ("te", "trailers")]
            answer = _better(answer, await talk.request([*call, *grpc], EMPTY_MESSAGE))
        began = talk.opening
        assert began is not None
        facts = _facts(began)
        if answer.status:
            facts["status"] = answer.status
        server = text(answer.headers.get(b"server", b""))
        if server:
            facts["server"] = server
        if heading := title(answer.body):
            facts["title"] = heading
        grpc_status = answer.headers.get(GRPC_STATUS, b"")
        if grpc_status.isdigit():
            facts["grpc_status"] = int(grpc_status[:3])
        speaks_grpc = _is_grpc(answer)
        result = noted(result, self.name, facts)
        if result.method == "probed" and result.name not in ("grpc", "http2") and result.name not in WEB:
            return result
        if result.method == "probed" and result.product and not speaks_grpc:
            return result
        return _named(result, began, "grpc" if speaks_grpc else "http", server)


def _opening(result: ServiceResult, response: bytes) -> Opening | None:
    """How HTTP/2 began, in any of the answers that the scan has."""
    known = [response, *responses(result.fingerprint)] if result.fingerprint else [response]
    return next((began for data in known if (began := opening(data)) is not None), None)


def _facts(began: Opening) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "settings": {SETTING_NAMES.get(name, str(name)): value for name, value in began.settings},
        "fingerprint": began.fingerprint(),
    }
    if library := LIBRARIES.get(began.fingerprint()):
        facts["library"] = library
    if began.goaway is not None:
        error, said = began.goaway
        facts["goaway"] = {"error": error} | ({"text": text(said)} if said else {})
    return facts


def _named(result: ServiceResult, began: Opening, name: str, server: str) -> ServiceResult:
    product = server or result.product or LIBRARIES.get(began.fingerprint(), "")
    extrainfo = result.extrainfo or "HTTP/2"
    return identified(result, name=name, product=product, extrainfo=extrainfo, fingerprint="")


def _is_web(answer: Answer) -> bool:
    return not _is_grpc(answer) and answer.status > 0 and (b"server" in answer.headers or answer.status < 400)


def _is_grpc(answer: Answer) -> bool:
    return GRPC_STATUS in answer.headers or answer.headers.get(b"content-type", b"").startswith(b"application/grpc")


def _better(first: Answer, second: Answer) -> Answer:
    """Of two answers the one that says more: gRPC's where there is one."""
    return second if _is_grpc(second) or not first.status else first


# Fingerprints of servers that were asked here, with the configuration they come with: docs/post.md says which releases.
LIBRARIES: dict[str, str] = {}
