"""SSH's key exchanges as a client begins them, and whether the server's signature proves that the host key is its own.

An `Exchange` is one method with a secret of its own: `public` goes to the server, `shared` is what comes of its answer,
and `hash` is the method's. `proves` holds a signature against the hash of all that was said.

Source: RFC 4253 section 8 (hash and signature, the groups 1 and 14), RFC 8268 (groups 14 to 18), RFC 4419 (groups of
the server's choice), RFC 5656 section 4 (ECDH), RFC 8731 (Curve25519); RFC 2409 section 6.2 and RFC 3526 for the
groups' primes, which are made as they say. `cryptography` is loaded with the first exchange: that takes as long as the
start of a scan.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from engine.post.base_ssh import string, strings

GENERATOR = 2
SECRET = 32  # bytes of a secret exponent
GROUPS = {  # bits, and the number that makes it a prime
    1: (1024, 129093),
    14: (2048, 124476),
    16: (4096, 240904),
    18: (8192, 4743158),
}
SIZES = struct.pack(">III", 1024, 2048, 8192)  # bits of a group of the server's choice: at least, best, at most
KEY = 4096  # bytes of a host key that are looked at


class Exchange(NamedTuple):
    """public: our half, as it goes on the wire. shared: of the server's half, the secret. Raises ValueError.

    group: what goes into the hash of a group of the server's choice.
    """

    hash: str
    public: bytes
    shared: Callable[[bytes], int]
    group: bytes = b""


def _curve25519() -> Exchange:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    secret = X25519PrivateKey.generate()

    def shared(theirs: bytes) -> int:
        return int.from_bytes(secret.exchange(X25519PublicKey.from_public_bytes(theirs)), "big")

    return Exchange("sha256", secret.public_key().public_bytes_raw(), shared)


def _ecdh(curve_name: str, hash_name: str) -> Exchange:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    curve = getattr(ec, curve_name)()
    secret = ec.generate_private_key(curve)

    def shared(theirs: bytes) -> int:
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, theirs)
        return int.from_bytes(secret.exchange(ec.ECDH(), point), "big")

    public = secret.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Exchange(hash_name, public, shared)


def _group(number: int, hash_name: str) -> Exchange:
    return _modular(group_prime(number), GENERATOR, hash_name)


def _modular(prime: int, generator: int, hash_name: str, group: bytes = b"") -> Exchange:
    secret = int.from_bytes(os.urandom(SECRET), "big") | 1 << 8 * SECRET - 1

    def shared(theirs: bytes) -> int:
        half = int.from_bytes(theirs, "big")
        if not 1 < half < prime - 1:
            raise ValueError("no member of the group")
        return pow(half, secret, prime)

    return Exchange(hash_name, _mpint(pow(generator, secret, prime)), shared, group)


def in_group(prime: bytes, generator: bytes, hash_name: str) -> Exchange:
    """In a group of the server's choice. Raises ValueError for one of another size than it was asked for."""
    least, _, most = struct.unpack(">III", SIZES)
    if not least <= _number(prime).bit_length() <= most or not 1 < _number(generator) < _number(prime) - 1:
        raise ValueError("no such group was asked for")
    return _modular(_number(prime), _number(generator), hash_name, SIZES + string(prime) + string(generator))


EXCHANGES: dict[str, Callable[[], Exchange]] = {  # the cheapest first
    "curve25519-sha256": _curve25519,
    "curve25519-sha256@libssh.org": _curve25519,
    "ecdh-sha2-nistp256": partial(_ecdh, "SECP256R1", "sha256"),
    "ecdh-sha2-nistp384": partial(_ecdh, "SECP384R1", "sha384"),
    "ecdh-sha2-nistp521": partial(_ecdh, "SECP521R1", "sha512"),
    "diffie-hellman-group14-sha256": partial(_group, 14, "sha256"),
    "diffie-hellman-group14-sha1": partial(_group, 14, "sha1"),
    "diffie-hellman-group1-sha1": partial(_group, 1, "sha1"),
    "diffie-hellman-group16-sha512": partial(_group, 16, "sha512"),
    "diffie-hellman-group18-sha512": partial(_group, 18, "sha512"),
}
IN_GROUP = {  # in a group that the server is asked for first, by the exchange's hash
    "diffie-hellman-group-exchange-sha256": "sha256",
    "diffie-hellman-group-exchange-sha1": "sha1",
}


@lru_cache
def group_prime(number: int) -> int:
    """2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + k), as the RFCs write it."""
    bits, k = GROUPS[number]
    return (1 << bits) - (1 << bits - 64) - 1 + ((_pi(bits - 130) + k) << 64)


def _pi(bits: int) -> int:
    """The whole part of 2^bits * pi, by Machin's formula."""
    guard = 64
    one = 1 << bits + guard

    def arctan_of_one_over(x: int) -> int:
        total = term = one // x
        divisor = 1
        while term:
            term //= -x * x
            divisor += 2
            total += term // divisor
        return total

    return 4 * (4 * arctan_of_one_over(5) - arctan_of_one_over(239)) >> guard


def _mpint(number: int) -> bytes:
    """The bytes of a positive mpint."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def proves(said: tuple[bytes, ...], exchange: Exchange, key: bytes, theirs: bytes, signature: bytes) -> bool:
    """Whether the signature was made with the host key over just this exchange.

    said: both identifications and both KEXINITs, ours first. theirs: the server's half. False, too, for whatever the
    library cannot read or does not know.
    """
    try:
        before, after = (*said, key), (exchange.public, theirs, _mpint(exchange.shared(theirs)))
        parts = b"".join((*map(string, before), exchange.group, *map(string, after)))
        _verify(key, signature, hashlib.new(exchange.hash, parts).digest())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the library's Rust half is no Exception
        return False
    return True


def _verify(key: bytes, signature: bytes, digest: bytes) -> None:
    """Raises whatever there is to raise where the signature is not the key's."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils

    if len(key) > KEY:
        raise ValueError("no key is as long")
    kind, (name, value) = strings(key, 1)[0], strings(signature, 2)
    if kind == b"ssh-ed25519":
        ed25519.Ed25519PublicKey.from_public_bytes(strings(key, 2)[1]).verify(value, digest)
    elif kind == b"ssh-rsa":
        e, n = map(_number, strings(key, 3)[1:])
        hashing = {
            b"rsa-sha2-512": hashes.SHA512(),
            b"rsa-sha2-256": hashes.SHA256(),
            b"ssh-rsa": hashes.SHA1(),
        }[name]
        rsa.RSAPublicNumbers(e, n).public_key().verify(value, digest, padding.PKCS1v15(), hashing)
    elif kind == b"ssh-dss":
        p, q, g, y = map(_number, strings(key, 5)[1:])
        public = dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g)).public_key()
        public.verify(utils.encode_dss_signature(_number(value[:20]), _number(value[20:])), digest, hashes.SHA1())
    else:
        curve, hashing = {
            b"ecdsa-sha2-nistp256": (ec.SECP256R1(), hashes.SHA256()),
            b"ecdsa-sha2-nistp384": (ec.SECP384R1(), hashes.SHA384()),
            b"ecdsa-sha2-nistp521": (ec.SECP521R1(), hashes.SHA512()),
        }[kind]
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, strings(key, 3)[2])
        r, s = map(_number, strings(value, 2))
        point.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(hashing))


def _number(mpint: bytes) -> int:
    return int.from_bytes(mpint, "big")
