"""JARM: a fingerprint of a TLS server by what it answers to ten unusual hellos. Ten connections, one after another.

Servers that run the same library in the same configuration answer alike. The ten hellos offer versions, ciphers and
extensions in orders that no client has; of each answer count the cipher, the version and the names of the extensions.
The connections end with the first bytes of the answer: no handshake is finished, and nothing is asked in it.

A server that leaves a hello without an answer until the time is up has no fingerprint: half of one would be another's.

Source: JARM 1.0 as published by its authors at Salesforce (BSD 3-Clause licence), whose orders and lists of ciphers
these are; what their program does with answers cut short is done here, too, so that the fingerprints are theirs.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from engine.model import ServiceResult, Tunnel
from engine.post.base import EVERY, noted
from engine.transports.dial import SILENCE_S, DialError, Dialler

ANSWER = 1484  # bytes of an answer that are looked at
RANDOM = 32  # bytes
HANDSHAKE, SERVER_HELLO = 22, 2

_CIPHERS = bytes.fromhex(
    "001600330067c09ec0a2009e0039006bc09fc0a3009f004500be008800c4009ac008c009c023c0acc0aec02bc00ac024c0adc0afc02cc072c073"
    "cca913021301cc14c007c012c013c027c02fc014c028c030c060c061c076c077cca8130513041303cc13c011000a002f003cc09cc0a0009c0035"
    "003dc09dc0a1009d004100ba008400c0000700040005"
)
CIPHERS = tuple(_CIPHERS[at : at + 2] for at in range(0, len(_CIPHERS), 2))
OF_TLS_1_3 = 0x13  # the first byte of its ciphers
ORDINALS = {
    cipher: number for number, cipher in enumerate(sorted(CIPHERS, key=lambda each: (each[0] == OF_TLS_1_3, each)), 1)
}
UNKNOWN = len(ORDINALS) + 1
VERSIONS = "abcdef"  # by their last digit, SSL 3.0 being `a`

COMMON = (b"http/1.1", b"h2")
ALPN = (b"http/0.9", b"http/1.0", b"http/1.1", b"spdy/1", b"spdy/2", b"spdy/3", b"h2", b"h2c", b"hq")
SUPPORTED = (b"\x03\x01", b"\x03\x02", b"\x03\x03", b"\x03\x04")
GROUPS = bytes.fromhex("001d001700180019")
X25519 = b"\0\x1d"
SIGNATURES = bytes.fromhex("040308040401050308050501080606010201")

_Item = TypeVar("_Item")
_Order = Callable[[Sequence[_Item]], Sequence[_Item]]


def _as_it_is(items: Sequence[_Item]) -> Sequence[_Item]:
    return items


def _reversed(items: Sequence[_Item]) -> Sequence[_Item]:
    return items[::-1]


def _bottom_half(items: Sequence[_Item]) -> Sequence[_Item]:
    return items[(len(items) + 1) // 2 :]


def _top_half(items: Sequence[_Item]) -> Sequence[_Item]:
    """Backwards; with the middle one, if there is one."""
    return items[: (len(items) + 1) // 2][::-1]


def _middle_out(items: Sequence[_Item]) -> Sequence[_Item]:
    """To and fro, with what follows the middle first."""
    above, below = items[(len(items) + 1) // 2 :], items[: len(items) // 2][::-1]
    middle = items[len(items) // 2 : (len(items) + 1) // 2]
    return [*middle, *(item for pair in zip(above, below, strict=True) for item in pair)]


class Shape(NamedTuple):
    """Of one hello. record, hello: the versions that it gives itself; supported: those in its extension, if any.

    turned: in which order ALPN and versions are offered.
    """

    record: bytes
    hello: bytes
    supported: int
    order: _Order[bytes]
    turned: _Order[bytes]
    rare: bool = False  # without the application protocols that everybody has
    grease: bool = False
    old: bool = False  # without the ciphers of TLS 1.3


_1_1, _1_2 = (b"\x03\x02", b"\x03\x02"), (b"\x03\x03", b"\x03\x03")
_1_3 = b"\x03\x01", b"\x03\x03"

SHAPES = (
    Shape(*_1_2, 3, _as_it_is, _reversed),
    Shape(*_1_2, 3, _reversed, _as_it_is),
    Shape(*_1_2, 0, _top_half, _as_it_is),
    Shape(*_1_2, 0, _bottom_half, _as_it_is, rare=True),
    Shape(*_1_2, 0, _middle_out, _reversed, rare=True, grease=True),
    Shape(*_1_1, 0, _as_it_is, _as_it_is),
    Shape(*_1_3, 4, _as_it_is, _reversed),
    Shape(*_1_3, 4, _reversed, _as_it_is),
    Shape(*_1_3, 4, _as_it_is, _as_it_is, old=True),
    Shape(*_1_3, 4, _middle_out, _reversed, grease=True),
)


def client_hello(shape: Shape, name: str, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """A record with a hello of this shape to a host name or address. Raises ValueError for a name that is not ASCII."""

    def grease() -> bytes:
        return bytes((random(1)[0] & 0xF0 | 0x0A,)) * 2

    ciphers = shape.order([cipher for cipher in CIPHERS if not (shape.old and cipher[0] == OF_TLS_1_3)])
    protocols = shape.turned([protocol for protocol in ALPN if not (shape.rare and protocol in COMMON)])
    versions = shape.turned(SUPPORTED[: shape.supported])
    first = [grease()] if shape.grease else []
    extensions = [
        *(_extension(each, b"") for each in first),
        _extension(b"\0\0", _counted(b"\0" + _counted(name.encode("ascii")))),
        _extension(b"\0\x17", b""),  # extended master secret
        _extension(b"\0\x01", b"\x01"),  # records of 512 bytes
        _extension(b"\xff\x01", b"\0"),  # renegotiation
        _extension(b"\0\x0a", _counted(GROUPS)),
        _extension(b"\0\x0b", b"\x01\0"),  # points, uncompressed
        _extension(b"\0\x23", b""),  # tickets
        _extension(b"\0\x10", _counted(b"".join(bytes((len(each),)) + each for each in protocols))),
        _extension(b"\0\x0d", _counted(SIGNATURES)),
        _extension(
            b"\0\x33",
            _counted(b"".join(grease() + b"\0\x01\0" for _ in first) + X25519 + _counted(random(RANDOM))),
        ),
        _extension(b"\0\x2d", b"\x01\x01"),  # resumption with a key exchange
    ]
    if shape.supported:
        offered = b"".join((*(grease() for _ in first), *versions))
        extensions.append(_extension(b"\0\x2b", bytes((len(offered),)) + offered))
    body = b"".join(
        (
            shape.hello,
            random(RANDOM),
            bytes((RANDOM,)) + random(RANDOM),  # a session that nobody knows
            _counted(b"".join((*(grease() for _ in first), *ciphers))),
            b"\x01\0",  # no compression
            _counted(b"".join(extensions)),
        )
    )
    return b"\x16" + shape.record + _counted(b"\x01\0" + _counted(body))


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _extension(kind: bytes, data: bytes) -> bytes:
    return kind + _counted(data)


class Answer(NamedTuple):
    """To one hello. All are empty where the server refused it."""

    cipher: bytes = b""
    version: bytes = b""
    alpn: str = ""
    extensions: str = ""


def server_hello(data: bytes) -> Answer:
    """What counts of the first bytes of an answer, whatever they are."""
    try:
        if data[0] != HANDSHAKE or data[5] != SERVER_HELLO:
            return Answer()
        session = data[43]
        cipher, version = data[session + 44 : session + 46], data[9:11]
        return Answer(cipher, version, *_extensions(data, session))
    except (IndexError, ValueError):
        return Answer()


def _extensions(data: bytes, session: int) -> tuple[str, str]:
    """The chosen ALPN, and the names of all extensions. Raises ValueError where they are cut."""
    start = session + 47
    if start >= len(data) or data[start] == 11:  # a certificate comes next
        return "", ""
    if data[start + 3 : start + 6] == b"\x0e\xac\x0b" or data[82:85] == b"\x0f\xf0\x0b":
        return "", ""
    if session + 42 >= int.from_bytes(data[3:5], "big"):
        return "", ""
    at, end = start + 2, start + 1 + _number(data[start : start + 2])
    names, alpn = [], None
    while at < end:
        name, size = data[at : at + 2], _number(data[at + 2 : at + 4])
        names.append(name.hex())
        if name == b"\0\x10" and alpn is None:
            if not size:
                raise ValueError("an empty choice")
            alpn = data[at + 4 : at + 4 + size][3:].decode()
        at += 4 + size
    return alpn or "", "-".join(names)


def _number(data: bytes) -> int:
    if not data:
        raise ValueError("cut short")
    return int.from_bytes(data, "big")


def fingerprint(answers: Iterable[Answer]) -> str:
    """JARM of the answers to the ten hellos: 62 digits. Raises ValueError for a version that there is not."""
    answers = tuple(answers)
    if not any(answer.cipher or answer.version for answer in answers):
        return "0" * 62
    chosen = "".join(_cipher(answer.cipher) + _version(answer.version) for answer in answers)
    said = "".join(answer.alpn + answer.extensions for answer in answers)
    return chosen + hashlib.sha256(said.encode()).hexdigest()[:32]


def _cipher(cipher: bytes) -> str:
    return f"{ORDINALS.get(cipher, UNKNOWN):02x}" if cipher else "00"


def _version(version: bytes) -> str:
    if not version:
        return "0"
    if len(version) != 2 or version[1] & 0x0F >= len(VERSIONS):
        raise ValueError(f"no version {version.hex()}")
    return VERSIONS[version[1] & 0x0F]


class Jarm:
    """An Asker."""

    name = "jarm"
    services = EVERY
    undetermined = True

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp" and (result.tunnel is Tunnel.SSL or result.name == "ssl")

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        name = result.host or result.ip
        answers = [server_hello(await _answer(dial, client_hello(shape, name))) for shape in SHAPES]
        return noted(result, self.name, fingerprint(answers))


async def _answer(dial: Dialler, hello: bytes) -> bytes:
    """b"" where the peer hangs up. Raises DialError where nobody accepts, or nothing comes in time."""
    with await dial.open("tcp") as stream:
        until = dial.until(SILENCE_S)
        try:
            return await stream.exchange(hello, ANSWER)
        except DialError:
            if dial.time() >= until:
                raise
            return b""
