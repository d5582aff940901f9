"""Rows for tests: the least that a row says, the most, and both as lean NDJSON."""

from msgspec import structs

from engine.model import Also, DatabaseRef, Evidence, Pseudo, Reason, ServiceResult, TlsFacts, Tunnel, Verdict

LEAST = ServiceResult(
    ip="",
    port=1,
    proto="udp",
    verdict=Verdict.NOMATCH,
    database=DatabaseRef("", ""),
    started="2026-11-21T06:38:13.402Z",
)
MOST = ServiceResult(
    ip="2001:db8::1",
    port=65535,
    proto="tcp",
    host="a.example",
    state="open",
    name="http",
    product='a"b\n\0€😀',
    version="1",
    extrainfo="x",
    hostname="h",
    ostype="Linux",
    devicetype="router",
    cpe=("cpe:/a:x:y", "cpe:/o:z"),
    tunnel=Tunnel.SSL,
    method="probed",
    conf=10,
    verdict=Verdict.INCOMPLETE,
    reason=Reason.TLS,
    evidence=Evidence("GetRequest", 5, True, "x", "y", "z"),
    confidence=0.5,
    reasons=("specific", "untested"),
    also=Also(name="http", product="p", version="v", line=7, database="builtin", recog="r"),
    fingerprint="SF-Port\nSF:x",
    tls=TlsFacts(
        *("TLSv1.3", "x", "h2", "CN=a", "CN=b", ("a", "b"), "1950-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "00"),
        *("rsa 2048", True, ("00 CN=b", "01 CN=c"), ("expired", "weak-key"), "t130200_1301_0", ("0_1_2", "1_2_3")),
    ),
    post={"post": {"database": {"name": "}"}}, "n": [1, 2.5, None, "é"]},
    pseudo=Pseudo(40, "ff"),
    database=DatabaseRef("builtin", "00"),
    started="2026-11-22T00:00:00.000Z",
    elapsed_ms=1 << 40,
    connections=3,
    bytes=1 << 40,
)
LINES = b"".join(row.to_json().encode() + b"\n" for row in (LEAST, MOST, LEAST))


def varied(count: int) -> bytes:
    """Lean rows of many kinds, over three days: the least and the fullest, and what lies between."""
    made = [LEAST, MOST, *map(_varied, range(count - 2))]
    return b"".join(row.to_json().encode() + b"\n" for row in made[:count])


def _varied(number: int) -> ServiceResult:
    return structs.replace(
        MOST if number % 7 == 0 else LEAST,
        ip=f"2001:db8::{number:x}" if number % 3 == 0 else f"10.0.{number >> 8 & 255}.{number & 255}",
        port=number % 65536,
        proto="udp" if number % 5 == 0 else "tcp",
        state=("open", "closed", "")[number % 3],
        name=("", "http", "ssh")[number % 3],
        method=("", "probed", "table")[number % 3],
        conf=(0, 10, 3)[number % 3],
        verdict=list(Verdict)[number % len(Verdict)],
        reason=(None, *Reason)[number % (len(Reason) + 1)],
        post={"web": {"title": f"<{number}> é"}} if number % 4 == 0 else None,
        database=DatabaseRef("builtin", "00"),
        started=f"2026-11-2{number % 3}T23:59:59.{number % 1000:03}Z",
        elapsed_ms=number,
    )
