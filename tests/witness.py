"""Eyes in processes that a test cannot reach, and at the door of a server.

A `Witness` is a folder for PYTHONPATH: Python imports `sitecustomize` from there as it begins, in actors on their nodes
as well as in a command. It notes each address that is connected to, by node; ends the process that turns to `deadly`;
and answers for resolvers, so that none is asked.

A `Door` accepts and greets in a thread that does nothing else, and has the time of each connection from the kernel.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from bench.farm import BANNER
from bench.ray_cluster import MARK

NETWORK = "127.9."  # what is noted; everything else that a process connects to is Ray's
EYES = """
import os, signal, socket, sys

seen, network, deadly, node = {seen!r}, {network!r}, {deadly!r}, os.environ.get({mark!r}, "-none")

def look(event, arguments):
    if event == "socket.getaddrinfo" and str(arguments[0]).endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "there is no such name")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0].startswith(network):
        with open(seen + "/" + node.rpartition("-")[2], "a") as file:
            file.write(arguments[1][0] + "\\n")
        if arguments[1][0] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
"""
TCP_INFO_SIZE = 104
LAST_DATA_RECV = 52  # where the milliseconds since the last data are; since the handshake, where none has come


class Witness:
    """settings: for a file of `--ray-options`."""

    def __init__(self, folder: Path, deadly: str = "") -> None:
        self.folder = folder / "eyes"
        self._seen = folder / "seen"
        self.folder.mkdir()
        self._seen.mkdir()
        text = EYES.format(seen=str(self._seen), network=NETWORK, deadly=deadly, mark=MARK)
        (self.folder / "sitecustomize.py").write_text(text)
        self.settings = f"[runtime_env.env_vars]\nPYTHONPATH = {json.dumps(str(self.folder))}\n"

    def seen(self, node: int) -> set[str]:
        """Addresses that actors of a node have turned to."""
        path = self._seen / str(node)
        return set(path.read_text().split()) if path.exists() else set()


class Door:
    """Every address of 127.0.0.0/8 at one port. times: of handshakes, in seconds, monotonic."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        self._listener.bind(("", 0))
        self._listener.listen(4096)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._greet)

    def __enter__(self) -> "Door":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _greet(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link:
                known = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
                (since_ms,) = struct.unpack_from("=I", known, LAST_DATA_RECV)
                self.times.append(time.monotonic() - since_ms / 1000)
                try:
                    link.sendall(BANNER)
                except OSError:
                    continue


def most_within(times: Sequence[float], span_s: float) -> int:
    """The greatest number of moments in any span of that length."""
    moments = sorted(times)
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - span_s:
            first += 1
        most = max(most, last - first + 1)
    return most
