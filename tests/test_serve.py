"""A worker process whose collector has gone."""

import asyncio
import socket

import uvloop

from engine.pool.serve import _say
from engine.pool.wire import Kind

PATIENCE_S = 10.0


def test_rows_for_a_collector_that_is_gone() -> None:
    """They are dropped: an error here would be told as a fault of the target whose row it was."""

    async def tell() -> None:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_unix_connection(sock=ours)
        theirs.close()
        async with asyncio.timeout(PATIENCE_S):
            while not writer.is_closing():
                _say(writer, Kind.ALIVE)
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        _say(writer, Kind.BATCH, b"rows")
        assert writer.transport.get_write_buffer_size() == 0

    uvloop.run(tell())
