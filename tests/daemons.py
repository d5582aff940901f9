"""Real daemons on loopback for tests of post-processing, each from a folder of its own; skips where one is missing.

with prosody(folder) as ports: ...      ports by name of the service; the daemon ends with the block
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

HOST = "127.0.0.1"
DOMAIN = "daemon.test"
START_S = 20.0
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


@cache
def tool(name: str) -> str:
    """Where a program is; skips the test without it."""
    return shutil.which(name, path=PATH) or pytest.skip(f"{name} is not installed")


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones, on which nobody listens now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """At the end of the block: asked to, and where it does not hear, made to."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for DOMAIN, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", f"/CN={DOMAIN}"]
    subprocess.run([tool("openssl"), *request, "-keyout", key, "-out", cert], capture_output=True, check=True)
    key.chmod(0o600)
    return cert, key


@contextlib.contextmanager
def running(command: Sequence[str | Path], ports: Sequence[int], folder: Path) -> Iterator[None]:
    """A daemon in the foreground, from when it listens on all its ports to the end of the block."""
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
    with ended(process):
        for port in ports:
            _await_listener(port, process, folder)
        yield


def _await_listener(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """By the kernel's table, not by a connection, which the daemon would count."""
    wanted = f" 0100007F:{port:04X} 00000000:0000 0A "
    until = time.monotonic() + START_S
    while wanted not in Path("/proc/net/tcp").read_text():
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"the daemon did not start: {(folder / 'daemon.log').read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def prosody(folder: Path) -> Iterator[dict[str, int]]:
    clients, servers = free_ports(2)
    cert, key = certificate(folder)
    settings = folder / "prosody.cfg.lua"
    settings.write_text(f"""
run_as_root = true
pidfile = "{folder}/prosody.pid"
data_path = "{folder}"
modules_enabled = {{ "tls", "saslauth", "dialback" }}
interfaces = {{ "{HOST}" }}
c2s_ports = {{ {clients} }}
s2s_ports = {{ {servers} }}
log = {{ info = "*console" }}
ssl = {{ key = "{key}"; certificate = "{cert}" }}
VirtualHost "{DOMAIN}"
""")
    with running([tool("prosody"), "--config", settings, "-F"], [clients, servers], folder):
        yield {"xmpp-client": clients, "xmpp-server": servers}


@contextlib.contextmanager
def inspircd(folder: Path) -> Iterator[dict[str, int]]:
    (port,) = free_ports(1)
    cert, key = certificate(folder)
    settings = folder / "inspircd.conf"
    settings.write_text(f"""
<server name="irc.{DOMAIN}" description="x" network="x">
<admin name="x" nick="x" email="x@{DOMAIN}">
<module name="ssl_gnutls"><module name="starttls">
<sslprofile name="Clients" provider="gnutls" certfile="{cert}" keyfile="{key}">
<bind address="{HOST}" port="{port}" type="clients">
<connect allow="*" resolvehostnames="no" useident="no" timeout="30">
<pid file="{folder}/inspircd.pid">
""")
    with running([tool("inspircd"), "--runasroot", "--nofork", "--nolog", "--config", settings], [port], folder):
        yield {"irc": port}


@contextlib.contextmanager
def ngircd(folder: Path) -> Iterator[dict[str, int]]:
    """It has no STARTTLS."""
    (port,) = free_ports(1)
    settings = folder / "ngircd.conf"
    settings.write_text(f"""
[Global]
Name = irc.{DOMAIN}
Info = x
Listen = {HOST}
Ports = {port}
PidFile = {folder}/ngircd.pid
[Options]
Ident = no
DNS = no
PAM = no
""")
    with running([tool("ngircd"), "-n", "-f", settings], [port], folder):
        yield {"irc": port}


@contextlib.contextmanager
def xrdp(folder: Path) -> Iterator[dict[str, int]]:
    """It has TLS and RDP's own encryption, and no NLA."""
    (port,) = free_ports(1)
    cert, key = certificate(folder)
    known = Path("/etc/xrdp/xrdp.ini")
    program = tool("xrdp")
    if not known.exists():
        pytest.skip("xrdp has no settings here")
    changed = {"port": f"tcp://{HOST}:{port}", "certificate": cert, "key_file": key, "LogFile": folder / "xrdp.log"}
    lines = []
    for line in known.read_text().splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={changed.pop(name)}" if name in changed else line)
    settings = folder / "xrdp.ini"
    settings.write_text("\n".join(lines))
    with running([program, "--nodaemon", "--config", settings], [port], folder):
        yield {"ms-wbt-server": port}


@contextlib.contextmanager
def dovecot(challenge: str) -> Iterator[dict[str, int]]:
    """IMAP, POP3, LMTP and ManageSieve; with a helper of NTLM that has this CHALLENGE (base64) for everybody.

    As root only, and in a folder of its own under /tmp: its processes run as several users.
    """
    if os.geteuid() != 0:
        pytest.skip("Dovecot starts as root only")
    services = {"imap": "imap-login", "pop3": "pop3-login", "lmtp": "lmtp", "sieve": "managesieve-login"}
    program = tool("dovecot")
    for binary in services.values():
        if not Path("/usr/lib/dovecot", binary).exists():
            pytest.skip(f"dovecot has no {binary} here")
    with tempfile.TemporaryDirectory(prefix="dovecot") as place:
        folder = Path(place)
        folder.chmod(0o755)
        ports = dict(zip(services, free_ports(len(services)), strict=True))
        settings = _dovecot_settings(folder, services, ports, challenge)
        with running([program, "-F", "-c", settings], list(ports.values()), folder):
            yield ports


def _dovecot_settings(folder: Path, services: dict[str, str], ports: dict[str, int], challenge: str) -> Path:
    cert, key = certificate(folder)
    helper = folder / "helper"
    helper.write_text(f'#!/bin/sh\nwhile read -r line; do echo "TT {challenge}"; done\n')
    helper.chmod(0o755)
    listeners = "\n".join(
        f"service {service} {{\n inet_listener {name} {{\n address = {HOST}\n port = {ports[name]}\n }}\n}}"
        for name, service in services.items()
    )
    implicit = "".join(
        f"service {service} {{\n inet_listener {service.partition('-')[0]}s {{\n port = 0\n }}\n}}\n"
        for service in ("imap-login", "pop3-login")
    )
    settings = folder / "dovecot.conf"
    settings.write_text(f"""
protocols = imap pop3 lmtp sieve
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain ntlm
auth_use_winbind = yes
auth_winbind_helper_path = {helper}
mail_location = maildir:{folder}/mail
passdb {{
 driver = static
 args = password=x
}}
userdb {{
 driver = static
 args = uid=65534 gid=65534 home={folder}
}}
{listeners}
{implicit}
""")
    return settings


KEY_TYPES = {"ed25519": (), "ecdsa": ("-b", "384"), "rsa": ("-b", "3072")}


def ssh_keygen(folder: Path, kind: str, *options: str) -> Path:
    path = folder / f"{kind}_key"
    command = [tool("ssh-keygen"), "-q", "-t", kind, *options, "-N", "", "-f", path, "-C", ""]
    subprocess.run(command, capture_output=True, check=True)
    return path


@contextlib.contextmanager
def sshd(folder: Path, *options: str) -> Iterator[dict[str, int]]:
    """With a key of each of KEY_TYPES. options: lines for sshd_config."""
    (port,) = free_ports(1)
    program = tool("sshd")
    Path("/run/sshd").mkdir(exist_ok=True)  # where it wants to be, be it asked for another place or not
    keys = "\n".join(f"HostKey {ssh_keygen(folder, kind, *sizes)}" for kind, sizes in KEY_TYPES.items())
    settings = folder / "sshd_config"
    more = "\n".join(options)
    settings.write_text(f"ListenAddress {HOST}:{port}\n{keys}\nPidFile none\nUsePAM no\nMaxStartups 99\n{more}\n")
    with running([program, "-D", "-e", "-f", settings], [port], folder):
        yield {"ssh": port}


@contextlib.contextmanager
def dropbear(folder: Path) -> Iterator[dict[str, int]]:
    (port,) = free_ports(1)
    program, keygen = tool("dropbear"), tool("dropbearkey")
    options: list[str | Path] = []
    for kind in ("ed25519", "ecdsa", "rsa"):
        key = folder / f"dropbear_{kind}"
        subprocess.run([keygen, "-t", kind, "-f", key], capture_output=True, check=True)
        options += ["-r", key]
    pid = folder / "dropbear.pid"
    with running([program, "-F", "-E", "-p", f"{HOST}:{port}", "-P", pid, *options], [port], folder):
        yield {"ssh": port}
