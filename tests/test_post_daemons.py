"""Post-processing beside real daemons on loopback, and what a second tool says of the same ones."""

import hashlib
import re
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import daemons
import pytest
from nmap_loopback import listening
from peers import HOST, enriched, row, run
from scripted import tls_context
from test_ntlm import ENCODED, FACTS, nmap_script

from engine.api import scan
from engine.model import ScanConfig, ServiceResult

pytestmark = pytest.mark.real

OPENSSLS = {"xmpp-client": "xmpp"}  # what `openssl s_client -starttls` calls it, where it is not our name


def openssl_certificate(service: str, port: int) -> str:
    """SHA-256 of the certificate that `openssl s_client -starttls` gets."""
    options = ["-connect", f"{HOST}:{port}", "-starttls", OPENSSLS.get(service, service), "-name", daemons.DOMAIN]
    command = [daemons.tool("openssl"), "s_client", *options]
    said = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False).stdout.decode()
    found = re.search("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", said, re.DOTALL)
    assert found, said
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found[0])).hexdigest()


def assert_same_certificate(service: str, port: int) -> None:
    result = run(enriched("starttls", row(service, port, host=daemons.DOMAIN)))
    assert result.post == {"starttls": {"offered": True}}
    assert result.tls is not None
    assert result.tls.sha256 == openssl_certificate(service, port)


@pytest.mark.parametrize("daemon", [daemons.prosody, daemons.inspircd], ids=lambda daemon: daemon.__name__)
def test_starttls_in_chat(daemon: Callable[[Path], AbstractContextManager[dict[str, int]]], tmp_path: Path) -> None:
    with daemon(tmp_path) as ports:
        for service, port in ports.items():
            assert_same_certificate(service, port)


def test_an_xmpp_server_that_does_not_know_the_address_leaves_the_row(tmp_path: Path) -> None:
    with daemons.prosody(tmp_path) as ports:
        result = run(enriched("starttls", row("jabber", ports["xmpp-client"])))
    assert (result.post, result.tls) == (None, None)


def test_an_irc_server_without_starttls_gives_no_certificate(tmp_path: Path) -> None:
    with daemons.ngircd(tmp_path) as ports:
        result = run(enriched("starttls", row("irc", ports["irc"])))
    assert result.tls is None


def test_starttls_in_news() -> None:
    """As a news server does it: what a client asks before STARTTLS is answered, too."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"200 news\r\n")
        while (line := connection.recv(100)) != b"STARTTLS\r\n":
            if not line:
                return
            connection.sendall(b"101 list\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n")
        connection.sendall(b"382 go\r\n")
        with tls_context().wrap_socket(connection, server_side=True) as inner:
            inner.recv(1)

    with listening([serve]) as [port]:
        assert_same_certificate("nntp", port)


def test_mail_by_dovecot() -> None:
    """STARTTLS of all its services, and NTLM of those where clients log in."""
    with daemons.dovecot(ENCODED.decode()) as ports:
        for service, port in ports.items():
            assert_same_certificate(service, port)
        for service in ("imap", "pop3"):
            result = run(enriched("ntlm", row(service, ports[service])))
            assert result.post == {"ntlm": {"offered": True} | FACTS}
            assert "DNS_Computer_Name: srv1.example.test" in nmap_script(f"{service}-ntlm-info", ports[service])


def test_rdp_by_xrdp(tmp_path: Path) -> None:
    """It has no NLA: asked for it, it agrees to RDP's own protection, which Nmap's script takes for a success, too."""
    with daemons.xrdp(tmp_path) as ports:
        port = ports["ms-wbt-server"]
        result = run(enriched("rdp", row("ms-wbt-server", port)))
        refused = run(enriched("ntlm", row("ms-wbt-server", port)))
        script = nmap_script("rdp-enum-encryption", port)
    assert result.post == {"rdp": {"accepted": ["tls", "rdp"]}}
    assert result.tls is not None
    pem = (tmp_path / "cert.pem").read_text()
    assert result.tls.sha256 == hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert refused.post == {"ntlm": {"offered": False}}
    assert {"SSL: SUCCESS", "Native RDP: SUCCESS"} <= {line.strip("| ") for line in script.splitlines()}


def test_a_scan_of_real_servers_with_and_without(tmp_path: Path) -> None:
    """By default a server sees as many connections as without post-processing; with modules, as many as they cost."""
    log = tmp_path / "daemon.log"

    async def rows(port: int, names: tuple[str, ...]) -> tuple[list[ServiceResult], int]:
        before = log.read_text().count("Connection from ")
        found = [row async for row in scan([f"{HOST}:{port}"], ScanConfig(probes=("builtin",), post=names))]
        return found, log.read_text().count("Connection from ") - before

    with daemons.sshd(tmp_path, "LogLevel VERBOSE") as ports:
        ([plain], none), ([usual], default), ([full], more) = (
            run(rows(ports["ssh"], names)) for names in ((), ("default",), ("ssh", "ssh-keys"))
        )
    assert none == default == plain.connections == usual.connections
    assert more == full.connections == plain.connections + 4
    assert (plain.post, usual.post) == (None, None)
    assert full.post is not None
    assert full.post["ssh"].keys() >= {"hassh", "kex", "keys"}
    assert (full.name, full.product) == ("ssh", "OpenSSH")
