"""Small servers on loopback for conversations that post-processing holds, in the test's own asyncio loop.

async with tcp_peer(talk) as port: ...      talk(reader, writer) is one connection, and closes by returning
async with udp_peer(answer) as port: ...    answer(datagram) -> datagrams
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from scripted import tls_context

from engine.model import DatabaseRef, Proto, ServiceResult, Tunnel, Verdict
from engine.post import PostProcessing
from engine.transports.dial import Dialler
from engine.transports.tls import client_context

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HOST = "127.0.0.1"
LIMIT_S = 5.0

_T = TypeVar("_T")


def run(test: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(test)


@asynccontextmanager
async def tcp_peer(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    conversations: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await talk(reader, writer)
            with suppress(OSError):
                await writer.drain()
        conversations.discard(task)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(conversations):
            task.cancel()
        await asyncio.sleep(0.01)  # the transports' last callbacks


async def speak_tls(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    said: bytes = b"",
    context: ssl.SSLContext | None = None,
) -> None:
    """Shake hands in the middle of a conversation and say something. By hand: asyncio loses an early ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = (context or tls_context()).wrap_bio(incoming, outgoing, server_side=True)
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            if data := await reader.read(4096):
                incoming.write(data)
            else:
                incoming.write_eof()  # and the next step says so
        else:
            break
    session.write(said)
    writer.write(outgoing.read())


@asynccontextmanager
async def udp_peer(answer: Callable[[bytes], Iterable[bytes]]) -> AsyncIterator[int]:
    class Peer(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, sender: Any) -> None:
            for datagram in answer(data):
                self.transport.sendto(datagram, sender)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Peer, (HOST, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@cache
def _context() -> ssl.SSLContext:
    return client_context()


def dialler(port: int, limit_s: float = LIMIT_S, **options: Any) -> Dialler:
    return Dialler(HOST, port, _context(), asyncio.get_running_loop().time() + limit_s, **options)


def row(
    name: str,
    port: int,
    proto: Proto = "tcp",
    *,
    verdict: Verdict = Verdict.HARDMATCHED,
    tunnel: Tunnel = Tunnel.NONE,
    **fields: Any,
) -> ServiceResult:
    """A result as the scan leaves it."""
    guessed = verdict is Verdict.NOMATCH
    return ServiceResult(
        ip=HOST,
        port=port,
        proto=proto,
        state="open",
        name=name,
        method="table" if guessed else "probed",
        conf=3 if guessed else 10,
        verdict=verdict,
        tunnel=tunnel,
        database=DatabaseRef("test", ""),
        started="",
        **fields,
    )


def row_of(module: str, service: str, port: int) -> ServiceResult:
    """A row that the module looks at for this service; without one, of a port that nothing recognised."""
    verdict = Verdict.HARDMATCHED if service else Verdict.NOMATCH
    udp = module in ("snmp", "murmur", "quic") or service == "quic"
    inside = module in ("jarm", "sharing") or (module == "http2" and service not in ("grpc", "http2", "ssl"))
    tunnel = Tunnel.SSL if inside else Tunnel.NONE
    return row(service or "unknown", port, "udp" if udp else "tcp", verdict=verdict, tunnel=tunnel)


async def enriched(module: str, result: ServiceResult, limit_s: float = LIMIT_S) -> ServiceResult:
    """What one module makes of a result; it has to want it."""
    post = PostProcessing((module,))
    assert post.wants(result)
    return await post.enrich(result, b"", dialler(result.port, limit_s))
