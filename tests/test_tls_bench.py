"""The yardsticks for TLS hold the conversations that they are said to hold."""

import socket

import pytest

from bench import tls_bare
from bench.native import addresses
from bench.tls_farm import tls_farm
from engine.transports.tls import client_context


@pytest.mark.parametrize("kind", [tls_bare.handshake, tls_bare.conversation])
def test_a_bare_loop_visits_all(kind: tls_bare.Kind) -> None:
    """With more of them than it visits at a time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tls_farm(port, 2):
        assert tls_bare.cpu_s(kind, client_context(), addresses(150), port) > 0
