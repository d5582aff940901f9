"""An S3 API on loopback, for tests and benchmarks: moto's server behind a gateway that can be killed and started anew.

moto keeps its objects in memory, so what is killed is the gateway, a process that passes bytes on: clients see what a
crash of a server with a disk looks like (refused and broken connections, requests of which nobody knows whether they
were done), and the objects stay.

    with object_store() as store:
        os.environ.update(store.environment)
        ...
        store.kill()
        store.start()
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "lake"
START_S = 30.0


class ObjectStore:
    """environment: what clients need, by the usual names of variables."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self.port = free_port()
        self._gateway: subprocess.Popen[bytes] | None = None
        self.environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.object_store", str(self.port), str(self._upstream)]
        self._gateway = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
        _await_port(self.port)

    def kill(self) -> None:
        """With SIGKILL."""
        if self._gateway is not None:
            self._gateway.kill()
            self._gateway.communicate()
            self._gateway = None


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store with one empty bucket, as long as the block."""
    upstream = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(upstream)]
    quiet = subprocess.DEVNULL
    environment = os.environ | {"MOTO_S3_CUSTOM_ENDPOINTS": "", "AWS_EC2_METADATA_DISABLED": "true"}
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment) as server:
        try:
            _await_port(upstream)
            store = ObjectStore(upstream)
            try:
                _create_bucket(upstream)
                yield store
            finally:
                store.kill()
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _create_bucket(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        head = f"PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n"
        link.sendall(head.encode() + b"Authorization: AWS4-HMAC-SHA256 Credential=test/1/us-east-1/s3/x\r\n\r\n")
        answer = b"".join(iter(lambda: link.recv(4096), b""))
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            raise RuntimeError(f"no bucket: {answer[:200]!r}")


def _await_port(port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers at port {port}")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _gateway(port: int, upstream: int) -> None:
    """Until standard input ends: it does not outlive whoever started it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", upstream)
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_gateway(*map(int, sys.argv[1:])))
