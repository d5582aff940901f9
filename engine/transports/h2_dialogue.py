"""A short conversation in HTTP/2, over any stream of dial.py: what the server opens with, and its answer to requests.

The h2 library keeps the protocol, and with it the tables of compressed headers, whose sizes we announce and it
enforces; how much it is given, and how many frames, is bounded here, so that neither a flood of empty frames nor
headers that grow when unpacked cost more than a page does. What a server that breaks the rules has said until then
counts.

Source: RFC 9113 (HTTP/2), RFC 7541 (header compression). Needs the extra `deep`.
"""

import asyncio
from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from engine.transports.base_http import Answer
from engine.transports.dial import DialError, Stream
from engine.transports.h2_frames import Opening, opening

LIMIT = 65_536  # bytes of a conversation
PIECE = 1024  # bytes given to the library at once, between two looks at how much it made of them
OPENING = 8192  # bytes in which the first frames are looked for
EVENTS = 512  # of a conversation; a flood of empty frames makes one of every nine bytes
HEADER_LIST = 16384  # bytes of an answer's headers, unpacked
HEADER_TABLE = 4096  # bytes of the table they are unpacked with


class Conversation:
    """One connection. Requests one after another, while `open`.

    opening: what the server said by itself, once it has.
    """

    def __init__(self, stream: Stream) -> None:
        self.opening: Opening | None = None
        self.open = True
        self._stream = stream
        self._begun = False
        self._raw = b""
        self._left = LIMIT
        self._events = 0
        self._h2 = H2Connection(H2Configuration(header_encoding=None, validate_inbound_headers=False))
        self._h2.local_settings.update(
            {
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.HEADER_TABLE_SIZE: HEADER_TABLE,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST,
            }
        )
        self._h2.decoder.max_header_list_size = HEADER_LIST  # from now on, not only once the server has agreed

    async def request(self, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Answer:
        """The answer as far as it came. Raises DialError where the request cannot be sent, or this is no HTTP/2."""
        try:
            if not self._begun:
                self._h2.initiate_connection()
                self._begun = True
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, list(headers), end_stream=not body)
            if body:
                self._h2.send_data(number, body, end_stream=True)
        except H2Error as error:
            raise DialError(f"HTTP/2: {error}") from error
        await self._stream.send(self._h2.data_to_send())
        answer, ended = Answer(), False
        while self.open and not ended:
            for event in await self._more():
                answer, over = _grown(answer, event, number)
                ended = ended or over
        if self.opening is None:
            raise DialError("not HTTP/2")
        return answer

    async def _more(self) -> list[Event]:
        """What the next bytes mean. The conversation is over where there are none, too many, or other than HTTP/2."""
        await asyncio.sleep(0)  # what has come already is taken without waiting, and must not keep the loop
        try:
            data = await self._stream.recv(min(PIECE, self._left))
        except DialError:
            data = b""
        self._left -= len(data)
        if len(self._raw) < OPENING:
            self._raw += data
            self.opening = opening(self._raw)
        if not data:
            self.open = False
            return []
        try:
            events = self._h2.receive_data(data)
            if reply := self._h2.data_to_send():
                await self._stream.send(reply)
        except Exception:  # h2 has errors of its own and, for bytes of strangers, others
            self.open = False
            return []
        self._events += len(events)
        if self._events > EVENTS or self._left <= 0 or any(isinstance(event, ConnectionTerminated) for event in events):
            self.open = False
        return events


def _grown(answer: Answer, event: Event, number: int) -> tuple[Answer, bool]:
    """The answer with what an event adds to it, and whether it is complete, or enough of it."""
    if getattr(event, "stream_id", None) != number:
        return answer, False
    match event:
        case ResponseReceived() | TrailersReceived():
            return answer.with_headers([(bytes(name), bytes(value)) for name, value in event.headers or ()]), False
        case DataReceived():
            answer = answer.with_body(event.data or b"")
            return answer, answer.is_enough
        case StreamReset():
            return answer._replace(reset=int(event.error_code or 0)), True
        case StreamEnded():
            return answer, True
    return answer, False
