"""JA4S and JA4X: fingerprints of a ServerHello, and of how a certificate is made. Pure, of bytes, and never raises.

JA4S is what the server chose: `t` for TCP, the version, the number of extensions, the ends of the ALPN; the cipher; and
a hash of the extensions in their order. It depends on what was offered, so it compares with those of the same client.
JA4X is three hashes, over the object identifiers of the issuer's name, of the subject's, and of the extensions: how the
certificate was made, whatever it says.

Source: FoxIO's description of JA4+ and its published fingerprints; the code is our own. The methods are FoxIO's, patent
pending, and their use is licensed under the FoxIO License 1.1, which excludes monetization; docs/post.md says more.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

MOST = 4096  # bytes of what a server says first that are looked at; its key share may have a thousand
REMEMBERED = 256  # certificates
LARGEST = 1 << 14  # bytes of a certificate
NOTHING = "0" * 12

_RECORD, _MESSAGE = 5, 4  # bytes of their headers
_HANDSHAKE, _SERVER_HELLO = b"\x16", b"\x02"
_ALPN, _VERSIONS = b"\0\x10", b"\0\x2b"
_NAMES = {b"\x03\0": "s3", b"\x03\x01": "10", b"\x03\x02": "11", b"\x03\x03": "12", b"\x03\x04": "13"}

_SEQUENCE, _IDENTIFIER, _VERSION, _EXTENSIONS = 0x30, 0x06, 0xA0, 0xA3  # tags of DER


def ja4s(said: bytes) -> str:
    """Of the first bytes that a server sent; empty where they hold no whole ServerHello."""
    try:
        return _ja4s(_server_hello(said[:MOST]))
    except ValueError:
        return ""


def _server_hello(said: bytes) -> bytes:
    """The first message, without its header; it may be spread over records."""
    message = b""
    while said[:1] == _HANDSHAKE and len(said) > _RECORD:
        end = _RECORD + int.from_bytes(said[_RECORD - 2 : _RECORD], "big")
        message += said[_RECORD:end]
        said = said[end:]
        size = _MESSAGE + int.from_bytes(message[1:_MESSAGE], "big")
        if message[:1] == _SERVER_HELLO and len(message) >= max(size, _MESSAGE):
            return message[_MESSAGE:size]
    raise ValueError("cut short, or something else")


def _ja4s(hello: bytes) -> str:
    version, alpn, kinds = hello[:2], b"", []
    _, rest = _counted(hello[34:], 1)  # behind version and random: the session
    cipher = _taken(rest, 2)
    extensions = _counted(rest[3:], 2)[0] if len(rest) > 3 else b""
    while extensions:
        kind = _taken(extensions, 2)
        data, extensions = _counted(extensions[2:], 2)
        kinds.append(kind.hex())
        if kind == _VERSIONS:
            version = data
        elif kind == _ALPN and not alpn:
            alpn = data[3:]
    ends = "".join(chr(end) if chr(end).isalnum() and end < 0x80 else "9" for end in (*alpn[:1], *alpn[-1:])) or "00"
    return f"t{_NAMES.get(version, '00')}{min(len(kinds), 99):02}{ends}_{cipher.hex()}_{_hash(kinds)}"


@lru_cache(REMEMBERED)
def ja4x(der: bytes) -> str:
    """Of a certificate; empty where it is none."""
    try:
        return _ja4x(der) if len(der) <= LARGEST else ""
    except ValueError:
        return ""


def _ja4x(der: bytes) -> str:
    parts = list(_elements(_inside(_inside(der, _SEQUENCE), _SEQUENCE)))
    if parts and parts[0][0] == _VERSION:
        del parts[0]
    if len(parts) < 6:
        raise ValueError("cut short, or something else")
    _, _, (_, issuer), _, (_, subject), _, *more = parts  # number, algorithm, issuer, validity, subject, key
    extensions = next((_inside(value, _SEQUENCE) for tag, value in more if tag == _EXTENSIONS), b"")
    return "_".join(
        (
            _hash([_identifier(one) for _, several in _elements(issuer) for _, one in _elements(several)]),
            _hash([_identifier(one) for _, several in _elements(subject) for _, one in _elements(several)]),
            _hash([_identifier(one) for _, one in _elements(extensions)]),
        )
    )


def _hash(words: list[str]) -> str:
    return hashlib.sha256(",".join(words).encode()).hexdigest()[:12] if words else NOTHING


def _identifier(element: bytes) -> str:
    return _inside(element, _IDENTIFIER).hex()


def _inside(data: bytes, tag: int) -> bytes:
    """The value of the first element, which has this tag. Raises ValueError."""
    for found, value in _elements(data):
        if found == tag:
            return value
        break
    raise ValueError("cut short, or something else")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and values of DER. Raises ValueError."""
    while data:
        size = _taken(data[1:], 1)[0]
        at = 2
        if size & 0x80:
            at += size & 0x7F
            size = int.from_bytes(_taken(data[2:], at - 2), "big")
        if at + size > len(data):
            raise ValueError("cut short, or something else")
        yield data[0], data[at : at + size]
        data = data[at + size :]


def _taken(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise ValueError("cut short, or something else")
    return data[:size]


def _counted(data: bytes, width: int) -> tuple[bytes, bytes]:
    """What stands behind a length of so many bytes, and the rest. Raises ValueError."""
    end = width + int.from_bytes(_taken(data, width), "big")
    return _taken(data, end)[width:], data[end:]
