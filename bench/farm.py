"""A loopback farm of banner services: every address of 127.0.0.0/8 answers on one port, from a single socket.

    python -m bench.farm [--port N] [--delay SECONDS]      prints its port, ends when its standard input does

A service greets after a pause that its address decides, up to `delay`, so that services finish in another order than
they were begun; some take six times as long. The socket is bound to the loopback device: nobody else can reach it.
"""

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKLOG = 4096
BANNER = b"SSH-2.0-OpenSSH_9.2p1\r\n"
DATABASE = rb"""Probe TCP NULL q||
totalwaitms 6000
match ssh m|^SSH-([\d.]+)-OpenSSH[_-]([\w.]+)\r?\n| p/OpenSSH/ v/$2/ i/protocol $1/
"""


class Service(asyncio.Protocol):
    """One conversation: greet, then wait for the other side to leave."""

    delay_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        last = int(transport.get_extra_info("sockname")[0].rpartition(".")[2])
        pause = self.delay_s * (last % 16) / 15 * (6 if last % 29 == 0 else 1)
        asyncio.get_running_loop().call_later(pause, transport.write, BANNER)


def addresses(count: int) -> list[str]:
    """The first `count` addresses of the farm."""
    return [f"127.{1 + i // 62500}.{i // 250 % 250}.{i % 250 + 1}" for i in range(count)]


@contextlib.contextmanager
def farm(delay_s: float = 0.0) -> Iterator[int]:
    """A farm in a process of its own, as long as the block; gives its port."""
    command = [sys.executable, "-m", "bench.farm", "--delay", str(delay_s)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait()


async def serve(port: int) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    listener.bind(("", port))
    loop = asyncio.get_running_loop()
    await loop.create_server(Service, sock=listener, backlog=BACKLOG)
    print(listener.getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    Service.delay_s = options.delay
    asyncio.run(serve(options.port))


if __name__ == "__main__":
    main()
