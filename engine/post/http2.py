"""What speaks HTTP/2: which application protocols a TLS service agrees to, the server's settings, its answer's headers.

`Http2` makes one connection. Inside TLS it offers `h2`, `http/1.1` and what the port or the service suggests, and notes
what was chosen; where that is h2, or in the clear where a port that nothing recognised has said nothing or has begun as
HTTP/2, it makes a request. A server that answers is named: by its `server` header, or, where it has none, by what opens
as it does; one that speaks gRPC is called `grpc`. `Http2Opening` only reads what a scan that offers h2 has got.

Source: RFC 7301 and IANA's "TLS ALPN Protocol IDs" (names), RFC 9113; gRPC's "gRPC over HTTP2" and its health checking
protocol (the second request, made only where the first was not answered as web servers do).
"""

from functools import cache
from ssl import SSLContext

from msgspec.structs import replace

from engine.conversation.fingerprint import responses
from engine.model import Json, ServiceResult, Tunnel, Verdict
from engine.post.base import AGENT, ONLY_HTTP2, authority, identified, noted, text, title
from engine.transports.base_http import Answer
from engine.transports.certificates import tls_facts
from engine.transports.dial import DialError, Dialler, Stream
from engine.transports.h2_frames import SETTING_NAMES, Opening, opening

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
    "sip-proxy": ("sip/2",),
    "domain": ("dot",),
    "postgresql": ("postgresql",),
    "ms-sql-s": ("tds/8.0",),
    "jabber": ("xmpp-client", "xmpp-server"),
    "xmpp": ("xmpp-client", "xmpp-server"),
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

# By fingerprint, what opens so with its own configuration: asked here, releases in docs/post.md. Those that open as
# many do (nothing but 100 streams, or nothing at all) are not among them.
PRODUCTS = {
    "3:128;4:65536;5:16777215|2147418112|0": "nginx",
    "3:100|2147418112|0": "Apache httpd",
    "8:1;3:100|00|0": "HAProxy",
    "5:1048576;3:250;6:1048896;4:1048576|983041|0": "Go net/http",
    "1:4096;2:0;4:65535;5:16384;8:0;3:100;6:65536|00|0": "Python h2",
    "1:4096;2:0;4:65535;5:16384;8:1;3:100;6:65536|00|0": "Hypercorn",
    "4:4194304;5:4194304;6:16384;65027:1|4128769|0": "gRPC core",
}

GRPC_SETTING = 0xFE03  # binary metadata is taken as it is: a setting of gRPC alone
GRPC_STATUS = b"grpc-status"
HEALTH = "/grpc.health.v1.Health/Check"
EMPTY_MESSAGE = bytes(5)  # not compressed, no bytes


def offered(result: ServiceResult) -> tuple[str, ...]:
    """The application protocols worth offering there, the likeliest first."""
    service = result.name if result.name in SUGGESTED else PORTS.get(result.port, "")
    return SUGGESTED.get(service, ()) + OFFERED if result.name not in WEB else OFFERED


@cache
def _context(alpn: tuple[str, ...]) -> SSLContext:
    from engine.transports.tls import client_context

    return client_context(alpn)


class Http2Opening:
    """A Reader, for scans that offer h2: finds how the server began in what the scan has got, and contacts nobody."""

    name = "http2"
    services = WEB | {"http2"}
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp"

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        began = _opening(result, response)
        return result if began is None else _named(noted(result, self.name, _facts(began)), began)


class Http2:
    """An Asker."""

    name = "http2"
    services = WEB | SUGGESTED.keys() | {"http2", "ssl"}
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        if result.proto != "tcp":
            return False
        if result.tunnel is Tunnel.SSL or result.name in ("grpc", "http2", "ssl"):
            return True
        if result.verdict is Verdict.NOMATCH:
            return not result.fingerprint or _opening(result, b"") is not None
        return False

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        if result.tunnel is Tunnel.SSL or result.name == "ssl":
            return await self._inside_tls(result, dial)
        try:
            with await dial.open("tcp") as stream:
                return await self._requested(result, stream)
        except DialError:
            if result.fingerprint:
                raise
        return await self._inside_tls(result, dial)  # some who want ALPN say nothing to a hello without it

    async def _inside_tls(self, result: ServiceResult, dial: Dialler) -> ServiceResult:
        """What is agreed to, and, if that is h2, what is said in it. Raises DialError."""
        names = offered(result)
        facts: dict[str, Json] = {"offered": list(names)}
        try:
            stream = await dial.open("tcp", Tunnel.SSL, _context(names))
        except DialError as error:
            if result.tunnel is Tunnel.NONE:
                raise
            return noted(result, "alpn", facts | {"error": text(str(error).encode())})
        with stream:
            assert stream.session is not None
            chosen = text((stream.session.selected_alpn_protocol() or "").encode())
            result = noted(result, "alpn", facts | ({"chosen": chosen} if chosen else {}))
            tls = replace(result.tls or tls_facts(stream.session, result.host), alpn=chosen)
            result = replace(result, tls=tls, tunnel=Tunnel.SSL)
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
        return _named(noted(result, self.name, facts), began, server, grpc=_is_grpc(answer))


def _opening(result: ServiceResult, response: bytes) -> Opening | None:
    """How HTTP/2 began, in any of the answers that the scan has."""
    known = [response, *responses(result.fingerprint)] if result.fingerprint else [response]
    return next((began for data in known if (began := opening(data)) is not None), None)


def _facts(began: Opening) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "settings": {SETTING_NAMES.get(name, str(name)): value for name, value in began.settings},
        "fingerprint": began.fingerprint(),
    }
    if product := PRODUCTS.get(began.fingerprint()):
        facts["product"] = product
    if began.goaway is not None:
        error, said = began.goaway
        facts["goaway"] = {"error": error} | ({"text": text(said)} if said else {})
    return facts


def _named(result: ServiceResult, began: Opening, server: str = "", *, grpc: bool = False) -> ServiceResult:
    """The row of a server that speaks HTTP/2; of one that was recognised, only a product is filled in that it lacks."""
    product = server or PRODUCTS.get(began.fingerprint(), "")
    if result.method != "probed":
        name = "grpc" if grpc or GRPC_SETTING in dict(began.settings) else "http"
        return identified(result, name=name, product=product, extrainfo=ONLY_HTTP2, fingerprint="")
    if product and not result.product and result.name in WEB:
        return identified(result, product=product)
    return result


def _is_web(answer: Answer) -> bool:
    return not _is_grpc(answer) and answer.status > 0 and (b"server" in answer.headers or answer.status < 400)


def _is_grpc(answer: Answer) -> bool:
    return GRPC_STATUS in answer.headers or answer.headers.get(b"content-type", b"").startswith(b"application/grpc")


def _better(first: Answer, second: Answer) -> Answer:
    """Of two answers the one that says more: gRPC's where there is one."""
    return second if _is_grpc(second) or not first.status else first
