"""Real servers of HTTP/2 and gRPC on loopback, and other tools that look at them."""

import hashlib
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("h2")

from h2_daemons import daemon
from peers import HOST, enriched, row, run

from engine.model import Tunnel, Verdict

pytestmark = pytest.mark.real

# -- real servers

EXPECTED = {
    "nghttpd": ("nghttpd nghttp2/", "3:100|00|0", "404 Not Found"),
    "nginx": ("nginx/", "3:128;4:65536;5:16777215|2147418112|0", "nginx page"),
    "caddy": ("Caddy", "5:1048576;3:250;6:1048896;4:1048576|983041|0", "caddy page"),
    "haproxy": ("HAProxy", "8:1;3:100|00|0", "haproxy page"),
    "node": ("", "|00|0", "node page"),
    "hypercorn": ("hypercorn-h2", "1:4096;2:0;4:65535;5:16384;8:1;3:100;6:65536|00|0", "hypercorn page"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_servers(name: str, tmp_path: Path) -> None:
    """Inside TLS with ALPN; what their settings are is theirs to change, so that only those of one release are told."""
    product, known, heading = EXPECTED[name]
    with daemon(name, tmp_path) as ports:
        guessed = row("unknown", ports["tls"], verdict=Verdict.NOMATCH, tunnel=Tunnel.SSL)
        result = run(enriched("http2", guessed))
        assert (result.name, result.tls and result.tls.alpn) == ("http", "h2")
        assert result.product.startswith(product)
        assert result.post is not None
        assert result.post["http2"]["title"] == heading
        if name in ("nginx", "hypercorn", "nghttpd"):
            assert result.post["http2"]["fingerprint"] == known
        if name in ("nginx", "node"):
            bare = run(enriched("http2", row("unknown", ports["clear"], verdict=Verdict.NOMATCH)))
            assert (bare.name, bare.post and bare.post["http2"]["title"]) == ("http", heading)


@pytest.mark.parametrize("name", ["nghttpd", "nginx", "caddy", "haproxy", "node", "hypercorn", "grpcio"])
def test_other_tools_see_the_same(name: str, tmp_path: Path) -> None:
    """Settings and window as nghttp prints them; protocol, cipher and certificate as openssl does."""
    for tool in ("nghttp", "openssl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    with daemon(name, tmp_path) as ports:
        where = f"{HOST}:{ports['tls']}"
        guessed = row("unknown", ports["tls"], verdict=Verdict.NOMATCH, tunnel=Tunnel.SSL)
        result = run(enriched("http2", guessed))
        frames = said_by("nghttp", "-nv", f"https://{where}/").partition("send GOAWAY")[0]
        handshake = said_by("openssl", "s_client", "-connect", where, "-alpn", "h2,http/1.1")
    assert result.post is not None
    assert result.tls is not None
    first = re.findall(r"recv SETTINGS frame <length=\d+, flags=0x00.*\n((?: {5}.*\n)*)", frames)[0]
    settings_seen = ";".join(
        f"{int(key, 16)}:{value}" for key, value in re.findall(r"\(0x([0-9a-f]+)\):(\d+)\]", first)
    )
    [*windows] = re.findall(r"recv WINDOW_UPDATE frame <length=4, flags=0x00, stream_id=0>\s+\(\S+=(\d+)\)", frames)
    assert result.post["http2"]["fingerprint"] == f"{settings_seen}|{windows[0] if windows else '00'}|0"
    assert f"ALPN protocol: {result.tls.alpn}" in handshake
    assert f"Cipher is {result.tls.cipher}" in handshake
    [certificate] = re.findall(r"-----BEGIN.*?-----END CERTIFICATE-----", handshake, re.DOTALL)
    assert result.tls.sha256 == hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


def said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL, check=False)
    return done.stdout.decode("latin-1")


@pytest.mark.parametrize("kind", ["tls", "clear"])
def test_a_real_grpc_server(kind: str, tmp_path: Path) -> None:
    with daemon("grpcio", tmp_path) as ports:
        result = run(enriched("http2", row("unknown", ports[kind], verdict=Verdict.NOMATCH)))
    assert (result.name, result.tunnel) == ("grpc", Tunnel.SSL if kind == "tls" else Tunnel.NONE)
    assert result.post is not None
    assert result.post["http2"]["grpc_status"] == 12
    assert result.post["http2"]["settings"]["65027"] == 1
