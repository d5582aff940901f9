"""Real servers of DTLS on loopback, where they are installed: what they show us is what `openssl s_client` sees."""

import hashlib
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import certificate
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from daemons import tool
from loopback import database_file

from engine.databases import open_matcher
from engine.model import Reason, ScanConfig, ServiceResult, Target, Tunnel, Verdict
from probemill import scan_sync

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.xdist_group("dtls")]
NEWER = Path(__file__).parents[2] / "shared" / "data" / "nmap-service-probes-2026-08"
PATIENCE_S = 60.0  # coturn takes its time
COTURN, COAP, OPENSSL = "127.77.0.1", "127.77.0.2", "127.77.0.3"
GNUTLS = "127.0.0.1"  # answers from there, wherever it was asked
PORT = 45349
COAPS = 5684  # its DTLS; one below is CoAP in the open

DATABASE = rb"""Probe UDP Hello q|@HELLO@|
rarity 1
totalwaitms 1000
match dtls m|^[\x15\x16]\xfe|
Probe UDP STUN q|\0\x01\0\0!\x12\xa4Bprobemillstn|
rarity 9
totalwaitms 1000
sslports 1-65535
match stun m|^\x01\x01.*Coturn-([\d.]+)|s p/coturn/ v/$1/
match banner m|^HELLO FROM (\w+)| p/$1/
match echo m|^\0\x01\0\0!\x12\xa4Bprobemillstn$|
"""


@pytest.fixture(scope="module")
def hello() -> bytes:
    """The ClientHello of the package's database."""
    probes = open_matcher(("builtin",), "reference").database.probes
    return next(probe.payload for probe in probes if probe.name == "DTLSHello")


@pytest.fixture
def database(tmp_path: Path, hello: bytes) -> str:
    return database_file(tmp_path, DATABASE.replace(b"@HELLO@", b"".join(b"\\x%02x" % byte for byte in hello)))


class Credentials:
    """A key and a certificate in files that every server can read."""

    def __init__(self, folder: Path) -> None:
        key = rsa.generate_private_key(65537, 2048)
        der = certificate(key, name="dtls.test")
        self.sha256 = hashlib.sha256(der).hexdigest()
        self.folder = folder
        self.key, self.certificate = folder / "key.pem", folder / "certificate.pem"
        self.certificate.write_text(ssl.DER_cert_to_PEM_cert(der))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path)


@contextmanager
def daemon(program: str, *arguments: object, said: bytes = b"") -> Iterator[None]:
    """It runs, and is ended by its number. said: what it reads."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [tool(program), *map(str, arguments)], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(said)
            process.stdin.flush()
            yield
        finally:
            process.kill()


def seen(host: str, port: int) -> str:
    """The hash of the certificate that openssl is shown; it asks until somebody answers."""
    openssl = tool("openssl")
    patience = time.monotonic() + PATIENCE_S
    while time.monotonic() < patience:
        command = [openssl, "s_client", "-dtls", "-connect", f"{host}:{port}"]
        try:
            shown = subprocess.run(command, input="", capture_output=True, text=True, timeout=5, check=False).stdout
        except subprocess.TimeoutExpired:
            continue
        if found := re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", shown, re.DOTALL):
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found[0])).hexdigest()
        time.sleep(0.2)
    raise AssertionError("nobody answers")


def scanned(database: str, host: str, port: int, **options: object) -> ServiceResult:
    target = Target(0, host, port, "udp", state="open|filtered")
    [row] = scan_sync([target], ScanConfig(probes=(database,), **options))  # type: ignore[arg-type]
    return row


def test_coturn(credentials: Credentials, database: str) -> None:
    folder = credentials.folder
    settings = {
        "listening-ip": COTURN,
        "listening-port": PORT - 1,
        "tls-listening-port": PORT,
        "cert": credentials.certificate,
        "pkey": credentials.key,
        "userdb": folder / "users",
        "pidfile": folder / "pid",
        "log-file": "/dev/null",
        "realm": "dtls.test",
    }
    config = folder / "turnserver.conf"
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()) + "no-cli\nno-stdout-log\n")
    with daemon("turnserver", "-c", config):
        sha256 = seen(COTURN, PORT)
        row = scanned(database, COTURN, PORT)
    assert (row.name, row.product, row.tunnel) == ("stun", "coturn", Tunnel.SSL)
    assert row.tls is not None
    assert row.tls.sha256 == sha256 == credentials.sha256
    assert row.tls.protocol == "DTLSv1.2"


def coap_arguments(credentials: Credentials) -> tuple[object, ...]:
    return "-A", COAP, "-p", COAPS - 1, "-c", credentials.certificate, "-j", credentials.key, "-n", "-v", 0


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
def test_coap_with_the_database_of_the_package(credentials: Credentials, library: str) -> None:
    """The port names both: DTLS outside, CoAP inside; the older generation stops at the first."""
    with daemon(f"coap-server-{library}", *coap_arguments(credentials)):
        sha256 = seen(COAP, COAPS)
        row = scanned("builtin", COAP, COAPS)
        older = scanned("builtin", COAP, COAPS, generation="7.93")
    assert (row.name, row.product, row.tunnel) == ("coap", "libcoap", Tunnel.SSL)
    assert row.tls is not None
    assert row.tls.sha256 == sha256 == credentials.sha256
    assert (older.name, older.tunnel, older.tls) == ("dtls", Tunnel.NONE, None)


def test_coap_with_nmaps_newest_file(credentials: Credentials) -> None:
    """Its own probe for DTLS leads into the tunnel, and its probe for CoAP names the port inside."""
    if not NEWER.exists():
        pytest.skip(f"{NEWER.name} is not here")
    with daemon("coap-server-openssl", *coap_arguments(credentials)):
        sha256 = seen(COAP, COAPS)
        row = scanned(str(NEWER), COAP, COAPS)
        older = scanned(str(NEWER), COAP, COAPS, generation="7.93")
    assert (row.name, row.tunnel, row.verdict) == ("coap", Tunnel.SSL, Verdict.SOFTMATCHED)
    assert row.tls is not None
    assert row.tls.sha256 == sha256
    assert (older.name, older.tunnel) == ("dtls", Tunnel.NONE)


def test_gnutls(credentials: Credentials, database: str) -> None:
    """An echo. It listens on all addresses; a datagram that is no DTLS would keep it busy for ever."""
    files = "--x509keyfile", credentials.key, "--x509certfile", credentials.certificate
    with daemon("gnutls-serv", "--udp", "--echo", "--port", PORT + 1, *files):
        sha256 = seen(GNUTLS, PORT + 1)
        row = scanned(database, GNUTLS, PORT + 1)
    assert (row.name, row.tunnel) == ("echo", Tunnel.SSL)
    assert row.tls is not None
    assert row.tls.sha256 == sha256 == credentials.sha256


@pytest.mark.parametrize(("version", "told"), [("-dtls1_2", "DTLSv1.2"), ("-dtls1", "DTLSv1")])
def test_openssl(credentials: Credentials, database: str, version: str, told: str) -> None:
    """It says by itself what it reads, to the only client that it ever has."""
    files = "-key", credentials.key, "-cert", credentials.certificate
    arguments = version, "-listen", "-accept", f"{OPENSSL}:{PORT}", "-quiet", "-cipher", "ALL:@SECLEVEL=0"
    with daemon("openssl", "s_server", *arguments, *files, said=b"HELLO FROM s_server\n"):
        time.sleep(0.5)
        row = scanned(database, OPENSSL, PORT)
    assert (row.name, row.product, row.tunnel) == ("banner", "s_server", Tunnel.SSL)
    assert row.tls is not None
    assert (row.tls.sha256, row.tls.protocol) == (credentials.sha256, told)


def test_a_server_that_wants_a_shared_key(credentials: Credentials, database: str) -> None:
    """It refuses everybody else with an alert: the handshake fails, as one in TLS would."""
    arguments = "-dtls", "-listen", "-accept", f"{OPENSSL}:{PORT + 2}", "-quiet", "-nocert", "-psk", "0123456789abcdef"
    with daemon("openssl", "s_server", *arguments):
        time.sleep(0.5)
        row = scanned(database, OPENSSL, PORT + 2)
    assert (row.verdict, row.reason, row.tunnel) == (Verdict.INCOMPLETE, Reason.TLS, Tunnel.SSL)
