"""The demonstration: a small network on loopback, scanned with the built-in database.

    python -m bench.demo [probemill scan options]

Plays recorded responses (data/samples) on standard and odd ports of one loopback address, adds a real `http.server`,
scans them all, prints the table, writes results.ndjson, stops everything. Exit code 1 if a service was not named.
"""

import asyncio
import functools
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from matcher import builtin_database, load_database

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "127.77.0.1"
RESULTS = "results.ndjson"
MAX_REQUEST = 65536

# What to play: (service, product) -> port. Ports above 1023, so that nobody needs to be root.
CAST = {
    ("ssh", "OpenSSH"): 2222,
    ("ssh", "Dropbear sshd"): 22022,
    ("ftp", "ProFTPD"): 2121,
    ("ftp", "vsftpd"): 10021,
    ("smtp", "Postfix smtpd"): 2525,
    ("smtp", "Exim smtpd"): 10025,
    ("imap", "Dovecot imapd"): 1143,
    ("pop3", "Dovecot pop3d"): 1110,
    ("mysql", "MariaDB"): 3306,
    ("mysql", "MySQL"): 33060,
    ("redis", "Redis key-value store"): 6379,
    ("memcached", "Memcached"): 11211,
    ("http", "nginx"): 8080,
    ("http", "Apache httpd"): 8081,
    ("http", "lighttpd"): 9999,
    ("irc", "ngircd"): 6667,
    ("mpd", "Music Player Daemon"): 6600,
    ("amqp", "RabbitMQ"): 5672,
}


class Part(Struct, frozen=True):
    """One recorded service: what it answers to which bytes; no bytes: it speaks first."""

    product: str
    port: int
    request: bytes
    response: bytes


def cast() -> Iterator[Part]:
    """The first sample of each product in the cast."""
    payloads = {(probe.name, probe.proto): probe.payload for probe in load_database("builtin").probes}
    wanted = dict(CAST)
    for path in sorted((ROOT / "data" / "samples").glob("*.ndjson")):
        for line in path.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            expect = sample["expect"] or {}
            role = expect.get("name", ""), expect.get("product", "")
            if role in wanted and sample["proto"] == "tcp" and not expect.get("soft"):
                request = payloads[sample["probe"], "tcp"]
                yield Part(role[1], wanted.pop(role), request, sample["banner"].encode("latin-1"))


async def play(part: Part, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hold one conversation: speak first or answer the right request, then wait for the other side to leave."""
    try:
        if not part.request:
            writer.write(part.response)
        heard = b""
        while chunk := await reader.read(MAX_REQUEST):
            heard = (heard + chunk)[-MAX_REQUEST:]
            if part.request and heard.endswith(part.request):
                writer.write(part.response)
                if part.response.startswith(b"HTTP/"):
                    break
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def demonstrate(options: list[str]) -> int:
    parts = list(cast())
    async with AsyncExitStack() as stack:
        targets = []
        for part in parts:
            server = await asyncio.start_server(functools.partial(play, part), ADDRESS, part.port)
            await stack.enter_async_context(server)
            targets.append(f"{ADDRESS}:{part.port}")
        quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        real = http.server.ThreadingHTTPServer((ADDRESS, 8000), functools.partial(quiet, directory=str(ROOT / "docs")))
        stack.callback(real.server_close)
        stack.callback(real.shutdown)
        threading.Thread(target=real.serve_forever, daemon=True).start()
        targets.append(f"{ADDRESS}:8000")
        command = [sys.executable, "-m", "probemill", "scan", *targets, "--probes", str(builtin_database())]
        command += ["-o", RESULTS, "-o", "-", "--format", "text", *options]
        process = await asyncio.create_subprocess_exec(*command)
        code = await process.wait()
    if code:
        return code
    rows = [json.loads(line) for line in Path(RESULTS).read_text(encoding="utf-8").splitlines()]
    named = {row["port"] for row in rows if row.get("product")}
    missing = [target for target in targets if int(target.rpartition(":")[2]) not in named]
    if missing:
        print(f"not named: {', '.join(missing)}", file=sys.stderr)
        return 1
    print(f"{len(named)} services named; rows are in {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(demonstrate(sys.argv[1:])))
