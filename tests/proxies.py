"""Real proxies on loopback, as far as they are installed, each forwarding from an address of its own.

with microsocks() as proxy: scan(..., config(database, proxy=(proxy.url,)))

Each is looked for, and the test that wants it skipped with a reason where it is not there. Only processes that were
started here are ended, by their id.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from daemons import HOST, ended, free_port, tool

START_S = 15.0


class Running(NamedTuple):
    """url: as --proxy takes it; from_address: where its targets see it come from, or "" where that cannot be chosen."""

    url: str
    from_address: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def running(command: Sequence[str], port: int, url: str, from_address: str = "") -> Iterator[Running]:
    """Until it listens; ended at the end."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        with ended(process):
            until = time.monotonic() + START_S
            while True:
                try:
                    socket.create_connection((HOST, port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        said.seek(0)
                        pytest.skip(f"{command[0]} does not start: {said.read()[-300:]!r}")
                    time.sleep(0.05)
            yield Running(url, from_address, process)


@contextmanager
def microsocks(login: str = "", port: int = 0) -> Iterator[Running]:
    port = port or free_port()
    command = [tool("microsocks"), "-i", HOST, "-p", str(port), "-b", "127.9.0.1"]
    if login:
        user, _, password = login.partition(":")
        command += ["-u", user, "-P", password]
    with running(command, port, f"socks5h://{login}{'@' * bool(login)}{HOST}:{port}", "127.9.0.1") as proxy:
        yield proxy


@contextmanager
def danted() -> Iterator[Running]:
    """Its rules forbid 127.66.0.0/16."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "danted.conf")
        rules.write_text(
            f"""logoutput: {folder}/log
internal: {HOST} port = {port}
external: {HOST}
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 127.0.0.0/8 to: 127.66.0.0/16 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
"""
        )
        with running([tool("danted"), "-f", str(rules), "-N", "1"], port, f"socks5://{HOST}:{port}") as proxy:
            yield proxy


@contextmanager
def tinyproxy() -> Iterator[Running]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "tinyproxy.conf")
        rules.write_text(f"Port {port}\nListen {HOST}\nBind 127.9.0.3\nTimeout 30\nMaxClients 50\nAllow 127.0.0.0/8\n")
        with running([tool("tinyproxy"), "-d", "-c", str(rules)], port, f"http://{HOST}:{port}", "127.9.0.3") as proxy:
            yield proxy


@contextmanager
def squid() -> Iterator[Running]:
    """Its rules forbid 127.66.0.0/16."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        rules = Path(folder, "squid.conf")
        rules.write_text(
            f"""http_port {HOST}:{port}
acl forbidden dst 127.66.0.0/16
http_access deny forbidden
http_access allow all
tcp_outgoing_address 127.9.0.4
pid_filename {folder}/pid
cache_log {folder}/log
access_log none
cache deny all
shutdown_lifetime 0 seconds
pinger_enable off
"""
        )
        command = [tool("squid"), "-N", "-f", str(rules)]
        with running(command, port, f"http://{HOST}:{port}", "127.9.0.4") as proxy:
            yield proxy


@contextmanager
def ssh_dynamic() -> Iterator[Running]:
    """`ssh -D` into an sshd of our own."""
    sshd, ssh, keygen = tool("sshd"), tool("ssh"), tool("ssh-keygen")
    if os.getuid():
        pytest.skip("sshd is only started as root")
    door, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "user"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}"], check=True)
        shutil.copy(f"{folder}/user.pub", f"{folder}/authorized")
        server = [
            *(sshd, "-D", "-e", "-f", "/dev/null", "-h", f"{folder}/host", "-p", str(door)),
            *("-o", f"ListenAddress={HOST}", "-o", f"AuthorizedKeysFile={folder}/authorized", "-o", "StrictModes=no"),
            *("-o", "PermitRootLogin=yes", "-o", "UsePAM=no", "-o", f"PidFile={folder}/pid"),
        ]
        client = [
            *(ssh, "-N", "-D", f"{HOST}:{port}", "-p", str(door), "-i", f"{folder}/user", "-F", "/dev/null"),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known", "-o", "BatchMode=yes"),
            f"root@{HOST}",
        ]
        with running(server, door, ""), running(client, port, f"socks5h://{HOST}:{port}") as proxy:
            yield proxy


PROXIES: dict[str, Callable[[], AbstractContextManager[Running]]] = {
    "microsocks": microsocks,
    "danted": danted,
    "tinyproxy": tinyproxy,
    "squid": squid,
    "ssh -D": ssh_dynamic,
}
