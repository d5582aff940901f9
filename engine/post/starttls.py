"""The certificate of a service that offers TLS from within: mail, news, chat, directories, databases.

One connection, in which nothing is asked but the upgrade.

Source: RFC 3207 (SMTP, and LMTP likewise), RFC 2595 and 9051 (IMAP, POP3), RFC 5804 section 2.2 (ManageSieve), RFC 4642
(NNTP), RFC 4217 (FTP), RFC 4511 section 4.14 (LDAP), RFC 6120 sections 4 and 5 (XMPP), IRCv3's extension `tls`; the
message formats of PostgreSQL's protocol 3.0 (SSLRequest) and of MySQL's protocol 10 (handshake, SSLRequest).
"""

import re
import struct
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from engine.model import ServiceResult, Tunnel
from engine.post.base import noted, text
from engine.transports.certificates import tls_facts
from engine.transports.dial import DialError, Dialler, Stream

LINE = 2048  # bytes
LINES = 64  # of one reply

LDAP_STARTTLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
LDAP_SUCCESS = bytes.fromhex("0a0100")  # ENUMERATED resultCode 0
POSTGRESQL_SSL = struct.pack(">II", 8, 80877103)
MYSQL_CLIENT_SSL = 0x0800
MYSQL_CAPABILITIES = 0x0200 | 0x8000 | MYSQL_CLIENT_SSL  # protocol 4.1, secure connection
MYSQL_UTF8 = 33
MYSQL_LARGEST = 4096  # bytes of a greeting
XMPP_SERVER_PORT = 5269
XMPP_FEATURES = 8192  # bytes of a stream's header and features
XMPP_END = re.compile(rb"(?:</(?:\w{1,30}:)?(?:features|stream)|<(?:\w{1,30}:)?features[^<>]{0,200}/)>\s*\Z")
NOT_OF_A_NAME = re.compile(r"[^\w.:-]")
XMPP_TLS = b"urn:ietf:params:xml:ns:xmpp-tls"
XMPP_STARTTLS = b"<starttls xmlns='" + XMPP_TLS + b"'/>"
IRC_ANSWERS = {b"670": True, b"691": False, b"421": False, b"451": False}  # go; no; no such command; not before login


async def _reply(stream: Stream) -> str:
    """The code of an SMTP or FTP reply, of one line or several."""
    for _ in range(LINES):
        line = await stream.until(b"\n", LINE)
        if line[:3].isdigit() and line[3:4] != b"-":
            return line[:3].decode()
    raise DialError("an endless reply")


async def _mail(hello: bytes, stream: Stream) -> bool:
    await _reply(stream)
    await stream.send(hello + b" probemill\r\n")
    await _reply(stream)
    await stream.send(b"STARTTLS\r\n")
    return await _reply(stream) == "220"


async def _ftp(stream: Stream) -> bool:
    await _reply(stream)
    await stream.send(b"AUTH TLS\r\n")
    return await _reply(stream) == "234"


async def _pop3(stream: Stream) -> bool:
    await stream.until(b"\n", LINE)
    await stream.send(b"STLS\r\n")
    return (await stream.until(b"\n", LINE)).startswith(b"+OK")


async def _imap(stream: Stream) -> bool:
    await stream.until(b"\n", LINE)
    await stream.send(b"a STARTTLS\r\n")
    for _ in range(LINES):
        line = await stream.until(b"\n", LINE)
        if line.startswith(b"a "):
            return line[2:4].upper() == b"OK"
    raise DialError("an endless reply")


async def _sieve(stream: Stream) -> bool:
    if not await _sieve_ok(stream):
        return False
    await stream.send(b"STARTTLS\r\n")
    return await _sieve_ok(stream)


async def _sieve_ok(stream: Stream) -> bool:
    """Whether a response, which may begin with lines of capabilities, ends well."""
    for _ in range(LINES):
        word = (await stream.until(b"\n", LINE))[:3].upper()
        if not word.startswith((b'"', b"{")):
            return word.startswith(b"OK")
    raise DialError("an endless reply")


async def _nntp(stream: Stream) -> bool:
    await _reply(stream)
    await stream.send(b"STARTTLS\r\n")
    return await _reply(stream) == "382"


async def _irc(stream: Stream) -> bool:
    await stream.send(b"STARTTLS\r\n")
    for _ in range(LINES):
        words = (await stream.until(b"\n", LINE)).split(maxsplit=2)
        if words[:1] == [b"ERROR"]:
            return False
        if len(words) > 1 and words[0].startswith(b":") and words[1] in IRC_ANSWERS:
            return IRC_ANSWERS[words[1]]
    raise DialError("an endless reply")


async def _xmpp(result: ServiceResult, stream: Stream) -> bool:
    """A server answers to the names of its domains only: the user's, else its own, else what is left is the address."""
    servers = result.name == "xmpp-server" or result.port == XMPP_SERVER_PORT
    to = NOT_OF_A_NAME.sub("", result.host or result.hostname or result.ip)
    await stream.send(
        f"<?xml version='1.0'?><stream:stream xmlns='jabber:{'server' if servers else 'client'}' version='1.0'"
        f" xmlns:stream='http://etherx.jabber.org/streams' to='{to}'>".encode()
    )
    head = b""
    while not XMPP_END.search(head):
        more = await stream.recv(XMPP_FEATURES - len(head))
        if not more:
            raise DialError("no end of the features")
        head += more
    if b"<stream:error" in head:
        raise DialError("no such domain, or another error of the stream")
    if XMPP_TLS not in head:
        return False
    await stream.send(XMPP_STARTTLS)
    return (await stream.until(b">", LINE)).lstrip().startswith(b"<proceed")


async def _ldap(stream: Stream) -> bool:
    return LDAP_SUCCESS in await stream.exchange(LDAP_STARTTLS)


async def _postgresql(stream: Stream) -> bool:
    await stream.send(POSTGRESQL_SSL)
    return await stream.exactly(1) == b"S"


async def _mysql(stream: Stream) -> bool:
    size = int.from_bytes((await stream.exactly(4))[:3], "little")
    if size > MYSQL_LARGEST:
        raise DialError("no MySQL greeting")
    greeting = await stream.exactly(size)
    capabilities = greeting.index(b"\0", 1) + 1 + 4 + 8 + 1  # after version, thread id, salt and its filler
    (offered,) = struct.unpack_from("<H", greeting, capabilities)
    if not offered & MYSQL_CLIENT_SSL:
        return False
    body = struct.pack("<IIB23x", MYSQL_CAPABILITIES, 1 << 24, MYSQL_UTF8)
    await stream.send(len(body).to_bytes(3, "little") + b"\x01" + body)
    return True


UPGRADES: dict[str, Callable[[Stream], Awaitable[bool]]] = {
    "smtp": partial(_mail, b"EHLO"),
    "lmtp": partial(_mail, b"LHLO"),
    "imap": _imap,
    "pop3": _pop3,
    "sieve": _sieve,
    "nntp": _nntp,
    "irc": _irc,
    "ftp": _ftp,
    "ldap": _ldap,
    "postgresql": _postgresql,
    "mysql": _mysql,
}
XMPP = ("jabber", "xmpp", "xmpp-client", "xmpp-server")


class StartTls:
    """An Asker: also where nothing but the port's number says which service it is, since some greet nobody."""

    name = "starttls"
    services = frozenset((*UPGRADES, *XMPP))
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        known = result.name in self.services
        return known and result.proto == "tcp" and result.tunnel is Tunnel.NONE and result.tls is None

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        with await dial.open("tcp") as stream:
            upgrade = UPGRADES.get(result.name) or partial(_xmpp, result)
            if not await upgrade(stream):
                return noted(result, self.name, {"offered": False})
            try:
                await stream.start_tls()
            except DialError as error:
                return noted(result, self.name, {"offered": True, "error": text(str(error).encode())})
            assert stream.session is not None
            return replace(noted(result, self.name, {"offered": True}), tls=tls_facts(stream.session, result.host))
