"""Real servers on loopback, where they are installed: OpenSSL's, nginx, sslh. A test without them is skipped.

    with s_server(files, "-tls1_2") as port: ...
    with nginx(files, tmp_path) as port: ...
    with sslh(http=80, tls=443) as port: ...

`files` come from `files_of`; each server is a process of its own that ends with the block.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import NamedTuple

from certificates import Key
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from daemons import HOST, free_port, tool

START_S = 10.0


class Files(NamedTuple):
    """In PEM. certificates: the server's own first."""

    key: Path
    certificates: Path


def files_of(folder: Path, key: Key, *ders: bytes) -> Files:
    files = Files(folder / "server.key", folder / "server.crt")
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    pems = [x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders]
    files.certificates.write_bytes(b"".join(pems))
    return files


@contextmanager
def running(command: Sequence[str | Path], port: int) -> Iterator[int]:
    """The port, once something listens there. With the process end those that it has started."""
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            until = time.monotonic() + START_S
            while not _listens(port):
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                assert time.monotonic() < until, f"{command} does not listen"
                time.sleep(0.02)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as visitor:
        return visitor.connect_ex((HOST, port)) == 0


@contextmanager
def s_server(files: Files, *options: str) -> Iterator[int]:
    """`openssl s_server`, as a web server that tells of the handshake."""
    port = free_port()
    command = (tool("openssl"), "s_server", "-accept", f"{HOST}:{port}", "-quiet", "-www", "-key", files.key)
    chain = ("-cert", files.certificates, "-cert_chain", files.certificates)
    with running((*command, *chain, *options), port):
        yield port


@contextmanager
def nginx(files: Files, folder: Path, *settings: str) -> Iterator[int]:
    """A web server in TLS, with further settings of its `server`; one that begins with `listen` stands for the usual.

    `{port}` in them is the port.
    """
    path, port = tool("nginx"), free_port()
    listen = () if any(each.startswith("listen") for each in settings) else (f"listen {HOST}:{port} ssl",)
    own = ";\n".join(
        (
            *listen,
            f"ssl_certificate {files.certificates}",
            f"ssl_certificate_key {files.key}",
            "return 204",
            *(each.replace("{port}", str(port)) for each in settings),
        )
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{ }}\nhttp {{ access_log off; server {{ {own}; }} }}\n"
    )
    with running((path, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"), port):
        yield port


@contextmanager
def sslh(**behind: int) -> Iterator[int]:
    """A multiplexer before the ports of these protocols; who says nothing for a second gets `ssh`."""
    path, port = tool("sslh"), free_port()
    options = [part for name, to in behind.items() for part in (f"--{name}", f"{HOST}:{to}")]
    with running((path, "-f", "-n", "-t", "1", "-u", getuser(), "-p", f"{HOST}:{port}", *options), port):
        yield port
