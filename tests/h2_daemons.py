"""Real servers of HTTP/2, gRPC and HTTP/3 on loopback, each started for a test that asks for it, where it is installed.

with daemon("nghttpd", folder) as ports: ...    ports: by kind, "tls" and "clear", TCP; "quic" is UDP
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemons import HOST, PATH, ended, free_ports, tool
from scripted import pem

from engine.transports.tls import client_context

START_S = 15

NGINX = """daemon off; pid nginx.pid; error_log nginx.err; events {{}}
http {{ access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
scgi_temp_path t5;
server {{ listen 127.0.0.1:{tls} ssl http2; ssl_certificate both.pem; ssl_certificate_key both.pem;
location / {{ return 200 "<title>nginx page</title>"; }} }}
server {{ listen 127.0.0.1:{clear} http2; location / {{ return 200 "<title>nginx page</title>"; }} }} }}
"""
CADDY = """{{
admin off
auto_https disable_redirects
skip_install_trust
}}
https://127.0.0.1:{tls} {{
bind 127.0.0.1
tls internal
respond "<title>caddy page</title>"
}}
"""
HAPROXY = """global
  maxconn 50
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend f
  bind 127.0.0.1:{tls} ssl crt both.pem alpn h2,http/1.1
  http-request return status 200 content-type text/html string "<title>haproxy page</title>"
"""
NODE = """const h = require('http2'), both = require('fs').readFileSync('both.pem');
const page = (s) => {{ s.respond({{':status': 200}}); s.end('<title>node page</title>'); }};
h.createSecureServer({{key: both, cert: both}}).on('stream', page).listen({tls}, '127.0.0.1');
h.createServer().on('stream', page).listen({clear}, '127.0.0.1');
"""
GRPC = """import grpc, threading
from concurrent import futures
both = open("both.pem", "rb").read()
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_insecure_port("127.0.0.1:{clear}")
server.add_secure_port("127.0.0.1:{tls}", grpc.ssl_server_credentials([(both, both)]))
server.start()
threading.Event().wait()
"""
APPLICATION = """async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        said = (await receive())["type"]
        await send({"type": said + ".complete"})
        if said == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<title>hypercorn page</title>"})
"""
HYPERCORN = """bind = ["127.0.0.1:{tls}"]
quic_bind = ["127.0.0.1:{tls}"]
certfile = "both.pem"
keyfile = "both.pem"
alpn_protocols = ["h2"]
"""

# name: (file of its configuration, its text, its command)
DAEMONS: dict[str, tuple[str, str, list[str]]] = {
    "nghttpd": ("", "", ["nghttpd", "{tls}", "both.pem", "both.pem"]),
    "nginx": ("nginx.conf", NGINX, ["nginx", "-p", "{folder}", "-c", "nginx.conf", "-e", "nginx.err"]),
    "caddy": ("Caddyfile", CADDY, ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]),
    "haproxy": ("haproxy.cfg", HAPROXY, ["haproxy", "-f", "haproxy.cfg", "-db"]),
    "node": ("node.js", NODE, ["node", "node.js"]),
    "grpcio": ("server.py", GRPC, [sys.executable, "server.py"]),
    "hypercorn": ("hypercorn.toml", HYPERCORN, [sys.executable, "-m", "hypercorn", "-c", "hypercorn.toml", "app:app"]),
}
MODULES = {"grpcio": "grpc", "hypercorn": "hypercorn"}


@contextmanager
def daemon(name: str, folder: Path) -> Iterator[dict[str, int]]:
    """Skips the test where it is not installed."""
    file, text, command = DAEMONS[name]
    if name in MODULES:
        if importlib.util.find_spec(MODULES[name]) is None:
            pytest.skip(f"{name} is not installed")
    else:
        tool(command[0])
    ports = dict(zip(("tls", "clear"), free_ports(2), strict=True))
    (folder / "both.pem").write_bytes(pem())
    (folder / "app.py").write_text(APPLICATION)
    if file:
        (folder / file).write_text(text.format(**ports))
    line = [part.format(folder=folder, **ports) for part in command]
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "PATH": PATH, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log, env=environment)
        with ended(process):
            _wait_for(ports["tls"], process, folder / "log")
            yield {**ports, "quic": ports["tls"]}


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    context = client_context(("h2",))
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection((HOST, port), 1) as sock, context.wrap_socket(sock):
                return  # one that has yet to make its certificate breaks off
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"it did not start: {log.read_text(errors='replace')[-2000:]}")
