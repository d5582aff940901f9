"""Rows for tests: the least that a row says, the most, and both as lean NDJSON."""

from engine.model import DatabaseRef, Evidence, Pseudo, Reason, ServiceResult, TlsFacts, Tunnel, Verdict

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
    fingerprint="SF-Port\nSF:x",
    tls=TlsFacts(
        *("TLSv1.3", "x", "h2", "CN=a", "CN=b", ("a", "b"), "1950-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "00"),
        *("rsa 2048", True),
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
