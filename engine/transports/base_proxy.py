"""What is said to a proxy, without sockets: its URL, the handshake that leads through it, and whose fault a failure is.

`route(proxies, host, port)` gives one `Handshake` for each proxy on the way; the first is spoken with the first proxy,
each further one inside the connection that the one before has opened. A handshake is fed what the proxy says and gives
what to say next, until it is `done`; whatever then comes is the other end's.

A failure is told as one of two kinds, so that a dead proxy makes no closed ports:
    OSError     what the last proxy says of its destination: refused, unreachable, timed out
    HopError    everything else: a proxy that is not reached, hangs up, wants another password, forbids the destination

Sources: RFC 1928 and 1929 (SOCKS 5), the SOCKS 4 and 4A memoranda, RFC 9110 section 9.3.6 (CONNECT).
"""

import base64
import os
import re
import socket
from collections.abc import Generator, Iterator, Sequence
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT
from itertools import pairwise
from typing import Literal, NamedTuple, cast
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from engine.errors import ConfigError
from engine.model import NAMING_PROXIES
from engine.transports.base import HopError

HEAD = 16_384  # bytes of a proxy's HTTP answer, at most
SCHEMES = ("socks5", "socks5h", "socks4", "socks4a", "http")

_SOCKS5_TARGET = {3: ENETUNREACH, 4: EHOSTUNREACH, 5: ECONNREFUSED, 6: ETIMEDOUT}  # 6, TTL expired: as it is used
_SOCKS5_PROXY = {
    1: "it failed to open the connection, and does not say why",
    2: "its rules forbid the destination",
    7: "it does not open connections",
    8: "it does not know this kind of address",
}
_HTTP_TARGET = {500: EHOSTUNREACH, 502: EHOSTUNREACH, 503: EHOSTUNREACH, 504: ETIMEDOUT}
_HTTP_PROXY = {403: "its rules forbid the destination", 405: "it does not open connections"}
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_SQUID_ERROR = re.compile(rb"\r\nX-Squid-Error: ERR_CONNECT_FAIL (\d{1,4})\r\n", re.IGNORECASE)
_CONNECT_ERRORS = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT}


class Proxy(Struct, frozen=True):
    """One proxy. Its text forms leave the login out."""

    scheme: Literal["socks5", "socks5h", "socks4", "socks4a", "http"]
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)}"

    def __repr__(self) -> str:
        return str(self)

    @property
    def url(self) -> str:
        """With the login, as `parse_proxies` takes it."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"{self.scheme}://{login}{authority(self.host, self.port)}"

    @property
    def takes_names(self) -> bool:
        """Whether it looks up names itself."""
        return self.scheme in NAMING_PROXIES

    def steps(self, host: str, port: int) -> "Steps":
        if self.scheme == "http":
            return _connect(self, host, port)
        return (_socks4 if self.scheme.startswith("socks4") else _socks5)(self, host, port)


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_proxies(urls: Sequence[str]) -> tuple[Proxy, ...]:
    """A chain, the nearest first. Raises ConfigError, which tells no password."""
    proxies = tuple(map(_parse, urls))
    for number, (before, proxy) in enumerate(pairwise(proxies), 2):
        if not before.takes_names and not is_address(proxy.host):
            raise ConfigError(
                f"proxy {number}, {proxy}: {before.scheme}:// before it takes no names; write its address, or "
                f"{before.scheme}{'h' if before.scheme == 'socks5' else 'a'}://"
            )
    return proxies


def _parse(url: str) -> Proxy:
    login, at, place = url.rpartition("@")
    told = f"{login.partition('://')[0]}://***@{place}" if "://" in login else f"***@{place}" if at else url
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        raise ConfigError(f"proxy {told}: not a URL; write SCHEME://[USER:PASSWORD@]HOST:PORT") from None
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigError(f"proxy {told}: begins with none of {known}")
    if not host or not port or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f"proxy {told}: write {parts.scheme}://[USER:PASSWORD@]HOST:PORT")
    if not re.fullmatch(r"[0-9A-Za-z._:%-]{1,255}", host):
        raise ConfigError(f"proxy {told}: its host is neither an address nor a name")
    if max(len(user.encode()), len(password.encode())) > 255 or "\0" in user:
        raise ConfigError(f"proxy {told}: user and password have 255 bytes each at most")
    if password and not user:
        raise ConfigError(f"proxy {told}: a password needs a user; write SCHEME://USER:PASSWORD@HOST:PORT")
    if parts.scheme.startswith("socks4") and password:
        raise ConfigError(f"proxy {told}: SOCKS 4 knows no password, only a user")
    return Proxy(cast("Literal['socks5']", parts.scheme), host, port, user, password)


def is_address(host: str) -> bool:
    """Whether it is a literal IPv4 or IPv6 address."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def errno_text(error: OSError) -> str:
    """What an error says, in the system's words where it has a number."""
    return (os.strerror(error.errno) if error.errno else error.strerror or str(error)).lower()


# -- the handshakes


class _Say(NamedTuple):
    """asks: with these bytes the proxy is told where to connect to."""

    data: bytes
    asks: bool = False


class _Read(NamedTuple):
    size: int


class _ReadHead(NamedTuple):
    """Up to the first empty line, at most HEAD bytes."""


Steps = Generator[_Say | _Read | _ReadHead, bytes, None]
_END = b"\r\n\r\n"


class _FaultError(Exception):
    """The proxy's own failure; gone: as in HopError."""

    def __init__(self, why: str, *, gone: bool = True) -> None:
        super().__init__(why)
        self.gone = gone


class Handshake:
    """One proxy's part of the way. asked: the proxy has been told where to connect to. done: it has connected.

    rest: what came behind the handshake, the other end's first words.
    """

    def __init__(self, hop: int, proxy: Proxy, host: str, port: int) -> None:
        self.asked = False
        self.done = False
        self.hop = hop
        self.proxy = proxy
        self._steps = proxy.steps(host, port)
        self._wanted: _Read | _ReadHead | None = None
        self._buffer = bytearray()
        self._begun = False
        self._heard = False  # it has given a whole answer

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer)

    def feed(self, data: bytes = b"") -> bytes:
        """What the proxy has said; nothing at first. -> what to say to it. Raises OSError, HopError."""
        seen = len(self._buffer)
        self._buffer += data
        said = b""
        try:
            while True:
                if not self._begun:
                    self._begun = True
                    step = next(self._steps)
                elif self._wanted is None:
                    step = self._steps.send(b"")
                elif (taken := self._take(self._wanted, seen)) is not None:
                    seen = 0
                    self._heard = True
                    step = self._steps.send(taken)
                else:
                    return said
                self._wanted = None
                if isinstance(step, _Say):
                    said += step.data
                    self.asked = self.asked or step.asks
                else:
                    self._wanted = step
        except StopIteration:
            self.done = True
            return said
        except _FaultError as fault:
            raise self.fault(str(fault), gone=fault.gone) from None

    def fault(self, why: str, *, gone: bool = True) -> HopError:
        return HopError(self.hop, str(self.proxy), why, gone=gone)

    def broken(self, error: OSError) -> HopError:
        """What it means that the connection below could not be made, or ended, before the handshake was done."""
        return error if isinstance(error, HopError) else self.fault(errno_text(error), gone=not self._heard)

    def hung_up(self) -> HopError:
        """Of one that has answered before it is not known why: `ssh -D` does so where the destination refuses."""
        return self.fault("it hung up instead of answering", gone=not self._heard)

    def _take(self, wanted: _Read | _ReadHead, seen: int) -> bytes | None:
        if isinstance(wanted, _Read):
            size = wanted.size if len(self._buffer) >= wanted.size else 0
        else:
            at = self._buffer.find(_END, max(0, seen - len(_END)), HEAD)
            if at < 0 and len(self._buffer) >= HEAD:
                raise _FaultError(f"an answer without an end in {HEAD} bytes")
            size = at + len(_END) if at >= 0 else 0
        if not size:
            return None
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def route(proxies: Sequence[Proxy], host: str, port: int) -> list[Handshake]:
    """The handshakes that lead to a destination, the nearest proxy's first."""
    return [
        Handshake(hop, proxy, *following)
        for hop, (proxy, following) in enumerate(zip(proxies, _destinations(proxies, host, port), strict=True), 1)
    ]


def _destinations(proxies: Sequence[Proxy], host: str, port: int) -> Iterator[tuple[str, int]]:
    yield from ((proxy.host, proxy.port) for proxy in proxies[1:])
    yield host, port


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])


def _socks5(proxy: Proxy, host: str, port: int) -> Steps:
    yield _Say(b"\x05\x02\x00\x02" if proxy.user else b"\x05\x01\x00")
    version, method = yield _Read(2)
    if version != 5:
        raise _FaultError("it does not answer as a SOCKS 5 proxy")
    if method == 2 and proxy.user:
        user, password = proxy.user.encode(), proxy.password.encode()
        yield _Say(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        _, status = yield _Read(2)
        if status:
            raise _FaultError("it refuses the user or the password")
    elif method:
        raise _FaultError("it wants another login" if proxy.user else "it wants a user and a password")
    if is_address(host):
        address = (b"\x04" if ":" in host else b"\x01") + _packed(host)
    else:
        name = host.encode()
        address = b"\x03" + bytes([len(name)]) + name
    yield _Say(b"\x05\x01\x00" + address + port.to_bytes(2), asks=True)
    version, reply, _, kind = yield _Read(4)
    if version != 5:
        raise _FaultError("it does not answer as a SOCKS 5 proxy")
    if reply in _SOCKS5_TARGET:
        raise _of_target(_SOCKS5_TARGET[reply])
    if reply:
        raise _FaultError(_SOCKS5_PROXY.get(reply, f"it answers with the unknown code {reply}"), gone=False)
    if kind not in {1, 3, 4}:
        raise _FaultError("it does not answer as a SOCKS 5 proxy")
    size = {1: 4, 4: 16}.get(kind) or (yield _Read(1))[0]
    yield _Read(size + 2)


def _socks4(proxy: Proxy, host: str, port: int) -> Steps:
    if ":" in host:
        raise _FaultError("SOCKS 4 knows no IPv6", gone=False)
    named = not is_address(host)
    address = b"\0\0\0\x01" if named else _packed(host)
    yield _Say(b"\x04\x01" + port.to_bytes(2) + address + proxy.user.encode() + b"\0", asks=not named)
    if named:
        yield _Say(host.encode() + b"\0", asks=True)
    version, reply, *_ = yield _Read(8)
    if version:
        raise _FaultError("it does not answer as a SOCKS 4 proxy")
    if reply == 91:  # "rejected or failed": all that SOCKS 4 has to say of a destination
        raise _of_target(EHOSTUNREACH)
    if reply != 90:
        raise _FaultError("it refuses the user" if reply in {92, 93} else f"it answers with the unknown code {reply}")


def _connect(proxy: Proxy, host: str, port: int) -> Steps:
    there = authority(host.partition("%")[0], port)  # a zone is this machine's
    lines = [f"CONNECT {there} HTTP/1.1", f"Host: {there}"]
    if proxy.user:
        login = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    yield _Say("\r\n".join((*lines, "", "")).encode(), asks=True)
    head = yield _ReadHead()
    status = _STATUS.match(head)
    if status is None:
        raise _FaultError("it does not answer as an HTTP proxy")
    code = int(status[1])
    if 200 <= code <= 299:
        return
    if code == 407:
        raise _FaultError("it refuses the user or the password" if proxy.user else "it wants a user and a password")
    if code in _HTTP_TARGET:
        said = _SQUID_ERROR.search(head)
        number = int(said[1]) if said else 0
        raise _of_target(number if number in _CONNECT_ERRORS else _HTTP_TARGET[code])
    raise _FaultError(_HTTP_PROXY.get(code, f"it answers CONNECT with status {code}"), gone=False)


def _of_target(number: int) -> OSError:
    return OSError(number, os.strerror(number))
