"""Rows as a scan writes them, as many as wanted: 200 different shapes, made of this project's own samples.

A shape is a service with what a scan tells of it (versions, CPE names, certificates, what post-processing found, a
fingerprint where nothing matched); a row is a shape at an address, with times and counts of its own. So no column is
constant and no row is repeated. The same seed gives the same rows.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from bench.corpora import own
from engine.model import DatabaseRef, Evidence, Reason, ServiceResult, TlsFacts, Tunnel, Verdict

SHAPES = 200
BLOB_ROWS = 2048
BEGAN = datetime(2026, 11, 26, 12, tzinfo=UTC)
DATABASE = DatabaseRef("builtin", "5f2c" * 16)

_lines = msgspec.json.Encoder().encode_lines


def blobs(count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` rows as NDJSON, some thousand at a time. 20,000 of them are of one second."""
    rng = random.Random(seed)
    shapes = _shapes(rng)
    for first in range(0, count, BLOB_ROWS):
        yield _lines(
            [_row(rng, shapes[rng.randrange(SHAPES)], number) for number in range(first, min(first + BLOB_ROWS, count))]
        )


def _row(rng: random.Random, shape: dict[str, Any], number: int) -> ServiceResult:
    began = BEGAN + timedelta(milliseconds=number // 20)
    return ServiceResult(
        ip=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        if number % 10
        else f"2001:db8::{number >> 16:x}:{number & 0xFFFF:x}",
        started=f"{began:%Y-%m-%dT%H:%M:%S}.{began.microsecond // 1000:03}Z",
        elapsed_ms=rng.randrange(20, 12_000),
        connections=rng.randrange(1, 4),
        bytes=rng.randrange(20_000),
        **shape,
    )


def _shapes(rng: random.Random) -> list[dict[str, Any]]:
    found = sorted({expected for expected in own().expected if expected is not None}, key=repr)
    return [_shape(rng, number, expected) for number, expected in enumerate(rng.sample(found, SHAPES))]


def _shape(rng: random.Random, number: int, expected: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "port": rng.choice((21, 22, 25, 80, 110, 143, 443, 993, 3306, 5432, 8080)),
        "proto": "tcp" if rng.random() < 0.9 else "udp",
        "state": "open",
        "database": DATABASE,
    }
    kind = rng.random()
    if kind < 0.1:
        return shape | {
            "verdict": Verdict.INCOMPLETE,
            "reason": rng.choice((Reason.TIMEOUT, Reason.RESET)),
            "name": "unknown",
            "method": "table",
            "conf": 3,
        }
    if kind < 0.15:
        fingerprint = f'SF-Port{shape["port"]}-TCP:V=7.93%I=7:SF:r(NULL,{number:x},"{"x" * rng.randrange(100, 900)}");'
        return shape | {"verdict": Verdict.NOMATCH, "fingerprint": fingerprint}
    shape |= {
        "name": expected.name,
        "product": expected.product,
        "version": expected.version,
        "extrainfo": expected.extrainfo,
        "hostname": expected.hostname,
        "ostype": expected.ostype,
        "devicetype": expected.devicetype,
        "cpe": tuple(expected.cpe),
        "method": "probed",
        "conf": 10,
        "verdict": Verdict.HARDMATCHED,
        "evidence": Evidence(rng.choice(("NULL", "GetRequest", "GenericLines")), rng.randrange(1, 1600)),
    }
    if expected.name == "http" and rng.random() < 0.8:
        shape["post"] = {"http": {"status": 200, "server": expected.product, "title": f"Welcome to {number}"}}
    if rng.random() < 0.25:
        shape |= {
            "tunnel": Tunnel.SSL,
            "tls": TlsFacts(
                protocol="TLSv1.3",
                cipher="TLS_AES_256_GCM_SHA384",
                subject=f"CN=host{number}.example",
                issuer="CN=An authority,O=An organisation",
                names=(f"host{number}.example", f"www.host{number}.example"),
                not_before="2026-06-01T00:00:00Z",
                not_after=f"2027-{number % 12 + 1:02}-01T00:00:00Z",
                sha256=f"{number:064x}",
                key="rsa 2048",
            ),
        }
    return shape
