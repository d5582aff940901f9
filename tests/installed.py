"""For tests of an installation that is not this checkout: one service on loopback, and what a scan of it has to say.

with greeter() as port:
    assert_named(rows, port)        rows: the NDJSON that `probemill scan 127.0.0.1:PORT` printed
"""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n"


class _Greeter(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(BANNER)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def greeter() -> Iterator[int]:
    """Says BANNER to whoever connects to the port on 127.0.0.1 that is given."""
    with _Server(("127.0.0.1", 0), _Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def assert_named(rows: str, port: int) -> None:
    """One row, by the database inside the package."""
    [row] = map(json.loads, rows.splitlines())
    said = {key: row[key] for key in ("port", "name", "product", "version", "verdict")}
    expected = {"port": port, "name": "ssh", "product": "OpenSSH", "verdict": "hardmatched"}
    assert said == expected | {"version": "9.2p1 Debian 2+deb12u7"}
    assert row["database"]["name"] == "builtin"
