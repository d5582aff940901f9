"""HTTP/2 on the wire, as far as a server's first frames go, and the fingerprint that they make. Pure, and without h2.

A server begins with a SETTINGS frame, whoever its client is: what a version scan's probes draw from one that speaks
only HTTP/2 is this frame, and a GOAWAY behind it. Which settings it names, in which order and with which values, and
by how much it widens the connection's window, is a matter of the library it is built with.

Source: RFC 9113 sections 3.4, 4.1 and 6 (frames). The fingerprint is written as Akamai writes a client's (E. Shuster,
"Passive Fingerprinting of HTTP/2 Clients", 2017), without the order of request headers, which a server has not:
`ID:VALUE;...|WINDOW_UPDATE or 00|STREAM:EXCLUSIVE:DEPENDENCY:WEIGHT,... or 0`, all numbers decimal, in wire order.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = 9  # bytes of a frame's
LARGEST = 16384  # bytes of a frame; longer ones are for who asks for them
ENTRIES = 32  # settings in a frame that is looked at; servers send up to eight
PRIORITIES = 16  # frames of this kind that are looked at; servers send none

HEADERS, PRIORITY, SETTINGS, GOAWAY, WINDOW_UPDATE = 0x1, 0x2, 0x4, 0x7, 0x8

SETTING_NAMES = {
    1: "header_table_size",
    2: "enable_push",
    3: "max_concurrent_streams",
    4: "initial_window_size",
    5: "max_frame_size",
    6: "max_header_list_size",
    8: "enable_connect_protocol",
    9: "no_rfc7540_priorities",
}


class Opening(NamedTuple):
    """What a server said before it answered. settings: in wire order; window: its first widening, or 0.

    goaway: the error with which it ended the connection and what it said to it, or None.
    """

    settings: tuple[tuple[int, int], ...]
    window: int
    priorities: tuple[tuple[int, int, int, int], ...]
    goaway: tuple[int, bytes] | None

    def fingerprint(self) -> str:
        settings = ";".join(f"{name}:{value}" for name, value in self.settings)
        priorities = ",".join(":".join(map(str, priority)) for priority in self.priorities)
        return f"{settings}|{self.window or '00'}|{priorities or '0'}"


def opening(data: bytes) -> Opening | None:
    """The opening with which a server's bytes begin, as far as it came; None where they are not HTTP/2."""
    frames = _frames(data)
    kind, flags, stream, payload = next(frames, (0, 0, 0, b""))
    if kind != SETTINGS or flags or stream or len(payload) % 6 or len(payload) > 6 * ENTRIES:
        return None
    settings = tuple(struct.iter_unpack(">HI", payload))
    window = 0
    priorities: list[tuple[int, int, int, int]] = []
    goaway = None
    for kind, _, stream, payload in frames:
        if kind == HEADERS:
            break
        if kind == WINDOW_UPDATE and not stream and not window and len(payload) == 4:
            window = int.from_bytes(payload, "big") & 0x7FFFFFFF
        elif kind == PRIORITY and len(payload) == 5 and len(priorities) < PRIORITIES:
            dependency, weight = struct.unpack(">IB", payload)
            priorities.append((stream, dependency >> 31, dependency & 0x7FFFFFFF, weight + 1))
        elif kind == GOAWAY and len(payload) >= 8:
            goaway = int.from_bytes(payload[4:8], "big"), payload[8:]
            break
    return Opening(settings, window, tuple(priorities), goaway)


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The complete frames at the beginning: type, flags, stream, payload. Ends at one that is longer than may be."""
    at = 0
    while at + HEADER <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        end = at + HEADER + size
        if size > LARGEST or end > len(data):
            return
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        yield data[at + 3], data[at + 4], stream, data[at + HEADER : end]
        at = end
