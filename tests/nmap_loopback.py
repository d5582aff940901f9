"""Servers on loopback, and the installed Nmap run against them: the reference that forms and texts are held against."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NMAP = shutil.which("nmap")
NMAP_DATA = next((path for path in map(Path, ("/usr/share/nmap", "/usr/local/share/nmap")) if path.is_dir()), None)

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(servers: list[Serve]) -> Iterator[list[int]]:
    """One loopback port for each server, which gets each connection in a thread of its own."""

    def accept(listener: socket.socket, serve: Serve) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection, serve), daemon=True).start()

    def talk(connection: socket.socket, serve: Serve) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in servers]
        for listener, serve in zip(listeners, servers, strict=True):
            threading.Thread(target=accept, args=(listener, serve), daemon=True).start()
        yield [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; closing alone would not


def speaking(banner: bytes, answers: dict[bytes, bytes]) -> Serve:
    """Send a banner, then an answer to each probe payload, and wait for the other side to close."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(banner)
        while data := connection.recv(4096):
            connection.sendall(answers.get(data, b""))

    return serve


def encrypted(context: ssl.SSLContext, serve: Serve) -> Serve:
    """The same inside TLS."""

    def tunnelled(connection: socket.socket) -> None:
        if not connection.recv(1, socket.MSG_PEEK):
            return
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as inner:
            inner.do_handshake()
            serve(inner)

    return tunnelled


def run_nmap(folder: Path, database: bytes, ports: list[int], *options: str) -> None:
    """`nmap -sV` on these loopback ports, without scripts; leaves out.xml, out.nmap and out.gnmap in `folder`."""
    if NMAP is None or NMAP_DATA is None:
        pytest.skip("nmap or its data folder is not installed")
    if subprocess.run([NMAP, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("nmap does not run here")
    scripts = folder / "scripts"  # an empty script database, because scripts add connections of their own
    scripts.mkdir()
    (scripts / "script.db").touch()
    for name in ("nmap-services", "nmap-protocols", "nselib", "nse_main.lua"):
        (folder / name).symlink_to(NMAP_DATA / name)
    (folder / "db").write_bytes(database)
    files = ["--datadir", folder, "--versiondb", folder / "db", "-oA", folder / "out"]
    where = ["-p", ",".join(map(str, ports)), "127.0.0.1"]
    command = [NMAP, "-n", "-Pn", "-sT", "-sV", *files, *options, *where]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
