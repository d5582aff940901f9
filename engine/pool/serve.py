"""A worker alone in a process: targets come through an inherited socket, rows and faults go back (wire.py: the form).

Used by runners/processes.py. The setup comes first, READY answers it, or a FAULT that ends the run; DRAIN is answered
by BYE when all is done. The process ends when the collector closes the link, and so it does when the collector dies.
"""

import asyncio
import os
import socket
import sys
from select import select

import msgspec
import uvloop

from engine.conversation.context import scan_context
from engine.databases import open_ahead
from engine.errors import EngineError
from engine.model import Reason, Target
from engine.pool.wire import OPEN, Kind, frame, receive, setup
from engine.pool.worker import Worker, have_process, in_batches
from matcher import MatcherError

BEAT_S = 0.25  # from one sign of life to the next
SWITCH_S = 0.0005  # the loop gets its turn so soon while a thread makes sets ready; usually there is no other thread
WRITE_BUFFER = 4 << 20  # bytes of rows waiting for the collector; beyond it no new target is begun


def _say(writer: asyncio.StreamWriter, kind: Kind, body: bytes = b"") -> None:
    """Tell the collector. Harmless when it is gone: this process ends soon, and no target is to blame."""
    if not writer.is_closing():
        writer.write(frame(kind, body))


async def _drain(worker: Worker, writer: asyncio.StreamWriter) -> None:
    """Say goodbye when all is done."""
    await worker.idle()
    _say(writer, Kind.BYE)


async def _beat(worker: Worker, writer: asyncio.StreamWriter) -> None:
    """Say that the loop goes round, and how much goes on in it: who is stuck is replaced."""
    while True:
        await asyncio.sleep(BEAT_S)
        _say(writer, Kind.ALIVE, OPEN.pack(worker.conversations))


async def _serve(link: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=link, limit=1 << 22)
    message = await receive(reader)
    if message is None or message[0] is not Kind.SETUP:
        return
    config = setup(message[1])
    encode = msgspec.msgpack.Encoder().encode
    try:
        context = scan_context(config)
        outbox = in_batches(
            config,
            context,
            lambda batch: _say(writer, Kind.BATCH, encode(batch)),
            lambda: writer.transport.get_write_buffer_size() > WRITE_BUFFER,
        )
        worker = Worker(config, context, outbox)
    except (MatcherError, EngineError) as error:
        family = MatcherError if isinstance(error, MatcherError) else EngineError
        text = str(error).encode(errors="backslashreplace").decode()
        _say(writer, Kind.FAULT, encode((family.__name__, text)))
        while await receive(reader) is not None:  # a link that closes with something unread takes our words along
            pass
        return
    decode = msgspec.msgpack.Decoder(list[Target]).decode
    _say(writer, Kind.READY, encode(context.reference))
    beating = asyncio.create_task(_beat(worker, writer))
    draining: asyncio.Task[None] | None = None
    while (message := await receive(reader)) is not None:
        kind, body = message
        if kind is Kind.TARGETS:
            worker.submit(decode(body))
        elif kind is Kind.CANCEL:
            worker.cancel(Reason(body.decode()))
        elif kind is Kind.DRAIN:
            draining = asyncio.create_task(_drain(worker, writer))
    beating.cancel()
    if draining is not None:
        draining.cancel()
    worker.close()
    writer.close()


def serve(descriptor: int) -> None:
    """The main function of a worker process, which inherits its link. Does not return: no thread is waited for."""
    sys.setswitchinterval(SWITCH_S)
    link = socket.socket(fileno=descriptor)
    if not select([link], [], [], 0)[0]:  # it was started ahead
        open_ahead()
    if link.recv(1, socket.MSG_PEEK):  # else it was started ahead, and nobody has wanted it
        have_process()
        uvloop.run(_serve(link))
    sys.stderr.flush()
    os._exit(0)
